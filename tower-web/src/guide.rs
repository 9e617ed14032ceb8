//! Pages that are too long for the [crate page](crate).

/// From hello to production: what is on, why, and how to change it.
#[doc = include_str!("guide/production.md")]
pub mod production {}

/// Coming from axum.
#[doc = include_str!("guide/migration.md")]
pub mod migration {}
