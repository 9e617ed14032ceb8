//! Sends requests over HTTP/2 connections.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tower_service::Service;

use crate::clockwork::Times;
use crate::fields::{announce_length, announced_length, strip_connection_fields};
use crate::gate::{Gate, Line};
use crate::send_body::{SendBody, SendBuf};
use crate::upkeep::{Chore, Upkeep};
use crate::wiretap::{Allowance, Notes, Wiretap};
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many streams are opened before the peer has said how many it allows (RFC 9113, section 6.5.2).
const INITIAL_STREAMS: usize = 100;

/// How many frames that bring nothing, and resets, a server may send at once.
const IDLE_FRAMES: u32 = 10_000;
const RESETS: u32 = 10_000;

/// How long a frame may be: large messages then take few of them, and few writes.
const FRAME: u32 = 64 * 1024;

/// How much of a body, and of all of them, may be unread, where nobody says otherwise.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The largest window of RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The limits and settings of the connections that a client makes.
///
/// [`handshake`](Self::handshake) turns a byte stream into a [`Connection`] and the [`Driver`] that it
/// needs; [`Connect`] does so for all streams that a connector makes.
#[derive(Debug, Clone)]
pub struct Builder {
    h2: h2::client::Builder,
    origin: Option<Origin>,
    times: Times,
    /// The connection's window, and whether it follows the path.
    window: u32,
    adaptive: bool,
}

