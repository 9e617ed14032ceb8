//! Pages that are too long for the [crate page](crate).

/// Coming from axum.
#[doc = include_str!("guide/migration.md")]
pub mod migration {}
