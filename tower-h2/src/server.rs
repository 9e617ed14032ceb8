//! Serves HTTP/2 connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::server::{Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

use crate::clockwork::Times;
use crate::exchange::{Exchange, Paced};
use crate::fields::announced_length;
use crate::pace::Pace;
use crate::send_body::SendBuf;
use crate::upkeep::{Chore, Upkeep};
use crate::wiretap::{Allowance, Notes, Wiretap};
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many requests are taken in before they are answered, and their responses written.
const BATCH: usize = 32;

/// The limits and settings of the connections that a server serves.
///
/// The defaults are safe to face the internet with.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_h2::{RecvBody, server};
/// use tower_util::service_fn;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let hello = service_fn(|_: Request<RecvBody>| async {
///     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let (client, server) = tokio::io::duplex(64 * 1024);
/// let connection = server::Builder::new()
///     .with_max_concurrent_streams(100)
///     .serve_connection(server, hello);
///
/// // The connection is a future that serves while it is polled, and ends with the client.
/// drop(client);
/// let _ = connection.await;
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    h2: h2::server::Builder,
    times: Times,
    handshake: Option<Duration>,
    /// The connection's window, and whether it follows the path.
    window: u32,
    adaptive: bool,
    allowance: Allowance,
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        let mut h2 = h2::server::Builder::new();
        h2.max_concurrent_streams(200)
            .max_frame_size(FRAME)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(16 * 1024);
        Self {
            h2,
            times: Times {
                keep_alive: Some(Duration::from_secs(2 * 60 * 60)),
                keep_alive_timeout: Duration::from_secs(20),
                keep_alive_while_idle: true,
                write: Some(Duration::from_secs(30)),
                head: Some(Duration::from_secs(15)),
                idle: None,
                age: None,
                grace: None,
            },
            handshake: Some(Duration::from_secs(10)),
            window: WINDOW,
            adaptive: false,
            allowance: Allowance::new(10_000, 1_000),
        }
    }

    /// How many requests the peer may have open at once; 200 by default.
    #[must_use]
    pub fn with_max_concurrent_streams(mut self, max: u32) -> Self {
        self.h2.max_concurrent_streams(max);
        self
    }

    /// How many bytes of a request's body may be unread, at most 2³¹ − 1; 1 MiB by default.
    #[must_use]
    pub fn with_initial_stream_window(mut self, bytes: u32) -> Self {
        self.h2.initial_window_size(bytes.min(MAX_WINDOW));
        self
    }

    /// How many bytes of all bodies of a connection may be unread, at most 2³¹ − 1; 1 MiB by default.
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

    /// How long the peer may take for its preface; 10 s by default. `None` is no bound, here and below.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake = timeout.into();
        self
    }

    /// How long the header fields of a request may take from the first byte to the last; 15 s by default.
    #[must_use]
    pub fn with_head_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.head = timeout.into();
        self
    }

    /// How long bytes may wait to be sent without the peer taking any; 30 s by default.
    ///
    /// It is about the transport. A peer that only keeps a stream's window shut is waited for, and costs no
    /// more than a chunk of that stream's body.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.write = timeout.into();
        self
    }

    /// After how long without a byte from the peer it is sent a PING, whether streams are open or not; 2
    /// hours by default. See [`with_keep_alive_timeout`](Self::with_keep_alive_timeout).
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

    /// How long the connection may have no stream open before it is ended; not bounded by default.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.idle = timeout.into();
        self
    }

    /// How old the connection may become before it is ended as by
    /// [`graceful_shutdown`](Connection::graceful_shutdown); not bounded by default.
    ///
    /// Each connection's age is up to a tenth more or less, so that many don't end at once.
    #[must_use]
    pub fn with_max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.times.age = age.into();
        self
    }

    /// How long an end with grace may take, whatever its cause, before what is still open is cut; not
    /// bounded by default.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.grace = timeout.into();
        self
    }

    /// How many frames that bring nothing the peer may send at once: PING, SETTINGS, PRIORITY,
    /// WINDOW_UPDATE, empty DATA, and unknown ones; 10 000 by default.
    ///
    /// A quarter of that is allowed again each second, and more with what is sent to the peer. More end
    /// the connection with ENHANCE_YOUR_CALM.
    #[must_use]
    pub fn with_max_idle_frames(mut self, max: u32) -> Self {
        self.allowance = Allowance::new(max, self.allowance.resets());
        self
    }

    /// How many streams the peer may reset at once, though they were accepted; 1000 by default.
    ///
    /// A quarter of that is allowed again each second, and more with what is sent to the peer. More end
    /// the connection with ENHANCE_YOUR_CALM.
    #[must_use]
    pub fn with_max_resets(mut self, max: u32) -> Self {
        self.allowance = Allowance::new(self.allowance.idle(), max);
        self
    }

    /// How long a frame may be, from 16 KiB to 16 MiB − 1; 64 KiB by default.
    #[must_use]
    pub fn with_max_frame_size(mut self, bytes: u32) -> Self {
        self.h2
            .max_frame_size(bytes.clamp(16 * 1024, (1 << 24) - 1));
        self
    }

    /// How long a request's header fields may be together, in octets as RFC 9113, section 6.5.2 counts
    /// them; 16 KiB by default.
    ///
    /// A request beyond it is answered with status 431; one far beyond it ends the connection, and so do
    /// more CONTINUATION frames than such a list can need.
    #[must_use]
    pub fn with_max_header_list_size(mut self, octets: u32) -> Self {
        self.h2.max_header_list_size(octets);
        self
    }

    /// How many requests may be waiting to be accepted though the peer has reset them; 20 by default.
    ///
    /// More end the connection with ENHANCE_YOUR_CALM (CVE-2023-44487, "rapid reset").
    #[must_use]
    pub fn with_max_pending_resets(mut self, max: usize) -> Self {
        self.h2.max_pending_accept_reset_streams(max);
        self
    }

    /// How many streams may be reset because the peer broke the protocol; 1024 by default.
    ///
    /// More end the connection with ENHANCE_YOUR_CALM.
    #[must_use]
    pub fn with_max_error_resets(mut self, max: usize) -> Self {
        self.h2.max_local_error_reset_streams(Some(max));
        self
    }

    /// Allows extended CONNECT (RFC 8441), which carries WebSockets; refused by default.
    ///
    /// Such a request has a [`Protocol`](crate::Protocol) in its extensions.
    #[must_use]
    pub fn with_extended_connect(mut self) -> Self {
        self.h2.enable_connect_protocol();
        self
    }

    /// Serves one connection: a future that ends with it.
    pub fn serve_connection<IO, S, B>(&self, io: IO, service: S) -> Connection<IO, S, B>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        S: Service<Request<RecvBody>, Response = Response<B>>,
        B: Body,
    {
        let io = Wiretap::server(io, self.allowance);
        let mut times = self.times;
        times.age = times.age.map(|age| age.mul_f64(spread()));
        Connection {
            link: Link::Handshaking {
                notes: io.notes(),
                handshake: self.h2.handshake(io),
                times,
                window: self.adaptive.then_some(self.window),
                timeout: self.handshake,
                timer: None,
                draining: false,
            },
            requests: Requests {
                service,
                accepted: VecDeque::new(),
                spare: None,
                waiting: Vec::new(),
                pace: Arc::new(Pace::new()),
                bar: Pace::bar(Duration::ZERO),
                failed: None,
            },
            received: 0,
        }
    }
}

