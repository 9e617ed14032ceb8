//! A gRPC client and server of Tower services.

// The code that is generated for this crate's own services names it as others do.
#[allow(
    unused_extern_crates,
    reason = "only paths in what is generated use it"
)]
extern crate self as tower_grpc;

mod call;
pub mod classify;
pub mod client;
mod code;
pub mod codec;
mod compression;
pub mod details;
mod expiry;
mod framing;
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
