//! How a server begins, and how it ends.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tower_hyper::Handle;
use tower_web::prelude::*;
use tower_web::{ListenError, Server};

#[get("/echo")]
async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(message) = socket.recv().await {
            socket.send(message).await?;
        }
        Ok::<_, tower_web::websocket::Closed>(())
    })
}

#[get("/silence")]
async fn silence() -> Sse<tokio_stream::Pending<Event>> {
    Sse::new(tokio_stream::pending())
}

/// Tells when the shutdown has begun.
#[get("/wait")]
async fn wait(mut shutdown: Shutdown) -> &'static str {
    shutdown.wait().await;
    "it ends"
}

async fn start(drain: Duration) -> (SocketAddr, Handle, JoinHandle<tower_web::Result>) {
    let app = App::new()
        .route(echo)
        .route(silence)
        .route(wait)
        .defaults(|defaults| defaults.drain_timeout(drain));
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let server = app.current_defaults().set_up(server);
    let address = server.local_addr().unwrap();
    let handle = server.handle();
    let served = tokio::spawn(app.serve_until(server, std::future::pending()));
    (address, handle, served)
}

#[tokio::test]
async fn a_taken_port_is_told_in_words() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = App::new().serve(address).await.unwrap_err();
    let error = error.downcast::<ListenError>().unwrap();
    assert_eq!(error.addresses(), [address]);
    let text = format!("{error:?}");
    assert!(
        text.starts_with(&format!(
            "can't listen on {address} (another process listens there: "
        )),
        "{text}"
    );
    assert!(!text.contains("Os {"), "{text}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn what_is_no_address_is_told_in_words() {
    let error = App::new().serve("nonsense").await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.starts_with("can't find the address to listen on"),
        "{text}"
    );
}

#[tokio::test]
async fn a_handle_of_the_server_tells_handlers_too() {
    let (address, handle, served) = start(Duration::from_secs(30)).await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting
        .write_all(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut events = TcpStream::connect(address).await.unwrap();
    events
        .write_all(b"GET /silence HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    // Its head tells that the handler runs; that of the other can't, and it came before.
    events.read_exact(&mut [0; 15]).await.unwrap();
    while handle.connections() < 2 {
        tokio::task::yield_now().await;
    }
    handle.shutdown();
    let ended = tokio::time::timeout(Duration::from_secs(10), served);
    ended.await.expect("nobody has told them").unwrap().unwrap();
    let mut response = String::new();
    waiting.read_to_string(&mut response).await.unwrap();
    assert!(response.ends_with("it ends"), "{response}");
}

#[tokio::test]
async fn a_websocket_whose_peer_does_not_answer_is_cut_with_the_rest() {
    let (address, handle, served) = start(Duration::from_millis(200)).await;
    let connection = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/echo");
    let (mut socket, _) = tokio_tungstenite::client_async(url, connection)
        .await
        .unwrap();
    socket.send(Frame::text("hello")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    // From here on it neither reads nor writes.
    handle.shutdown();
    let ended = tokio::time::timeout(Duration::from_secs(3), served);
    ended.await.expect("it is waited for").unwrap().unwrap();
}
