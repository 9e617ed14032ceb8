//! Servers behind a proxy that names its clients.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tower_hyper::Settings;

use crate::servers::{in_memory, start};
use crate::support::{converse, read_all};

#[tokio::test(start_paused = true)]
async fn the_client_is_who_the_proxy_says() {
    let (door, server) = in_memory();
    let (_handle, _serving) = start(server.with_proxy_protocol());
    let request = "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n\
                   GET /peer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let response = converse(&mut door.connect(), request).await;
    assert!(
        response.ends_with("Some(Tcp(192.0.2.1:5000))"),
        "{response}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_the_header_is_closed() {
    let (door, server) = in_memory();
    let (_handle, _serving) = start(server.with_proxy_protocol());
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(converse(&mut door.connect(), request).await, "");
}

#[tokio::test(start_paused = true)]
async fn header_and_head_share_one_deadline() {
    let (door, server) = in_memory();
    let settings = Settings::new().with_head_timeout(Duration::from_secs(5));
    let (_handle, _serving) = start(server.with_proxy_protocol().with_settings(settings));
    let start = Instant::now();
    let mut client = door.connect();
    client.write_all(b"PROXY TCP4 192.0.2.1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    client
        .write_all(b" 198.51.100.1 5000 443\r\nGET /")
        .await
        .unwrap();
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(start.elapsed().as_secs(), 5);
}