/// What a request that names no server is sent to.
#[derive(Debug, Clone)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        let mut h2 = h2::client::Builder::new();
        h2.enable_push(false)
            .initial_max_send_streams(INITIAL_STREAMS)
            .max_frame_size(FRAME)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(16 * 1024);
        Self {
            h2,
            origin: None,
            times: Times {
                keep_alive_timeout: Duration::from_secs(20),
                write: Some(Duration::from_secs(30)),
                ..Times::default()
            },
            window: CONNECTION_WINDOW,
            adaptive: false,
        }
    }

    /// Sends requests whose URI is only a path to the scheme and authority of `origin`.
    ///
    /// Nothing happens where `origin` has none. Without an origin such requests have the scheme `http`
    /// and no authority, which many servers refuse.
    #[must_use]
    pub fn with_origin(mut self, origin: &Uri) -> Self {
        if let (Some(scheme), Some(authority)) = (origin.scheme(), origin.authority()) {
            self.origin = Some(Origin {
                scheme: scheme.clone(),
                authority: authority.clone(),
            });
        }
        self
    }

    /// How many bytes of a response's body may be unread, at most 2³¹ − 1; 1 MiB by default.
    #[must_use]
    pub fn with_initial_stream_window(mut self, bytes: u32) -> Self {
        self.h2.initial_window_size(bytes.min(MAX_WINDOW));
        self
    }

    /// How many bytes of all bodies of a connection may be unread, at most 2³¹ − 1; 4 MiB by default.
    #[must_use]
    pub fn with_initial_connection_window(mut self, bytes: u32) -> Self {
        self.window = bytes.min(MAX_WINDOW);
        self.h2.initial_connection_window_size(self.window);
        self
    }

    /// Lets the windows follow the path, from the initial ones up to 16 MiB; off by default.
    ///
    /// The windows grow where what a round trip brings fills them: a PING is sent beside arriving
    /// data, as gRPC does to estimate the product of bandwidth and delay.
    #[must_use]
    pub fn with_adaptive_windows(mut self) -> Self {
        self.adaptive = true;
        self
    }

    /// After how long without a byte from the peer it is sent a PING while requests are under way; never
    /// by default. Without an answer in time the connection fails.
    ///
    /// Servers may end connections that send them too often; gRPC's take one in five minutes.
    #[must_use]
    pub fn with_keep_alive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.times.keep_alive = interval.into();
        self
    }

    /// How long the peer may take to answer the PING, or to send anything; 20 s by default.
    #[must_use]
    pub fn with_keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.times.keep_alive_timeout = timeout;
        self
    }

    /// Sends PINGs while no request is under way, too.
    #[must_use]
    pub fn with_keep_alive_while_idle(mut self) -> Self {
        self.times.keep_alive_while_idle = true;
        self
    }

    /// How long bytes may wait to be sent without the peer taking any; 30 s by default, `None` is no bound.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.write = timeout.into();
        self
    }

    /// How long a frame may be, from 16 KiB to 16 MiB − 1; 64 KiB by default.
    #[must_use]
    pub fn with_max_frame_size(mut self, bytes: u32) -> Self {
        self.h2
            .max_frame_size(bytes.clamp(16 * 1024, (1 << 24) - 1));
        self
    }

    /// How long a response's header fields may be together, in octets as RFC 9113, section 6.5.2 counts
    /// them; 16 KiB by default.
    #[must_use]
    pub fn with_max_header_list_size(mut self, octets: u32) -> Self {
        self.h2.max_header_list_size(octets);
        self
    }

    /// Begins a connection on `io`: gives the handle that sends requests, and the driver that must be
    /// polled for them to move.
    ///
    /// It only sends; that the peer speaks HTTP/2 shows when the first response does, or doesn't.
    ///
    /// # Errors
    ///
    /// [`Error`], where `io` fails.
    pub async fn handshake<IO, B>(&self, io: IO) -> Result<(Connection<B>, Driver<IO, B>), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        B: Body,
    {
        let io = Wiretap::client(io, Allowance::new(IDLE_FRAMES, RESETS));
        let notes = io.notes();
        let (send, mut h2) = self.h2.handshake(io).await.map_err(Error::from_h2)?;
        let shared = Arc::new(Shared {
            gate: Gate::new(INITIAL_STREAMS),
        });
        let connection = Connection {
            send,
            slot: Slot::None(Line::default()),
            spare: None,
            origin: self.origin.clone(),
            shared: Arc::clone(&shared),
        };
        let window = self.adaptive.then_some(self.window);
        let pings = (self.adaptive || self.times.keep_alive.is_some())
            .then(|| h2.ping_pong())
            .flatten();
        let driver = Driver {
            h2,
            shared,
            limit: INITIAL_STREAMS,
            upkeep: Upkeep::new(Arc::clone(&notes), self.times, window, pings),
            notes,
        };
        Ok((connection, driver))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// What the handles of a connection and its driver share.
#[derive(Debug)]
struct Shared {
    gate: Gate,
}

/// A handle of a connection: a service that sends requests over it.
///
/// Clones are handles of the same connection, which goes on until the last of them, and of the responses, is
/// gone.
///
/// **Readiness.** It is ready while fewer streams are open than the peer's
/// SETTINGS_MAX_CONCURRENT_STREAMS allows, and reserves one. It fails when the connection is closed, or
/// when the peer has sent GOAWAY; responses that are under way then still arrive. Without readiness a request
/// is queued.
///
/// **Cancellation.** Dropping the response future, or the body before its end, resets the stream.
///
/// **Errors.** [`Error`]. [`is_unprocessed`](Error::is_unprocessed) says whether the request may be
/// sent again whatever it does.
pub struct Connection<B>
where
    B: Body,
{
    send: SendRequest<SendBuf<B::Data>>,
    slot: Slot,
    /// The place of the last body that was sent at once, for the next one.
    spare: Option<Placed<B>>,
    origin: Option<Origin>,
    shared: Arc<Shared>,
}

/// Where a body is while it is sent.
type Placed<B> = Pin<Box<Option<SendBody<B>>>>;

/// A handle's hold on a stream's place.
#[derive(Debug)]
enum Slot {
    None(Line),
    Reserved,
}

/// The place of an open stream, given back when it is dropped.
#[derive(Debug)]
struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

impl<B: Body> Connection<B> {
    /// Whether the connection can take no more requests.
    pub fn is_closed(&self) -> bool {
        self.shared.gate.is_closed()
    }

    /// How many requests are under way or reserved, over all handles.
    pub fn open_streams(&self) -> usize {
        self.shared.gate.open()
    }

    /// Whether the peer takes extended CONNECT (RFC 8441). It has said so once its settings are here.
    pub fn is_extended_connect_enabled(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// The place for a call's stream.
    fn take_ticket(&mut self) -> Ticket {
        match std::mem::replace(&mut self.slot, Slot::None(Line::default())) {
            Slot::Reserved => {}
            Slot::None(mut line) => {
                self.shared.gate.give_up(&mut line);
                self.shared.gate.force();
            }
        }
        Ticket(Arc::clone(&self.shared))
    }
}

impl<B: Body> Drop for Connection<B> {
    fn drop(&mut self) {
        match &mut self.slot {
            Slot::Reserved => self.shared.gate.leave(),
            Slot::None(line) => self.shared.gate.give_up(line),
        }
    }
}

impl<B: Body> Clone for Connection<B> {
    /// Another handle, without a reservation.
    fn clone(&self) -> Self {
        Self {
            send: self.send.clone(),
            slot: Slot::None(Line::default()),
            spare: None,
            origin: self.origin.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B> Service<Request<B>> for Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<RecvBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // It fails when the connection takes no more. That what was queued without readiness is
        // open is waited for elsewhere: it has a place of the gate.
        if let Poll::Ready(Err(error)) = self.send.poll_ready(cx) {
            return Poll::Ready(Err(Error::from_h2(error).before_sending()));
        }
        if let Slot::None(line) = &mut self.slot {
            if !ready!(self.shared.gate.poll_enter(line, cx)) {
                return Poll::Ready(Err(Error::new(ErrorKind::Closed).before_sending()));
            }
            self.slot = Slot::Reserved;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let ticket = self.take_ticket();
        match self.send(request) {
            Ok((response, upload)) => ResponseFuture {
                state: State::Waiting {
                    response,
                    hold: Some(Hold {
                        upload,
                        _ticket: ticket,
                    }),
                },
            },
            Err(error) => ResponseFuture {
                state: State::Failed { error: Some(error) },
            },
        }
    }
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends the head, and what there is of the body; what has to wait gets a task.
    fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<(h2::client::ResponseFuture, Option<Upload>), Error> {
        let (mut head, body) = request.into_parts();
        strip_connection_fields(&mut head.headers);
        head.version = Version::HTTP_2;
        head.uri = self.absolute(head.uri);
        let last = body.is_end_stream();
        if !last {
            announce_length(&mut head.headers, &body);
        }
        let (response, stream) = self
            .send
            .send_request(Request::from_parts(head, ()), last)
            .map_err(|error| Error::from_h2(error).before_sending())?;
        if last {
            return Ok((response, None));
        }
        let mut placed = self.spare.take().unwrap_or_else(|| Box::pin(None));
        placed.as_mut().set(Some(SendBody::new(stream, body)));
        let upload = placed.as_mut().as_pin_mut().map(|body| {
            // A task polls it anew at once where it is pending, with a waker of its own.
            body.poll(&mut Context::from_waker(Waker::noop()))
        });
        match upload {
            Some(Poll::Pending) => Ok((response, Some(Upload::spawn(placed)?))),
            Some(Poll::Ready(Err(error))) if error.kind() == ErrorKind::Body => Err(error),
            // Where the peer has ended the stream early, the response says so.
            Some(Poll::Ready(_)) | None => {
                placed.as_mut().set(None);
                self.spare = Some(placed);
                Ok((response, None))
            }
        }
    }

    /// The URI with the origin before it, where it is only a path.
    fn absolute(&self, uri: Uri) -> Uri {
        let Some(origin) = &self.origin else {
            return uri;
        };
        if uri.authority().is_some() {
            return uri;
        }
        let mut parts = uri.into_parts();
        parts.scheme = Some(origin.scheme.clone());
        parts.authority = Some(origin.authority.clone());
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        // It can't fail: all three are there.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// What ends with a response: the place of its stream, and the request's body if that is still sent.
#[derive(Debug)]
pub(crate) struct Hold {
    upload: Option<Upload>,
    _ticket: Ticket,
}

impl Hold {
    /// The response was read to its end; the request's body may go on to its own.
    pub(crate) fn finish(mut self) {
        if let Some(upload) = &mut self.upload {
            upload.0 = None;
        }
    }
}

/// The task that sends the rest of a request's body. It ends when this is dropped.
#[derive(Debug)]
struct Upload(Option<AbortHandle>);

impl Upload {
    fn spawn<B>(mut body: Placed<B>) -> Result<Self, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let runtime = Handle::try_current().map_err(|_| {
            let why = "a body that has to wait needs a Tokio runtime to be sent in";
            Error::because(ErrorKind::Unsendable, why)
        })?;
        let task = runtime.spawn(async move {
            if let Some(body) = body.as_mut().as_pin_mut() {
                if let Err(error) = body.await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "request body ended early"
                    );
                }
            }
        });
        Ok(Self(Some(task.abort_handle())))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The response of a [`Connection`].
///
/// **Cancellation.** Dropping it resets the stream with CANCEL.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
}

enum State {
    Failed {
        error: Option<Error>,
    },
    Waiting {
        response: h2::client::ResponseFuture,
        hold: Option<Hold>,
    },
}

impl Future for ResponseFuture {
    type Output = Result<Response<RecvBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Waiting { response, hold } => {
                let result = ready!(Pin::new(response).poll(cx));
                let hold = hold.take();
                Poll::Ready(match result {
                    Ok(response) => {
                        let length = announced_length(response.headers());
                        Ok(response.map(|stream| RecvBody::new(stream, length).with_hold(hold)))
                    }
                    Err(error) => Err(Error::from_h2(error)),
                })
            }
            State::Failed { error } => Poll::Ready(Err(error
                .take()
                .unwrap_or_else(|| Error::new(ErrorKind::Closed)))),
        }
    }
}

/// Moves a connection while it is polled. It must be spawned, or polled beside the requests.
///
/// It resolves when the connection is over: when the last handle and the last response are gone, or when
/// it fails. Dropping it closes the transport, and fails what is under way.
///
/// **Errors.** [`Error`], when the connection fails or the peer ends it for an error. The requests get errors
/// of their own, so it can be ignored.
#[must_use = "futures do nothing unless polled"]
pub struct Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    h2: h2::client::Connection<Wiretap<IO>, SendBuf<B::Data>>,
    shared: Arc<Shared>,
    /// What the peer allows, as last seen.
    limit: usize,
    notes: Arc<Notes>,
    upkeep: Upkeep,
}

impl<IO, B> Future for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(result) = Pin::new(&mut this.h2).poll(cx) {
                this.shared.gate.close();
                return Poll::Ready(result.map_err(Error::from_h2));
            }
            this.tell_gate();
            let gate = &this.shared.gate;
            let busy = || gate.open() > 0;
            match ready!(this.upkeep.poll(busy, false, cx)) {
                // A client's connection ends when nobody holds it.
                Chore::Drain => {}
                Chore::Widen(window) => {
                    this.h2.set_target_window_size(window);
                    // It fails while the peer hasn't acknowledged the last; then the next sample does.
                    let _ = this.h2.set_initial_window_size(window);
                }
                Chore::Fail(error) => {
                    this.shared.gate.close();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<IO, B> Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    /// Passes on what the peer allows.
    fn tell_gate(&mut self) {
        let limit = self.h2.max_concurrent_send_streams();
        if limit != self.limit {
            self.limit = limit;
            self.shared.gate.set_limit(limit);
        }
        if self.notes.is_going_away() {
            // What is under way goes on; who waits for a place learns why there is none.
            self.shared.gate.close();
        }
    }
}

// Nothing is pinned structurally.
impl<IO, B> Unpin for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
}

impl<IO, B> Drop for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn drop(&mut self) {
        self.shared.gate.close();
    }
}

