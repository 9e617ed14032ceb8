//! The load as a peak-sensitive moving average of response times, times the requests in flight.

use std::fmt;
#[cfg(feature = "discover")]
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(feature = "discover")]
use futures_core::Stream;
#[cfg(feature = "discover")]
use pin_project_lite::pin_project;
use tokio::time::Instant;
#[cfg(feature = "discover")]
use tower_discover::{Change, Discover};
use tower_service::Service;

use crate::ewma::{Estimate, Ewma, nanos};
use crate::snapshot::Snapshot;
use crate::{CompleteOnResponse, Load, TrackCompletion, TrackCompletionFuture};

/// A service that estimates from its response times what a request to it would cost.
///
/// The estimate is a moving average that follows peaks at once and decays with a time constant after
/// them, as in Finagle's `PeakEwma`. The load is the estimate times the number of requests that would be
/// in flight with one more. A slow or stalled endpoint so loses traffic within a round trip, and gets it
/// back carefully.
///
/// Reading the load changes nothing: how often a balancer looks doesn't influence what it sees.
///
/// # Readiness, Errors
///
/// As those of the service inside.
///
/// # Cancellation
///
/// A request that is cancelled no longer counts as in flight. What it took until then is recorded: an
/// endpoint on which callers give up looks as slow as it is.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use tower_load::{CompleteOnResponse, Load, peak_ewma::PeakEwma};
///
/// // Both decay within ten seconds, in nanoseconds.
/// let decay = 1e10;
/// let near = PeakEwma::new("service", Duration::from_millis(1), decay, CompleteOnResponse::default());
/// let far = PeakEwma::new("service", Duration::from_millis(30), decay, CompleteOnResponse::default());
/// assert!(near.load() < far.load());
/// ```
#[derive(Debug)]
pub struct PeakEwma<S, C = CompleteOnResponse> {
    inner: S,
    shared: Arc<Shared>,
    completion: C,
}

#[cfg(feature = "discover")]
pin_project! {
    /// A [`Discover`] whose services measure their load as [`PeakEwma`] does.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_discover::ServiceList;
    /// use tower_load::{CompleteOnResponse, peak_ewma::PeakEwmaDiscover};
    /// # use tower_test::mock::Mock;
    /// # let (a, _a) = tower_test::mock::pair::<(), ()>();
    /// # let (b, _b) = tower_test::mock::pair::<(), ()>();
    ///
    /// let endpoints = ServiceList::new::<()>(vec![a, b]);
    /// let measured = PeakEwmaDiscover::new::<()>(
    ///     endpoints,
    ///     Duration::from_millis(50), // what an endpoint is supposed to take before it was seen
    ///     Duration::from_secs(10),
    ///     CompleteOnResponse::default(),
    /// );
    /// # let _ = measured;
    /// ```
    #[derive(Debug)]
    pub struct PeakEwmaDiscover<D, C = CompleteOnResponse> {
        #[pin]
        discover: D,
        default_rtt: Duration,
        decay_ns: f64,
        completion: C,
    }
}

/// The estimated cost of one more request. Of two costs the smaller is preferred; the unit is that of
/// nanoseconds times requests.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cost(f64);

/// Keeps a request in flight, and records what it took when dropped.
// Two words, which move with the response future in registers.
pub struct Handle {
    /// In nanoseconds since the start of `shared`.
    sent_at: f64,
    shared: Arc<Shared>,
}

/// What a service and its requests in flight share. The number of requests is that of the other owners.
#[derive(Debug)]
struct Shared {
    start: Instant,
    ewma: Ewma,
    /// The bits of the fields of an [`Estimate`].
    estimate: Snapshot,
}

impl Shared {
    fn new(ewma: Ewma, default_rtt: Duration) -> Self {
        let estimate = Estimate {
            value: nanos(default_rtt),
            updated_at: 0.0,
        };
        Self {
            start: Instant::now(),
            ewma,
            estimate: Snapshot::new(to_words(estimate)),
        }
    }

