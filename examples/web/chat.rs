//! A chat: what one page says, all pages hear, by WebSockets.
//!
//! ```sh
//! cargo run --example chat
//! ```
//!
//! Then open <http://127.0.0.1:8080> in two windows.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tower_web::prelude::*;
use tower_web::websocket::Closed;

/// Where everybody hears everybody.
struct Room {
    lines: broadcast::Sender<Line>,
}

/// What a page sends.
#[derive(Deserialize)]
struct Said {
    text: String,
}

/// What all pages hear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    from: String,
    text: String,
}

/// Who joins, by `?name=`.
#[derive(Deserialize)]
struct Guest {
    name: String,
}

#[resource("/")]
impl Room {
    #[get("/")]
    async fn page(&self) -> Html<&'static str> {
        Html(include_str!("pages/chat.html"))
    }

    #[get("/chat")]
    async fn join(&self, guest: Query<Guest>, upgrade: WebSocketUpgrade) -> Response {
        let name = guest.into_inner().name;
        let lines = self.lines.clone();
        upgrade
            .with_max_message(4096)
            .on_upgrade(|socket| talk(socket, name, lines))
    }
}

/// Passes on what the guest says, and tells the guest what is said, until the guest leaves.
async fn talk(
    mut socket: WebSocket,
    name: String,
    lines: broadcast::Sender<Line>,
) -> Result<(), Closed> {
    let mut heard = lines.subscribe();
    let say = |text: &str| {
        let line = Line {
            from: name.clone(),
            text: text.to_owned(),
        };
        // Fails where nobody listens.
        let _ = lines.send(line);
    };
    say("has joined");
    loop {
        tokio::select! {
            message = socket.recv() => match message.map(|message| message.to_json::<Said>()) {
                Some(Ok(said)) => say(&said.text),
                Some(Err(_)) => {
                    socket.close(1008, "not a message of this chat").await;
                    break;
                }
                None => break,
            },
            line = heard.recv() => match line {
                Ok(line) => {
                    if let Ok(message) = Message::json(&line) {
                        socket.send(message).await?;
                    }
                }
                // A guest who is slow misses something.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
        }
    }
    say("has left");
    Ok(())
}

fn app() -> App {
    let lines = broadcast::channel(64).0;
    App::new().resource(Room { lines })
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    println!("http://127.0.0.1:8080");
    app().serve("127.0.0.1:8080").await
}

#[cfg(test)]
mod tests {
    use tower_web::testing::TestClient;
    use tower_web::websocket::TestWebSocket;

    use super::*;

    async fn join(client: &TestClient, name: &str) -> TestWebSocket {
        let mut socket = client.get(&format!("/chat?name={name}")).websocket().await;
        assert_eq!(hear(&mut socket).await, line(name, "has joined"));
        socket
    }

    async fn hear(socket: &mut TestWebSocket) -> Line {
        socket.recv().await.unwrap().to_json().unwrap()
    }

    fn line(from: &str, text: &str) -> Line {
        Line {
            from: from.to_owned(),
            text: text.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_says_all_hear() {
        let client = app().test();
        let mut ann = join(&client, "Ann").await;
        let mut bob = join(&client, "Bob").await;
        assert_eq!(hear(&mut ann).await, line("Bob", "has joined"));

        bob.send(r#"{"text":"hello"}"#).await;
        assert_eq!(hear(&mut ann).await, line("Bob", "hello"));
        assert_eq!(hear(&mut bob).await, line("Bob", "hello"));
        bob.close(1000).await;
        assert_eq!(hear(&mut ann).await, line("Bob", "has left"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_something_else_is_shown_out() {
        let mut ann = join(&app().test(), "Ann").await;
        ann.send("hello").await;
        assert!(ann.recv().await.is_none());
        assert!(matches!(
            ann.closed(),
            Some(Closed::ByPeer { code: 1008, .. })
        ));
    }

    #[tokio::test]
    async fn who_has_no_name_is_not_let_in() {
        let problem = app().test().get("/chat").await.assert_problem(400);
        assert_eq!(problem["errors"][0]["name"], "name");
    }
}
