//! The nearest that crates.io's tower has to what ours has an option for.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use upstream::buffer::Buffer;
use upstream::hedge::Hedge;
use upstream::layer::util::Identity;
use upstream::limit::rate::Rate;
use upstream::limit::{ConcurrencyLimit, RateLimit, RateLimitLayer};
use upstream::reconnect::Reconnect;
use upstream::timeout::Timeout;
use upstream::util::Either;
use upstream::{BoxError, Service};

pub fn rebuilding_buffer<S, M, Req>(make: M, bound: usize) -> Buffer<Req, S::Future>
where
    M: FnMut() -> S + Send + 'static,
    S: Service<Req> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send + Sync,
    Req: Send + 'static,
{
    let mut make = make;
    Buffer::new(make(), bound)
}

pub fn buffer_in_flight<S, Req>(inner: S, bound: usize, _: usize) -> Buffer<Req, S::Future>
where
    S: Service<Req> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send + Sync,
    Req: Send + 'static,
{
    Buffer::new(inner, bound)
}

pub fn limit_with_semaphore<S>(inner: S, semaphore: Arc<Semaphore>) -> ConcurrencyLimit<S> {
    ConcurrencyLimit::with_semaphore(inner, semaphore)
}

pub fn rejecting_limit<S>(inner: S, limit: usize) -> ConcurrencyLimit<S> {
    ConcurrencyLimit::new(inner, limit)
}

pub fn patient_limit<S>(inner: S, limit: usize, _: Duration) -> ConcurrencyLimit<S> {
    ConcurrencyLimit::new(inner, limit)
}

pub fn shared_rate_limit_layer(num: u64, per: Duration) -> RateLimitLayer {
    RateLimitLayer::new(num, per)
}

pub fn smooth_rate_limit<S>(inner: S, num: u64, per: Duration) -> RateLimit<S> {
    RateLimit::new(inner, Rate::new(num, per))
}

pub fn retried<S>(_: S) -> Option<S> {
    None
}

pub fn reconnect<M, Target>(make: M, to: Target, _: Duration, _: Duration) -> Reconnect<M, Target>
where
    M: Service<Target>,
{
    Reconnect::new(make, to)
}

pub fn budgeted_hedge<S, P>(hedge: Hedge<S, P>, _: f32) -> Hedge<S, P> {
    hedge
}

pub fn hedge_layer<S, P>(_: S, _: P, _: u64, _: f32, _: Duration) -> Option<S> {
    None
}

pub fn failing_fast<B>(balance: B) -> B {
    balance
}

pub fn waiting_at_most<B>(balance: B, _: Duration) -> B {
    balance
}

pub fn timeout_of_readiness<S>(inner: S, timeout: Duration) -> Timeout<S> {
    Timeout::new(inner, timeout)
}

pub fn timeout_of_all<S>(inner: S, timeout: Duration) -> Timeout<S> {
    Timeout::new(inner, timeout)
}

/// What `option_layer` gives.
pub type OptionLayer<L> = Either<L, Identity>;

pub fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    error.downcast_ref()
}
