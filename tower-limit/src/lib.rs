//! Limits the number of requests in flight, and the rate at which they start.
//!
//! - [`ConcurrencyLimit`](concurrency::ConcurrencyLimit) lets at most so many requests be in flight; the
//!   others wait, first come, first served.
//! - [`Bulkhead`](bulkhead::Bulkhead) limits the same, and fails the others, at once or after a bounded wait.
//! - [`RateLimit`](rate::RateLimit) lets at most so many requests start a period; the others wait.
//!
//! Of each there is a layer that makes a limit for every service it wraps, and a `Global…` layer that makes
//! one for all of them. Clones of a limited service share its limit.
//!
//! # When not to use it
//!
//! - A concurrency limit fits a resource that is *occupied* by a request: memory, connections, workers. A rate
//!   limit fits a quota. Neither tells one caller from another: a greedy caller takes the others' share.
//! - Waiting helps against bursts. Against load that stays above the capacity only refusing does: use a
//!   bulkhead, or a load shedder around the limit.
//!
//! # What it costs
//!
//! | | a call | allocations | locks |
//! |---|---|---|---|
//! | `ConcurrencyLimit::new`, `Bulkhead` | two atomic operations, 17 ns | none | none, unless somebody waits |
//! | `ConcurrencyLimit::with_semaphore` | the clone of an `Arc` and a lock more, 33 ns | none | one, in `tokio::sync::Semaphore` |
//! | `RateLimit` | a clock read, 22 ns | none | none; two once it has been cloned, 45 ns |
//!
//! At capacity, a service that waits takes a place in a queue, and the rate limit makes a timer: about 100 ns and
//! an allocation.
//!
//! # Features
//!
//! - `load`: limited services tell the load of the service inside them.

pub mod bulkhead;
pub mod concurrency;
mod permits;
pub mod rate;
mod timer;
mod window;
