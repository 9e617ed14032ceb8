//! Servers that break the rules, and the client that calls them.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use interop::testing::SimpleRequest;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_grpc::{Code, Status};

use crate::support::{PATIENCE, client, framed};

/// What a server does with a call, once it has read the request's head.
type Deed = fn(SendResponse<Bytes>);

/// Serves one connection, and ends it after the first call where `cuts`.
async fn misbehave(deed: Deed, cuts: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_request, respond))) = connection.accept().await {
            deed(respond);
            if cuts {
                return;
            }
        }
    });
    address
}

async fn failure(deed: Deed, cuts: bool) -> Status {
    let mut client = client(misbehave(deed, cuts).await).await;
    let call = client.unary_call(SimpleRequest::default());
    timeout(PATIENCE, call)
        .await
        .expect("it hangs")
        .unwrap_err()
}

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )])
}

#[tokio::test]
async fn a_response_without_trailers_is_internal() {
    let status = failure(
        |mut respond| {
            let mut send = respond.send_response(head(), false).unwrap();
            send.send_data(framed(0, 0, b""), true).unwrap();
        },
        false,
    );
    assert_eq!(status.await.code(), Code::Internal);
}

#[tokio::test]
async fn a_response_cut_within_its_message_is_internal() {
    let status = failure(
        |mut respond| {
            let mut send = respond.send_response(head(), false).unwrap();
            send.send_data(framed(0, 100, b"abc"), false).unwrap();
            send.send_trailers(ok()).unwrap();
        },
        false,
    );
    assert_eq!(status.await.code(), Code::Internal);
}

#[tokio::test]
async fn a_response_too_large_is_refused_by_its_prefix() {
    let status = failure(
        |mut respond| {
            let mut send = respond.send_response(head(), false).unwrap();
            send.send_data(framed(0, u32::MAX, b"abc"), false).unwrap();
            // It stays open.
            std::mem::forget(send);
        },
        false,
    );
    assert_eq!(status.await.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_reset_maps_to_a_code() {
    let refused = failure(
        |mut respond| respond.send_reset(h2::Reason::REFUSED_STREAM),
        false,
    );
    assert_eq!(refused.await.code(), Code::Unavailable);
    let cancelled = failure(|mut respond| respond.send_reset(h2::Reason::CANCEL), false);
    assert_eq!(cancelled.await.code(), Code::Cancelled);
    let calm = failure(
        |mut respond| respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM),
        false,
    );
    assert_eq!(calm.await.code(), Code::ResourceExhausted);
    let internal = failure(
        |mut respond| respond.send_reset(h2::Reason::INTERNAL_ERROR),
        false,
    );
    assert_eq!(internal.await.code(), Code::Internal);
}

#[tokio::test]
async fn a_server_that_vanishes_makes_calls_unavailable() {
    assert_eq!(failure(drop, true).await.code(), Code::Unavailable);
}
