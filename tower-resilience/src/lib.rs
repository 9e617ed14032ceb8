//! Deadlines, limits, retries and timeouts, stacked in the order that works, with defaults.
//!
//! For whoever calls a service over a network and wants what an experienced operator would put around it.
//! [`resilient`] is a [`Layer`] like any other; each of its parts can be set, replaced or left out.
//!
//! | from the outside | what it does | default | source |
//! |---|---|---|---|
//! | [deadline](Resilient::with_deadline) | bounds all tries together, and tells everything inside | 10 s | gRFC A6: a call without a deadline waits for ever |
//! | [limit](Resilient::with_limit) | refuses what is too much, at once | 1024 in flight | Nygard, "Release It!": bulkheads |
//! | [retry](Resilient::with_retry) | tries again what may be, within a budget | 3 tries; a fifth of the successes of the last second, and ten | Finagle's `RetryBudget`, the SRE book's "Handling Overload"; the window is ours: a budget bounds the load over its window alone, and one of ten seconds is spent in the first of an outage (2.8 times the load, and 1.2 with one second, in our laboratory) |
//! | [hedge](Resilient::with_hedge) | sends again what takes unusually long | none | Dean and Barroso, "The Tail at Scale" |
//! | [try timeout](Resilient::with_try_timeout) | bounds one try | 2 s | ours: set it above your service's 99th percentile |
//! | your service | a [`Pool`](tower_balance::pool::Pool), which balances and ejects; a client; … | | |
//!
//! Why in this order: the deadline is outermost, so that nothing that waits further in outlives it. The limit comes
//! before the retries, as a request that is refused for overload must not come back at once. The timeout of a
//! try is inside of the retries: each try has its own, and one that hangs leaves time for another. What picks
//! the endpoint is inside of both, so that the next try may go to another one; what judges an endpoint (a
//! [breaker](tower_breaker), the ejection of a pool) is around each endpoint.
//!
//! # Example
//!
//! ```
//! use tower_classify::EveryErrorIsRetryable;
//! use tower_layer::Layer;
//! use tower_resilience::resilient;
//! use tower_service::Service;
//! use tower_test::mock;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let (mock, mut server) = mock::pair::<&str, &str>();
//! // Whatever fails may be tried again: these requests do no harm when they are done twice.
//! let mut service = resilient(EveryErrorIsRetryable).layer(mock);
//!
//! std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
//! let response = tokio::spawn(service.call("hello"));
//!
//! // The first try is never answered. After two seconds there is another.
//! let (_, _stuck) = server.next_request().await.unwrap();
//! let (request, answer) = server.next_request().await.unwrap();
//! assert_eq!(request, "hello");
//! answer.send_response("world");
//! assert_eq!(response.await??, "world");
//! # Ok(())
//! # }
//! ```
//!
//! # When not to use it
//!
//! - On a server, for what comes in: there a deadline and a limit are right, and retries are not.
//! - Twice: retries in two tiers multiply. Retry in one place, next to the service that fails.
//!
//! # What it costs
//!
//! The sum of its parts: some hundred nanoseconds and no allocation for a request that goes well.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tower_balance::pool::Unavailable;
use tower_breaker::Refused;
use tower_classify::{Class, Classify};
use tower_deadline::{DeadlineLayer, Expired};
use tower_layer::{Identity, Layer};
use tower_limit::bulkhead::BulkheadLayer;
use tower_retry::RetryLayer;
use tower_retry::budget::TpsBudget;
use tower_retry::standard::StandardPolicy;
use tower_timeout::TimeoutLayer;

type BoxError = Box<dyn Error + Send + Sync>;

/// How long all tries of a request may take together, by default.
pub const MAX_TIME: Duration = Duration::from_secs(10);

/// How long one try may take, by default.
pub const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a success counts for retries, by default, and a retry against them.
pub const BUDGET_WINDOW: Duration = Duration::from_secs(1);

/// How many retries each success earns, by default.
pub const BUDGET_RATIO: f32 = 0.2;

/// How many retries each second allows without any success, by default.
pub const BUDGET_RESERVE_PER_SECOND: u32 = 10;

/// How many requests may be in flight at once, by default.
pub const MAX_IN_FLIGHT: usize = 1024;

/// The layers of a resilient client, from the outside to the inside: deadline, limit, retry, hedge, and the
/// timeout of a try.
///
/// Made by [`resilient`]. Any [`Layer`] may take the place of a part, and [`Identity`] leaves it out.
///
/// **Errors.** All of them boxed: [`Expired`], the limit's
/// [`AtCapacity`](tower_limit::bulkhead::AtCapacity), the timeout's [`Elapsed`](tower_timeout::Elapsed) of the last try, and
/// the inner service's.
#[derive(Clone, Copy, Debug)]
pub struct Resilient<D, L, R, H, T> {
    deadline: D,
    limit: L,
    retry: R,
    hedge: H,
    attempt: T,
}

/// What [`resilient`] makes.
pub type Preset<C> = Resilient<
    DeadlineLayer,
    BulkheadLayer,
    RetryLayer<StandardPolicy<KnownErrors<C>>>,
    Identity,
    TimeoutLayer,
>;