/// From 0.9 to 1.1, by chance.
fn spread() -> f64 {
    0.9 + 0.2 * SplitMix64::from_entropy().next_f64()
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a peer that is sent away has to read why.
const TELLING: Duration = Duration::from_secs(1);

/// How long a frame may be: large messages then take few of them, and few writes.
const FRAME: u32 = 64 * 1024;

/// How much of a body may be unread, where nobody says otherwise.
const WINDOW: u32 = 1024 * 1024;

/// The largest window of RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// An exchange where it stays, in a task or out of one.
type Placed<F, B> = Pin<Box<Exchange<F, B>>>;

type Accepted<D> = (Request<RecvStream>, SendResponse<SendBuf<D>>);

pin_project! {
    /// Serves one connection while it is polled.
    ///
    /// Each time it wakes it takes in the requests that have arrived, calls the service for each, and
    /// polls each response once; then it writes all that is there. A response that isn't ready goes on
    /// in a task of its own. Where the service computes for long before it first waits, the
    /// requests get tasks from the start, so that they run on all threads.
    ///
    /// **Readiness.** The service is asked before each call. While it isn't ready, no request is
    /// accepted, and the peer may open only as many as `with_max_concurrent_streams` says.
    ///
    /// **Cancellation.** Dropping it closes the transport and ends the tasks of its requests. A peer that
    /// resets a stream, or vanishes, ends the future of the service. See
    /// [`graceful_shutdown`](Self::graceful_shutdown) for an end without loss.
    ///
    /// **Errors.** [`Error`], when the connection fails, or when the service's `poll_ready` does. A
    /// service whose response is an error has its stream reset with INTERNAL_ERROR, or with the
    /// [`Reason`] of an [`Error`] in its error's chain.
    ///
    /// **Panics.** A panic of the service resets the one stream with INTERNAL_ERROR.
    #[must_use = "futures do nothing unless polled"]
    pub struct Connection<IO, S, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        S: Service<Request<RecvBody>>,
        B: Body,
    {
        link: Link<IO, B::Data>,
        requests: Requests<S, B>,
        received: u64,
    }
}

/// The protocol's side of a connection.
#[allow(
    clippy::large_enum_variant,
    reason = "a connection is open for nearly all its life"
)]
enum Link<IO, D: bytes::Buf> {
    /// The preface isn't there yet.
    Handshaking {
        handshake: Handshake<Wiretap<IO>, SendBuf<D>>,
        notes: Arc<Notes>,
        times: Times,
        window: Option<u32>,
        timeout: Option<Duration>,
        timer: Option<Pin<Box<Sleep>>>,
        draining: bool,
    },
    Open {
        h2: H2<IO, D>,
        upkeep: Upkeep,
    },
    /// It has failed, and the peer is told, if it listens in time.
    Telling {
        h2: H2<IO, D>,
        error: Option<Error>,
        timer: Option<Pin<Box<Sleep>>>,
    },
    Closed,
}

