//! A web front (axum, tower-http) over a gRPC backend (tonic), with a stack of tower's on each side.
//!
//! It is here to be tested: `tests/it` sends it requests over loopback, to see that crates published against
//! crates.io's tower build and work on the one in this repository.

pub mod backend;
pub mod site;
pub mod web;
