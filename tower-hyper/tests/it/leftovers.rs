//! Requests whose bodies nobody reads.

use std::time::Duration;

use http::{HeaderValue, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};
use tower_hyper::{Incoming, Settings};
use tower_util::service_fn;

use crate::support::{converse, full, read_all, read_response, serve, serve_service};

const SECOND: Duration = Duration::from_secs(1);

async fn get(client: &mut DuplexStream) -> String {
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(client, "hello").await
}

fn post(framing: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_after_the_response_leaves_the_connection_open() {
    for (framing, body) in [
        ("content-length: 5", &b"hello"[..]),
        ("transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (
            "transfer-encoding: chunked",
            b"5\r\nhello\r\n0\r\ntrailing: field\r\n\r\n",
        ),
    ] {
        let (mut client, server) = serve(Settings::new());
        client.write_all(post(framing).as_bytes()).await.unwrap();
        let response = read_response(&mut client, "hello").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(!response.contains("connection: close"), "{response}");
        // In pieces, and slowly.
        for byte in body {
            sleep(SECOND / 10).await;
            client.write_all(&[*byte]).await.unwrap();
        }
        let response = get(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        drop(client);
        server.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn as_much_as_256_kib_is_thrown_away() {
    let (mut client, _server) = serve(Settings::new());
    let body = vec![b'x'; 256 * 1024];
    client
        .write_all(post("content-length: 262144").as_bytes())
        .await
        .unwrap();
    let response = read_response(&mut client, "hello").await;
    assert!(!response.contains("connection: close"), "{response}");
    client.write_all(&body).await.unwrap();
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_with_a_larger_one_says_so() {
    let (mut client, _server) = serve(Settings::new());
    client
        .write_all(post("content-length: 10000000").as_bytes())
        .await
        .unwrap();
    let response = read_response(&mut client, "hello").await;
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    // Who has still to send it isn't reset, which could cost it the response.
    client.write_all(&vec![b'x'; 9_999_999]).await.unwrap();
    assert_eq!(read_all(&mut client).await, "");
}

#[tokio::test(start_paused = true)]
async fn more_than_that_of_unknown_length_ends_the_connection() {
    let (mut client, server) = serve(Settings::new());
    client
        .write_all(post("transfer-encoding: chunked").as_bytes())
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    let chunk = [b"8000\r\n".to_vec(), vec![b'x'; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..16 {
        client.write_all(&chunk).await.unwrap();
    }
    assert_eq!(read_all(&mut client).await, "");
    drop(client);
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_thrown_away_begins_no_head() {
    let settings = Settings::new().with_head_timeout(SECOND * 5);
    let (mut client, _server) = serve(settings);
    client
        .write_all(post("content-length: 5").as_bytes())
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    client.write_all(b"hello").await.unwrap();
    sleep(SECOND * 60).await;
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_trickles_has_the_time_of_a_head() {
    let start = Instant::now();
    let settings = Settings::new().with_head_timeout(SECOND * 5);
    let (mut client, _server) = serve(settings);
    client
        .write_all(post("content-length: 500").as_bytes())
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    while client.write_all(b"x").await.is_ok() {
        sleep(SECOND).await;
    }
    assert!(start.elapsed() < SECOND * 12, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_dropped_elsewhere_and_later() {
    let service = service_fn(async |request: Request<Incoming>| {
        let body = request.into_body();
        tokio::spawn(async move {
            sleep(SECOND).await;
            drop(body);
        });
        Ok(full("hello"))
    });
    let (mut client, _server) = serve_service(Settings::new(), service);
    client
        .write_all(post("content-length: 5").as_bytes())
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    client.write_all(b"hello").await.unwrap();
    sleep(SECOND * 2).await;
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_waits_for_nothing() {
    let start = Instant::now();
    for head in [
        post("connection: keep-alive, close\r\ncontent-length: 5"),
        post("content-length: 5").replace("1.1", "1.0"),
    ] {
        let (mut client, _server) = serve(Settings::new());
        let response = converse(&mut client, head).await;
        assert!(response.ends_with("hello"), "{response}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn so_does_a_service_that_closes() {
    let service = service_fn(async |_: Request<Incoming>| {
        let mut response = full("hello");
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert("connection", close);
        Ok(response)
    });
    let start = Instant::now();
    let (mut client, _server) = serve_service(Settings::new(), service);
    let response = converse(&mut client, post("content-length: 5")).await;
    assert!(response.ends_with("hello"), "{response}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_a_body_that_is_thrown_away() {
    let (mut client, _server) = serve(Settings::new());
    client
        .write_all(post("expect: 100-continue\r\ncontent-length: 5").as_bytes())
        .await
        .unwrap();
    let response = read_response(&mut client, "hello").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    // It may send it all the same.
    client.write_all(b"hello").await.unwrap();
    let response = get(&mut client).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_waits_for_no_rest() {
    let service = service_fn(async |request: Request<Incoming>| {
        drop(request);
        Ok::<_, String>(full("hello"))
    });
    let (client, server) = tokio::io::duplex(64 * 1024);
    let mut client = client;
    let connection =
        Settings::new().serve_connection(server, tower_hyper::ConnectInfo::default(), service);
    let mut connection = Box::pin(connection);
    client
        .write_all(post("content-length: 5").as_bytes())
        .await
        .unwrap();
    let start = Instant::now();
    tokio::select! {
        _ = connection.as_mut() => panic!("it ended early"),
        response = read_response(&mut client, "hello") => drop(response),
    }
    connection.as_mut().graceful_shutdown();
    let mut byte = [0];
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        read = client.read(&mut byte) => assert_eq!(read.unwrap(), 0),
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}
