//! Requests and responses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower_hyper::{ConnectInfo, Incoming, Protocols, Settings};
use tower_service::Service;
use tower_util::service_fn;

use crate::support::{app, converse, full, read_all, read_response, serve, serve_service};

#[tokio::test(start_paused = true)]
async fn requests_follow_each_other_on_one_connection() {
    let (mut client, server) = serve(Settings::new());
    for _ in 0..3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let response = read_response(&mut client, "hello").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
    drop(client);
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_back_whole() {
    let (mut client, _server) = serve(Settings::new());
    client
        .write_all(
            b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        )
        .await
        .unwrap();
    client.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
    let response = read_response(&mut client, "abcde").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn http_1_0_is_answered_and_closed() {
    let (mut client, server) = serve(Settings::new());
    let response = converse(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.0 200"), "{response}");
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_500_and_ends_the_connection() {
    let (mut client, server) = serve(Settings::new());
    let response = converse(&mut client, "GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 500"), "{response}");
    assert!(response.contains("connection: close"), "{response}");
    server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_500() {
    let (mut client, _server) = serve(Settings::new());
    let response = converse(&mut client, "GET /fail HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 500"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn a_response_does_not_wait_for_a_later_request() {
    let (mut client, _server) = serve(Settings::new());
    let start = Instant::now();
    let both = "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(both.as_bytes()).await.unwrap();
    read_response(&mut client, "hello").await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    read_response(&mut client, "slow").await;
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let (mut client, _server) = serve(Settings::new());
    let mut requests = String::new();
    for i in 0..100 {
        requests += &format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{i:03}");
    }
    requests += "GET / HTTP/1.0\r\n\r\n";
    let responses = converse(&mut client, requests).await;
    let bodies: Vec<_> = responses
        .split("HTTP/1.1 200")
        .skip(1)
        .filter_map(|response| response.split("\r\n\r\n").nth(1))
        .map(|body| body.get(..3).unwrap_or_default().to_owned())
        .collect();
    let expected: Vec<_> = (0..100).map(|i| format!("{i:03}")).collect();
    assert_eq!(bodies, expected);
}

/// Counts the writes.
struct Counting {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn responses_to_requests_that_came_together_leave_together() {
    let (mut client, io) = tokio::io::duplex(64 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Counting {
        io,
        writes: Arc::clone(&writes),
    };
    let service = service_fn(app);
    let _server =
        tokio::spawn(Settings::new().serve_connection(io, ConnectInfo::default(), service));
    for batch in 0..4 {
        let before = writes.load(Ordering::Relaxed);
        let requests = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(16);
        client.write_all(requests.as_bytes()).await.unwrap();
        let mut read = String::new();
        while read.matches("hello").count() < 16 {
            read += &read_response(&mut client, "hello").await;
        }
        let taken = writes.load(Ordering::Relaxed) - before;
        // Of the first batch nothing tells that there will be more, until its first response is written.
        assert!(
            taken == 1 || batch == 0 && taken == 2,
            "{taken} writes for batch {batch}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_drops_the_future() {
    let alive = Arc::new(());
    let held = Arc::downgrade(&alive);
    let service = service_fn(move |request: Request<Incoming>| {
        let alive = Arc::clone(&alive);
        async move {
            let response = app(request).await;
            drop(alive);
            response
        }
    });
    let (mut client, server) = serve_service(Settings::new(), service);
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::task::yield_now().await;
    drop(client);
    let _ = server.await.unwrap();
    assert!(held.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_preface_is_a_400() {
    let (mut client, _server) = serve(Settings::new());
    let response = converse(&mut client, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn http_2_can_be_refused() {
    let settings = Settings::new().with_protocols(Protocols::Http1);
    let (mut client, _server) = serve(settings);
    let response = converse(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(response, "");
}

/// Ready only with a permit, which the call takes along.
struct Guarded {
    permits: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    waiting: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>>,
}

impl Clone for Guarded {
    fn clone(&self) -> Self {
        Self {
            permits: Arc::clone(&self.permits),
            permit: None,
            waiting: None,
        }
    }
}

impl Service<Request<Incoming>> for Guarded {
    type Response = http::Response<crate::support::Body>;
    type Error = String;
    type Future = std::future::Ready<Result<Self::Response, String>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let permits = Arc::clone(&self.permits);
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(async move { permits.acquire_owned().await.unwrap() }));
        let permit = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.permit = Some(permit);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        self.permit.take().expect("it was ready").forget();
        std::future::ready(Ok(full("permitted")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_the_service_is_ready() {
    let permits = Arc::new(Semaphore::new(1));
    let service = Guarded {
        permits: Arc::clone(&permits),
        permit: None,
        waiting: None,
    };
    let (mut client, _server) = serve_service(Settings::new(), service);
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    read_response(&mut client, "permitted").await;

    client.write_all(request).await.unwrap();
    let response = tokio::spawn(async move { read_response(&mut client, "permitted").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!response.is_finished());
    permits.add_permits(1);
    response.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_while_its_body_is_still_sent_and_the_refusal_arrives() {
    let (mut client, _server) = serve(Settings::new());
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
    client.write_all(head).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let sender = tokio::spawn(async move {
        for _ in 0..100 {
            if writer.write_all(&[b'x'; 1024]).await.is_err() {
                break;
            }
        }
    });
    let response = read_all(&mut reader).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    sender.await.unwrap();
}

/// Upgrades to a protocol in which the server greets, and then gives back what it gets.
async fn upgrade(
    mut request: Request<Incoming>,
) -> Result<http::Response<crate::support::Body>, String> {
    if !request.headers().contains_key("upgrade") {
        return app(request).await;
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        io.write_all(b"welcome").await.unwrap();
        io.flush().await.unwrap();
        let mut bytes = [0; 4];
        while io.read_exact(&mut bytes).await.is_ok() {
            io.write_all(&bytes).await.unwrap();
        }
    });
    let mut response = full("");
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    response
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_upgraded_even_after_pipelined_requests() {
    for before in [0, 3] {
        let (mut client, server) = serve_service(Settings::new(), service_fn(upgrade));
        let mut requests = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(before);
        requests += "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(requests.as_bytes()).await.unwrap();
        let response = read_response(&mut client, "welcome").await;
        assert_eq!(response.matches("200 OK").count(), before);
        assert_eq!(response.matches("HTTP/1.1 101").count(), 1);
        for word in [b"ping", b"pong"] {
            client.write_all(word).await.unwrap();
            let mut back = [0; 4];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, word);
        }
        server.await.unwrap().unwrap();
    }
}
