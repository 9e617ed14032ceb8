//! Compression, agreed on per call and told per message.

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibEncoder};
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use prost::Message;
use std::io::Read;
use tower_grpc::test::in_memory;
use tower_grpc::{Encoding, Request};

use crate::echo::pb::client::EchoClient;
use crate::echo::{Say, say, server};
use crate::raw::{call, framed, messages, post, said, send};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzEncoder::new(bytes, Compression::default())
        .read_to_end(&mut out)
        .unwrap();
    out
}

#[tokio::test]
async fn a_compressed_message_is_read() {
    let plain = say("hello").encode_to_vec();
    let body = framed(1, &gzip(&plain));
    let response = call("Unary", body, |head| head.header("grpc-encoding", "gzip")).await;
    assert_eq!(messages(&response.body), [say("hello")]);
    let mut zlib = Vec::new();
    ZlibEncoder::new(&plain[..], Compression::default())
        .read_to_end(&mut zlib)
        .unwrap();
    let response = call("Unary", framed(1, &zlib), |head| {
        head.header("grpc-encoding", "deflate")
    })
    .await;
    assert_eq!(messages(&response.body), [say("hello")]);
}

#[tokio::test]
async fn a_message_may_be_plain_though_an_encoding_is_announced() {
    let response = call("Unary", said("x"), |head| {
        head.header("grpc-encoding", "gzip")
    })
    .await;
    assert_eq!(response.code(), "0");
    let response = call("Unary", said("x"), |head| {
        head.header("grpc-encoding", "identity")
    })
    .await;
    assert_eq!(response.code(), "0");
}

#[tokio::test]
async fn a_compressed_message_without_an_encoding_is_internal() {
    let body = framed(1, &gzip(b""));
    assert_eq!(call("Unary", body.clone(), |head| head).await.code(), "13");
    let response = call("Unary", body, |head| {
        head.header("grpc-encoding", "identity")
    })
    .await;
    assert_eq!(response.code(), "13");
}

#[tokio::test]
async fn an_unknown_encoding_is_unimplemented_and_the_known_are_listed() {
    let response = call("Unary", framed(1, b"?"), |head| {
        head.header("grpc-encoding", "lzw")
    })
    .await;
    assert_eq!(response.code(), "12");
    let list = response.headers["grpc-accept-encoding"].to_str().unwrap();
    assert!(list.contains("gzip") && list.contains("deflate") && list.contains("identity"));
    // One that isn't accepted is as one that isn't known.
    let mut plain = server().with_accepted_encodings([]);
    let request = post("Unary")
        .header("grpc-encoding", "gzip")
        .body(Full::new(framed(1, &gzip(b""))))
        .unwrap();
    let response = send(&mut plain, request).await;
    assert_eq!(response.code(), "12");
    assert_eq!(response.headers["grpc-accept-encoding"], "identity");
}

#[tokio::test]
async fn a_bomb_is_refused_at_the_limit() {
    let bomb = Say {
        data: vec![0; 64 << 20],
        ..Say::default()
    };
    let body = framed(1, &gzip(&bomb.encode_to_vec()));
    assert!(body.len() < 100_000);
    let response = call("Unary", body, |head| head.header("grpc-encoding", "gzip")).await;
    assert_eq!(response.code(), "8");
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_internal() {
    let response = call("Unary", framed(1, b"garbage"), |head| {
        head.header("grpc-encoding", "gzip")
    })
    .await;
    assert_eq!(response.code(), "13");
}

#[tokio::test]
async fn a_server_compresses_only_what_the_client_accepts() {
    let text = "hello ".repeat(100);
    for (accepted, encoding) in [
        (Some("gzip"), Some("gzip")),
        (Some("deflate, gzip"), Some("gzip")),
        (Some("br,deflate"), Some("deflate")),
        (Some("br"), None),
        (None, None),
    ] {
        let mut head = post("Unary");
        if let Some(accepted) = accepted {
            head = head.header("grpc-accept-encoding", accepted);
        }
        let mut server = server().with_sent_encodings([Encoding::Gzip, Encoding::Deflate]);
        let response = send(&mut server, head.body(Full::new(said(&text))).unwrap()).await;
        let announced = response.headers.get("grpc-encoding");
        assert_eq!(announced.map(|value| value.to_str().unwrap()), encoding);
        assert_eq!(response.body[0], u8::from(encoding.is_some()));
        if encoding == Some("gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&response.body[5..])
                .read_to_end(&mut plain)
                .unwrap();
            assert_eq!(Say::decode(&plain[..]).unwrap().text, text);
        }
    }
}

#[tokio::test]
async fn both_sides_compress_and_tell() {
    for encoding in Encoding::ALL {
        let server = server().with_sent_encodings([*encoding]);
        let mut client = EchoClient::new(in_memory(server)).with_sent_encoding(*encoding);
        let response = client.unary(say("compressed?")).await.unwrap();
        assert!(response.was_compressed(), "{encoding}");
        assert_eq!(response.get_ref().text, "true", "{encoding}");
        let mut request = Request::new(say("compressed?"));
        request.compression().set(false);
        let response = client.unary(request).await.unwrap();
        assert_eq!(response.get_ref().text, "false", "{encoding}");
    }
}

#[tokio::test]
async fn each_message_of_a_stream_is_compressed_or_not() {
    let server = server().with_sent_encodings([Encoding::Gzip]);
    let mut client = EchoClient::new(in_memory(server)).with_sent_encoding(Encoding::Gzip);
    let mut request = Request::new(());
    let compression = request.compression();
    let flags = [true, false, true];
    let request = request.map(|()| {
        stream::iter(flags).map(move |flag| {
            compression.set(flag);
            say("x")
        })
    });
    let mut answers = client.chat(request).await.unwrap();
    for _ in flags {
        assert_eq!(answers.message().await.unwrap(), Some(say("x")));
        assert!(answers.was_compressed());
    }
}

#[tokio::test]
async fn a_client_names_what_it_accepts_and_sends() {
    use http_body_util::BodyExt;

    let (mock, mut handle) = tower_test::mock::pair::<
        http::Request<tower_grpc::GrpcBody>,
        http::Response<tower_grpc::GrpcBody>,
    >();
    let mut client = EchoClient::new(mock).with_sent_encoding(Encoding::Gzip);
    let call = tokio::spawn(async move { client.unary(say("x")).await });
    let (request, answer) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()["grpc-encoding"], "gzip");
    let accepted = request.headers()["grpc-accept-encoding"].to_str().unwrap();
    assert!(accepted.starts_with("gzip,deflate,"));
    let body: BytesMut = request
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .into();
    assert_eq!(body[0], 1);
    // What wasn't offered is refused.
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "lzw")
        .body(tower_grpc::GrpcBody::new(Full::new(Bytes::new())))
        .unwrap();
    answer.send_response(response);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tower_grpc::Code::Internal);
}
