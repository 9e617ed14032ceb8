//! What a server makes of what clients send, right or wrong.

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::Full;
use prost::Message;

use crate::echo::{say, server};
use crate::raw::{call, framed, frames, messages, post, said, send};

#[tokio::test]
async fn a_response_has_its_message_in_one_frame_and_its_status_in_the_trailers() {
    let response = call("Unary", said("hello"), |head| head).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["content-type"], "application/grpc+proto");
    assert!(!response.headers.contains_key("grpc-status"));
    assert_eq!(messages(&response.body), [say("hello")]);
    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_failure_without_messages_is_only_trailers() {
    let response = call("Unary", said("fail"), |head| head).await;
    assert!(response.is_trailers_only(), "{response:?}");
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["content-type"], "application/grpc");
    assert_eq!(response.headers["grpc-status"], "6");
    assert_eq!(response.headers["grpc-message"], "said before");
}

#[tokio::test]
async fn an_unknown_method_or_service_is_unimplemented() {
    let response = call("Nothing", said("x"), |head| head).await;
    assert!(response.is_trailers_only());
    assert_eq!(response.code(), "12");
    let mut router = tower_grpc::server::Router::new().add_service(server());
    for path in ["/tower.grpc.test.No/Unary", "/", "/Unary", "//", "/a/b/c"] {
        let request = post("Unary").uri(path).body(Full::new(said("x"))).unwrap();
        assert_eq!(send(&mut router, request).await.code(), "12", "{path}");
    }
    let request = post("Unary").body(Full::new(said("x"))).unwrap();
    assert_eq!(send(&mut router, request).await.code(), "0");
}

#[tokio::test]
async fn another_method_than_post_is_answered_by_http() {
    for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE] {
        let response = call("Unary", said("x"), |head| head.method(method)).await;
        assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers["allow"], "POST");
        assert!(!response.body.is_empty());
        assert!(!response.headers.contains_key("grpc-status"));
    }
}

#[tokio::test]
async fn another_content_type_is_answered_by_http() {
    for content_type in [
        "application/json",
        "application/grpc-web",
        "application/grpc+json",
    ] {
        let request = http::Request::post("/tower.grpc.test.Echo/Unary")
            .header("content-type", content_type)
            .body(Full::new(said("x")))
            .unwrap();
        let response = send(&mut server(), request).await;
        assert_eq!(response.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(!response.body.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_grpc_is_drained_within_a_bound() {
    // A body that never ends is given up after a while …
    let request = http::Request::get("/")
        .body(http_body_util::StreamBody::new(
            futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>(),
        ))
        .unwrap();
    let response = send(&mut server(), request).await;
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
    // … and one that goes on and on after some bytes.
    let flood = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 16 * 1024])))
    });
    let flood = http_body_util::StreamBody::new(flood);
    let request = http::Request::get("/").body(flood).unwrap();
    let response = send(&mut server(), request).await;
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    for timeout in ["", "soon", "1", "-1S", "123456789S", "1s"] {
        let response = call("Unary", said("x"), |head| {
            head.header("grpc-timeout", timeout)
        })
        .await;
        assert_eq!(response.code(), "13", "{timeout:?}");
    }
}

