//! Combinators, boxed services and helpers for Tower services.
