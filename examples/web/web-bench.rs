//! What is measured: the smallest handlers there are, on as many threads as you like.
//!
//! ```sh
//! cargo run --release --example web-bench -- --listen 127.0.0.1:8080 --workers 2 --bare
//! ```
//!
//! `--bare` turns off what production needs and a benchmark of the rest doesn't: all but the detection of the protocol, the
//! deadline of the first head, and the drain.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tower_web::Workers;
use tower_web::prelude::*;
use tower_web::sse::Event;

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    message: String,
}

#[derive(Serialize)]
struct Greeting {
    message: &'static str,
}

#[get("/")]
async fn index() -> &'static str {
    "Hello, World!"
}

#[get("/json")]
async fn json() -> Json<Greeting> {
    Json(Greeting {
        message: "Hello, World!",
    })
}

#[get("/users/{id}")]
async fn user(id: u64) -> String {
    format!("user {id}")
}

#[post("/echo")]
async fn echo(message: Json<Message>) -> Json<Message> {
    message
}

#[get("/ws")]
async fn ws(upgrade: WebSocketUpgrade) -> Response {
    // The largest messages of the Autobahn test suite have 16 MiB.
    let upgrade = upgrade.with_max_message(64 << 20);
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(message) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

#[get("/events")]
async fn events() -> impl IntoResponse {
    let mut count = 0;
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
    Sse::new(ticks.map(move |_| {
        count += 1;
        Event::new(count.to_string())
    }))
}

/// Counts bytes, of which there may be as many as the client likes.
#[post("/upload")]
#[body_limit(u64::MAX)]
#[handler_timeout(None)]
async fn upload(mut body: BodyStream) -> Result<String, Problem> {
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await? {
        bytes += chunk.len();
    }
    Ok(bytes.to_string())
}

#[get("/slow/{ms}")]
async fn slow(ms: u64) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("slept {ms} ms")
}

#[get("/panic")]
async fn panics() -> &'static str {
    panic!("as asked for")
}

fn app(bare: bool) -> App {
    let app = if bare { App::bare() } else { App::new() };
    app.route(index)
        .route(json)
        .route(user)
        .route(echo)
        .route(ws)
        .route(events)
        .route(upload)
        .route(slow)
        .route(panics)
}

/// What the command line says.
#[derive(Debug, PartialEq)]
struct Options {
    listen: String,
    workers: usize,
    bare: bool,
}

impl Options {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            listen: "127.0.0.1:8080".to_owned(),
            workers: 1,
            bare: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match &*argument {
                "--listen" => options.listen = value()?,
                "--workers" => {
                    options.workers = value()?.parse().map_err(|_| "--workers needs a number")?
                }
                "--bare" => options.bare = true,
                other => {
                    return Err(format!(
                        "unknown: {other}; there are --listen, --workers and --bare"
                    ));
                }
            }
        }
        Ok(options)
    }
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    let options = Options::parse(std::env::args().skip(1))?;
    let app = app(options.bare);
    let server = tower_web::bind(&options.listen).await?;
    let server = app.current_defaults().set_up(server);
    app.serve_on_workers(server, Workers::new(options.workers))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_route_answers() {
        let client = app(false).test();
        client.get("/").await.assert_text("Hello, World!");
        client
            .get("/json")
            .await
            .assert_text(r#"{"message":"Hello, World!"}"#);
        client.get("/users/7").await.assert_text("user 7");
        let message = Message {
            message: "hi".into(),
        };
        client
            .post("/echo")
            .json(&message)
            .await
            .assert_json(&message);
        client
            .post("/upload")
            .body(vec![0; 3_000_000])
            .await
            .assert_text("3000000");
        client.get("/slow/2000").await.assert_text("slept 2000 ms");
        client.get("/panic").await.assert_problem(500);
    }

    #[test]
    fn options_are_read() {
        let read = |line: &str| Options::parse(line.split(' ').map(str::to_owned));
        let options = read("--listen 0.0.0.0:1 --workers 2 --bare").unwrap();
        assert_eq!(
            (&*options.listen, options.workers, options.bare),
            ("0.0.0.0:1", 2, true)
        );
        assert!(read("--workers").is_err());
        assert!(read("--fast").is_err());
    }
}
