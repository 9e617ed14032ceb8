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
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::mpsc;
use futures_core::Stream;
use futures_sink::Sink;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use self::driver::{Driver, Order};
use self::io::Io;
use crate::BoxError;
use crate::body::Body;
use crate::extract::{Extract, OptionalExtract, RequestHead, WholeBody};
use crate::problem::{Location, Rejection};
use crate::respond::{IntoResponse, Response};
use crate::shutdown::Shutdown;

mod driver;
mod io;
mod testing;
mod watch;

pub use testing::TestWebSocket;

/// A request that asks for a WebSocket. See the [module](self).
///
/// One that doesn't is refused with a 426, or a 400 where its handshake is malformed; `Option<WebSocketUpgrade>` is
/// `None` where none is asked for, for a path that has a page, too.
#[derive(Debug)]
#[must_use = "a socket is opened by what `on_upgrade` returns"]
pub struct WebSocketUpgrade {
    opening: Opening,
    /// What the client would speak, in its order.
    offered: Vec<String>,
    protocol: Option<HeaderValue>,
    origin: Origin,
    settings: Settings,
    shutdown: Option<Shutdown>,
}

/// How the client has asked.
#[derive(Debug)]
enum Opening {
    Upgrade {
        upgrade: OnUpgrade,
        /// The answer to the client's key.
        accept: HeaderValue,
    },
    Tunnel {
        incoming: Body,
    },
}

#[derive(Debug)]
enum Origin {
    /// Not a browser's, or of this site.
    Own,
    Other(HeaderValue),
}

#[derive(Debug, Clone)]
struct Settings {
    max_message: usize,
    ping_interval: Option<Duration>,
    pong_timeout: Duration,
}

const MAX_MESSAGE: usize = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a handler may go on after the connection has ended.
const GRACE: Duration = Duration::from_secs(30);
/// How many messages may wait to be sent.
const OUTBOX: usize = 8;
/// What is read at once. It is allocated for each connection, idle or not.
const READ_BUFFER: usize = 4 * 1024;
/// What is collected before it is written while there is more to come.
const WRITE_BUFFER: usize = 32 * 1024;

/// Of a request whose bodies are the two ways of a WebSocket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tunnelled;

/// Makes a `GET` of an extended CONNECT for a WebSocket (RFC 8441), so that it finds the route of both.
#[cfg(feature = "server")]
#[inline]
pub(crate) fn route_tunnel<B>(request: &mut http::Request<B>) {
    if *request.method() != Method::CONNECT {
        return;
    }
    let protocol = request.extensions().get::<tower_h2::Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")) {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(Tunnelled);
    }
}

impl Extract for WebSocketUpgrade {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let tunnelled = head.extensions.get::<Tunnelled>().is_some();
        if !tunnelled && !asks_for_upgrade(head) {
            return Err(upgrade_required("a WebSocket must be asked for here"));
        }
        if head
            .headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            // RFC 6455, section 4.4.
            return Err(
                upgrade_required("only version 13 of the protocol is spoken here")
                    .at(Location::Header, "sec-websocket-version")
                    .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            );
        }
        let opening = if tunnelled {
            Opening::Tunnel {
                // What bounds it are its messages.
                incoming: body.with_limit(u64::MAX),
            }
        } else {
            let accept = accept(&head.headers)?;
            let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
                return Err(Rejection::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "this connection can't be upgraded",
                ));
            };
            Opening::Upgrade { upgrade, accept }
        };
        Ok(Self {
            opening,
            offered: tokens(&head.headers, &SEC_WEBSOCKET_PROTOCOL)
                .map(str::to_owned)
                .collect(),
            protocol: None,
            origin: Origin::of(&head.headers, &head.uri),
            settings: Settings {
                max_message: MAX_MESSAGE,
                ping_interval: Some(PING_INTERVAL),
                pong_timeout: PONG_TIMEOUT,
            },
            shutdown: head.shutdown(),
        })
    }
}

impl OptionalExtract for WebSocketUpgrade {
    async fn extract_optional(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        if head.extensions.get::<Tunnelled>().is_none() && !asks_for_upgrade(head) {
            return Ok(None);
        }
        Self::extract(head, body).await.map(Some)
    }
}

fn upgrade_required(detail: &'static str) -> Rejection {
    Rejection::new(StatusCode::UPGRADE_REQUIRED, detail)
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(CONNECTION, HeaderValue::from_static("upgrade"))
}

fn asks_for_upgrade(head: &RequestHead) -> bool {
    let has = |name: HeaderName, token: &str| {
        tokens(&head.headers, &name).any(|own| own.eq_ignore_ascii_case(token))
    };
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && has(CONNECTION, "upgrade")
        && has(UPGRADE, "websocket")
}

/// The members of a list of tokens.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The proof that the handshake was understood. The key is 16 bytes in base64, of which nothing is made but this.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Rejection> {
    let refuse = |detail: &'static str| {
        Rejection::new(StatusCode::BAD_REQUEST, detail).at(Location::Header, "sec-websocket-key")
    };
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(refuse("must be there once"));
    };
    let key = key.as_bytes();
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/".contains(b);
    if key.len() != 24 || !key.ends_with(b"==") || !key[..22].iter().all(base64) {
        return Err(refuse("isn't 16 bytes in base64"));
    }
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| refuse("isn't 16 bytes in base64"))
}

