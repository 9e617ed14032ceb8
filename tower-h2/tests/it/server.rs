//! A server before a raw client.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::oneshot;
use tower_h2::{RecvBody, server};
use tower_service::Service;
use tower_util::service_fn;

use crate::support::{call, echo, post, serve};
use crate::wire::{END_HEADERS, END_STREAM, HEADERS, PING, Wire, frame, post as head};

const ALL: u8 = END_HEADERS | END_STREAM;

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_by_the_service() {
    let mut pair = serve(server::Builder::new(), service_fn(echo)).await;
    let (head, body) = call(&mut pair.client, b"hello").await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-length"], "5");
    assert_eq!(body, "hello");
}

#[tokio::test(start_paused = true)]
async fn many_requests_at_once_are_each_answered() {
    let pair = serve(server::Builder::new(), service_fn(echo)).await;
    let calls: Vec<_> = (0..150)
        .map(|_| {
            let mut client = pair.client.clone();
            tokio::spawn(async move { call(&mut client, b"hello").await.unwrap().1 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "hello");
    }
}

/// While a batch of requests is answered nothing is read, and nobody would wake the connection for what comes then.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_others_are_answered_is_answered_too() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let writer = Arc::new(tokio::sync::Mutex::new(None));
    let late = Arc::clone(&writer);
    let service = service_fn(move |request: Request<RecvBody>| {
        let late = Arc::clone(&late);
        async move {
            if request.headers().contains_key("x-first") {
                let mut writer: tokio::sync::MutexGuard<'_, Option<Wire<_>>> = late.lock().await;
                let writer = writer.as_mut().unwrap();
                writer.send(HEADERS, ALL, 7, &head(&[])).await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    tokio::spawn(server::Builder::new().serve_connection(far, service));
    let (mut reader, wire) = Wire::client(near).await.split();
    *writer.lock().await = Some(wire);
    // The first of a connection has a task, and those after it are answered together.
    for batch in [
        vec![frame(HEADERS, ALL, 1, &head(&[]))],
        vec![
            frame(HEADERS, ALL, 3, &head(&[("x-first", "1")])),
            frame(HEADERS, ALL, 5, &head(&[])),
        ],
    ] {
        let mut writer = writer.lock().await;
        writer.as_mut().unwrap().send_raw(&batch.concat()).await;
        drop(writer);
        let expected: &[u32] = if batch.len() == 1 { &[1] } else { &[3, 5, 7] };
        for &stream in expected {
            assert_eq!(reader.next_of(HEADERS).await.stream, stream);
        }
    }
}

/// A service that is never ready.
struct Busy;

impl Service<Request<RecvBody>> for Busy {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<RecvBody>) -> Self::Future {
        pending()
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_a_batch_waits_for_the_service() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, Busy));
    let mut wire = Wire::client(near).await;
    let requests = [1, 3, 5].map(|stream| frame(HEADERS, ALL, stream, &head(&[])));
    wire.send_raw(&requests.concat()).await;
    // The server takes them in, and waits.
    tokio::task::yield_now().await;
    wire.send(PING, 0, 0, b"12345678").await;
    assert_eq!(wire.next_of(PING).await.payload, b"12345678");
}

#[tokio::test(start_paused = true)]
async fn trailers_follow_the_body() {
    let service = service_fn(|_: Request<RecvBody>| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        Ok::<_, Infallible>(Response::new(body))
    });
    let mut pair = serve(server::Builder::new(), service).await;
    let (response, _) = pair.client.send_request(post("/"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "data");
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_only_its_call() {
    let service = service_fn(|request: Request<RecvBody>| async move {
        assert_ne!(request.uri().path(), "/panic", "as asked");
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut pair = serve(server::Builder::new(), service).await;
    // The first has a task, the second hasn't.
    for _ in 0..2 {
        let (broken, _) = pair.client.send_request(post("/panic"), true).unwrap();
        let (whole, _) = pair.client.send_request(post("/"), true).unwrap();
        assert_eq!(
            broken.await.unwrap_err().reason(),
            Some(Reason::INTERNAL_ERROR)
        );
        assert_eq!(whole.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_call_itself_ends_only_its_call() {
    let service = service_fn(|request: Request<RecvBody>| {
        assert_ne!(request.uri().path(), "/panic", "as asked");
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let mut pair = serve(server::Builder::new(), service).await;
    let (broken, _) = pair.client.send_request(post("/panic"), true).unwrap();
    let (whole, _) = pair.client.send_request(post("/"), true).unwrap();
    assert_eq!(
        broken.await.unwrap_err().reason(),
        Some(Reason::INTERNAL_ERROR)
    );
    assert_eq!(whole.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_service_error_resets_the_stream() {
    let service = service_fn(|_: Request<RecvBody>| async {
        Err::<Response<Empty<Bytes>>, _>(std::io::Error::other("broken"))
    });
    let mut pair = serve(server::Builder::new(), service).await;
    let (response, _) = pair.client.send_request(post("/"), true).unwrap();
    assert_eq!(
        response.await.unwrap_err().reason(),
        Some(Reason::INTERNAL_ERROR)
    );
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

fn never(
    dropped: oneshot::Sender<()>,
) -> impl Future<Output = Result<Response<Empty<Bytes>>, Infallible>> {
    let dropped = Dropped(Some(dropped));
    async move {
        let _dropped = dropped;
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_peer_ends_the_handler() {
    let (sender, gone) = oneshot::channel();
    let mut sender = Some(sender);
    let service = service_fn(move |_: Request<RecvBody>| never(sender.take().unwrap()));
    let mut pair = serve(server::Builder::new(), service).await;
    let (response, _) = pair.client.send_request(post("/"), true).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(response);
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_ends_the_handler_and_the_connection() {
    let (sender, gone) = oneshot::channel();
    let mut sender = Some(sender);
    let service = service_fn(move |_: Request<RecvBody>| never(sender.take().unwrap()));
    let mut pair = serve(server::Builder::new(), service).await;
    let (_response, _) = pair.client.send_request(post("/"), true).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.wire.abort();
    gone.await.unwrap();
    let _ = pair.server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_ends_its_handlers() {
    let (sender, gone) = oneshot::channel();
    let mut sender = Some(sender);
    let service = service_fn(move |_: Request<RecvBody>| never(sender.take().unwrap()));
    let mut pair = serve(server::Builder::new(), service).await;
    let (_response, _) = pair.client.send_request(post("/"), true).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.server.abort();
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_response_to_head_has_the_length_and_no_content() {
    let service = service_fn(|_: Request<RecvBody>| async {
        Ok::<_, Infallible>(
            Response::builder()
                .header("content-length", 7)
                .body(Full::new(Bytes::from("content")))
                .unwrap(),
        )
    });
    let mut pair = serve(server::Builder::new(), service).await;
    let mut request = post("/");
    *request.method_mut() = Method::HEAD;
    let (response, _) = pair.client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-length"], "7");
    assert!(response.into_body().data().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn connection_headers_of_http_1_are_left_out() {
    let service = service_fn(|_: Request<RecvBody>| async {
        let response = Response::builder()
            .header("connection", "keep-alive")
            .header("keep-alive", "timeout=5")
            .header("x-kept", "1")
            .body(Empty::<Bytes>::new())
            .unwrap();
        Ok::<_, Infallible>(response)
    });
    let mut pair = serve(server::Builder::new(), service).await;
    let (head, _) = call(&mut pair.client, b"").await.unwrap();
    assert!(head.headers().get("connection").is_none());
    assert!(head.headers().get("keep-alive").is_none());
    assert_eq!(head.headers()["x-kept"], "1");
}

#[tokio::test(start_paused = true)]
async fn graceful_shutdown_answers_what_was_accepted_and_then_ends() {
    let service = service_fn(|_: Request<RecvBody>| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("late"))))
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let mut connection = std::pin::pin!(server::Builder::new().serve_connection(far, service));
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = stopped => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    let (mut client, _wire) = crate::support::raw_client(near).await;
    let under_way = {
        let mut client = client.clone();
        tokio::spawn(async move { call(&mut client, b"").await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(call(&mut client, b"").await.is_err(), "no more are taken");
    assert_eq!(under_way.await.unwrap().unwrap().1, "late");
    server.await.unwrap().unwrap();
}

/// Takes one request a second.
struct OneASecond {
    calls: Arc<AtomicUsize>,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Service<Request<RecvBody>> for OneASecond {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let wait = self
            .wait
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_secs(1))));
        wait.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, _: Request<RecvBody>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.wait = None;
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_not_called() {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = OneASecond {
        calls: calls.clone(),
        wait: None,
    };
    let pair = serve(server::Builder::new(), service).await;
    let answers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = pair.client.clone();
            tokio::spawn(async move { call(&mut client, b"").await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    for answer in answers {
        answer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_refuses_requests_so_that_they_may_be_sent_again() {
    struct Broken;
    impl Service<Request<RecvBody>> for Broken {
        type Response = Response<Empty<Bytes>>;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err(std::io::Error::other("broken")))
        }
        fn call(&mut self, _: Request<RecvBody>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let mut pair = serve(server::Builder::new(), Broken).await;
    let error = call(&mut pair.client, b"").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    let error = pair.server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), tower_h2::ErrorKind::Service);
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_the_window_arrives_whole() {
    const SIZE: usize = 8 << 20;
    let service = service_fn(|request: Request<RecvBody>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    let mut pair = serve(server::Builder::new(), service).await;
    static BODY: [u8; SIZE] = [7; SIZE];
    let (_, body) = call(&mut pair.client, &BODY).await.unwrap();
    assert_eq!(body.len(), SIZE);
}

#[test]
fn without_a_runtime_requests_are_served_by_the_connection_itself() {
    // A pipe of Tokio's needs no runtime, and neither do tasks that aren't spawned.
    let slow_start = service_fn(|request: Request<RecvBody>| async move {
        let mut first = true;
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::take(&mut first) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        echo(request).await
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = server::Builder::new().serve_connection(far, slow_start);
    let client = async {
        let (client, wire) = h2::client::handshake(near).await.unwrap();
        let mut client = client.ready().await.unwrap();
        let answer = async move { call(&mut client, b"hello").await.unwrap().1 };
        let (answer, _) = futures_util::future::join(answer, wire).await;
        assert_eq!(answer, "hello");
    };
    let _ = block_on(futures_util::future::join(server, client));
}

/// Runs a future with nothing around it.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
