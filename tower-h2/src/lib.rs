//! HTTP/2 clients and servers of Tower services.
//!
//! [`server::Builder`] runs a `Service<http::Request<RecvBody>>` over a byte stream, on the `h2` crate's
//! protocol.
//!
//! # What it costs
//!
//! A server polls the requests that it finds in one read one after the other, where it accepts them, and
//! writes the responses that are there at once together; only a request that has to wait gets a task. See
//! [`server::Connection`].

mod bdp;
pub mod client;
mod clockwork;
pub mod connect;
mod exchange;
mod failure;
mod fields;
mod gate;
mod pace;
mod recv_body;
mod send_body;
pub mod server;
#[cfg(feature = "tls")]
pub mod tls;
mod upkeep;
mod wiretap;

pub use crate::failure::{Error, ErrorKind};
pub use crate::recv_body::RecvBody;
pub use h2::Reason;
/// The `:protocol` of an extended CONNECT (RFC 8441), in the extensions of such a request.
pub use h2::ext::Protocol;