#[tokio::test]
async fn a_body_cut_anywhere_is_internal() {
    let whole = said("hello");
    for cut in 1..whole.len() {
        let response = call("Unary", whole.slice(..cut), |head| head).await;
        assert_eq!(response.code(), "13", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_unary_method_takes_exactly_one_message() {
    let none = call("Unary", Bytes::new(), |head| head).await;
    assert_eq!(none.code(), "12");
    let two = [said("a"), said("b")].concat();
    assert_eq!(call("Unary", two, |head| head).await.code(), "12");
}

#[tokio::test]
async fn garbage_after_the_message_is_refused() {
    let more = [&said("a")[..], b"garbage"].concat();
    assert_eq!(call("Unary", more, |head| head).await.code(), "13");
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_is_internal() {
    let response = call("Unary", framed(0, b"\xff\xff\xff"), |head| head).await;
    assert_eq!(response.code(), "13");
}

#[tokio::test]
async fn a_message_may_come_in_any_pieces() {
    let whole = said("in pieces");
    let pieces = whole
        .chunks(1)
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
    let request = post("Unary").body(frames(pieces.collect())).unwrap();
    let response = send(&mut server(), request).await;
    assert_eq!(messages(&response.body), [say("in pieces")]);
}

#[tokio::test]
async fn a_message_beyond_4_mib_is_refused_by_its_prefix_alone() {
    let announced = [&[0][..], &(4 * 1024 * 1024 + 1_u32).to_be_bytes()].concat();
    let response = call("Unary", announced, |head| head).await;
    assert_eq!(response.code(), "8");
}

#[tokio::test]
async fn the_limits_of_messages_are_the_servers_to_set() {
    let mut small = server().with_max_decoding_message_size(4);
    let request = post("Unary").body(Full::new(said("hello"))).unwrap();
    assert_eq!(send(&mut small, request).await.code(), "8");
    let mut small = server().with_max_encoding_message_size(4);
    let request = post("Unary").body(Full::new(said("hello"))).unwrap();
    assert_eq!(send(&mut small, request).await.code(), "8");
    let request = post("Unary").body(Full::new(said(""))).unwrap();
    assert_eq!(send(&mut small, request).await.code(), "0");
}

#[tokio::test]
async fn a_message_that_gets_too_large_ends_a_stream_after_those_before_it() {
    let mut small = server().with_max_encoding_message_size(6);
    let both = [said("1234"), said("12345")].concat();
    let request = post("Chat").body(Full::new(Bytes::from(both))).unwrap();
    let response = send(&mut small, request).await;
    assert_eq!(messages(&response.body), [say("1234")]);
    assert_eq!(response.code(), "8");
}

#[tokio::test]
async fn a_flag_that_is_unknown_is_internal() {
    let response = call("Unary", framed(2, b""), |head| head).await;
    assert_eq!(response.code(), "13");
}

#[tokio::test]
async fn a_client_that_vanishes_is_seen_by_the_handler() {
    let gone = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let request = post("Collect")
        .body(frames(vec![Ok(Frame::data(said("a"))), Err(gone)]))
        .unwrap();
    assert_eq!(send(&mut server(), request).await.code(), "14");
}

#[tokio::test]
async fn trailers_of_a_request_are_ignored() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-more", "1".parse().unwrap());
    let request = post("Unary")
        .body(frames(vec![
            Ok(Frame::data(said("a"))),
            Ok(Frame::trailers(trailers)),
        ]))
        .unwrap();
    assert_eq!(send(&mut server(), request).await.code(), "0");
}

#[tokio::test]
async fn messages_that_are_ready_together_are_sent_together() {
    use http_body_util::BodyExt;
    use tower_service::Service;

    let request = crate::echo::Say {
        times: 1000,
        ..say("x")
    };
    let request = post("Repeat")
        .body(Full::new(framed(0, &request.encode_to_vec())))
        .unwrap();
    let mut body = server().call(request).await.unwrap().into_body();
    let mut frames = 0;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.unwrap().into_data() {
            frames += 1;
            bytes.extend_from_slice(&data);
        }
    }
    assert_eq!(messages(&bytes).len(), 1000);
    assert!(frames <= 2, "{frames} frames for {} bytes", bytes.len());
}

#[tokio::test]
async fn metadata_of_a_request_does_not_leak_into_a_response_that_repeats_it() {
    use tower_grpc::{Request, Response, Status};

    #[derive(Clone)]
    struct Mirror;
    impl crate::echo::pb::server::Other for Mirror {
        async fn new(
            &self,
            request: Request<crate::echo::Say>,
        ) -> Result<Response<crate::echo::Say>, Status> {
            let metadata = request.metadata().clone();
            Ok(Response::new(request.into_inner()).with_metadata(metadata))
        }
    }
    let request = http::Request::post("/tower.grpc.test.Other/New")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "1S")
        .header("user-agent", "test")
        .header("x-mine", "1")
        .body(Full::new(said("x")))
        .unwrap();
    let mut server = crate::echo::pb::server::OtherServer::new(Mirror);
    let response = send(&mut server, request).await;
    let names: Vec<_> = response.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(response.headers["x-mine"], "1");
    assert_eq!(response.headers["content-type"], "application/grpc+proto");
}
