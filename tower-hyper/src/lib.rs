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
//! # What it costs
//!
//! A connection has one timer for all of these, which is moved when it fires, or to an earlier time; and
//! the clock is read once for each time that the connection's task is woken. There is no allocation and no
//! timer for each request, unless its body has to be waited for.

mod connection;
mod date;
mod exchange;
mod failure;
mod gate;
mod incoming;
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
pub use crate::link::{Address, ConnectInfo};
pub use crate::listen::{Accept, Tcp};
pub use crate::server::{Handle, Server};
pub use crate::settings::{Protocols, Settings};
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsInfo};
pub use crate::workers::Workers;