/// Makes the layers of a resilient client, with the [defaults](crate).
///
/// The budget of the retries is this layer's own, shared by all services that it makes and by its clones.
///
/// `classify` says which results may be tried again. It is asked after [`KnownErrors`], so that it need only know
/// its own protocol's. Mind that a try that timed out may have been done, and that only the protocol knows
/// whether it does harm to do it twice.
pub fn resilient<C>(classify: C) -> Preset<C> {
    let budget = TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE_PER_SECOND, BUDGET_RATIO);
    let policy = StandardPolicy::within(Arc::new(budget), KnownErrors(classify));
    Resilient {
        deadline: DeadlineLayer::new().with_max(MAX_TIME),
        limit: BulkheadLayer::new(MAX_IN_FLIGHT),
        retry: RetryLayer::new(policy),
        hedge: Identity::new(),
        attempt: TimeoutLayer::new(TRY_TIMEOUT),
    }
}

impl<D, L, R, H, T> Resilient<D, L, R, H, T> {
    /// Replaces the layer that bounds all tries together.
    #[must_use]
    pub fn with_deadline<D2>(self, deadline: D2) -> Resilient<D2, L, R, H, T> {
        Resilient {
            deadline,
            limit: self.limit,
            retry: self.retry,
            hedge: self.hedge,
            attempt: self.attempt,
        }
    }

    /// Replaces the layer that refuses what is too much.
    #[must_use]
    pub fn with_limit<L2>(self, limit: L2) -> Resilient<D, L2, R, H, T> {
        Resilient {
            deadline: self.deadline,
            limit,
            retry: self.retry,
            hedge: self.hedge,
            attempt: self.attempt,
        }
    }

    /// Replaces the layer that tries again.
    #[must_use]
    pub fn with_retry<R2>(self, retry: R2) -> Resilient<D, L, R2, H, T> {
        Resilient {
            deadline: self.deadline,
            limit: self.limit,
            retry,
            hedge: self.hedge,
            attempt: self.attempt,
        }
    }

    /// Adds a layer that sends a second try while the first goes on, such as
    /// [`HedgeLayer`](https://docs.rs/tower/latest/tower/hedge/index.html).
    ///
    /// There is none by default: it takes requests that may be done twice, and replicas.
    #[must_use]
    pub fn with_hedge<H2>(self, hedge: H2) -> Resilient<D, L, R, H2, T> {
        Resilient {
            deadline: self.deadline,
            limit: self.limit,
            retry: self.retry,
            hedge,
            attempt: self.attempt,
        }
    }

    /// Replaces the layer that bounds each try.
    #[must_use]
    pub fn with_try_timeout<T2>(self, timeout: T2) -> Resilient<D, L, R, H, T2> {
        Resilient {
            deadline: self.deadline,
            limit: self.limit,
            retry: self.retry,
            hedge: self.hedge,
            attempt: timeout,
        }
    }
}

impl<S, D, L, R, H, T> Layer<S> for Resilient<D, L, R, H, T>
where
    T: Layer<S>,
    H: Layer<T::Service>,
    R: Layer<H::Service>,
    L: Layer<R::Service>,
    D: Layer<L::Service>,
{
    type Service = D::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let attempt = self.attempt.layer(inner);
        let hedged = self.hedge.layer(attempt);
        let retried = self.retry.layer(hedged);
        let limited = self.limit.layer(retried);
        self.deadline.layer(limited)
    }
}

/// Classifies the errors of these crates' own middleware, and asks another classifier about all else.
///
/// | error | class |
/// |---|---|
/// | [`Expired`] | [`Ignored`](Class::Ignored): it is the caller's time that is over |
/// | [`Refused`], of a breaker | [`RejectedBeforeWork`](Class::RejectedBeforeWork), with the time to wait: another endpoint may do it |
/// | [`Unavailable`], of a pool | [`Failure`](Class::Failure): it has waited already |
///
/// An [`Elapsed`](tower_timeout::Elapsed) timeout is left to the other one, since whether a request may be sent again
/// that may have been done only the protocol knows.
///
/// # Example
///
/// ```
/// use tower_breaker::Refused;
/// use tower_classify::{Class, Classify, EveryErrorFails};
/// use tower_resilience::KnownErrors;
///
/// # type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// let classify = KnownErrors(EveryErrorFails);
/// let refused: Result<(), BoxError> = Err(Refused::Overdue.into());
/// assert!(classify.classify(&(), &refused).is_retryable());
/// let other: Result<(), BoxError> = Err("out of order".into());
/// assert_eq!(classify.classify(&(), &other), Class::Failure);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KnownErrors<C>(pub C);

impl<C, Req, Res> Classify<Req, Res, BoxError> for KnownErrors<C>
where
    C: Classify<Req, Res, BoxError>,
{
    fn classify(&self, req: &Req, result: &Result<Res, BoxError>) -> Class {
        let known = result.as_ref().err().and_then(|error| known(&**error));
        known.unwrap_or_else(|| self.0.classify(req, result))
    }
}

fn known(error: &(dyn Error + Send + Sync + 'static)) -> Option<Class> {
    if error.is::<Expired>() {
        return Some(Class::Ignored);
    }
    if error.is::<Unavailable>() {
        return Some(Class::Failure);
    }
    let refused = error.downcast_ref::<Refused>()?;
    Some(Class::RejectedBeforeWork {
        after: refused.retry_after(),
    })
}
