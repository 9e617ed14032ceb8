//! WebSockets, as a client sees them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tower_web::StatusCode;
use tower_web::prelude::*;
use tower_web::testing::TestClient;
use tower_web::websocket::{Closed, Message, TestWebSocket, WebSocket, WebSocketUpgrade};

/// What a test has to say of the socket, and hears of it.
struct Sockets {
    ended: Mutex<Option<oneshot::Sender<Closed>>>,
}

#[resource("/")]
impl Sockets {
    #[get("/echo")]
    async fn echo(&self, upgrade: WebSocketUpgrade) -> Response {
        let ended = self.ended.lock().unwrap().take();
        upgrade
            .with_max_message(1000)
            .with_protocols(["v2", "v1"])
            .on_upgrade(|mut socket| async move {
                while let Some(message) = socket.recv().await {
                    if socket.send(message).await.is_err() {
                        break;
                    }
                }
                if let (Some(ended), Some(reason)) = (ended, socket.closed()) {
                    ended.send(reason.clone()).unwrap();
                }
            })
    }

    #[get("/fails")]
    async fn fails(&self, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|mut socket| async move {
            socket.send("before").await?;
            Err::<(), tower_web::BoxError>("no more".into())
        })
    }

    #[get("/panics")]
    async fn panics(&self, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|socket| async move {
            drop(socket);
            if true {
                panic!("as a handler may");
            }
        })
    }

    #[get("/leaves")]
    async fn leaves(&self, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|mut socket| async move {
            socket.send("bye").await.unwrap();
            socket.close(4000, "so long").await;
        })
    }

    /// Neither reads nor sends.
    #[get("/sleeps")]
    async fn sleeps(&self, upgrade: WebSocketUpgrade) -> Response {
        let ended = self.ended.lock().unwrap().take().unwrap();
        upgrade.on_upgrade(|socket| async move {
            let _dropped = Dropped(Some(ended));
            let _socket = socket;
            std::future::pending::<()>().await;
        })
    }

    #[get("/page")]
    async fn page(&self, upgrade: Option<WebSocketUpgrade>) -> Response {
        match upgrade {
            None => "a page".into_response(),
            Some(upgrade) => upgrade.on_upgrade(|_: WebSocket| async {}),
        }
    }

    #[get("/embedded")]
    async fn embedded(&self, upgrade: WebSocketUpgrade) -> Response {
        upgrade
            .allow_origin("https://friend.example")
            .on_upgrade(|_: WebSocket| async {})
    }
}

struct Dropped(Option<oneshot::Sender<Closed>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.take().unwrap().send(Closed::Lost).unwrap();
    }
}

fn app() -> (TestClient, oneshot::Receiver<Closed>) {
    let (ended, end) = oneshot::channel();
    let ended = Mutex::new(Some(ended));
    (App::new().resource(Sockets { ended }).test(), end)
}

async fn open(path: &str) -> TestWebSocket {
    app().0.get(path).websocket().await
}

