//! WebSockets (RFC 6455), over HTTP/1.1 and, where the server takes extended CONNECT (RFC 8441), over HTTP/2.
//!
//! A handler takes a [`WebSocketUpgrade`], and says what to do with the socket:
//!
//! ```
//! use tower_web::respond::Response;
//! use tower_web::websocket::WebSocketUpgrade;
//!
//! async fn echo(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(|mut socket| async move {
//!         while let Some(message) = socket.recv().await {
//!             socket.send(message).await?;
//!         }
//!         Ok::<_, tower_web::websocket::Closed>(())
//!     })
//! }
//! # let _ = echo;
//! ```
//!
//! # What it does by itself
//!
//! - A page of another site is refused with a 403: browsers send cookies along with it, so it could act in the user's
//!   name ([`allow_origin`](WebSocketUpgrade::allow_origin) makes exceptions). Who sends no `Origin` isn't a browser.
//! - A message has at most 1 MiB, or [what you say](WebSocketUpgrade::with_max_message).
//! - A peer that is silent for 20 seconds is asked for a sign of life, and closed if it gives none within 20 more; so
//!   is one that takes nothing of what is sent to it. The handler needn't do anything for that.
//! - A handler that is slow holds its peer back: one message waits for it, and eight on their way out.
//! - When the handler ends, the closing handshake is done with code 1000; when it fails or panics, with 1011; when the
//!   application shuts down, with 1001. A handler that doesn't notice that its peer has gone is dropped after 30 seconds.
//!
//! # When not to use it
//!
//! Where only the server has something to say: [events](crate::sse) are plain HTTP, and a browser connects anew by itself.
//!
//! # What it costs
//!
//! A task, some 10 KiB of buffers, and one hand-over between the connection and the handler for each message, within the
//! task. Compression of messages (RFC 7692) isn't offered.

use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_channel::mpsc;
use futures_core::Stream;
use futures_sink::Sink;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use self::driver::Order;

mod driver;
mod handshake;
mod io;
mod message;
mod session;
mod testing;
mod watch;

pub use handshake::WebSocketUpgrade;
#[cfg(feature = "http2")]
pub(crate) use handshake::route_tunnel;
pub use message::{Message, Text};
pub use session::Outcome;
pub use testing::TestWebSocket;

/// An open socket: a stream and a sink of [messages](Message). Pings, pongs and the closing handshake aren't among them.
///
/// **Cancellation.** Dropping it closes the connection with code 1000, once what was sent has gone out.
#[derive(Debug)]
pub struct WebSocket {
    sender: WebSocketSender,
    receiver: WebSocketReceiver,
    protocol: Option<String>,
}

impl WebSocket {
    /// The next message, or `None` when the connection has ended.
    ///
    /// **Cancellation.** Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }

    /// Sends a message, or text, or bytes. It waits while the peer is slow.
    ///
    /// **Cancellation.** If the future is dropped, the message isn't sent.
    ///
    /// # Errors
    ///
    /// Fails when the connection has ended, and tells why.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Closed> {
        self.sender.send(message).await
    }

    /// Closes the connection: a code (1000, or 3000–4999 for your own) and a reason of at most 123 bytes. What was sent
    /// goes out before.
    pub async fn close(mut self, code: u16, reason: impl Into<String>) {
        self.sender.close(code, reason).await;
    }

    /// Why the connection has ended. `None` while it hasn't.
    pub fn closed(&self) -> Option<&Closed> {
        self.sender.closed()
    }

    /// The subprotocol that was agreed upon.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Both halves, for tasks that send and receive at once. Senders can be cloned.
    pub fn split(self) -> (WebSocketSender, WebSocketReceiver) {
        (self.sender, self.receiver)
    }
}

/// Sends to a [`WebSocket`]. When the last of its clones and the handler are gone, the connection is closed.
#[derive(Debug, Clone)]
pub struct WebSocketSender {
    orders: mpsc::Sender<Order>,
    reason: Arc<OnceLock<Closed>>,
}

impl WebSocketSender {
    /// As [`WebSocket::send`].
    ///
    /// # Errors
    ///
    /// Fails when the connection has ended, and tells why.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Closed> {
        poll_fn(|cx| Pin::new(&mut *self).poll_ready(cx)).await?;
        Pin::new(self).start_send(message.into())
    }

    /// As [`WebSocket::close`].
    pub async fn close(&mut self, code: u16, reason: impl Into<String>) {
        let order = Order::Close {
            code: allowed(code),
            reason: reason.into(),
        };
        if poll_fn(|cx| self.orders.poll_ready(cx)).await.is_ok() {
            let _ = self.orders.start_send(order);
        }
    }

    /// Why the connection has ended. `None` while it hasn't.
    pub fn closed(&self) -> Option<&Closed> {
        self.reason.get()
    }

    fn ended(&self) -> Closed {
        self.closed().cloned().unwrap_or(Closed::Lost)
    }
}

