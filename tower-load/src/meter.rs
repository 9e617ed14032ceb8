//! The server's side: how many requests it has in flight, and how long one more would take.
//!
//! A client sees only its own requests. Where many clients share many servers, the load that counts is the
//! sum over all of them, and only the server knows it. A [`Meter`] counts there and answers probes with a
//! [`LoadReport`], as Prequal's servers do (Wydrowski et al., "Load is not what you should balance:
//! Introducing Prequal", NSDI 2024, section 4).

mod estimator;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use self::estimator::Estimator;
use crate::{CompleteOnResponse, TrackCompletion};

/// What a server says about its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The requests that it works at or that wait in it.
    pub in_flight: u32,
    /// How long the next request would take; none if too little is known.
    pub latency: Option<Duration>,
}

/// Measures the load of a server, for itself to report.
///
/// Clones measure together, so that one [`Meter`] stands for all connections of a server. A request is in
/// flight from [`start`](Self::start) until its [`Ticket`] is dropped; [`Metered`] does both for a service.
///
/// The latency that is reported is the mean of recent ones of requests which found, when they arrived, as many
/// others in flight as there are now. If there were none in the last ten seconds, those with the nearest number
/// stand in. So the estimate answers at once to a change of load, before any request has felt it. (The paper has a
/// median of fewer; a client that compares many servers finds the one with the luckiest estimate, so that a steady
/// one is worth more than one that shrugs off what is rare.)
///
/// # What it costs
///
/// For each request two atomic operations, two clock reads and a short lock; a report is a clock read and a
/// short lock. 2 KB for each meter.
///
/// # Example
///
/// ```
/// use tower_load::meter::Meter;
///
/// let meter = Meter::new();
/// assert_eq!(meter.report().in_flight, 0);
/// assert_eq!(meter.report().latency, None);
///
/// let ticket = meter.start();
/// assert_eq!(meter.report().in_flight, 1);
///
/// ticket.succeed();
/// assert_eq!(meter.report().in_flight, 0);
/// assert!(meter.report().latency.is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Meter {
    shared: Arc<Shared>,
}

/// Keeps a request in flight.
///
/// Dropped without [`succeed`](Self::succeed), the request has failed or was cancelled. How long that took
/// says nothing, unless it took longer than a success would have: then it counts like one, as otherwise a
/// server that is so slow that all callers give up would look fast.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    started_at: Instant,
    /// The requests that were in flight when this one came.
    found: u32,
    succeeded: bool,
}

/// Wraps a server's service so that a [`Meter`] counts its requests.
///
/// **Readiness.** That of the service inside.
///
/// **Cancellation.** Dropping the response future ends the request; see [`Ticket`] for how it counts.
///
/// **Errors.** Those of the service inside. A response is a success here: if some are failures, answer
/// probes with the meter of a service that turns them to errors.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_load::meter::{Meter, MeterLayer};
/// use tower_layer::Layer;
/// use tower_service::Service;
/// # let (service, mut handle) = tower_test::mock::pair::<&str, &str>();
///
/// let meter = Meter::new();
/// let mut service = MeterLayer::new(meter.clone()).layer(service);
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let response = service.call("hello");
/// assert_eq!(meter.report().in_flight, 1);
///
/// # handle.next_request().await.unwrap().1.send_response("world");
/// assert_eq!(response.await.unwrap(), "world");
/// assert_eq!(meter.report().in_flight, 0);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Metered<S, C = CompleteOnResponse> {
    inner: S,
    meter: Meter,
    completion: C,
}

/// Wraps services in [`Metered`], all with the same [`Meter`].
#[derive(Clone, Debug)]
pub struct MeterLayer<C = CompleteOnResponse> {
    meter: Meter,
    completion: C,
}

pin_project! {
    /// The response of a [`Metered`] service.
    ///
    /// # Panics
    ///
    /// If polled after it has resolved.
    #[derive(Debug)]
    pub struct MeteredFuture<F, C> {
        #[pin]
        inner: F,
        ticket: Option<Ticket>,
        completion: C,
    }
}

#[derive(Debug)]
struct Shared {
    in_flight: AtomicU32,
    start: Instant,
    estimator: Mutex<Estimator>,
}

impl LoadReport {
    /// Makes a report.
    pub const fn new(in_flight: u32, latency: Option<Duration>) -> Self {
        Self { in_flight, latency }
    }
}

impl Meter {
    /// Makes a meter that has seen nothing.
    pub fn new() -> Self {
        let shared = Shared {
            in_flight: AtomicU32::new(0),
            start: Instant::now(),
            estimator: Mutex::new(Estimator::new()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Counts a request that has arrived.
    pub fn start(&self) -> Ticket {
        Ticket {
            found: self.shared.in_flight.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(&self.shared),
            started_at: Instant::now(),
            succeeded: false,
        }
    }

    /// Says how loaded the server is. Reading changes nothing.
    pub fn report(&self) -> LoadReport {
        let in_flight = self.shared.in_flight.load(Ordering::Relaxed);
        let now = self.shared.since_start(Instant::now());
        let latency = self.shared.estimator().estimate(in_flight, now);
        LoadReport { in_flight, latency }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn estimator(&self) -> MutexGuard<'_, Estimator> {
        self.estimator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

impl Ticket {
    /// Ends the request: it succeeded.
    pub fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started_at);
        let now = self.shared.since_start(now);
        {
            let mut estimator = self.shared.estimator();
            let slow = |estimate: Option<Duration>| estimate.is_none_or(|usual| took > usual);
            if self.succeeded || slow(estimator.estimate(self.found, now)) {
                estimator.observe(self.found, took, now);
            }
        }
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Metered<S> {
    /// Counts the requests of `inner` by `meter`, each until its response comes.
    pub const fn new(inner: S, meter: Meter) -> Self {
        Self::with_completion(inner, meter, CompleteOnResponse {})
    }
}

impl<S, C> Metered<S, C> {
    /// Counts the requests of `inner` by `meter`, each until `completion` says that it is complete.
    pub const fn with_completion(inner: S, meter: Meter, completion: C) -> Self {
        Self {
            inner,
            meter,
            completion,
        }
    }

    /// The meter that counts.
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S, C, Req> Service<Req> for Metered<S, C>
where
    S: Service<Req>,
    C: TrackCompletion<Ticket, S::Response>,
{
    type Response = C::Output;
    type Error = S::Error;
    type Future = MeteredFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        MeteredFuture {
            ticket: Some(self.meter.start()),
            inner: self.inner.call(req),
            completion: self.completion.clone(),
        }
    }
}

impl<F, C, T, E> Future for MeteredFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: TrackCompletion<Ticket, T>,
{
    type Output = Result<C::Output, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut ticket = this.ticket.take().expect("polled after complete");
        Poll::Ready(result.map(|response| {
            ticket.succeeded = true;
            this.completion.track_completion(ticket, response)
        }))
    }
}

impl MeterLayer {
    /// Makes a layer whose services are counted by `meter`.
    pub const fn new(meter: Meter) -> Self {
        Self::with_completion(meter, CompleteOnResponse {})
    }
}

impl<C> MeterLayer<C> {
    /// Makes a layer whose services are counted by `meter`, each request until `completion` says that it is
    /// complete.
    pub const fn with_completion(meter: Meter, completion: C) -> Self {
        Self { meter, completion }
    }
}

impl<S, C> Layer<S> for MeterLayer<C>
where
    C: Clone,
{
    type Service = Metered<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Metered::with_completion(inner, self.meter.clone(), self.completion.clone())
    }
}
