//! The limits of connections.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tower_service::Service;

use crate::connection::{Connection, Opening};
use crate::schedule::Bounds;
use crate::{ConnectInfo, Incoming};

/// How long a head may take by default.
const HEAD: Duration = Duration::from_secs(15);

/// How connections are served: which protocols they speak, and how long and how large things may be.
///
/// The defaults are safe to face the internet with. A clone costs a reference count.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_hyper::{Protocols, Settings};
///
/// let settings = Settings::new()
///     .with_head_timeout(Duration::from_secs(5))
///     .with_max_age(Duration::from_secs(3600))
///     .with_protocols(Protocols::Http1);
/// # let _ = settings;
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) values: Arc<Values>,
}

#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub(crate) bounds: Bounds,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) protocols: Protocols,
    pub(crate) http1: hyper::server::conn::http1::Builder,
    #[cfg(feature = "http2")]
    pub(crate) http2: tower_h2::server::Builder,
    #[cfg(feature = "http2")]
    extended_connect: bool,
    pub(crate) vets: bool,
    pub(crate) attaches_info: bool,
}

/// Which protocols a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protocols {
    /// Either: the first bytes tell, or TLS's ALPN does. Without the feature `http2`, HTTP/1.1 and HTTP/1.0 only.
    #[default]
    Both,
    /// HTTP/1.1 and HTTP/1.0 only.
    Http1,
    /// HTTP/2 only, without the upgrade from HTTP/1.1 ("prior knowledge").
    #[cfg(feature = "http2")]
    Http2,
}

impl Settings {
    /// The defaults.
    pub fn new() -> Self {
        let mut http1 = hyper::server::conn::http1::Builder::new();
        // hyper's own timer for heads stays off: it counts idle time, and starts anew for each head.
        http1.max_buf_size(64 * 1024);
        // One buffer for head and body is some 470 instructions cheaper than a vectored write of two. Bodies come in
        // pieces, so that the buffer stays one.
        http1.writev(false);
        Self {
            values: Arc::new(Values {
                bounds: Bounds {
                    head: HEAD,
                    idle: Some(Duration::from_secs(75)),
                    write: Some(Duration::from_secs(30)),
                    age: None,
                    grace: Duration::from_secs(30),
                },
                body_timeout: Some(Duration::from_secs(30)),
                protocols: Protocols::Both,
                http1,
                #[cfg(feature = "http2")]
                http2: tower_h2::server::Builder::new(),
                #[cfg(feature = "http2")]
                extended_connect: false,
                vets: true,
                attaches_info: false,
            }),
        }
        .change(|_| {})
    }

    fn change(mut self, change: impl FnOnce(&mut Values)) -> Self {
        let values = Arc::make_mut(&mut self.values);
        change(values);
        #[cfg(feature = "http2")]
        values.bound_http2();
        self
    }

    /// How long it may take from accepting a connection to the end of its first request's head, and from
    /// the first byte of each later head to its end; 15 seconds by default.
    ///
    /// It is one deadline over the PROXY protocol's header, the TLS handshake, the detection of the protocol
    /// and the head itself.
    #[must_use]
    pub fn with_head_timeout(self, timeout: Duration) -> Self {
        self.change(|values| values.bounds.head = timeout)
    }

