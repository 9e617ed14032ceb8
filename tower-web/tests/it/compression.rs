//! Responses are compressed for clients that understand it.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzDecoder as GzWriter;
use http_body::Body as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_web::Body;
use tower_web::prelude::*;
use tower_web::testing::TestResponse;

fn text() -> String {
    "all work and no play makes a dull day, ".repeat(200)
}

#[get("/text")]
async fn plain() -> impl IntoResponse {
    ([("etag", "\"v1\""), ("accept-ranges", "bytes")], text())
}

#[get("/small")]
async fn small() -> &'static str {
    "small"
}

#[get("/picture")]
async fn picture() -> impl IntoResponse {
    ([("content-type", "image/png")], text())
}

#[get("/secret")]
async fn secret() -> impl IntoResponse {
    ([("cache-control", "private, No-Transform")], text())
}

#[get("/coded")]
async fn coded() -> impl IntoResponse {
    ([("content-encoding", "own")], text())
}

#[get("/part")]
async fn part() -> impl IntoResponse {
    (StatusCode::PARTIAL_CONTENT, text())
}

#[get("/noise")]
async fn noise() -> impl IntoResponse {
    let mut state = 7_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(5000)
    .collect();
    ([("content-type", "text/plain")], noise)
}

#[get("/large")]
async fn large() -> String {
    "0123456789".repeat(100_000)
}

#[get("/events")]
async fn events() -> Sse<tokio_stream::Pending<Event>> {
    Sse::new(tokio_stream::pending())
}

fn app() -> App {
    App::new()
        .route(plain)
        .route(small)
        .route(picture)
        .route(secret)
        .route(coded)
        .route(part)
        .route(noise)
        .route(large)
        .route(events)
}

async fn gzip(path: &str) -> TestResponse {
    let client = app().test().with_header("accept-encoding", "gzip");
    client.get(path).await
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn text_is_compressed_and_says_so() {
    let response = gzip("/text").await;
    response.assert_header("content-encoding", "gzip");
    response.assert_header("vary", "accept-encoding");
    // It means the same, and isn't the same bytes.
    response.assert_header("etag", "W/\"v1\"");
    assert_eq!(response.header("accept-ranges"), None);
    assert!(response.bytes().len() < text().len() / 10);
    assert_eq!(unzipped(response.bytes()), text());
}

#[tokio::test]
async fn deflate_is_what_http_calls_so() {
    let client = app().test();
    let response = client
        .get("/text")
        .header("accept-encoding", "deflate")
        .await;
    response.assert_header("content-encoding", "deflate");
    let mut own = String::new();
    ZlibDecoder::new(&response.bytes()[..])
        .read_to_string(&mut own)
        .unwrap();
    assert_eq!(own, text());
}

#[tokio::test]
async fn a_client_that_does_not_ask_gets_it_as_it_is() {
    let client = app().test();
    for accepts in ["identity", "gzip;q=0", "zip"] {
        let response = client.get("/text").header("accept-encoding", accepts).await;
        response.assert_text(text()).assert_header("etag", "\"v1\"");
        // A cache has to know nevertheless.
        response.assert_header("vary", "accept-encoding");
        assert_eq!(response.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn what_is_not_worth_it_is_sent_as_it_is() {
    for path in ["/small", "/picture", "/secret", "/part", "/noise"] {
        let response = gzip(path).await;
        assert_eq!(response.header("content-encoding"), None, "{path}");
    }
    gzip("/coded")
        .await
        .assert_header("content-encoding", "own");
}

#[tokio::test]
async fn a_large_body_is_compressed_in_pieces() {
    let response = gzip("/large").await;
    response.assert_header("content-encoding", "gzip");
    assert_eq!(response.header("content-length"), None);
    assert_eq!(unzipped(response.bytes()), "0123456789".repeat(100_000));
}

#[tokio::test]
async fn the_answer_to_head_has_the_same_headers() {
    let client = app().test().with_header("accept-encoding", "gzip");
    let response = client.head("/text").await;
    response
        .assert_header("content-encoding", "gzip")
        .assert_text("");
    assert_eq!(response.header("content-length"), None);
}

#[tokio::test]
async fn events_are_not_compressed() {
    let client = app().test().with_header("accept-encoding", "gzip");
    let response = client.get("/events").stream().await;
    assert!(!response.headers().contains_key("content-encoding"));
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let app = app().defaults(|defaults| defaults.compression(false));
    let client = app.test().with_header("accept-encoding", "gzip");
    client.get("/text").await.assert_text(text());
}

/// Whoever waits for the next line has the last one whole.
#[tokio::test]
async fn a_stream_is_flushed_when_it_pauses() {
    let (sender, receiver) = mpsc::unbounded_channel::<Result<String, std::io::Error>>();
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let lines = tower_util::MapResponseLayer::new(move |_: Response| {
        let stream = UnboundedReceiverStream::new(receiver.lock().unwrap().take().unwrap());
        let mut response = Response::new(Body::from_stream(stream));
        response
            .headers_mut()
            .insert("content-type", "application/x-ndjson".parse().unwrap());
        response
    });
    let client = app()
        .layer(lines)
        .test()
        .with_header("accept-encoding", "gzip");
    let mut body = client.get("/").stream().await.into_body();
    let mut decoder = GzWriter::new(Vec::new());
    for line in ["{\"a\":1}\n", "{\"b\":2}\n"] {
        sender.send(Ok(line.to_owned())).unwrap();
        std::future::poll_fn(|cx| {
            while let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                let data = frame.unwrap().unwrap().into_data().unwrap();
                std::io::Write::write_all(&mut decoder, &data).unwrap();
            }
            Poll::Ready(())
        })
        .await;
        std::io::Write::flush(&mut decoder).unwrap();
        assert!(decoder.get_ref().ends_with(line.as_bytes()), "{line}");
    }
    drop(sender);
    while let Some(data) = body.chunk().await.unwrap() {
        std::io::Write::write_all(&mut decoder, &data).unwrap();
    }
    assert_eq!(decoder.finish().unwrap(), b"{\"a\":1}\n{\"b\":2}\n");
}

#[cfg(feature = "compression-brotli")]
#[tokio::test]
async fn brotli_is_preferred_to_gzip() {
    let client = app().test();
    for path in ["/text", "/large"] {
        let response = client.get(path).header("accept-encoding", "gzip, br").await;
        response.assert_header("content-encoding", "br");
        let mut own = String::new();
        brotli::Decompressor::new(&response.bytes()[..], 4096)
            .read_to_string(&mut own)
            .unwrap();
        assert_eq!(own, client.get(path).await.text());
    }
}

#[cfg(feature = "compression-zstd")]
#[tokio::test]
async fn zstd_is_preferred_to_all() {
    let client = app().test();
    for path in ["/text", "/large"] {
        let response = client
            .get(path)
            .header("accept-encoding", "gzip, br, zstd")
            .await;
        response.assert_header("content-encoding", "zstd");
        let own = zstd::decode_all(&response.bytes()[..]).unwrap();
        assert_eq!(own, **client.get(path).await.bytes());
    }
}
