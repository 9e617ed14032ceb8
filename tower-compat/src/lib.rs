//! Adapters between these crates' Service and Layer and crates.io's.
