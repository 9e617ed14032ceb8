//! A gRPC client and server of Tower services.
//!
//! gRPC calls methods over HTTP/2, with messages in Protocol Buffers and an interface in a `.proto` file, from which
//! [`tower-grpc-build`](https://docs.rs/tower-grpc-build) generates the Rust code: no protoc is needed. New to it? The
//! [tutorial](guide::tutorial) goes from a `.proto` file to a server, a client and their tests. Coming from tonic,
//! [this page](guide::migration) has the names.
//!
//! ```no_run
//! # mod helloworld {
//! #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/helloworld/helloworld.rs"));
//! # }
//! # use helloworld::{HelloReply, HelloRequest, client::GreeterClient, server::{self, GreeterServer}};
//! # use tower_grpc::{Request, Response, Status, client::Channel, server::Server};
//! # struct Greet;
//! impl server::Greeter for Greet {
//!     async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
//!         let message = format!("Hello, {}!", request.into_inner().name);
//!         Ok(Response::new(HelloReply { message }))
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! Server::builder().add_service(GreeterServer::new(Greet)).serve("[::1]:50051").await?;
//!
//! let mut client = GreeterClient::new(Channel::connect("http://[::1]:50051").await?);
//! let reply = client.say_hello(HelloRequest { name: "Ferris".into() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Everything is a service
//!
//! A generated `GreeterServer` is a `Service<http::Request<B>>` for any body `B`. [`Server`](server::Server) serves it, a
//! [`Router`](server::Router) holds several, and any HTTP server of Tower services can mount it beside other things,
//! on one port. A generated `GreeterClient` calls over any `Service<http::Request<GrpcBody>>`: a
//! [`Channel`](client::Channel), and whatever layers are around it. So there are no interceptors: a layer does what
//! they would, and may wait while it does.
//!
//! # What holds
//!
//! - **Deadlines** are sent, enforced on both sides, and passed on to the calls that a handler makes.
//! - **Cancellation** goes both ways: a dropped call resets the stream, which drops the handler.
//! - **Limits** are on: 4 MiB for a received message, before it is decompressed and after; what a peer may
//!   open, send and reset is the transport's ([`tower_h2`](https://docs.rs/tower-h2)) to bound.
//! - **Errors** are [`Status`]es, one pointer wide, which keep what has caused them.
//!
//! # When not to use it
//!
//! For calls to several servers behind one name, or retries, put the balancer or the retry of `tower` around channels:
//! a channel is one connection. JSON isn't transcoded.
//!
//! # What it costs
//!
//! One box for a call on a server, at the `Service` boundary; a stream is another on either side. A message is decoded
//! from the chunks in which it was received, and fields of type `Bytes` share their memory. A unary response is one
//! frame of data with its trailers; messages of a stream that are ready together are written into one.
//!
//! # Features
//!
//! - `transport`, on: [`Server`](server::Server) and [`Channel`](client::Channel).
//! - `compression`, on: gzip and deflate, in Rust.
//! - `zstd`: zstd, which compiles C.
//! - `tls`: TLS by rustls, for `ServerBuilder::with_tls`, and `tower_h2::tls` for channels' connectors.

// The code that is generated for this crate's own services names it as others do.
#[allow(
    unused_extern_crates,
    reason = "only paths in what is generated use it"
)]
extern crate self as tower_grpc;

mod call;
mod chunks;
pub mod classify;
pub mod client;
mod code;
pub mod codec;
mod compression;
mod content_type;
pub mod details;
mod expiry;
mod framing;
pub mod guide;
pub mod health;
mod inbound;
mod metadata;
mod outbound;
pub mod reflection;
pub mod server;
mod status;
mod streaming;
pub mod test;
mod timeout;
pub mod web;

pub use crate::call::{IntoRequest, IntoStreamingRequest, Request, Response};
pub use crate::code::Code;
pub use crate::compression::{Compression, Encoding};
pub use crate::metadata::{InvalidMetadata, Metadata, MetadataValue};
pub use crate::outbound::GrpcBody;
pub use crate::status::Status;
pub use crate::streaming::Streaming;

/// Includes the code that `tower-grpc-build` has generated for a package.
///
/// Put it in a module: `mod helloworld { tower_grpc::include_proto!("helloworld"); }`.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// The descriptor set that `tower_grpc_build::configure().file_descriptor_set(…)` has written: what reflection
/// serves.
#[macro_export]
macro_rules! include_file_descriptor_set {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bin"))
    };
}

/// What generated code names. Nothing here is for others.
#[doc(hidden)]
pub mod generated {
    pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

    pub use bytes::Bytes;
    pub use futures_core::Stream;
    pub use http;
    pub use http_body::Body;
    pub use tower_service::Service;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
