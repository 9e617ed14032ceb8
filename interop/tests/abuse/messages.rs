//! Requests whose head or messages are wrong.

use std::io::Write;

use bytes::Bytes;
use http::{Request, StatusCode};
use interop::testing::SimpleRequest;
use tokio::time::timeout;

use crate::support::{PATIENCE, encoded, exchange, framed, post, raw, read, run};
use crate::victim::NEVER;

fn unary() -> Request<()> {
    post("UnaryCall").body(()).unwrap()
}

fn with(name: &str, value: &str) -> Request<()> {
    post("UnaryCall").header(name, value).body(()).unwrap()
}

fn gzip(len: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeroes = vec![0; 1024 * 1024];
    for _ in 0..len / zeroes.len() {
        encoder.write_all(&zeroes).unwrap();
    }
    encoder.finish().unwrap()
}

fn whole(flag: u8, message: &[u8]) -> Bytes {
    framed(flag, u32::try_from(message.len()).unwrap(), message)
}

#[tokio::test]
async fn a_wrong_message_fails_its_call_alone() {
    let server = run().await;
    let good = encoded(&SimpleRequest::default());
    let (mut second, mut garbage) = (good.to_vec(), good.to_vec());
    second.extend_from_slice(&good);
    garbage.extend_from_slice(b"garb");
    let bomb = whole(1, &gzip(64 * 1024 * 1024));
    let never = encoded(&SimpleRequest {
        response_size: NEVER,
        ..SimpleRequest::default()
    });
    let cases = [
        ("no message", unary(), Bytes::new(), "12"),
        ("half a prefix", unary(), good.slice(..3), "13"),
        ("a cut message", unary(), framed(0, 100, b"abc"), "13"),
        (
            "a prefix too short",
            unary(),
            framed(0, 1, b"\x1a\0\0"),
            "13",
        ),
        ("a flag of 7", unary(), framed(7, 0, b""), "13"),
        ("two messages", unary(), second.into(), "12"),
        ("garbage", unary(), garbage.into(), "13"),
        ("no protobuf", unary(), whole(0, &[0xff; 20]), "13"),
        ("an encoding kept secret", unary(), whole(1, b"abc"), "13"),
        (
            "no gzip",
            with("grpc-encoding", "gzip"),
            whole(1, b"abc"),
            "13",
        ),
        ("a bomb", with("grpc-encoding", "gzip"), bomb, "8"),
        (
            "an unknown encoding",
            with("grpc-encoding", "lzw"),
            whole(1, b"abc"),
            "12",
        ),
        ("no time", with("grpc-timeout", "soon"), good.clone(), "13"),
        ("no time left", with("grpc-timeout", "0n"), never, "4"),
        (
            "no method",
            post("Nothing").body(()).unwrap(),
            good.clone(),
            "12",
        ),
    ];
    let mut send = raw(server.address).await;
    for (name, request, body, code) in cases {
        let outcome = exchange(&mut send, request, body, true).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outcome.http, StatusCode::OK, "{name}");
        assert_eq!(outcome.code(), Some(code), "{name}: {outcome:?}");
        // On the same connection, too.
        let next = exchange(&mut send, unary(), good.clone(), true).await;
        assert_eq!(next.unwrap().code(), Some("0"), "after {name}");
    }
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn an_unknown_encoding_is_answered_with_those_that_are_known() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let request = with("grpc-encoding", "lzw");
    let outcome = exchange(&mut send, request, whole(1, b"abc"), true).await;
    let outcome = outcome.unwrap();
    let known = outcome.headers["grpc-accept-encoding"].to_str().unwrap();
    assert!(known.contains("gzip"), "{known}");
}

#[tokio::test]
async fn a_message_too_large_is_refused_by_its_prefix_though_the_client_goes_on() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let body = framed(0, u32::MAX, &[0; 1000]);
    let outcome = exchange(&mut send, unary(), body, false).await.unwrap();
    assert_eq!(outcome.code(), Some("8"));
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_by_http() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let uri = "http://localhost/grpc.testing.BenchmarkService/UnaryCall";
    let json = Request::post(uri).header("content-type", "application/json");
    let cases = [
        (json.body(()).unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            Request::post(uri).body(()).unwrap(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            Request::put(uri).body(()).unwrap(),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
    ];
    for (request, status) in cases {
        let outcome = exchange(&mut send, request, Bytes::from_static(b"{}"), true).await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.http, status);
        assert!(!outcome.body.is_empty());
    }
    server.is_well().await;
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_before_its_body_has_ended() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let uri = "http://localhost/grpc.testing.BenchmarkService/UnaryCall";
    let (response, mut stream) = send
        .send_request(Request::put(uri).body(()).unwrap(), false)
        .unwrap();
    // More than is drained, and no end of it.
    stream
        .send_data(Bytes::from(vec![0; 1 << 20]), false)
        .unwrap();
    let outcome = timeout(PATIENCE, read(response)).await.unwrap().unwrap();
    assert_eq!(outcome.http, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!outcome.body.is_empty());
    let reason = timeout(PATIENCE, std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
    assert_eq!(reason.unwrap().unwrap(), h2::Reason::NO_ERROR);
    server.is_well().await;
}

#[tokio::test]
async fn a_message_in_pieces_of_a_byte_is_whole() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let message = encoded(&SimpleRequest {
        payload: Some(interop::answers::payload_of(2000)),
        ..SimpleRequest::default()
    });
    let (response, mut stream) = send.send_request(unary(), false).unwrap();
    for byte in 0..message.len() {
        stream
            .send_data(message.slice(byte..=byte), byte + 1 == message.len())
            .unwrap();
    }
    let outcome = read(response).await.unwrap();
    assert_eq!(outcome.code(), Some("0"));
    assert!(outcome.body.len() > 2000);
}