impl Origin {
    /// Whether a browser's page is of the host that it asks.
    ///
    /// The scheme isn't compared: it ends where TLS does, which may be before this server.
    fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let Some(origin) = headers.get(ORIGIN) else {
            return Self::Own;
        };
        let host = match (uri.authority(), headers.get(HOST)) {
            (Some(authority), _) => Some(authority.as_str()),
            (None, host) => host.and_then(|host| host.to_str().ok()),
        };
        let site = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, site)| site);
        match (site, host) {
            (Some(site), Some(host)) if site.eq_ignore_ascii_case(host) => Self::Own,
            _ => Self::Other(origin.clone()),
        }
    }
}

impl WebSocketUpgrade {
    /// With another bound of a message, in bytes. A peer that sends more is closed with 1009.
    pub const fn with_max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// Asks for a sign of life after so long a silence.
    pub const fn with_ping_interval(mut self, silence: Duration) -> Self {
        self.settings.ping_interval = Some(silence);
        self
    }

    /// Closes a peer that gives no sign of life for so long after it was asked, or takes nothing of what is sent for
    /// so long.
    pub const fn with_pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// Never asks for signs of life: a peer that has gone without a word is kept until something is sent to it.
    pub const fn without_pings(mut self) -> Self {
        self.settings.ping_interval = None;
        self
    }

    /// Lets the pages of this site in, too: a scheme, a host, and a port where it isn't the scheme's own, as
    /// `https://app.example.com`.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        if matches!(&self.origin, Origin::Other(other) if other.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        {
            self.origin = Origin::Own;
        }
        self
    }

    /// Lets the pages of any site in. Only where nothing depends on a cookie, or on where the client is.
    pub fn allow_any_origin(mut self) -> Self {
        self.origin = Origin::Own;
        self
    }

    /// Speaks one of these subprotocols: the first that the client speaks, too. Without one in common the socket is
    /// opened all the same, and it is the client's to close it.
    pub fn with_protocols<P>(mut self, protocols: P) -> Self
    where
        P: IntoIterator,
        P::Item: AsRef<str>,
    {
        self.protocol = protocols
            .into_iter()
            .find(|own| self.offered.iter().any(|offered| offered == own.as_ref()))
            .and_then(|own| HeaderValue::from_str(own.as_ref()).ok());
        self
    }

    /// The subprotocols that the client speaks, in its order.
    pub fn offered_protocols(&self) -> &[String] {
        &self.offered
    }

    /// The response that opens the socket, which is then given to the handler in a task of its own.
    ///
    /// The handler returns nothing, or a `Result`. Its failure is logged, unless it only says that the peer has
    /// [closed](Closed).
    ///
    /// **Cancellation.** The handler is dropped 30 seconds after the connection has ended, if it still runs.
    pub fn on_upgrade<F, Fut>(self, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        if let Origin::Other(origin) = &self.origin {
            tracing::warn!(?origin, "a websocket is refused to a page of another site");
            return Rejection::new(StatusCode::FORBIDDEN, "pages of this site aren't let in")
                .at(Location::Header, "origin")
                .into_response();
        }
        let protocol = self.protocol;
        let open = Open {
            settings: self.settings,
            protocol: protocol
                .as_ref()
                .and_then(|protocol| Some(protocol.to_str().ok()?.to_owned())),
            shutdown: self.shutdown,
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        match self.opening {
            Opening::Upgrade { upgrade, accept } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok(connection) => open.run(Io::upgraded(connection), handler).await,
                        Err(error) => tracing::debug!(%error, "a websocket's client went away"),
                    }
                });
            }
            Opening::Tunnel { incoming } => {
                let (io, outgoing) = Io::tunnel(incoming);
                *response.body_mut() = outgoing;
                tokio::spawn(open.run(io, handler));
            }
        }
        response
    }
}

/// A socket that is about to be opened.
struct Open {
    settings: Settings,
    protocol: Option<String>,
    shutdown: Option<Shutdown>,
}

