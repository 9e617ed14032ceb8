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
    let idle = start.elapsed().as_secs();
    assert!((20..=25).contains(&idle), "{idle}");
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
        let mut settings = Settings::new();
        if is_allowed {
            settings = settings.with_extended_connect();
        }
        // Other settings of HTTP/2 leave it as it is.
        let settings = settings.with_http2(tower_h2::server::Builder::new());
        let (io, _server) = serve(settings);
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

#[tokio::test(start_paused = true)]
async fn the_authority_is_there_once_and_the_host_says_the_same() {
    let cases = [
        ("http://a/", &[][..], 200),
        ("http://a/", &["a"], 200),
        ("http://a/", &["b"], 400),
        ("http://a/", &["a", "a"], 400),
        ("http://u@a/", &[], 400),
        ("/", &["a"], 200),
        ("/", &["a", "b"], 400),
        ("/", &["a b"], 400),
        ("/", &[""], 400),
        ("/", &[], 400),
    ];
    for vets in [true, false] {
        let settings = if vets {
            Settings::new()
        } else {
            Settings::new().without_vetting()
        };
        let (io, _server) = serve(settings);
        let (mut client, driver) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(driver);
        for (uri, hosts, status) in cases {
            // h2 sends no authority where a request is translated from HTTP/1.1.
            let version = match uri {
                "/" => http::Version::HTTP_11,
                _ => http::Version::HTTP_2,
            };
            let mut request = Request::get(uri).version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(()).unwrap();
            let (response, _) = client.send_request(request, true).unwrap();
            let status = if vets { status } else { 200 };
            let response = response.await.unwrap();
            assert_eq!(response.status(), status, "{uri} {hosts:?}");
            client = client.ready().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_reset_and_the_others_go_on() {
    let (io, server) = serve(Settings::new().with_write_timeout(SECOND * 10));
    let (mut client, driver) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    tokio::spawn(driver);
    let mut ask = |path| {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let (stalled, read) = (ask("/large"), ask("/large"));
    let start = Instant::now();
    let mut stalled = stalled.await.unwrap().into_body();
    let mut read = read.await.unwrap().into_body();
    let mut received = 0;
    while let Some(chunk) = read.data().await {
        let length = chunk.unwrap().len();
        received += length;
        read.flow_control().release_capacity(length).unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(received, 10_000_000);
    assert!(start.elapsed() > SECOND * 10);
    let mut taken = 0;
    let error = loop {
        match stalled.data().await.unwrap() {
            Ok(chunk) => taken += chunk.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    assert!(taken <= 65_535);
    let response = ask("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!server.is_finished());
}