/// How serving ends.
enum Ending {
    /// The connection is over.
    Over(Result<(), Error>),
    /// It is to be, for an error that the peer doesn't know of.
    Failing(Error),
}

type H2<IO, D> = h2::server::Connection<Wiretap<IO>, SendBuf<D>>;

/// The service's side of a connection.
struct Requests<S, B>
where
    S: Service<Request<RecvBody>>,
    B: Body,
{
    service: S,
    accepted: VecDeque<Accepted<B::Data>>,
    /// The place of the last exchange that was over at its first poll, for the next one.
    spare: Option<Placed<S::Future, B>>,
    /// Exchanges that had to wait where there is no runtime to give them tasks.
    waiting: Vec<Placed<S::Future, B>>,
    pace: Arc<Pace>,
    /// What counts as slow.
    bar: Duration,
    /// The service can't take requests any more.
    failed: Option<Error>,
}

impl<IO, S, B> Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<RecvBody>, Response = Response<B>>,
    B: Body,
{
    /// Ends the connection once the requests that the peer has sent are answered.
    ///
    /// The peer is told with GOAWAY to send no more, twice as RFC 9113, section 6.8 has it, so that none
    /// that is under way is lost. The connection must still be polled until it ends; how long that may
    /// take is for whoever polls it to bound.
    pub fn graceful_shutdown(self: Pin<&mut Self>) {
        match self.project().link {
            Link::Handshaking { draining, .. } => *draining = true,
            Link::Open { h2, upkeep } => {
                h2.graceful_shutdown();
                upkeep.drain();
            }
            Link::Telling { .. } | Link::Closed => {}
        }
    }

    /// Whether the peer has sent the whole head of a request.
    pub fn has_received_request(&self) -> bool {
        self.received > 0
    }

    /// How many requests the peer has sent so far.
    pub fn received_requests(&self) -> u64 {
        self.received
    }

    /// Whether a request is open: its end, or that of its response, is still to come.
    pub fn has_open_streams(&self) -> bool {
        match &self.link {
            Link::Open { h2, .. } => h2.has_streams(),
            Link::Handshaking { .. } | Link::Telling { .. } | Link::Closed => false,
        }
    }
}

