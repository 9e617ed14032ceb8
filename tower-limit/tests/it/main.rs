//! What the limits promise, seen from outside.

mod bulkhead;
mod concurrency;
mod rate;

type Mock = tower_test::mock::Mock<&'static str, &'static str>;
type Handle = tower_test::mock::Handle<&'static str, &'static str>;
