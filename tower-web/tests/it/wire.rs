//! WebSockets, events and files over real connections.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tower_web::Server;
use tower_web::prelude::*;

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

#[get("/file")]
async fn file() -> File {
    File::new("file.txt", "0123456789")
}

/// A server, until it is told to end.
struct Running {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    served: JoinHandle<tower_web::Result>,
}

impl Running {
    async fn start() -> Self {
        let http2 = tower_h2::server::Builder::new().with_extended_connect();
        let settings = tower_hyper::Settings::new().with_http2(http2);
        let server = Server::bind("127.0.0.1:0")
            .await
            .unwrap()
            .with_settings(settings);
        let address = server.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let app = App::new().route(echo).route(silence).route(file);
        let served = tokio::spawn(app.serve_until(server, async {
            // Fails where the test has ended, which is an end as well.
            let _ = ended.await;
        }));
        Self {
            address,
            end,
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn websocket(&self) -> WebSocketStream<TcpStream> {
        let url = format!("ws://{}/echo", self.address);
        let connection = self.connect().await;
        tokio_tungstenite::client_async(url, connection)
            .await
            .unwrap()
            .0
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// What comes until nothing more does.
async fn read(mut connection: TcpStream) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_websocket_echoes_over_http1() {
    let server = Running::start().await;
    let mut socket = server.websocket().await;
    for frame in [Frame::text("hello"), Frame::binary(vec![7; 100_000])] {
        socket.send(frame.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), frame);
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert!(socket.next().await.is_none());
    drop(socket);
    server.end().await;
}

/// RFC 8441: the bodies of one exchange are the two ways. The frames are written by hand, as no client writes them.
#[tokio::test]
async fn a_websocket_echoes_over_http2() {
    let server = Running::start().await;
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        assert!(!connection.is_finished());
        tokio::task::yield_now().await;
        client = client.ready().await.unwrap();
    }
    let request = http::Request::connect(format!("http://{}/echo", server.address))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("origin", format!("http://{}", server.address))
        .body(())
        .unwrap();
    let (response, mut sender) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    // A text, with a mask that changes nothing.
    sender
        .send_data(bytes::Bytes::from_static(b"\x81\x85\0\0\0\0hello"), false)
        .unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), &b"\x81\x05hello"[..]);
    // Farewell, with code 1000.
    sender
        .send_data(bytes::Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), true)
        .unwrap();
    assert_eq!(
        body.data().await.unwrap().unwrap(),
        &b"\x88\x02\x03\xe8"[..]
    );
    // And no more but the end.
    while let Some(data) = body.data().await {
        assert!(data.unwrap().is_empty());
    }
    drop((client, sender, body));
    server.end().await;
    let _ = (&mut connection).await;
}

#[tokio::test]
async fn open_websockets_and_events_do_not_hold_the_shutdown_up() {
    let server = Running::start().await;
    let mut socket = server.websocket().await;
    socket.send(Frame::text("hello")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let mut events = server.connect().await;
    events
        .write_all(b"GET /silence HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    events.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    let told = tokio::spawn(async move {
        match socket.next().await {
            Some(Ok(Frame::Close(Some(close)))) => close.code,
            other => panic!("no farewell: {other:?}"),
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(10), server.end());
    ended.await.expect("the shutdown waits for what has no end");
    assert_eq!(told.await.unwrap(), CloseCode::Away);
    // The stream of events has an end, and isn't cut.
    assert!(read(events).await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_range_is_sent_with_its_length() {
    let server = Running::start().await;
    let mut connection = server.connect().await;
    let request =
        "GET /file HTTP/1.1\r\nhost: localhost\r\nrange: bytes=2-4\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let response = read(connection).await;
    assert!(
        response.starts_with("HTTP/1.1 206 Partial Content\r\n"),
        "{response}"
    );
    assert!(response.contains("\r\ncontent-length: 3\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n234"), "{response}");
    server.end().await;
}
