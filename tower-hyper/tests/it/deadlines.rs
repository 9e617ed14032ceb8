//! Clients that take too long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use tower_hyper::{ErrorKind, Settings};

use crate::support::{converse, read_all, read_response, serve};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings::new()
        .with_head_timeout(SECOND * 5)
        .with_idle_timeout(SECOND * 20)
        .with_body_timeout(SECOND * 10)
        .with_write_timeout(SECOND * 10)
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_gone_by_the_head_timeout() {
    let start = Instant::now();
    let (mut client, server) = serve(settings());
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(start.elapsed().as_secs(), 5);
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HeadTimeout);
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_sends_pri_and_nothing_more() {
    let start = Instant::now();
    let (mut client, _server) = serve(settings());
    assert_eq!(converse(&mut client, "PRI").await, "");
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn so_is_one_that_sends_the_whole_preface_and_nothing_more() {
    let start = Instant::now();
    let (mut client, server) = serve(settings());
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut frames = Vec::new();
    client.read_to_end(&mut frames).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HeadTimeout);
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn so_is_one_that_pings_and_asks_for_nothing() {
    let start = Instant::now();
    let (mut client, server) = serve(settings());
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    client
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    while client
        .write_all(b"\0\0\x08\x06\0\0\0\0\0pingping")
        .await
        .is_ok()
    {
        sleep(SECOND).await;
    }
    assert!(start.elapsed() < SECOND * 7);
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HeadTimeout);
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_sends_a_byte_a_second() {
    let start = Instant::now();
    let (mut client, server) = serve(settings());
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(SECOND).await;
    }
    assert!(start.elapsed() < SECOND * 7);
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HeadTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_its_time_from_its_first_byte() {
    let (mut client, _server) = serve(settings());
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    sleep(SECOND * 15).await;
    let start = Instant::now();
    client.write_all(b"G").await.unwrap();
    sleep(SECOND * 3).await;
    client.write_all(b"E").await.unwrap();
    read_all(&mut client).await;
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_quietly() {
    let (mut client, server) = serve(settings());
    for _ in 0..3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        read_response(&mut client, "hello").await;
        sleep(SECOND * 15).await;
    }
    let start = Instant::now();
    read_all(&mut client).await;
    // 20 seconds after the last response, and at most a quarter of that later.
    let rest = start.elapsed().as_secs();
    assert!((5..=10).contains(&rest), "{rest}");
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_fails_in_the_service() {
    let start = Instant::now();
    let (mut client, _server) = serve(settings());
    let response = converse(
        &mut client,
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\nabc",
    )
    .await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_coming_may_take_its_time() {
    let (mut client, _server) = serve(settings());
    let head = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
    client.write_all(head).await.unwrap();
    for byte in b"abcde" {
        sleep(SECOND * 9).await;
        client.write_all(&[*byte]).await.unwrap();
    }
    read_response(&mut client, "abcde").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_cut() {
    let start = Instant::now();
    let (mut client, server) = serve(settings());
    client
        .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut some = vec![0; 100_000];
    client.read_exact(&mut some).await.unwrap();
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteTimeout);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_it_all() {
    let (mut client, _server) = serve(settings());
    client
        .write_all(b"GET /large HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut read = 0;
    let mut some = vec![0; 1_000_000];
    loop {
        sleep(SECOND).await;
        match client.read(&mut some).await.unwrap() {
            0 => break,
            length => read += length,
        }
    }
    assert!(read > 10_000_000, "{read}");
}

#[tokio::test(start_paused = true)]
async fn a_service_may_take_longer_than_all_of_these() {
    let settings = settings()
        .with_idle_timeout(SECOND)
        .with_head_timeout(SECOND);
    let (mut client, _server) = serve(settings);
    client
        .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut client, "slow").await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_takes_no_more_requests() {
    let (mut client, server) = serve(settings().with_max_age(SECOND * 30));
    let start = Instant::now();
    while client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .is_ok()
    {
        sleep(SECOND).await;
    }
    let age = start.elapsed().as_secs();
    assert!((27..=35).contains(&age), "{age}");
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_has_its_grace_and_no_more() {
    let settings = settings()
        .with_max_age(SECOND * 30)
        .with_max_age_grace(SECOND * 3);
    let (mut client, server) = serve(settings);
    let start = Instant::now();
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooOld);
    let age = start.elapsed().as_secs();
    assert!((30..=36).contains(&age), "{age}");
}