impl<IO, S, B> Future for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    // The service.
    S: Service<Request<RecvBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), Error>;

    // Handshaking -> Open, Closed; Open -> Telling, Closed; Telling -> Closed.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = loop {
            match this.link {
                Link::Handshaking { .. } => match ready!(this.link.poll_handshake(cx)) {
                    Ok(open) => *this.link = open,
                    Err(error) => break Err(error),
                },
                Link::Open { h2, upkeep } => {
                    match ready!(this.requests.poll_all(h2, upkeep, this.received, cx)) {
                        Ending::Over(result) => break result,
                        Ending::Failing(error) => this.link.tell(error),
                    }
                }
                Link::Telling { h2, error, timer } => {
                    let late = timer.as_mut().map(|timer| timer.as_mut().poll(cx));
                    if h2.poll_closed(cx).is_pending() && late == Some(Poll::Pending) {
                        return Poll::Pending;
                    }
                    break error.take().map_or(Ok(()), Err);
                }
                Link::Closed => return Poll::Ready(Ok(())),
            }
        };
        *this.link = Link::Closed;
        // How the connection ends is a consequence of the service's failure.
        Poll::Ready(this.requests.failed.take().map_or(result, Err))
    }
}

impl<IO, D> Link<IO, D>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    D: bytes::Buf,
{
    /// Ends the connection for an error.
    fn tell(&mut self, error: Error) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open { mut h2, .. } => {
                h2.abrupt_shutdown(match error.kind() {
                    ErrorKind::Flood => Reason::ENHANCE_YOUR_CALM,
                    ErrorKind::Protocol => Reason::PROTOCOL_ERROR,
                    _ => Reason::NO_ERROR,
                });
                Self::Telling {
                    h2,
                    error: Some(error),
                    timer: Handle::try_current().ok().map(|_| Box::pin(sleep(TELLING))),
                }
            }
            other => other,
        };
    }

    /// Waits for the peer's preface, and gives the open link.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self, Error>> {
        let Self::Handshaking {
            handshake,
            notes,
            times,
            window,
            timeout,
            timer,
            draining,
        } = self
        else {
            return Poll::Pending;
        };
        let Poll::Ready(shaken) = Pin::new(handshake).poll(cx) else {
            if let (Some(timeout), Ok(_)) = (*timeout, Handle::try_current()) {
                let timer = timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(timer.as_mut().poll(cx));
                let why = "the peer's preface doesn't come";
                return Poll::Ready(Err(Error::because(ErrorKind::Timeout, why)));
            }
            return Poll::Pending;
        };
        let mut h2 = shaken.map_err(Error::from_h2)?;
        let pings = (window.is_some() || times.keep_alive.is_some())
            .then(|| h2.ping_pong())
            .flatten();
        let mut upkeep = Upkeep::new(Arc::clone(notes), *times, *window, pings);
        if *draining {
            h2.graceful_shutdown();
            upkeep.drain();
        }
        Poll::Ready(Ok(Self::Open { h2, upkeep }))
    }
}

