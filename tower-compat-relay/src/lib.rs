#![no_std]
//! crates.io's `tower-service` and `tower-layer`, for a package that also depends on ours.
//!
//! Use `tower-compat`, which is made of this. This package exists because of a
//! rule of cargo's: a package may depend on two packages named `tower-service` under two names, but
//! not on one and the same package under two names, and that is what the two become once
//! `[patch.crates-io]` replaces crates.io's by ours. So the second dependency lives here, by version
//! and alone: unpatched, these traits are crates.io's; patched, they are ours.
//!
//! ```
//! use std::convert::Infallible;
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//!
//! struct Double;
//!
//! impl tower_compat_relay::Service<u32> for Double {
//!     type Response = u32;
//!     type Error = Infallible;
//!     type Future = Ready<Result<u32, Infallible>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, n: u32) -> Self::Future {
//!         ready(Ok(2 * n))
//!     }
//! }
//! ```

pub use tower_layer::Layer;
pub use tower_service::Service;
