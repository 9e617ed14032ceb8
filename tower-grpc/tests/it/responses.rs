//! What a client makes of what servers send, right or wrong.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use proptest::prelude::*;
use tower_grpc::{Code, GrpcBody, Status};

use crate::echo::pb::client::EchoClient;
use crate::echo::{Say, say};
use crate::raw::{frames, said};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

/// Calls a server that answers so.
async fn answered(
    head: http::response::Builder,
    body: impl Fn() -> Frames,
) -> Result<tower_grpc::Response<Say>, Status> {
    let response = head.body(GrpcBody::new(frames(body()))).unwrap();
    let mut response = Some(response);
    let server = tower_util::service_fn(move |_: http::Request<GrpcBody>| {
        std::future::ready(Ok::<_, Status>(response.take().unwrap()))
    });
    EchoClient::new(server).unary(say("x")).await
}

fn grpc() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

fn trailers(fields: &[(&'static str, &'static str)]) -> Result<Frame<Bytes>, std::io::Error> {
    let mut all = HeaderMap::new();
    for (name, value) in fields {
        all.append(*name, value.parse().unwrap());
    }
    Ok(Frame::trailers(all))
}

fn data(bytes: Bytes) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(bytes))
}

#[tokio::test]
async fn an_http_status_maps_to_a_code() {
    for (http, code) in [
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (429, Code::Unavailable),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
        (500, Code::Unknown),
        (204, Code::Unknown),
    ] {
        let head = Response::builder()
            .status(http)
            .header("content-type", "text/html");
        let status = answered(head, Vec::new).await.unwrap_err();
        assert_eq!(status.code(), code, "{http}");
        assert!(status.message().contains(&http.to_string()));
    }
}

#[tokio::test]
async fn a_grpc_status_counts_more_than_the_http_status() {
    let head = grpc()
        .status(503)
        .header("grpc-status", "5")
        .header("grpc-message", "no%20one");
    let status = answered(head, Vec::new).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no one")
    );
}

#[tokio::test]
async fn a_status_in_the_head_counts_only_where_nothing_follows() {
    let head = || grpc().header("grpc-status", "8");
    // Messages without an end.
    let cut = answered(head(), || vec![data(said("x"))]).await;
    assert_eq!(cut.unwrap_err().code(), Code::Internal);
    // Another end, or one that says nothing.
    let other = answered(head(), || vec![trailers(&[("grpc-status", "9")])]).await;
    assert_eq!(other.unwrap_err().code(), Code::FailedPrecondition);
    let fine = || vec![data(said("x")), trailers(&[("grpc-status", "0")])];
    assert_eq!(*answered(head(), fine).await.unwrap().get_ref(), say("x"));
    let silent = answered(head(), || vec![trailers(&[("x-end", "1")])]).await;
    assert_eq!(silent.unwrap_err().code(), Code::Internal);
    // An empty body is what some proxies make of none.
    for empty in [Vec::new, || vec![data(Bytes::new())]] {
        let status = answered(head().header("x-why", "1"), empty)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.metadata().get_all("x-why").collect::<Vec<_>>(),
            ["1"]
        );
    }
}

#[tokio::test]
async fn a_failure_tells_what_came_before_it() {
    let head = grpc()
        .header("x-head", "1")
        .header("x-head", "2")
        .header("x-both", "head");
    let body = || {
        vec![trailers(&[
            ("grpc-status", "9"),
            ("x-both", "end"),
            ("x-end", "3"),
        ])]
    };
    let status = answered(head, body).await.unwrap_err();
    let all = |name| status.metadata().get_all(name).collect::<Vec<_>>();
    assert_eq!(all("x-head"), ["1", "2"]);
    assert_eq!(all("x-both"), ["end"]);
    assert_eq!(all("x-end"), ["3"]);
}

#[tokio::test]
async fn another_content_type_is_unknown() {
    for head in [
        Response::builder(),
        Response::builder().header("content-type", "text/html"),
    ] {
        let status = answered(head, || vec![data(said("x"))]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown);
    }
}

#[tokio::test]
async fn another_format_of_grpc_is_internal() {
    for (content_type, code) in [
        ("application/grpc+json", Code::Internal),
        ("application/grpc+protobuf", Code::Internal),
        ("application/grpc-web", Code::Unknown),
        ("application/grpcproto", Code::Unknown),
    ] {
        let head = Response::builder().header("content-type", content_type);
        let status = answered(head, || vec![data(said("x"))]).await.unwrap_err();
        assert_eq!(status.code(), code, "{content_type}");
    }
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+proto;charset=utf-8",
        "application/grpc; charset=utf-8",
        "Application/gRPC+proto",
    ] {
        let head = Response::builder().header("content-type", content_type);
        let body = || vec![data(said("x")), trailers(&[("grpc-status", "0")])];
        assert!(answered(head, body).await.is_ok(), "{content_type}");
    }
}

