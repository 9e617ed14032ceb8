//! The options that ours has, and crates.io's tower hasn't.

use std::error::Error;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ours::balance::p2c::Balance;
use ours::buffer::{Buffer, BufferLayer};
use ours::classify::EveryErrorIsRetryable;
use ours::discover::Discover;
use ours::hedge::{Hedge, HedgeLayer};
use ours::limit::bulkhead::Bulkhead;
use ours::limit::rate::{Rate, Window};
use ours::limit::{ConcurrencyLimit, GlobalRateLimitLayer, RateLimit};
use ours::reconnect::Reconnect;
use ours::retry::Retry;
use ours::retry::backoff::ExponentialBackoffMaker;
use ours::retry::budget::TpsBudget;
use ours::retry::standard::StandardPolicy;
use ours::timeout::Timeout;
pub use ours::util::OptionLayer;
use ours::util::rng::SplitMix64;
use ours::{BoxError, Layer, Service};
use tokio::sync::Semaphore;

/// How long a timeout is that isn't to be the one that is seen.
const LONG: Duration = Duration::from_secs(24 * 3600);

pub fn rebuilding_buffer<S, M, Req>(make: M, bound: usize) -> Buffer<Req, S::Future>
where
    M: FnMut() -> S + Send + 'static,
    S: Service<Req> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send + Sync,
    Req: Send + 'static,
{
    Buffer::rebuilding(make, bound)
}

pub fn buffer_in_flight<S, Req>(inner: S, bound: usize, limit: usize) -> Buffer<Req, S::Future>
where
    S: Service<Req> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send + Sync,
    Req: Send + 'static,
{
    BufferLayer::new(bound)
        .with_in_flight_limit(limit)
        .layer(inner)
}

pub fn limit_with_semaphore<S>(inner: S, semaphore: Arc<Semaphore>) -> ConcurrencyLimit<S> {
    ConcurrencyLimit::with_semaphore(inner, semaphore).release_while_pending()
}

pub fn rejecting_limit<S>(inner: S, limit: usize) -> Bulkhead<S> {
    Bulkhead::new(inner, limit)
}

pub fn patient_limit<S>(inner: S, limit: usize, longest: Duration) -> Bulkhead<S> {
    Bulkhead::new(inner, limit).with_max_wait(longest)
}

pub fn shared_rate_limit_layer(num: u64, per: Duration) -> GlobalRateLimitLayer {
    GlobalRateLimitLayer::new(num, per)
}

pub fn smooth_rate_limit<S>(inner: S, num: u64, per: Duration) -> RateLimit<S> {
    RateLimit::new(inner, Rate::new(num, per)).with_window(Window::Sliding)
}

pub fn retried<S>(inner: S) -> Option<Retry<StandardPolicy<EveryErrorIsRetryable>, S>> {
    Some(Retry::new(
        StandardPolicy::new(EveryErrorIsRetryable),
        inner,
    ))
}

pub fn reconnect<M, Target>(
    make: M,
    to: Target,
    least: Duration,
    most: Duration,
) -> Reconnect<M, Target>
where
    M: Service<Target>,
{
    let backoff = ExponentialBackoffMaker::new(least, most, 0.5, SplitMix64::new(1)).unwrap();
    Reconnect::new(make, to).with_backoff(backoff)
}

pub fn budgeted_hedge<S, P>(hedge: Hedge<S, P>, share: f32) -> Hedge<S, P> {
    hedge.with_budget(TpsBudget::new(Duration::from_secs(60), 0, share))
}

pub fn hedge_layer<S, P: Clone>(
    inner: S,
    policy: P,
    min_data_points: u64,
    percentile: f32,
    period: Duration,
) -> Option<Hedge<S, P>> {
    Some(HedgeLayer::new(policy, min_data_points, percentile, period).layer(inner))
}

pub fn failing_fast<D, Req>(balance: Balance<D, Req>) -> Balance<D, Req>
where
    D: Discover,
    D::Key: Hash,
    D::Service: Service<Req>,
    <D::Service as Service<Req>>::Error: Into<BoxError>,
{
    balance.with_fail_fast()
}

pub fn waiting_at_most<D, Req>(balance: Balance<D, Req>, longest: Duration) -> Balance<D, Req>
where
    D: Discover,
    D::Key: Hash,
    D::Service: Service<Req>,
    <D::Service as Service<Req>>::Error: Into<BoxError>,
{
    balance.with_max_wait(longest)
}

pub fn timeout_of_readiness<S>(inner: S, timeout: Duration) -> Timeout<S> {
    Timeout::new(inner, LONG).with_readiness_timeout(timeout)
}

pub fn timeout_of_all<S>(inner: S, timeout: Duration) -> Timeout<S> {
    Timeout::new(inner, LONG).with_total_timeout(timeout)
}

pub fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    ours::util::find_source(error)
}
