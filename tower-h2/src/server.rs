//! Serves HTTP/2 connections.

use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

pub use self::connection::Connection;
use crate::RecvBody;
use crate::clockwork::Times;
use crate::wiretap::{Allowance, Wiretap};

mod connection;
mod requests;

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
            .max_header_list_size(16 * 1024)
            .max_pending_accept_reset_streams(PENDING_RESETS);
        Self {
            h2,
            times: Times {
                // It has a timeout of its own for that.
                hello: None,
                keep_alive: Some(Duration::from_secs(2 * 60 * 60)),
                keep_alive_timeout: Duration::from_secs(20),
                keep_alive_while_idle: true,
                write: Some(Duration::from_secs(30)),
                stream: None,
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

    /// How many bytes of a request's body may be unread, at most 2³¹ − 1; 1088 KiB by default.
    #[must_use]
    pub fn with_initial_stream_window(mut self, bytes: u32) -> Self {
        self.h2.initial_window_size(bytes.min(MAX_WINDOW));
        self
    }

    /// How many bytes of all bodies of a connection may be unread, at most 2³¹ − 1; 1088 KiB by default.
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
    /// It is about the transport. A peer that only keeps a stream's window shut is waited for, unless
    /// [`with_stream_write_timeout`](Self::with_stream_write_timeout) says how long.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.write = timeout.into();
        self
    }

    /// How long the peer may keep a stream's window shut while there is something to send on it; not bounded by
    /// default, as a receiver of messages may stop reading for as long as it likes.
    ///
    /// The stream is reset with CANCEL, and the others go on. Where it is bounded, no more of a response is taken
    /// from the service than the peer has room for, and one frame.
    #[must_use]
    pub fn with_stream_write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.stream = timeout.into();
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

    /// How long a frame may be, from 16 KiB to 16 MiB − 1; 544 KiB by default.
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

    /// How many requests may be waiting to be accepted though the peer has reset them; 1000 by default, as many as it
    /// may reset at all: a client whose calls run out of time at once resets those that are open, opens others in
    /// their place, and resets those.
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
    ///
    /// Set `TCP_NODELAY` on a TCP socket before: a response is written in pieces, and without it the last of them waits for
    /// the peer's delayed acknowledgement, some 40 ms.
    pub fn serve_connection<IO, S, B>(&self, io: IO, service: S) -> Connection<IO, S, B>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        S: Service<Request<RecvBody>, Response = Response<B>>,
        B: Body,
    {
        let io = Wiretap::server(io, self.allowance);
        let mut times = self.times;
        times.age = times.age.map(spread);
        let notes = io.notes();
        let window = self.adaptive.then_some(self.window);
        let handshake = self.h2.handshake(io);
        Connection::new(handshake, self.handshake, notes, times, window, service)
    }
}

/// An age, give or take a tenth by chance.
fn spread(age: Duration) -> Duration {
    let factor = 0.9 + 0.2 * SplitMix64::from_entropy().next_f64();
    Duration::try_from_secs_f64(age.as_secs_f64() * factor).unwrap_or(age)
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a frame may be: large messages then take few of them, few reads and few wake-ups.
///
/// Two of them hold a message of 1 MiB and what is around it. Longer ones would keep other streams waiting on a slow
/// path, and cost more than they save: memory of 1 MiB goes back to the kernel each time it is freed.
const FRAME: u32 = 544 * 1024;

/// How many requests may be reset before they are accepted: as many as may be reset altogether.
const PENDING_RESETS: usize = 1000;

/// How much of a body may be unread, where nobody says otherwise: a message of 1 MiB goes without a pause.
const WINDOW: u32 = 2 * FRAME;

/// The largest window of RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
