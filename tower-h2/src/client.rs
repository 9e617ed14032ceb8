//! Sends requests over HTTP/2 connections.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::connection::Connection;
pub use self::dial::{Connect, ConnectFuture};
pub use self::driver::Driver;
pub(crate) use self::response::Hold;
pub use self::response::ResponseFuture;
use crate::Error;
use crate::clockwork::Times;
use crate::upkeep::Upkeep;
use crate::wiretap::{Allowance, Wiretap};

mod connection;
mod dial;
mod driver;
mod response;

/// How many streams are opened before the peer has said how many it allows. Any number is right (RFC 9113,
/// section 6.5.2), but a peer that allows fewer refuses the others; and one that allows none is rare, so that the first
/// request doesn't wait.
const INITIAL_STREAMS: usize = 1;

/// How many frames that bring nothing, and resets, a server may send at once.
const IDLE_FRAMES: u32 = 10_000;
const RESETS: u32 = 10_000;

/// How long a frame may be: large messages then take few of them, few reads and few wake-ups. A server's is as long.
const FRAME: u32 = 544 * 1024;

/// How much of a body, and of all of them, may be unread, where nobody says otherwise.
/// Two messages of 1 MiB: while one is read the next may come.
const STREAM_WINDOW: u32 = 4 * FRAME;
const CONNECTION_WINDOW: u32 = 8 * FRAME;

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
    /// Whether what is left of a request is dropped when its response has ended.
    drops_uploads: bool,
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
            drops_uploads: false,
            times: Times {
                keep_alive_timeout: Duration::from_secs(20),
                write: Some(Duration::from_secs(30)),
                hello: Some(Duration::from_secs(20)),
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

    /// How many bytes of a response's body may be unread, at most 2³¹ − 1; 2176 KiB by default.
    #[must_use]
    pub fn with_initial_stream_window(mut self, bytes: u32) -> Self {
        self.h2.initial_window_size(bytes.min(MAX_WINDOW));
        self
    }

    /// How many bytes of all bodies of a connection may be unread, at most 2³¹ − 1; 4352 KiB by default.
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

    /// How long the peer may take to say anything at all; 20 s by default, `None` is no bound.
    ///
    /// A server's settings come first, and unasked. What listens and says nothing is none.
    #[must_use]
    pub fn with_hello_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.hello = timeout.into();
        self
    }

    /// Ends a request when its response has ended, as gRPC has it; by default its body is sent to its end.
    ///
    /// The body is dropped then, and the stream reset with CANCEL.
    #[must_use]
    pub fn with_requests_ended_by_responses(mut self) -> Self {
        self.drops_uploads = true;
        self
    }

    /// How long a frame may be, from 16 KiB to 16 MiB − 1; 544 KiB by default.
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
        let (send, h2) = self.h2.handshake(io).await.map_err(Error::from_h2)?;
        let connection = Connection::new(
            send,
            self.origin.clone(),
            INITIAL_STREAMS,
            self.drops_uploads,
        );
        let window = self.adaptive.then_some(self.window);
        let upkeep = Upkeep::new(Arc::clone(&notes), self.times, window);
        let driver = Driver::new(h2, connection.shared(), INITIAL_STREAMS, notes, upkeep);
        Ok((connection, driver))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}
