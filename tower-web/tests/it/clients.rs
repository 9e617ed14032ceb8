//! Who a request comes from, and how much each may ask.

use std::time::Duration;

use tokio::time::advance;
use tower_hyper::Address;
use tower_web::client::{ClientAddr, ClientLimit, TrustedProxies};
use tower_web::prelude::*;
use tower_web::testing::{TestClient, TestRequest};

#[get("/")]
async fn whoami(client: Option<ClientAddr>) -> String {
    client.map_or("nobody".into(), |client| client.ip().to_string())
}

#[get("/known")]
async fn known(client: ClientAddr) -> String {
    client.ip().to_string()
}

fn from(client: &TestClient, peer: &str) -> TestRequest {
    let peer = Address::Tcp(format!("{peer}:4711").parse().unwrap());
    client
        .get("/")
        .extension(ConnectInfo::new(peer, Address::Unknown))
}

#[tokio::test]
async fn without_proxies_no_header_is_believed() {
    let client = App::new().route(whoami).test();
    let request = from(&client, "192.0.2.1").header("x-forwarded-for", "203.0.113.7");
    request.await.assert_text("192.0.2.1");
    client.get("/").await.assert_text("nobody");
}

#[tokio::test]
async fn a_handler_that_must_know_fails_where_nobody_does() {
    let client = App::new().route(known).test();
    client.get("/known").await.assert_problem(500);
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_asks() {
    let proxies = TrustedProxies::new(["192.0.2.0/24"]).unwrap();
    let client = App::new().layer(proxies).route(whoami).test();
    let forwarded = |peer| from(&client, peer).header("x-forwarded-for", "6.6.6.6, 203.0.113.7");
    forwarded("192.0.2.1").await.assert_text("203.0.113.7");
    forwarded("198.51.100.1").await.assert_text("198.51.100.1");
}

#[tokio::test(start_paused = true)]
async fn each_client_has_a_limit_of_its_own() {
    let limit = ClientLimit::new(2, Duration::from_secs(2));
    let client = App::new().layer(limit).route(whoami).test();
    for peer in ["192.0.2.1", "192.0.2.2"] {
        for status in [200, 200, 429] {
            from(&client, peer).await.assert_status(status);
        }
    }
    let refused = from(&client, "192.0.2.1").await;
    refused.assert_header("retry-after", "1");
    refused.assert_problem(429);
    advance(Duration::from_secs(1)).await;
    from(&client, "192.0.2.1").await.assert_status(200);
    from(&client, "192.0.2.1").await.assert_status(429);
}

#[tokio::test(start_paused = true)]
async fn a_limit_sees_the_client_behind_the_proxy() {
    let proxies = TrustedProxies::new(["192.0.2.1"]).unwrap();
    let limit = ClientLimit::new(1, Duration::from_secs(2));
    let client = App::new().layer(proxies).layer(limit).route(whoami).test();
    let asked_for = |name: &str| from(&client, "192.0.2.1").header("x-forwarded-for", name);
    asked_for("203.0.113.1").await.assert_status(200);
    asked_for("203.0.113.2").await.assert_status(200);
    asked_for("203.0.113.1").await.assert_status(429);
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_apart_by_what_they_are_known_by() {
    let key = |request: &Request| request.headers().get("x-api-key").cloned();
    let limit = ClientLimit::new(1, Duration::from_secs(2)).with_key(key);
    let client = App::new().layer(limit).route(whoami).test();
    let with = |key: &str| client.get("/").header("x-api-key", key);
    with("a").await.assert_status(200);
    with("b").await.assert_status(200);
    with("a").await.assert_status(429);
    client.get("/").await.assert_status(200);
    client.get("/").await.assert_status(429);
}

#[tokio::test]
async fn over_a_socket_the_peer_is_the_client() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let server = tower_web::Server::bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let app = App::new()
        .layer(ClientLimit::new(1, Duration::from_secs(3600)))
        .route(known);
    let served = tokio::spawn(app.serve_until(server, std::future::pending()));
    for status in ["200", "429"] {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /known HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.ends_with("127.0.0.1") || status == "429", "{answer}");
    }
    handle.shutdown();
    served.await.unwrap().unwrap();
}
