//! Fails requests that take longer than a bound.
