//! HTTP/2 through the same server.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{Instant, sleep};
use tower_h2::client::{self, Connection};
use tower_hyper::{Protocols, Settings};
use tower_service::Service;

use crate::servers::{in_memory, start};
use crate::support::serve;

const SECOND: Duration = Duration::from_secs(1);

async fn connect(io: tokio::io::DuplexStream) -> Connection<Full<Bytes>> {
    let (connection, driver) = client::Builder::new().handshake(io).await.unwrap();
    tokio::spawn(driver);
    connection
}

async fn ask(
    connection: &mut Connection<Full<Bytes>>,
    path: &str,
    body: &'static str,
) -> Result<(StatusCode, Bytes), tower_h2::Error> {
    let uri = format!("http://a{path}");
    let request = Request::post(uri).body(Full::from(body)).unwrap();
    std::future::poll_fn(|cx| connection.poll_ready(cx)).await?;
    let response = connection.call(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, body))
}

#[tokio::test(start_paused = true)]
async fn both_protocols_are_served_on_one_port() {
    let (io, _server) = serve(Settings::new());
    let mut connection = connect(io).await;
    for _ in 0..3 {
        let (status, body) = ask(&mut connection, "/echo", "back").await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"back"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn prior_knowledge_alone_is_served_too() {
    let (io, _server) = serve(Settings::new().with_protocols(Protocols::Http2));
    let mut connection = connect(io).await;
    let (status, _) = ask(&mut connection, "/", "").await.unwrap();
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn responses_have_a_date_as_over_http_1() {
    let (io, _server) = serve(Settings::new());
    let mut connection = connect(io).await;
    let request = Request::get("http://a/").body(Full::default()).unwrap();
    std::future::poll_fn(|cx| connection.poll_ready(cx))
        .await
        .unwrap();
    let response = connection.call(request).await.unwrap();
    let date = response.headers()["date"].to_str().unwrap();
    assert!(date.ends_with(" GMT"), "{date}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_an_error_is_a_500_and_the_others_go_on() {
    let (io, _server) = serve(Settings::new());
    let mut connection = connect(io).await;
    for path in ["/panic", "/fail"] {
        let (status, _) = ask(&mut connection, path, "").await.unwrap();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let (status, _) = ask(&mut connection, "/", "").await.unwrap();
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_fails_in_the_service() {
    let (io, _server) = serve(Settings::new().with_body_timeout(SECOND * 5));
    let (mut connection, driver) = client::Builder::new().handshake(io).await.unwrap();
    tokio::spawn(driver);
    let body = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let start = Instant::now();
    let request = Request::post("http://a/echo").body(body).unwrap();
    std::future::poll_fn(|cx| connection.poll_ready(cx))
        .await
        .unwrap();
    let response = connection.call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_is_closed_when_it_was_idle_for_long() {
    let (io, server) = serve(Settings::new().with_idle_timeout(SECOND * 20));
    let mut connection = connect(io).await;
    for _ in 0..3 {
        ask(&mut connection, "/", "").await.unwrap();
        sleep(SECOND * 15).await;
    }
    ask(&mut connection, "/slow", "").await.unwrap();
    let start = Instant::now();
    server.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_open_are_finished_by_a_drain() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server);
    let mut connection = connect(door.connect()).await;
    let mut second = connection.clone();
    let slow = tokio::spawn(async move { ask(&mut connection, "/slow", "").await });
    sleep(SECOND).await;
    handle.shutdown();
    sleep(SECOND).await;
    assert!(ask(&mut second, "/", "").await.is_err());
    let (status, body) = slow.await.unwrap().unwrap();
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"slow"[..]));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn extended_connect_is_allowed_where_it_is_asked_for() {
    for is_allowed in [false, true] {
        let mut http2 = tower_h2::server::Builder::new();
        if is_allowed {
            http2 = http2.with_extended_connect();
        }
        let (io, _server) = serve(Settings::new().with_http2(http2));
        let (mut connection, driver) = client::Builder::new()
            .handshake::<_, Empty<Bytes>>(io)
            .await
            .unwrap();
        tokio::spawn(driver);
        let request = Request::get("http://a/").body(Empty::new()).unwrap();
        std::future::poll_fn(|cx| connection.poll_ready(cx))
            .await
            .unwrap();
        connection.call(request).await.unwrap();
        assert_eq!(connection.is_extended_connect_enabled(), is_allowed);
    }
}