/// Makes [`Connection`]s over the byte streams of a connector: a `MakeService`.
///
/// `C` is a service from a target, such as an address, to a byte stream. The response is the connection's
/// handle, whose [`Driver`] runs in a task that ends with it.
///
/// **Readiness.** The connector's.
///
/// **Cancellation.** Dropping the future ends the attempt.
///
/// **Errors.** [`Error`] of kind [`Connect`](ErrorKind::Connect), whose source is the connector's error or
/// what else has failed.
pub struct Connect<C, B> {
    connector: C,
    builder: Builder,
    _body: PhantomData<fn(B)>,
}

impl<C, B> Connect<C, B> {
    /// Makes connections with the settings of `builder`.
    pub fn new(connector: C, builder: Builder) -> Self {
        Self {
            connector,
            builder,
            _body: PhantomData,
        }
    }
}

impl<C, B, T> Service<T> for Connect<C, B>
where
    // The connector.
    C: Service<T>,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    // The bodies of the requests.
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Connection<B>;
    type Error = Error;
    type Future = ConnectFuture<C::Future, C::Response, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.connector.poll_ready(cx).map_err(not_connected)
    }

    fn call(&mut self, target: T) -> Self::Future {
        ConnectFuture {
            step: Step::Connecting {
                connecting: self.connector.call(target),
                builder: Some(self.builder.clone()),
            },
        }
    }
}

