//! Pages that are too long for the [crate page](crate).

/// From a `.proto` file to a server and a client.
#[doc = include_str!("guide/tutorial.md")]
pub mod tutorial {}

/// Coming from tonic.
#[doc = include_str!("guide/migration.md")]
pub mod migration {}
