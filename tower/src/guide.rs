//! Pages of the guide that are too long for the [crate page](crate).

/// When the compiler says …
#[doc = include_str!("guide/compiler.md")]
pub mod compiler {}

/// The contract in practice.
#[doc = include_str!("guide/contract.md")]
pub mod contract {}

/// Resilience: which of the parts to use when, and in what order.
#[doc = include_str!("guide/resilience.md")]
#[cfg(feature = "resilience")]
pub mod resilience {}