type Handshake<IO, B> =
    Pin<Box<dyn Future<Output = Result<(Connection<B>, Driver<IO, B>), Error>> + Send>>;

pin_project! {
    /// The response of [`Connect`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ConnectFuture<F, IO, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        B: Body,
    {
        #[pin]
        step: Step<F, IO, B>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<F, IO, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        B: Body,
    {
        Connecting {
            #[pin]
            connecting: F,
            builder: Option<Builder>,
        },
        Shaking {
            handshake: Handshake<IO, B>,
        },
    }
}

impl<F, IO, B, E> Future for ConnectFuture<F, IO, B>
where
    // The connector's.
    F: Future<Output = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: Into<BoxError>,
    // The bodies of the requests.
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Output = Result<Connection<B>, Error>;

    // Connecting -> Shaking.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut step = self.project().step;
        loop {
            match step.as_mut().project() {
                StepProj::Connecting {
                    connecting,
                    builder,
                } => {
                    let io = ready!(connecting.poll(cx)).map_err(not_connected)?;
                    let builder = builder.take().unwrap_or_default();
                    let handshake = Box::pin(async move { builder.handshake(io).await });
                    step.set(Step::Shaking { handshake });
                }
                StepProj::Shaking { handshake } => {
                    let (connection, driver) =
                        ready!(handshake.as_mut().poll(cx)).map_err(not_connected)?;
                    let runtime = Handle::try_current().map_err(not_connected)?;
                    // It ends with the last handle, so nobody has to end it.
                    drop(runtime.spawn(async move {
                        if let Err(error) = driver.await {
                            tracing::debug!(
                                error = &error as &dyn std::error::Error,
                                "connection ended"
                            );
                        }
                    }));
                    return Poll::Ready(Ok(connection));
                }
            }
        }
    }
}

fn not_connected(error: impl Into<BoxError>) -> Error {
    Error::because(ErrorKind::Connect, error).before_sending()
}

impl<C: Clone, B> Clone for Connect<C, B> {
    fn clone(&self) -> Self {
        Self::new(self.connector.clone(), self.builder.clone())
    }
}

impl<C: fmt::Debug, B> fmt::Debug for Connect<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("connector", &self.connector)
            .field("builder", &self.builder)
            .finish()
    }
}

impl<B: Body> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("slot", &self.slot)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<IO, B> fmt::Debug for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<F, IO, B> fmt::Debug for ConnectFuture<F, IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectFuture").finish_non_exhaustive()
    }
}