    /// How long a connection may stay open between requests; 75 seconds by default, `None` for ever.
    ///
    /// It may be a quarter longer: the clock isn't read for each request.
    #[must_use]
    pub fn with_idle_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|values| values.bounds.idle = timeout.into())
    }

    /// How long the sender of a request's body may send nothing while it is being read; 30 seconds by
    /// default, `None` for ever.
    #[must_use]
    pub fn with_body_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|values| values.body_timeout = timeout.into())
    }

    /// How long the reader of responses may take nothing though there is something to send; 30 seconds by
    /// default, `None` for ever.
    ///
    /// A client of HTTP/2 that keeps the window of one stream shut for as long has that stream reset, and goes on with
    /// the others.
    #[must_use]
    pub fn with_write_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|values| values.bounds.write = timeout.into())
    }

    /// After how long a connection takes no more requests, so that clients spread over new servers; never
    /// by default.
    ///
    /// Each connection's is up to a tenth shorter or longer, so that they don't all come back at once.
    #[must_use]
    pub fn with_max_age(self, age: impl Into<Option<Duration>>) -> Self {
        self.change(|values| values.bounds.age = age.into())
    }

    /// How long a connection that has reached its age may take to finish; 30 seconds by default.
    #[must_use]
    pub fn with_max_age_grace(self, grace: Duration) -> Self {
        self.change(|values| values.bounds.grace = grace)
    }

    /// Which protocols connections may speak; both by default.
    #[must_use]
    pub fn with_protocols(self, protocols: Protocols) -> Self {
        self.change(|values| values.protocols = protocols)
    }

    /// How many bytes an HTTP/1.1 connection may buffer each way, at least 8192; 64 KiB by default.
    ///
    /// A head that is longer is answered with status 431, and with 414 where it is its target that is too long: beyond
    /// 16 KiB, unless requests aren't [vetted](Self::without_vetting).
    #[must_use]
    pub fn with_max_buffer(self, bytes: usize) -> Self {
        self.change(|values| {
            values.http1.max_buf_size(bytes.max(8192));
        })
    }

    /// Writes heads and bodies over HTTP/1.1 from where they are, by vectored writes; off by default.
    ///
    /// By default they are copied into one buffer first, which is the cheaper the smaller the bodies are. For servers of
    /// large files it is worth a try.
    #[must_use]
    pub fn with_vectored_writes(self) -> Self {
        self.change(|values| {
            values.http1.writev(true);
        })
    }

    /// How many header fields an HTTP/1.1 request may have; 100 by default, which needs no allocation.
    ///
    /// More are answered with status 431.
    #[must_use]
    pub fn with_max_headers(self, count: usize) -> Self {
        self.change(|values| {
            values.http1.max_headers(count);
        })
    }

    /// Lets a client end its side of an HTTP/1.1 connection after its request and still be answered.
    ///
    /// The price is that a client that has vanished is noticed only when a response is written: without it, the
    /// end of the client's side drops the service's future.
    #[must_use]
    pub fn with_half_close(self) -> Self {
        self.change(|values| {
            values.http1.half_close(true);
        })
    }

    /// The limits and settings of HTTP/2, over which those of this type come.
    #[cfg(feature = "http2")]
    #[must_use]
    pub fn with_http2(self, http2: tower_h2::server::Builder) -> Self {
        self.change(|values| values.http2 = http2)
    }

    /// Lets clients of HTTP/2 open WebSockets and other tunnels by extended CONNECT (RFC 8441); refused by default.
    ///
    /// Such a request has a [`Protocol`](tower_h2::Protocol) in its extensions, and its bodies are the two ways of the
    /// tunnel.
    #[cfg(feature = "http2")]
    #[must_use]
    pub fn with_extended_connect(self) -> Self {
        self.change(|values| values.extended_connect = true)
    }

    /// Lets requests through whose `Host` is missing, repeated or malformed, or isn't the target's authority, whose
    /// target has a form that their method doesn't allow, or which have two lengths.
    ///
    /// By default they are answered with status 400, as RFC 9112, sections 3.2 and 3.2.4, and RFC 9113, section 8.3.1
    /// demand: what differs between two parsers is what smuggles requests.
    #[must_use]
    pub fn without_vetting(self) -> Self {
        self.change(|values| values.vets = false)
    }

    /// Puts the connection's [`ConnectInfo`] into each request's extensions, at the price of three allocations.
    ///
    /// A request's body has it without ([`Incoming::connect_info`]).
    #[must_use]
    pub fn with_connect_info(self) -> Self {
        self.change(|values| values.attaches_info = true)
    }

    /// Serves one connection: a future that ends with it. See [`Connection`].
    ///
    /// The time until its first head counts from this call. Set `TCP_NODELAY` on a TCP socket before, as [`Server`](crate::Server)
    /// does: without it the last piece of a response waits for the peer's delayed acknowledgement, some 40 ms.
    pub fn serve_connection<IO, S, B>(
        &self,
        io: IO,
        info: ConnectInfo,
        service: S,
    ) -> Connection<IO, S, B>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        // The service.
        S: Service<Request<Incoming>, Response = Response<B>> + Clone,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        // Its responses' bodies.
        B: Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let opening = Opening {
            accepted: Instant::now(),
            info,
            protocols: self.values.protocols,
            seen: Vec::new(),
            gate: None,
        };
        Connection::new(self, io, opening, service)
    }
}

#[cfg(feature = "http2")]
impl Values {
    /// What the driver of the connection bounds isn't bounded twice; the heads after the first, and single streams, it
    /// can't see.
    fn bound_http2(&mut self) {
        let mut http2 = self
            .http2
            .clone()
            .with_head_timeout(self.bounds.head)
            .with_handshake_timeout(None)
            .with_write_timeout(None)
            .with_stream_write_timeout(self.bounds.write);
        if self.extended_connect {
            http2 = http2.with_extended_connect();
        }
        self.http2 = http2;
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}
