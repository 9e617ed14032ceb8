//! The server's behaviour, as a client sees it.

#![allow(missing_docs, reason = "tests are documented by their names")]

mod conformance;
mod deadlines;
mod exchanges;
#[cfg(feature = "http2")]
mod http2;
mod leftovers;
mod malformed;
#[cfg(unix)]
mod processes;
#[cfg(feature = "proxy-protocol")]
mod proxied;
mod servers;
mod support;
#[cfg(feature = "tls")]
mod tls;
