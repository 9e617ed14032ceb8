//! gRPC's official interoperability tests: [what a server answers](answers), and [what a client checks](cases).
//!
//! The cases are those of gRPC's `interop-test-descriptions.md`, by their official names. The programs are the
//! examples `interop-server` and `interop-client`, with the official flags.
//!
//! ```text
//! cargo run --example interop-server -- --port=10000
//! cargo run --example interop-client -- --server_host=127.0.0.1 --server_port=10000 --test_case=large_unary
//! ```

pub mod answers;
pub mod cases;
mod checks;
pub mod flags;
mod soak;

pub use crate::soak::Soak;

/// The messages and services of the package `grpc.testing`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated from the protocol's files"
)]
pub mod testing {
    tower_grpc::include_proto!("grpc.testing");
}

/// What reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = tower_grpc::include_file_descriptor_set!("interop");

/// The header that is echoed among the headers.
pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
/// The header that is echoed among the trailers.
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";