/// Codes that mustn't be sent become 1000.
const fn allowed(code: u16) -> u16 {
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => code,
        _ => 1000,
    }
}

impl Sink<Message> for WebSocketSender {
    type Error = Closed;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let ready = ready!(self.orders.poll_ready(cx));
        Poll::Ready(ready.map_err(|_| self.ended()))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Closed> {
        let sent = self.orders.start_send(Order::Send(message));
        sent.map_err(|_| self.ended())
    }

    /// Messages are sent without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.orders.disconnect();
        Poll::Ready(Ok(()))
    }
}

/// Receives from a [`WebSocket`]. Once it is dropped, messages are read and thrown away.
#[derive(Debug)]
pub struct WebSocketReceiver {
    messages: mpsc::Receiver<Message>,
    reason: Arc<OnceLock<Closed>>,
}

impl WebSocketReceiver {
    /// As [`WebSocket::recv`].
    pub async fn recv(&mut self) -> Option<Message> {
        poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx)).await
    }

    /// Why the connection has ended. `None` while it hasn't.
    pub fn closed(&self) -> Option<&Closed> {
        self.reason.get()
    }
}

impl Stream for WebSocketReceiver {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        Pin::new(&mut self.messages).poll_next(cx)
    }
}

impl Stream for WebSocket {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

impl Sink<Message> for WebSocket {
    type Error = Closed;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.sender).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Closed> {
        Pin::new(&mut self.sender).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.sender).poll_close(cx)
    }
}

/// Why a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The peer has closed it, with this code (1005: none) and reason.
    ByPeer {
        /// RFC 6455, section 7.4.
        code: u16,
        /// The peer's words.
        reason: String,
    },
    /// The handler has closed it, or has ended.
    ByHandler {
        /// RFC 6455, section 7.4.
        code: u16,
        /// The handler's words.
        reason: String,
    },
    /// The application shuts down.
    ByShutdown,
    /// The peer gave no sign of life, or took nothing of what was sent to it.
    Unresponsive,
    /// The peer sent a message that is too large.
    TooLarge {
        /// How many bytes may be.
        limit: usize,
    },
    /// The peer sent text that isn't UTF-8.
    NotUtf8,
    /// The peer broke the protocol.
    Malformed(Cow<'static, str>),
    /// The connection broke off, or the peer closed it without a word.
    Lost,
}

impl Closed {
    fn by_peer(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::ByPeer {
                code: frame.code.into(),
                reason: frame.reason.as_str().to_owned(),
            },
            // RFC 6455, section 7.1.5.
            None => Self::ByPeer {
                code: 1005,
                reason: String::new(),
            },
        }
    }

    /// What the peer is told, if it can be.
    fn farewell(&self) -> Option<(u16, String)> {
        match self {
            // It is answered with its own.
            Self::ByPeer { .. } | Self::Lost => None,
            Self::ByHandler { code, reason } => Some((*code, reason.clone())),
            Self::ByShutdown => Some((1001, "the server shuts down".to_owned())),
            Self::Unresponsive => Some((1001, "no sign of life".to_owned())),
            Self::TooLarge { .. } => Some((1009, self.to_string())),
            Self::NotUtf8 => Some((1007, self.to_string())),
            Self::Malformed(_) => Some((1002, String::new())),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer { code, reason } if reason.is_empty() => {
                write!(f, "the peer closed the connection with code {code}")
            }
            Self::ByPeer { code, reason } => {
                write!(
                    f,
                    "the peer closed the connection with code {code}: {reason}"
                )
            }
            Self::ByHandler { code, .. } => {
                write!(f, "the handler closed the connection with code {code}")
            }
            Self::ByShutdown => f.write_str("the application shuts down"),
            Self::Unresponsive => f.write_str("the peer gave no sign of life"),
            Self::TooLarge { limit } => write!(f, "a message is larger than {limit} bytes"),
            Self::NotUtf8 => f.write_str("a text isn't UTF-8"),
            Self::Malformed(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::Lost => f.write_str("the connection was lost"),
        }
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_must_not_be_sent_are_not() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2000, 5000] {
            assert_eq!(allowed(code), 1000);
        }
        assert_eq!(allowed(3000), 3000);
        assert_eq!(allowed(1008), 1008);
    }
}
