//! crates.io's tower-service and tower-layer under names of their own.