fn by_peer(code: u16, reason: &str) -> Closed {
    Closed::ByPeer {
        code,
        reason: reason.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn text_and_bytes_are_echoed() {
    let mut socket = open("/echo").await;
    socket.send("é").await;
    assert_eq!(socket.recv().await.unwrap(), Message::from("é"));
    socket.send(vec![0, 255]).await;
    assert_eq!(socket.recv().await.unwrap(), Message::from(vec![0, 255]));
    socket.close(1000).await;
}

#[tokio::test(start_paused = true)]
async fn the_handler_hears_why_its_peer_has_closed() {
    let (client, end) = app();
    client.get("/echo").websocket().await.close(3001).await;
    assert_eq!(end.await.unwrap(), by_peer(3001, ""));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_without_a_word_is_lost() {
    let (client, end) = app();
    drop(client.get("/echo").websocket().await);
    assert_eq!(end.await.unwrap(), Closed::Lost);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_limit_is_closed_with_1009() {
    let (client, end) = app();
    let mut socket = client.get("/echo").websocket().await;
    socket.send("x".repeat(1000)).await;
    assert_eq!(socket.recv().await.unwrap().as_bytes().len(), 1000);
    socket.send("x".repeat(1001)).await;
    assert_eq!(socket.recv().await, None);
    assert!(matches!(
        socket.closed(),
        Some(Closed::ByPeer { code: 1009, .. })
    ));
    assert_eq!(end.await.unwrap(), Closed::TooLarge { limit: 1000 });
}

#[tokio::test(start_paused = true)]
async fn a_socket_outlives_the_limit_of_bodies() {
    let mut socket = open("/echo").await;
    for _ in 0..3000 {
        socket.send("x".repeat(1000)).await;
        assert!(socket.recv().await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_closes_with_1011_after_what_it_sent() {
    let mut socket = open("/fails").await;
    assert_eq!(socket.recv().await.unwrap().as_text(), Some("before"));
    assert_eq!(socket.recv().await, None);
    assert_eq!(socket.closed(), Some(&by_peer(1011, "")));
}

#[tokio::test(start_paused = true)]
async fn a_panic_closes_with_1011() {
    let mut socket = open("/panics").await;
    assert_eq!(socket.recv().await, None);
    assert_eq!(socket.closed(), Some(&by_peer(1011, "")));
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_close_with_words_of_its_own() {
    let mut socket = open("/leaves").await;
    assert_eq!(socket.recv().await.unwrap().as_text(), Some("bye"));
    assert_eq!(socket.recv().await, None);
    assert_eq!(socket.closed(), Some(&by_peer(4000, "so long")));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_never_pongs_is_closed_within_a_minute() {
    let (client, end) = app();
    let start = Instant::now();
    // It isn't received from, so it answers nothing.
    let _socket = client.get("/echo").websocket().await;
    assert_eq!(end.await.unwrap(), Closed::Unresponsive);
    assert!(
        start.elapsed() <= Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_pongs_is_kept() {
    let mut socket = open("/echo").await;
    let silence = tokio::time::timeout(Duration::from_secs(600), socket.recv());
    assert!(silence.await.is_err());
    socket.send("still there").await;
    assert_eq!(socket.recv().await.unwrap().as_text(), Some("still there"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_and_does_not_read_is_closed() {
    let (client, end) = app();
    let mut socket = client.get("/echo").websocket().await;
    let flood = tokio::spawn(async move {
        // Nothing is read, so it is stopped by what can't be echoed.
        loop {
            let sent = tokio::time::timeout(Duration::from_secs(600), socket.send("x".repeat(900)));
            if sent.await.is_err() {
                break;
            }
        }
    });
    assert_eq!(end.await.unwrap(), Closed::Unresponsive);
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_notice_is_dropped() {
    let (client, end) = app();
    let start = Instant::now();
    client.get("/sleeps").websocket().await.close(1000).await;
    assert_eq!(end.await.unwrap(), Closed::Lost);
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn the_application_s_shutdown_closes_with_1001() {
    let (client, end) = app();
    let mut socket = client.get("/echo").websocket().await;
    socket.send("hello").await;
    assert!(socket.recv().await.is_some());
    client.service().begin_shutdown();
    assert_eq!(socket.recv().await, None);
    assert_eq!(
        socket.closed(),
        Some(&by_peer(1001, "the server shuts down"))
    );
    assert_eq!(end.await.unwrap(), Closed::ByShutdown);
}

#[tokio::test(start_paused = true)]
async fn the_server_s_first_choice_of_subprotocols_is_spoken() {
    let (client, _end) = app();
    let offer = |offer| {
        client
            .get("/echo")
            .header("sec-websocket-protocol", offer)
            .websocket()
    };
    assert_eq!(offer("v1, v2").await.protocol(), Some("v2"));
    assert_eq!(offer("v0,v1").await.protocol(), Some("v1"));
    assert_eq!(offer("v0").await.protocol(), None);
}

#[tokio::test(start_paused = true)]
async fn pages_of_other_sites_are_refused() {
    let (client, _end) = app();
    let own = client.get("/echo").header("origin", "http://localhost");
    assert!(own.try_websocket().await.is_ok());
    let other = client.get("/echo").header("origin", "https://evil.example");
    let refused = other.try_websocket().await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );

    let friend = client
        .get("/embedded")
        .header("origin", "https://friend.example");
    assert!(friend.try_websocket().await.is_ok());
    let foe = client
        .get("/embedded")
        .header("origin", "https://foe.example");
    assert!(foe.try_websocket().await.is_err());
}

#[tokio::test]
async fn what_asks_for_no_websocket_is_told_to() {
    let (client, _end) = app();
    let response = client.get("/echo").await;
    response.assert_problem(426);
    response.assert_header("upgrade", "websocket");
    client.get("/page").await.assert_text("a page");
}

#[tokio::test]
async fn a_malformed_handshake_is_a_problem_that_names_the_header() {
    let (client, _end) = app();
    let asked = || {
        client
            .get("/page")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
    };
    let problem = asked().await.assert_problem(400);
    assert_eq!(problem["errors"][0]["name"], "sec-websocket-key");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    // In memory there is no connection to upgrade.
    asked()
        .header("sec-websocket-key", key)
        .await
        .assert_problem(501);
}

#[tokio::test(start_paused = true)]
async fn another_version_is_told_which_is_spoken() {
    let (client, _end) = app();
    // In memory the client says 13; what is checked stands before it.
    let response = client
        .get("/echo")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "8")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .await;
    response.assert_problem(426);
    response.assert_header("sec-websocket-version", "13");
}

#[tokio::test(start_paused = true)]
async fn halves_work_in_tasks_of_their_own() {
    struct Clock;

    #[resource("/")]
    impl Clock {
        #[get("/")]
        async fn tick(&self, upgrade: WebSocketUpgrade) -> Response {
            upgrade.on_upgrade(|socket| async move {
                let (mut sender, mut receiver) = socket.split();
                tokio::spawn(async move {
                    let mut ticks = 0;
                    while sender.send(format!("{ticks}")).await.is_ok() {
                        sleep(Duration::from_secs(1)).await;
                        ticks += 1;
                    }
                });
                while receiver.recv().await.is_some() {}
            })
        }
    }

    let mut socket = App::new().resource(Clock).test().get("/").websocket().await;
    for tick in ["0", "1", "2"] {
        assert_eq!(socket.recv().await.unwrap().as_text(), Some(tick));
    }
    socket.close(1000).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_holds_its_peer_back() {
    struct Slow(Arc<tokio::sync::Semaphore>);

    #[resource("/")]
    impl Slow {
        #[get("/")]
        async fn slow(&self, upgrade: WebSocketUpgrade) -> Response {
            let permits = Arc::clone(&self.0);
            upgrade.on_upgrade(|mut socket| async move {
                while let Ok(permit) = permits.acquire().await {
                    permit.forget();
                    socket.recv().await;
                }
            })
        }
    }

    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let app = App::new().resource(Slow(Arc::clone(&permits)));
    let mut socket = app.test().get("/").websocket().await;
    let mut sent = 0;
    let mut flood = async || {
        while tokio::time::timeout(Duration::from_secs(1), socket.send(vec![0; 1 << 20]))
            .await
            .is_ok()
        {
            sent += 1;
            assert!(sent < 100, "nothing holds it back");
        }
    };
    flood().await;
    assert!(sent <= 2, "{sent} messages of a megabyte are held");
}
