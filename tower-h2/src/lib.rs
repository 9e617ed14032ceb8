//! HTTP/2 clients and servers of Tower services.
//!
//! On a server, [`server::Builder`] runs any `Service<http::Request<RecvBody>>` over any byte stream. On a client,
//! [`client::Connect`] makes connections, which are services of `http::Request`s, over the streams of any
//! connector. The protocol itself is the `h2` crate's; here is what a service needs around it: readiness,
//! cancellation, limits, times, and errors that say whether a request may be sent again.
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Empty, Full};
//! use tower_h2::{RecvBody, client, server};
//! use tower_util::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_h2::Error> {
//! let hello = service_fn(|request: Request<RecvBody>| async move {
//!     let greeting = format!("hello, {}", request.uri().path());
//!     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(greeting))))
//! });
//!
//! // A pipe here; a socket elsewhere.
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! tokio::spawn(server::Builder::new().serve_connection(far, hello));
//!
//! let (client, driver) = client::Builder::new().handshake(near).await?;
//! tokio::spawn(driver);
//! let request = Request::get("http://localhost/world").body(Empty::<Bytes>::new());
//! let response = client.oneshot(request.unwrap()).await?;
//! let body = response.into_body().collect().await?.to_bytes();
//! assert_eq!(body, "hello, /world");
//! # Ok(())
//! # }
//! ```
//!
//! # When not to use it
//!
//! - For browsers and other clients that may speak HTTP/1.1: `tower-hyper` serves both on one port, and this
//!   crate's side of it.
//! - For gRPC: `tower-grpc` is made of this crate, and knows messages, status and deadlines.
//!
//! # What is bounded
//!
//! What a peer can make a connection hold, or do, has a bound, and a default that can face the internet:
//! streams open at once, fields of a head, bodies that nobody reads (windows), responses that nobody takes
//! (a chunk beyond the peer's window), resets, frames that bring nothing, and the time of a handshake, a
//! head, a write. See [`server::Builder`]. What it can't is said there as well: how long a body may
//! take, and how long a handler works, is a matter of the service.
//!
//! # What it costs
//!
//! A server polls the requests that it finds in one read one after the other, where it accepts them, and
//! writes the responses that are there at once together; only a request that has to wait gets a task. An
//! answer that is there at once costs no allocation beyond h2's own. Measured (`bench/h2.sh`, a unary echo of
//! 105 bytes, ten at once on a connection): 0.97 of the instructions of h2 by hand with a task a request
//! on a server, 1.04 on a client, and as many writes. A timer a connection is moved when it fires, and not by
//! requests. Once a frame of 128 KiB has come, glibc keeps up to 4 MiB of freed memory for each arena, so that large
//! messages don't fetch theirs from the kernel page by page.
//!
//! # Features
//!
//! - `tls`, off by default: the module `tls`, TLS by rustls on both sides.

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
