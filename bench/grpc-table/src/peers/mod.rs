//! The same service and the same calls, on each peer of this program; volo-grpc and connectrpc have programs of their own.

pub mod raw;
pub mod tonic;
pub mod tower;

pub use crate::load::{IN_FLIGHT, LARGE, Load, SMALL};