impl Open {
    async fn run<F, Fut>(self, io: Io, handler: F)
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future,
        Fut::Output: Outcome,
    {
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.settings.max_message))
            .max_frame_size(Some(self.settings.max_message))
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER);
        let frames =
            WebSocketStream::from_raw_socket(io.watched(), Role::Server, Some(config)).await;
        let (orders, outbox) = mpsc::channel(OUTBOX);
        // A channel has room for one message more than is asked for.
        let (inbox, messages) = mpsc::channel(0);
        let reason = Arc::new(OnceLock::new());
        // An application that ends waits for whoever holds it.
        let _until_the_end = self.shutdown.clone();
        let driver = Driver::new(
            frames,
            &self.settings,
            outbox,
            inbox,
            Arc::clone(&reason),
            self.shutdown,
        );
        let socket = WebSocket {
            sender: WebSocketSender {
                orders: orders.clone(),
                reason: Arc::clone(&reason),
            },
            receiver: WebSocketReceiver { messages, reason },
            protocol: self.protocol,
        };
        let handler = supervise(move || handler(socket), orders);
        let mut driver = pin!(driver.run());
        let mut handler = pin!(handler);
        // Both in one task: a message goes from one to the other without another thread's help.
        let mut handled = false;
        poll_fn(|cx| {
            let driven = driver.as_mut().poll(cx);
            handled = handled || handler.as_mut().poll(cx).is_ready();
            driven
        })
        .await;
        if !handled && timeout(GRACE, handler).await.is_err() {
            tracing::warn!(
                "a websocket's handler is dropped, as it went on after the connection had ended"
            );
        }
    }
}

/// Runs a handler, and closes with 1011 if it fails.
async fn supervise<F, Fut>(handler: F, mut orders: mpsc::Sender<Order>)
where
    F: FnOnce() -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    let outcome = {
        let Ok(handler) = catch_unwind(AssertUnwindSafe(handler)) else {
            return fail(&mut orders).await;
        };
        let mut handler = pin!(handler);
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
                // The panic has printed itself.
                Err(_) => Poll::Ready(None),
            },
        )
        .await
    };
    match outcome.map(Outcome::into_result) {
        Some(Ok(())) => {}
        Some(Err(error)) if error.is::<Closed>() => {}
        Some(Err(error)) => {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "a websocket's handler failed"
            );
            fail(&mut orders).await;
        }
        None => {
            tracing::error!("a websocket's handler panicked");
            fail(&mut orders).await;
        }
    }
}

async fn fail(orders: &mut mpsc::Sender<Order>) {
    let order = Order::Close {
        code: 1011,
        reason: String::new(),
    };
    // If nobody takes it, the connection has ended already.
    if poll_fn(|cx| orders.poll_ready(cx)).await.is_ok() {
        let _ = orders.start_send(order);
    }
}

/// What the handler of a WebSocket may return: nothing, or a `Result`.
#[diagnostic::on_unimplemented(
    message = "the handler of a WebSocket can't return `{Self}`",
    note = "return `()`, or `Result<(), E>` with any error"
)]
pub trait Outcome: Send {
    /// Whether it went well.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError> + Send> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

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

/// A message, whole, however many frames it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// A value as JSON, in a message of text.
    ///
    /// # Errors
    ///
    /// Fails where the value can't be written as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Ok(serde_json::to_string(value)?.into())
    }

    /// The value whose JSON the message is.
    ///
    /// # Errors
    ///
    /// Fails where it isn't JSON, or doesn't fit `T`.
    pub fn to_json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.as_bytes())
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Binary(_) => None,
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    fn into_frame(self) -> Frame {
        match self {
            Self::Text(text) => Frame::Text(text.0),
            Self::Binary(bytes) => Frame::Binary(bytes),
        }
    }
}

/// Text in shared memory: to clone it, or to send on what was received, copies nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
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

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn same_site(origin: &'static str, host: &'static str) -> bool {
        let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
        matches!(Origin::of(&headers, &Uri::from_static("/ws")), Origin::Own)
    }

    #[test]
    fn a_page_is_of_this_site_if_its_host_and_port_are() {
        assert!(same_site("https://example.com", "example.com"));
        assert!(same_site("http://Example.com:8080", "example.com:8080"));
        assert!(same_site("http://[::1]:80", "[::1]:80"));
        assert!(!same_site("https://evil.example", "example.com"));
        assert!(!same_site(
            "https://example.com.evil.example",
            "example.com"
        ));
        assert!(!same_site("http://example.com:8081", "example.com:8080"));
        assert!(!same_site("null", "example.com"));
        assert!(!same_site("", ""));
    }

    #[test]
    fn the_authority_of_http2_stands_for_the_host() {
        let headers = headers(&[(ORIGIN, "https://example.com")]);
        let uri = Uri::from_static("https://example.com/ws");
        assert!(matches!(Origin::of(&headers, &uri), Origin::Own));
        assert!(matches!(
            Origin::of(&headers, &Uri::from_static("/ws")),
            Origin::Other(_)
        ));
    }

    /// RFC 6455, section 1.3.
    #[test]
    fn the_key_is_answered_as_in_the_specification() {
        let headers = headers(&[(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_that_is_not_one_is_refused() {
        for key in [
            "",
            "short==",
            "dGhlIHNhbXBsZSBub25jZQ=!",
            "dGhlIHNhbXBs ZSBub25jZ==!",
        ] {
            assert!(
                accept(&headers(&[(SEC_WEBSOCKET_KEY, key)])).is_err(),
                "{key}"
            );
        }
        assert_eq!(
            accept(&HeaderMap::new()).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn codes_that_must_not_be_sent_are_not() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2000, 5000] {
            assert_eq!(allowed(code), 1000);
        }
        assert_eq!(allowed(3000), 3000);
        assert_eq!(allowed(1008), 1008);
    }
}