impl<S, B, E> Requests<S, B>
where
    // The service.
    S: Service<Request<RecvBody>, Response = Response<B>, Error = E>,
    E: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Serves, and does what is due on the connection.
    fn poll_all<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        upkeep: &mut Upkeep,
        received: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Ending>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let before = *received;
            match self.poll(h2, received, cx) {
                // A peer that is told to go may do so at once.
                Poll::Ready(Err(error))
                    if error.kind() == ErrorKind::Io && upkeep.is_draining() =>
                {
                    return Poll::Ready(Ending::Over(Ok(())));
                }
                Poll::Ready(result) => return Poll::Ready(Ending::Over(result)),
                Poll::Pending => {}
            }
            let worked = *received != before;
            match ready!(upkeep.poll(|| h2.has_streams(), worked, cx)) {
                Chore::Drain => h2.graceful_shutdown(),
                Chore::Widen(window) => {
                    h2.set_target_window_size(window);
                    // It fails while the peer hasn't acknowledged the last; then the next sample does.
                    let _ = h2.set_initial_window_size(window);
                }
                Chore::Fail(error) => return Poll::Ready(Ending::Failing(error)),
            }
        }
    }

    fn poll<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        received: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.waiting
            .retain_mut(|exchange| exchange.as_mut().poll(cx).is_pending());
        loop {
            // Each turn but the first also writes what the one before has answered.
            if self.accepted.is_empty() {
                let open = self.take_in(h2, cx)?;
                if self.accepted.is_empty() {
                    ready!(open);
                    return Poll::Ready(Ok(()));
                }
                *received += self.accepted.len() as u64;
            }
            if self.answer(cx).is_pending() {
                // Nothing more is accepted, but bodies and responses go on.
                return h2.poll_closed(cx).map_err(Error::from_h2);
            }
            if self.failed.is_some() {
                h2.graceful_shutdown();
            }
        }
    }

    /// Accepts what has arrived, as far as a batch goes; ready where the connection has ended.
    fn take_in<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = Instant::now();
        let mut end = Poll::Pending;
        while self.accepted.len() < BATCH {
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => self.accepted.push_back(request),
                Poll::Ready(Some(Err(error))) => return Err(Error::from_h2(error)),
                Poll::Ready(None) => {
                    end = Poll::Ready(());
                    break;
                }
                Poll::Pending => break,
            }
        }
        if let Ok(count @ 1..) = u32::try_from(self.accepted.len()) {
            self.bar = Pace::bar(start.elapsed() / count);
        }
        Ok(end)
    }

    /// Calls the service for what was accepted; pending while it isn't ready for more.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut start = self.pace.in_place().then(Instant::now);
        while let Some((request, mut respond)) = self.accepted.pop_front() {
            if self.failed.is_none() {
                match self.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        self.failed = Some(Error::because(ErrorKind::Service, error));
                    }
                    Poll::Pending => {
                        self.accepted.push_front((request, respond));
                        return Poll::Pending;
                    }
                }
            }
            if self.failed.is_some() {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            // Without an authority h2 takes a request for one that needs no path (RFC 9113, section 8.3.1).
            if request.uri().path().is_empty() && *request.method() != Method::CONNECT {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                continue;
            }
            let head_only = *request.method() == Method::HEAD;
            let length = announced_length(request.headers());
            let request = request.map(|stream| RecvBody::new(stream, length));
            let Ok(call) = catch_unwind(AssertUnwindSafe(|| self.service.call(request))) else {
                respond.send_reset(Reason::INTERNAL_ERROR);
                continue;
            };
            let exchange = match self.spare.take() {
                Some(mut spare) => {
                    spare.as_mut().renew(call, respond, head_only);
                    spare
                }
                None => Box::pin(Exchange::new(call, respond, head_only)),
            };
            start = self.begin(exchange, start, cx);
        }
        Poll::Ready(())
    }

    /// Polls an exchange here, where requests are quick, since `start`; else, or if it has to wait, gives
    /// it a task. Returns the time after it, where the next may be polled here.
    fn begin(
        &mut self,
        mut exchange: Placed<S::Future, B>,
        start: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Option<Instant> {
        let Some(start) = start else {
            self.spawn(Paced::new(exchange, Arc::clone(&self.pace), self.bar), cx);
            return None;
        };
        // A task polls it anew at once, with its own waker: what wakes this one would be lost on nobody.
        let polled = exchange
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let end = Instant::now();
        let slow = self.pace.observe(end - start, self.bar);
        match polled {
            Poll::Ready(()) => self.spare = Some(exchange),
            Poll::Pending => self.spawn(Paced::begun(exchange), cx),
        }
        (!slow).then_some(end)
    }

    /// Gives an exchange a task, or without a runtime a place here.
    fn spawn(&mut self, mut exchange: Paced<Placed<S::Future, B>>, cx: &mut Context<'_>) {
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(exchange)),
            Err(_) if Pin::new(&mut exchange).poll(cx).is_ready() => {}
            Err(_) => self.waiting.push(exchange.into_inner()),
        }
    }
}

impl<IO, S, B> fmt::Debug for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<RecvBody>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match &self.link {
            Link::Handshaking { .. } => "handshaking",
            Link::Open { .. } => "open",
            Link::Telling { .. } => "failing",
            Link::Closed => "closed",
        };
        f.debug_struct("Connection")
            .field("link", &link)
            .finish_non_exhaustive()
    }
}
