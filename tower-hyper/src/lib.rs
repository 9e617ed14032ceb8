//! Serves Tower services over HTTP/1.1 and HTTP/2, safe by default.
//!
//! [`Server`] takes a listening socket and a `Service<http::Request<Incoming>>`, and does what a server that
//! faces the internet has to do around the protocols: it bounds how long and how large everything may be, closes
//! what stalls, refuses what is malformed, and drains. [`Settings::serve_connection`] does the same for a
//! single byte stream.
//!
//! HTTP/1.1 is hyper's. HTTP/2 is [`tower_h2`]'s, the same that `tower-grpc` uses, so that its limits and
//! its speed are the same everywhere.
//!
//! # Time
//!
//! - **One deadline from accepting a connection to the end of its first head**
//!   ([`with_head_timeout`](Settings::with_head_timeout)): over TLS, detection and the head. A client that
//!   is silent, that sends a byte a second, or `PRI` and nothing more, is gone by then. Each later head has
//!   as much from its first byte.
//! - **Idle time** between requests is counted apart ([`with_idle_timeout`](Settings::with_idle_timeout)).
//! - **A stalled body** is cut both ways ([`with_body_timeout`](Settings::with_body_timeout),
//!   [`with_write_timeout`](Settings::with_write_timeout)).
//! - **How long a service may take** is for a middleware to bound, such as `tower-timeout`.
//!
//! # Requests that are refused
//!
//! HTTP/1.1 requests that RFC 9112 forbids get status 400 and the end of the connection, before the service
//! sees them: a `Host` that is missing, repeated or none; a `Content-Length` beside a `Transfer-Encoding`; a target
//! of a form that its method doesn't allow, or with a fragment. So they do in a later request of a pipelined batch. Over
//! HTTP/2 the same holds for `:authority` and `Host`, which must agree where both are there. See [`without_vetting`](Settings::without_vetting). hyper refuses
//! what doesn't parse, and [`tower_h2`] what RFC 9113 forbids, and floods.
//!
//! # Bodies that nobody reads
//!
//! A handler may answer before it has read the request, or without. Over HTTP/1.1 the next request begins behind that body, so
//! up to 256 KiB of it are read and thrown away after the response, and the connection goes on. A larger one ends the
//! connection: the response says so (`connection: close`) where the length is known, and the client isn't reset while it sends
//! the rest (64 MiB or 5 seconds of it), which could cost it the response. Nobody is asked to continue (`expect`) a body that isn't read.
//!
//! # What it costs
//!
//! A connection has one timer for all deadlines, which is moved when it fires, or to an earlier time. The clock is read
//! where a deadline follows from it, and for idle connections now and then only, so that most requests cost neither a clock
//! nor a timer. There is no allocation for each request, unless its body has to be waited for.
//!
//! In instructions, of a keep-alive request that says hello over one connection (`examples/callgrind.sh`): 1.07
//! times those of hyper alone with idle and stall timeouts and vetting off, 1.22 times with the
//! defaults. About half of the difference is what the runtime does for a timer that is set, each time that
//! it waits; it shrinks as connections share wake-ups. An idle connection takes 11 KiB, where hyper alone
//! takes 10.
//!
//! Responses to pipelined requests are written together where they are ready together, up to 16 KiB; one that is
//! ready never waits for one that isn't.
//!
//! # When not to use it
//!
//! - To speak HTTP/3, or to send requests.
//! - To bound how long a handler runs or how large a body may be: those are the service's to decide.
//!
//! # Features
//!
//! - `http2`, on by default: HTTP/2 on the same port. Without it there is HTTP/1.1, and much less to build.
//!
//! Off by default are
//!
//! - `tls`: TLS by rustls: ALPN, client certificates, and certificates that change without a restart.
//! - `proxy-protocol`: the client's address from a proxy in front.
//! - `listenfd`: sockets that a supervisor passes on.

#[cfg(not(feature = "http2"))]
mod absent;
mod connection;
#[cfg(feature = "http2")]
mod date;
mod exchange;
mod failure;
mod gate;
mod incoming;
mod leftover;
mod link;
mod listen;
mod outgoing;
#[cfg(feature = "proxy-protocol")]
mod proxied;
mod scan;
mod schedule;
mod server;
mod settings;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod vetting;
mod wire;
mod workers;

pub use crate::connection::Connection;
pub use crate::failure::{Error, ErrorKind};
pub use crate::incoming::Incoming;
pub use crate::link::{Address, ConnectInfo, Draining};
pub use crate::listen::{Accept, Tcp};
pub use crate::server::{Handle, Server};
pub use crate::settings::{Protocols, Settings};
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsInfo};
pub use crate::workers::Workers;