    #[inline]
    fn observe(&self, rtt: f64, now: f64) {
        self.estimate
            .update(|old| to_words(self.ewma.observe(to_estimate(old), rtt, now)));
    }

    #[inline]
    fn project(&self, now: Instant) -> f64 {
        self.ewma
            .project(to_estimate(self.estimate.read()), self.since_start(now))
    }

    #[inline]
    fn since_start(&self, now: Instant) -> f64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

#[inline]
fn to_words(estimate: Estimate) -> (u64, u64) {
    (estimate.value.to_bits(), estimate.updated_at.to_bits())
}

#[inline]
fn to_estimate((value, updated_at): (u64, u64)) -> Estimate {
    Estimate {
        value: f64::from_bits(value),
        updated_at: f64::from_bits(updated_at),
    }
}

impl<S, C> PeakEwma<S, C> {
    /// Measures the load of `service`.
    ///
    /// - `default_rtt` is the response time that it is supposed to have until requests were answered.
    /// - `decay_ns` is the time constant in nanoseconds: within it the weight of a peak falls to 37 %.
    /// - `completion` says when a request is complete.
    pub fn new(service: S, default_rtt: Duration, decay_ns: f64, completion: C) -> Self {
        Self {
            inner: service,
            shared: Arc::new(Shared::new(Ewma::new(decay_ns), default_rtt)),
            completion,
        }
    }
}

impl<S, C> Load for PeakEwma<S, C> {
    type Metric = Cost;

    #[inline]
    fn load(&self) -> Self::Metric {
        self.load_at(Instant::now())
    }

    #[inline]
    fn load_at(&self, now: Instant) -> Self::Metric {
        // Those in flight, and one more. Counts of owners fit a signed integer, which converts in one instruction.
        let requests = Arc::strong_count(&self.shared) as i64;
        Cost(self.shared.project(now) * requests as f64)
    }
}

impl<S, C, Request> Service<Request> for PeakEwma<S, C>
where
    S: Service<Request>,
    C: TrackCompletion<Handle, S::Response>,
{
    type Response = C::Output;
    type Error = S::Error;
    type Future = TrackCompletionFuture<S::Future, C, Handle>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        let handle = Handle {
            sent_at: self.shared.since_start(Instant::now()),
            shared: Arc::clone(&self.shared),
        };
        TrackCompletionFuture::new(self.completion.clone(), handle, self.inner.call(req))
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        let now = self.shared.since_start(Instant::now());
        self.shared.observe(now - self.sent_at, now);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("sent_at", &self.sent_at)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "discover")]
impl<D, C> PeakEwmaDiscover<D, C> {
    /// Measures the load of every service of `discover`.
    ///
    /// - `default_rtt` is the response time that a new endpoint is supposed to have.
    /// - `decay` is the time constant: within it the weight of a peak falls to 37 %.
    /// - `completion` says when a request is complete.
    pub fn new<Request>(discover: D, default_rtt: Duration, decay: Duration, completion: C) -> Self
    where
        D: Discover,
        D::Service: Service<Request>,
        C: TrackCompletion<Handle, <D::Service as Service<Request>>::Response>,
    {
        Self {
            discover,
            default_rtt,
            decay_ns: nanos(decay),
            completion,
        }
    }
}

#[cfg(feature = "discover")]
impl<D, C> Stream for PeakEwmaDiscover<D, C>
where
    D: Discover,
    C: Clone,
{
    type Item = Result<Change<D::Key, PeakEwma<D::Service, C>>, D::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        this.discover.poll_discover(cx).map(|change| {
            let measure = |service| {
                PeakEwma::new(
                    service,
                    *this.default_rtt,
                    *this.decay_ns,
                    this.completion.clone(),
                )
            };
            Some(change?.map(|change| crate::map_service(change, measure)))
        })
    }
}
