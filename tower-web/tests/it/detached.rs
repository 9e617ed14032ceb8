//! Work that goes on when its client has gone away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_web::detach::Detach;
use tower_web::prelude::*;

struct Orders {
    begun: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

impl Orders {
    async fn work(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(10)).await;
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

#[resource("/")]
impl Orders {
    #[post("/detached")]
    #[layer(Detach)]
    async fn detached(&self) -> StatusCode {
        self.work().await;
        StatusCode::CREATED
    }

    #[post("/attached")]
    async fn attached(&self) -> StatusCode {
        self.work().await;
        StatusCode::CREATED
    }

    #[post("/broken")]
    #[layer(Detach)]
    async fn broken(&self) -> StatusCode {
        panic!("on purpose")
    }

    #[get("/time")]
    #[layer(Detach)]
    async fn time(&self) -> String {
        tower_deadline::Deadline::current().is_some().to_string()
    }
}

fn app() -> (App, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (begun, done) = (Arc::default(), Arc::default());
    let orders = Orders {
        begun: Arc::clone(&begun),
        done: Arc::clone(&done),
    };
    (App::new().resource(orders), begun, done)
}

#[tokio::test(start_paused = true)]
async fn it_is_finished_although_nobody_waits() {
    let (app, begun, done) = app();
    let client = app.test();
    for path in ["/detached", "/attached"] {
        let gone = timeout(Duration::from_secs(1), client.post(path).send()).await;
        assert!(gone.is_err());
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_gets_the_answer() {
    let (app, _, done) = app();
    app.test().post("/detached").await.assert_status(201);
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_is_a_500_as_ever() {
    app().0.test().post("/broken").await.assert_problem(500);
}

#[tokio::test]
async fn it_runs_under_the_request_s_deadline() {
    app().0.test().get("/time").await.assert_text("true");
}

/// Says when it has begun, and goes on when it may.
struct Order {
    begun: Arc<Notify>,
    go: Arc<Notify>,
    done: Arc<AtomicUsize>,
}

#[resource("/order")]
impl Order {
    #[post("/")]
    #[layer(Detach)]
    async fn order(&self) -> StatusCode {
        self.begun.notify_one();
        self.go.notified().await;
        self.done.fetch_add(1, Ordering::SeqCst);
        StatusCode::CREATED
    }
}

#[cfg(feature = "server")]
#[tokio::test]
async fn a_shutdown_waits_for_it() {
    use tokio::io::AsyncWriteExt as _;

    let (begun, go, done) = (Arc::default(), Arc::default(), Arc::default());
    let order = Order {
        begun: Arc::clone(&begun),
        go: Arc::clone(&go),
        done: Arc::clone(&done),
    };
    let server = tower_web::Server::bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let app = App::new().resource(order);
    let served = tokio::spawn(app.serve_until(server, std::future::pending()));

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"POST /order HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    begun.notified().await;
    drop(client);
    while handle.connections() > 0 {
        tokio::task::yield_now().await;
    }
    handle.shutdown();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!served.is_finished());
    go.notify_one();
    served.await.unwrap().unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 1);
}
