//! The other end of a WebSocket, for tests.

use std::future::poll_fn;
use std::pin::Pin;

use futures_channel::mpsc;
use futures_core::Stream;
use futures_sink::Sink;
use http::StatusCode;
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::handshake::Tunnelled;
use super::io::Io;
use super::{Closed, Message};
use crate::body::Body;
use crate::respond::Response;
use crate::testing::TestRequest;

impl TestRequest {
    /// Opens a WebSocket, in memory.
    ///
    /// # Panics
    ///
    /// Panics where the application doesn't open one.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_web::prelude::*;
    /// use tower_web::websocket::WebSocketUpgrade;
    ///
    /// #[get("/shout")]
    /// async fn shout(upgrade: WebSocketUpgrade) -> Response {
    ///     upgrade.on_upgrade(|mut socket| async move {
    ///         while let Some(message) = socket.recv().await {
    ///             let text = message.as_text().unwrap_or("?").to_uppercase();
    ///             if socket.send(text).await.is_err() {
    ///                 break;
    ///             }
    ///         }
    ///     })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut socket = App::new().route(shout).test().get("/shout").websocket().await;
    /// socket.send("hello").await;
    /// assert_eq!(socket.recv().await.unwrap().as_text(), Some("HELLO"));
    /// # }
    /// ```
    pub async fn websocket(self) -> TestWebSocket {
        match self.try_websocket().await {
            Ok(socket) => socket,
            Err(response) => panic!("no websocket was opened: {response:?}"),
        }
    }

    /// The same, for a test that it isn't opened.
    ///
    /// # Errors
    ///
    /// The response, where it isn't that which opens a WebSocket.
    pub async fn try_websocket(self) -> Result<TestWebSocket, Box<Response>> {
        let (outgoing, pieces) = mpsc::channel(1);
        let request = self.map(|request| {
            let version = HeaderValue::from_static("13");
            request.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
            request.extensions_mut().insert(Tunnelled);
            *request.body_mut() = Body::from_stream(pieces);
        });
        let response = request.stream().await;
        if response.status() != StatusCode::OK {
            return Err(Box::new(response));
        }
        let (head, body) = response.into_parts();
        let protocol = head.headers.get(SEC_WEBSOCKET_PROTOCOL);
        let protocol = protocol.and_then(|protocol| Some(protocol.to_str().ok()?.to_owned()));
        let io = Io::from_bodies(body, outgoing);
        Ok(TestWebSocket {
            frames: WebSocketStream::from_raw_socket(io, Role::Client, None).await,
            protocol,
            closed: None,
        })
    }
}

/// The client's end of a WebSocket in a test. [`TestRequest::websocket`] opens it.
///
/// It answers pings while it is [received](Self::recv) from, and only then: a test of a peer that has gone doesn't.
#[derive(Debug)]
pub struct TestWebSocket {
    frames: WebSocketStream<Io>,
    protocol: Option<String>,
    closed: Option<Closed>,
}

impl TestWebSocket {
    /// Sends a message, or text, or bytes.
    ///
    /// # Panics
    ///
    /// Panics where the connection has ended.
    pub async fn send(&mut self, message: impl Into<Message>) {
        let frame = message.into().into_frame();
        if let Err(error) = self.send_frame(frame).await {
            panic!("the message can't be sent: {error}");
        }
    }

    async fn send_frame(
        &mut self,
        frame: Frame,
    ) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        poll_fn(|cx| Pin::new(&mut self.frames).poll_ready(cx)).await?;
        Pin::new(&mut self.frames).start_send(frame)?;
        poll_fn(|cx| Pin::new(&mut self.frames).poll_flush(cx)).await
    }

    /// The next message, or `None` when the connection has ended.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            match poll_fn(|cx| Pin::new(&mut self.frames).poll_next(cx)).await {
                Some(Ok(Frame::Text(text))) => return Some(Message::Text(super::Text(text))),
                Some(Ok(Frame::Binary(bytes))) => return Some(Message::Binary(bytes)),
                Some(Ok(Frame::Close(frame))) => self.closed = Some(Closed::by_peer(frame)),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                Some(Err(_)) | None => {
                    self.closed.get_or_insert(Closed::Lost);
                    return None;
                }
            }
        }
    }

    /// Closes with this code, and waits until the application has agreed.
    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        if self.send_frame(Frame::Close(Some(frame))).await.is_ok() {
            while self.recv().await.is_some() {}
        }
    }

    /// Why the connection has ended, as the application told: after [`recv`](Self::recv) has returned `None`.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// The subprotocol that was agreed upon.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }
}
