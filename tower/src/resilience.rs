//! What keeps a client's promises while services fail: a preset, and the builder's methods for its parts.
//!
//! [The guide](https://docs.rs/tower/latest/tower/guide/resilience/index.html) says which to use when, and why in that order.

use std::time::Duration;

#[doc(inline)]
pub use tower_resilience::*;

use tower_balance::MakeBalanceLayer;
use tower_breaker::{BreakerLayer, FallbackLayer};
use tower_close::DrainLayer;
use tower_deadline::DeadlineLayer;
use tower_hedge::HedgeLayer;
use tower_layer::Stack;
use tower_limit::bulkhead::{BulkheadLayer, GlobalBulkheadLayer};
use tower_limit::concurrency::GlobalConcurrencyLimitLayer;
use tower_limit::rate::GlobalRateLimitLayer;
use tower_load::meter::{Meter, MeterLayer};
#[cfg(feature = "spawn-ready")]
use tower_spawn_ready::SpawnReadyLayer;

use crate::ServiceBuilder;

/// Methods of [`ServiceBuilder`] for layers that tower 0.5 has no name for.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::breaker::Settings;
/// use tower::resilience::ServiceBuilderExt;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let service = ServiceBuilder::new()
///     .deadline(Duration::from_secs(1))
///     .bulkhead(100)
///     .breaker(Settings::default())
///     .service(service_fn(async |n: u32| Ok::<_, tower::BoxError>(n + 1)));
/// assert_eq!(service.oneshot(1).await?, 2);
/// # Ok(())
/// # }
/// ```
pub trait ServiceBuilderExt<L>: Sized {
    /// Adds a layer. Implemented by the builder's own method.
    #[doc(hidden)]
    fn add<T>(self, layer: T) -> ServiceBuilder<Stack<T, L>>;

    /// Stops asking a service that fails; see [`BreakerLayer`].
    fn breaker(self, settings: tower_breaker::Settings) -> ServiceBuilder<Stack<BreakerLayer, L>> {
        self.add(BreakerLayer::new(settings))
    }

    /// Stops asking a service that fails, and asks a clone of `fallback` instead; see [`FallbackLayer`].
    fn breaker_with_fallback<F>(
        self,
        settings: tower_breaker::Settings,
        fallback: F,
    ) -> ServiceBuilder<Stack<FallbackLayer<F>, L>> {
        self.add(BreakerLayer::new(settings).with_fallback(fallback))
    }

    /// Refuses requests while so many are in flight; see [`BulkheadLayer`].
    fn bulkhead(self, limit: usize) -> ServiceBuilder<Stack<BulkheadLayer, L>> {
        self.add(BulkheadLayer::new(limit))
    }

    /// Refuses requests while so many are in flight in all services that the stack is put around; see
    /// [`GlobalBulkheadLayer`].
    fn global_bulkhead(self, limit: usize) -> ServiceBuilder<Stack<GlobalBulkheadLayer, L>> {
        self.add(GlobalBulkheadLayer::new(limit))
    }

    /// Lets at most `max` requests be in flight in all services that the stack is put around; see
    /// [`GlobalConcurrencyLimitLayer`].
    fn global_concurrency_limit(
        self,
        max: usize,
    ) -> ServiceBuilder<Stack<GlobalConcurrencyLimitLayer, L>> {
        self.add(GlobalConcurrencyLimitLayer::new(max))
    }

    /// Starts at most `num` requests in any window of `per`, in all services that the stack is put around; see
    /// [`GlobalRateLimitLayer`].
    ///
    /// # Panics
    ///
    /// Where `num` or `per` is zero.
    fn global_rate_limit(
        self,
        num: u64,
        per: Duration,
    ) -> ServiceBuilder<Stack<GlobalRateLimitLayer, L>> {
        self.add(GlobalRateLimitLayer::new(num, per))
    }

    /// Gives no request more time than `max`, and tells everything inside; see [`DeadlineLayer`].
    fn deadline(self, max: Duration) -> ServiceBuilder<Stack<DeadlineLayer, L>> {
        self.add(DeadlineLayer::new().with_max(max))
    }

    /// Lets the service be closed by `layer`, of which this adds a clone; see [`DrainLayer`].
    fn drain(self, layer: &DrainLayer) -> ServiceBuilder<Stack<DrainLayer, L>> {
        self.add(layer.clone())
    }

    /// Sends a second try where the first takes longer than a percentile of those before; see
    /// [`Hedge::new`](tower_hedge::Hedge::new).
    fn hedge<P>(
        self,
        policy: P,
        min_data_points: u64,
        latency_percentile: f32,
        period: Duration,
    ) -> ServiceBuilder<Stack<HedgeLayer<P>, L>> {
        self.add(HedgeLayer::new(
            policy,
            min_data_points,
            latency_percentile,
            period,
        ))
    }

    /// Balances over the endpoints of every [`Discover`](tower_discover::Discover) that the service makes; see
    /// [`MakeBalance`](tower_balance::MakeBalance).
    fn make_balance<S, Req>(self) -> ServiceBuilder<Stack<MakeBalanceLayer<S, Req>, L>> {
        self.add(MakeBalanceLayer::new())
    }

    /// Measures for `meter` what a server has in flight, and how long it takes, to answer probes; see [`MeterLayer`].
    fn meter(self, meter: &Meter) -> ServiceBuilder<Stack<MeterLayer, L>> {
        self.add(MeterLayer::new(meter.clone()))
    }

    /// Adds the whole [preset](resilient).
    fn resilient<C>(self, classify: C) -> ServiceBuilder<Stack<Preset<C>, L>> {
        self.add(resilient(classify))
    }

    /// Drives the service to readiness on a task of its own; see [`SpawnReadyLayer`].
    #[cfg(feature = "spawn-ready")]
    fn spawn_ready(self) -> ServiceBuilder<Stack<SpawnReadyLayer, L>> {
        self.add(SpawnReadyLayer::new())
    }
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn add<T>(self, layer: T) -> ServiceBuilder<Stack<T, L>> {
        self.layer(layer)
    }
}