#[tokio::test]
async fn metadata_of_only_trailers_is_the_failures() {
    let head = grpc()
        .header("grpc-status", "9")
        .header("x-why", "1")
        .header("x-why", "2")
        .header("x-why-bin", "AAE");
    let status = answered(head, Vec::new).await.unwrap_err();
    let metadata = status.metadata();
    assert_eq!(metadata.get_all("x-why").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(metadata.get_bin("x-why-bin").unwrap(), [0, 1][..]);
}

#[tokio::test]
async fn a_compressed_message_that_nothing_announced_is_internal() {
    let announced = ["identity", "gzip"];
    for encoding in announced.iter().map(Some).chain([None]) {
        let mut head = grpc();
        if let Some(encoding) = encoding {
            head = head.header("grpc-encoding", *encoding);
        }
        // It is no gzip either.
        let body = || {
            vec![
                data(crate::raw::framed(1, b"x")),
                trailers(&[("grpc-status", "0")]),
            ]
        };
        let status = answered(head, body).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{encoding:?}");
    }
}

#[tokio::test]
async fn a_response_without_a_status_is_internal() {
    for body in [
        || vec![data(said("x"))],
        || vec![data(said("x")), trailers(&[("x-only", "1")])],
        Vec::new,
    ] {
        let status = answered(grpc(), body).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
}

#[tokio::test]
async fn a_status_that_is_no_number_is_unknown() {
    let body = || vec![data(said("x")), trailers(&[("grpc-status", "fine")])];
    assert_eq!(
        answered(grpc(), body).await.unwrap_err().code(),
        Code::Unknown
    );
}

#[tokio::test]
async fn a_unary_call_gets_exactly_one_message() {
    let none = || vec![trailers(&[("grpc-status", "0")])];
    assert_eq!(
        answered(grpc(), none).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let only_trailers = grpc().header("grpc-status", "0");
    let status = answered(only_trailers, Vec::new).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let two = || {
        vec![
            data(said("x")),
            data(said("y")),
            trailers(&[("grpc-status", "0")]),
        ]
    };
    assert_eq!(
        answered(grpc(), two).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn a_failure_after_a_message_is_the_failure() {
    let body = || {
        vec![
            data(said("x")),
            trailers(&[("grpc-status", "10"), ("grpc-message", "no")]),
        ]
    };
    let status = answered(grpc(), body).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "no"));
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable_with_its_cause() {
    let body = || vec![Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
    let status = answered(grpc(), body).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(std::error::Error::source(&status).is_some());
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let head = grpc();
    let body = || vec![data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]))];
    assert_eq!(
        answered(head, body).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn a_message_too_large_to_send_is_not_sent() {
    let server = tower_util::service_fn(|_: http::Request<GrpcBody>| {
        std::future::ready(Err::<Response<GrpcBody>, _>(Status::data_loss(
            "it was sent",
        )))
    });
    let mut client = EchoClient::new(server).with_max_encoding_message_size(3);
    let status = client.unary(say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_request_has_what_the_protocol_asks_for() {
    let (mock, mut handle) =
        tower_test::mock::pair::<http::Request<GrpcBody>, Response<GrpcBody>>();
    let origin = "https://shop.example:8443".parse().unwrap();
    let mut client = EchoClient::new(mock).with_origin(&origin);
    let _call = tokio::spawn(async move { client.unary(say("x")).await });
    let (request, _answer) = handle.next_request().await.unwrap();
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(
        request.uri(),
        "https://shop.example:8443/tower.grpc.test.Echo/Unary"
    );
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["content-type"], "application/grpc+proto");
    assert!(
        request.headers()["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("grpc-")
    );
    assert!(!request.headers().contains_key("grpc-timeout"));
    assert!(!request.headers().contains_key("grpc-encoding"));
}

/// What a unary call gives, where the body is `bytes` and `trailers` come after it, as one reads the protocol: the
/// message's text, or a code.
fn expected(
    said: Option<u8>,
    mut bytes: &[u8],
    trailers: Option<Option<u8>>,
) -> Result<String, Code> {
    let is_blank = bytes.is_empty();
    let mut messages = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        match flag {
            0 if len <= rest.len() => {}
            0 | 1 if len > 4 * 1024 * 1024 => return Err(Code::ResourceExhausted),
            // Cut, compressed, or neither.
            _ => return Err(Code::Internal),
        }
        messages.push(<Say as prost::Message>::decode(&rest[..len]).map_err(|_| Code::Internal)?);
        if messages.len() > 1 {
            return Err(Code::Unimplemented);
        }
        bytes = &rest[len..];
    }
    if !bytes.is_empty() {
        return Err(Code::Internal);
    }
    let status = match trailers {
        Some(status) => status,
        None if is_blank => said,
        None => None,
    };
    match (status, messages.pop()) {
        (Some(0), Some(message)) => Ok(message.text),
        (Some(0), None) => Err(Code::Unimplemented),
        (Some(code), _) => Err(Code::from(i32::from(code))),
        (None, _) => Err(Code::Internal),
    }
}

proptest! {
    #[test]
    fn no_response_is_taken_for_another(
        code in prop::option::of(0..18_u8),
        parts in prop::collection::vec(
            prop_oneof![
                4 => "[a-z]{0,8}".prop_map(|text| said(&text)),
                1 => prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from),
                1 => (0..3_u8, any::<u32>()).prop_map(|(flag, len)| {
                    Bytes::from([&[flag][..], &len.to_be_bytes()].concat())
                }),
            ],
            0..3,
        ),
        cuts in prop::collection::vec(1..12_usize, 1..4),
        trailers in prop::option::of(prop::option::of(0..18_u8)),
    ) {
        let bytes = parts.concat();
        let expected = expected(code, &bytes, trailers);
        let mut head = grpc();
        if let Some(code) = code {
            head = head.header("grpc-status", code.to_string());
        }
        let body = || {
            let mut frames = Frames::new();
            let mut left = Bytes::from(bytes.clone());
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                frames.push(data(left.split_to((*cut).min(left.len()))));
            }
            if let Some(code) = trailers {
                let fields = code.map(|code| (GRPC_STATUS, HeaderValue::from(u16::from(code))));
                frames.push(Ok(Frame::trailers(HeaderMap::from_iter(fields))));
            }
            frames
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(answered(head, body));
        let outcome = outcome.map(|response| response.into_inner().text);
        prop_assert_eq!(outcome.map_err(|status| status.code()), expected);
    }
}
