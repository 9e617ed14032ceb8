//! The load as what a request would come to: how long it takes, and whether it fails.
//!
//! A balancer that looks at latency alone prefers an endpoint that fails within a millisecond to one that works for
//! twenty. And one that learns of a latency only from responses goes on sending to an endpoint that has stopped
//! answering. [`Outcomes`] counts both: failures cost time, and a request that is out for longer than the estimate
//! *is* the estimate.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_classify::{Class, Classify, EveryErrorFails};
use tower_service::Service;

use self::flights::{Flights, Place};
use self::published::Published;
use crate::ewma::{Estimate, Ewma, nanos};
use crate::{CompleteOnResponse, Load, TrackCompletion};

mod flights;
mod published;

/// What an endpoint's requests have come to, and so what the next one would cost.
///
/// The cost is a time: `(latency + failures × penalty) × (in flight + 1)^0.75`, where
///
/// - *latency* is the peak-sensitive moving average of [`PeakEwma`](crate::peak_ewma::PeakEwma), or the age of the
///   oldest request in flight, if that is more;
/// - *failures* is the share of requests that [failed](Class::is_fault) lately;
/// - *penalty* is how long one would rather wait than fail: a second by default.
///
/// Requests in flight count for less than in full: an idle endpoint that takes two seconds would otherwise be as good as one
/// that takes a tenth of that and has nine under way, as it may well have at a high rate. And what they do to each other is
/// in the latency already.
///
/// An endpoint that [asks to be left alone](Class::retry_after) costs more than any other until then, but no longer
/// than for 30 seconds.
///
/// Latencies and failures lose weight with a time constant, ten seconds by default, and so does what is read while
/// nothing is sent: an endpoint that failed is tried again some day. How long that takes is up to the penalty: until
/// one that always failed, while others take 20 ms, has fallen from 1 s below 20 ms, 39 s pass.
///
/// # What it costs
///
/// A clock read and a short lock when a request begins and when it ends. A reading takes no lock. Memory is that of
/// the most requests that were ever in flight at once, 24 bytes each.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use tower_classify::Class;
/// use tower_load::outcome::Outcomes;
///
/// let (failing, working) = (Outcomes::new(), Outcomes::new());
/// failing.start().end(Class::Failure);
/// working.start().end(Class::Success);
/// assert!(working.cost() < failing.cost());
/// ```
#[derive(Clone)]
pub struct Outcomes {
    shared: Arc<Shared>,
}

/// Keeps a request in flight; see [`Outcomes::start`].
///
/// Dropped without [`end`](Self::end), the request was cancelled. If that was after longer than the request should have
/// taken, it counts as a failure: an endpoint that has stopped answering is known by nothing else where the timeout is
/// the caller's. If it was sooner, it says nothing.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    began: f64,
    place: Place,
    class: Option<Class>,
}

/// A service whose load is what its [`Outcomes`] say.
///
/// **Readiness, Errors.** As those of the service inside.
///
/// **Cancellation.** A request that is cancelled is no longer in flight, and counts as [`Ticket`] says.
///
/// # Example
///
/// ```
/// use std::io;
///
/// use tower_classify::Class;
/// use tower_load::outcome::OutcomeLoad;
/// # let (service, _handle) = tower_test::mock::pair::<(), u16>();
///
/// // Statuses as HTTP has them.
/// let by_status = |_: &(), result: &Result<u16, io::Error>| match result {
///     Ok(500..) | Err(_) => Class::Failure,
///     Ok(_) => Class::Success,
/// };
/// let endpoint = OutcomeLoad::new(service).with_classify(by_status);
/// # let _ = endpoint;
/// ```
#[derive(Clone, Debug)]
pub struct OutcomeLoad<S, K = EveryErrorFails, C = CompleteOnResponse> {
    inner: S,
    outcomes: Outcomes,
    classify: K,
    completion: C,
}

pin_project! {
    /// The response of an [`OutcomeLoad`].
    ///
    /// # Panics
    ///
    /// If polled after it has resolved.
    #[derive(Debug)]
    pub struct OutcomeFuture<F, K, C> {
        #[pin]
        inner: F,
        ticket: Option<Ticket>,
        classify: K,
        completion: C,
    }
}

struct Shared {
    start: Instant,
    settings: Settings,
    state: Mutex<State>,
    published: Published,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    default_rtt: f64,
    decay: f64,
    penalty: f64,
}

#[derive(Debug)]
struct State {
    latency: Estimate,
    failures: Failures,
    flights: Flights,
    /// Until when the endpoint wants to be left alone.
    until: f64,
}

/// The share of requests that failed.
#[derive(Clone, Copy, Debug)]
struct Failures {
    share: f64,
    updated_at: f64,
    /// How many failed in a row.
    run: u32,
}

/// A single result moves the share of failures by so much at least. Without it, the more requests an endpoint gets
/// the less each would count, and a busy one would go on failing for a while.
const LEAST_WEIGHT: f64 = 1.0 / 32.0;

/// After each failure in a row the next result counts twice as much, up to a half. So failures here and there weigh
/// little, and an endpoint that has stopped working is known after five requests.
const MOST_DOUBLINGS: u32 = 4;

/// After so many failures in a row an endpoint is tried by one request at a time: while one is out, the next costs the
/// whole penalty. Otherwise, each time that it is forgiven, as many would be lost as come until the first has failed.
const DOUBTFUL: u32 = 2;

/// The longest time that an endpoint may ask to be left alone for.
const LONGEST: Duration = Duration::from_secs(30);

/// What one that wants to be left alone costs at least: more than any other.
const FORBIDDING: f64 = 1e18;

impl Outcomes {
    /// Knows of no request yet. An endpoint is supposed to take 30 ms until then; see
    /// [`with_default_rtt`](Self::with_default_rtt).
    pub fn new() -> Self {
        Self::with(Settings {
            default_rtt: nanos(Duration::from_millis(30)),
            decay: nanos(Duration::from_secs(10)),
            penalty: nanos(Duration::from_secs(1)),
        })
    }

    /// Sets what a request is supposed to take until one was answered. Forgets what was seen.
    #[must_use]
    pub fn with_default_rtt(self, rtt: Duration) -> Self {
        let default_rtt = nanos(rtt);
        Self::with(Settings {
            default_rtt,
            ..self.shared.settings
        })
    }

    /// Sets the time constant: within it the weight of what was seen falls to 37 %. Forgets what was seen.
    #[must_use]
    pub fn with_decay(self, decay: Duration) -> Self {
        let decay = nanos(decay);
        Self::with(Settings {
            decay,
            ..self.shared.settings
        })
    }

    /// Sets how long a caller would rather wait than fail. Forgets what was seen.
    #[must_use]
    pub fn with_penalty(self, penalty: Duration) -> Self {
        let penalty = nanos(penalty);
        Self::with(Settings {
            penalty,
            ..self.shared.settings
        })
    }

    /// Makes one with the same settings, that has seen nothing.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::with(self.shared.settings)
    }

    fn with(settings: Settings) -> Self {
        let state = State::new(settings);
        Self {
            shared: Arc::new(Shared {
                start: Instant::now(),
                settings,
                published: Published::new(&state),
                state: Mutex::new(state),
            }),
        }
    }

    /// Forgets what was seen. Requests in flight stay.
    pub fn reset(&self) {
        self.shared.update(|state| {
            let flights = std::mem::take(&mut state.flights);
            *state = State {
                flights,
                ..State::new(self.shared.settings)
            };
        });
    }

    /// A request is sent.
    pub fn start(&self) -> Ticket {
        let began = self.shared.since_start(Instant::now());
        let place = self.shared.update(|state| state.flights.begin(began));
        Ticket {
            shared: Arc::clone(&self.shared),
            began,
            place,
            class: None,
        }
    }

    /// The cost of one more request, in nanoseconds.
    pub fn cost(&self) -> f64 {
        self.cost_at(Instant::now())
    }

    /// The cost of one more request as of `now`, in nanoseconds.
    pub fn cost_at(&self, now: Instant) -> f64 {
        let in_flight = self.shared.published.in_flight.load(Ordering::Relaxed);
        self.cost_with(in_flight, now)
    }

    /// The cost of one more request as of `now` where `in_flight` are, in nanoseconds: for who counts those better.
    pub fn cost_with(&self, in_flight: u32, now: Instant) -> f64 {
        self.shared.cost(in_flight, self.shared.since_start(now))
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Self::new()
    }
}

impl Ticket {
    /// The request has ended, and this is what it came to.
    pub fn end(mut self, class: Class) {
        self.class = Some(class);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.shared.since_start(Instant::now());
        let settings = self.shared.settings;
        self.shared.update(|state| {
            state.flights.end(self.place);
            state.observe(settings, now - self.began, self.class, now);
        });
    }
}

impl Shared {
    fn update<T>(&self, update: impl FnOnce(&mut State) -> T) -> T {
        let mut state: MutexGuard<'_, State> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = update(&mut state);
        self.published.publish(&state);
        result
    }

    fn cost(&self, in_flight: u32, now: f64) -> f64 {
        let seen = self.published.read();
        let ewma = Ewma::new(self.settings.decay);
        let latency = ewma.project(seen.latency, now).max(now - seen.oldest);
        let failures = if in_flight > 0 && seen.failures.run >= DOUBTFUL {
            1.0
        } else {
            seen.failures.project(self.settings.decay, now)
        };
        let cost = (latency + failures * self.settings.penalty) * crowd(in_flight);
        if now < seen.until {
            cost + FORBIDDING
        } else {
            cost
        }
    }

    fn since_start(&self, now: Instant) -> f64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

/// What the requests in flight make of the cost of another: `(in flight + 1)^0.75`, which two roots are cheaper to say.
#[inline]
fn crowd(in_flight: u32) -> f64 {
    let root = (f64::from(in_flight) + 1.0).sqrt();
    root * root.sqrt()
}

impl State {
    fn new(settings: Settings) -> Self {
        Self {
            latency: Estimate {
                value: settings.default_rtt,
                updated_at: 0.0,
            },
            failures: Failures {
                share: 0.0,
                updated_at: 0.0,
                run: 0,
            },
            flights: Flights::default(),
            until: 0.0,
        }
    }

    /// Takes in what a request came to; `None` if it was cancelled.
    fn observe(&mut self, settings: Settings, took: f64, class: Option<Class>, now: f64) {
        let ewma = Ewma::new(settings.decay);
        // Who gives up after longer than usual waits for an endpoint that may never answer: as a timeout would say.
        let is_fault = class.is_none_or(Class::is_fault);
        match class {
            Some(Class::Ignored) => return,
            // That an endpoint fails fast doesn't make it fast, but that it fails slowly makes it slow.
            Some(_) if is_fault && took < self.latency.value => {}
            // Nor does a caller who gives up at once.
            None if took < self.latency.value => return,
            _ => self.latency = ewma.observe(self.latency, took, now),
        }
        self.failures = self.failures.observe(settings.decay, is_fault, now);
        if let Some(after) = class.and_then(Class::retry_after) {
            self.until = self.until.max(now + nanos(after.min(LONGEST)));
        }
    }
}

impl Failures {
    fn observe(self, decay: f64, failed: bool, now: f64) -> Self {
        let (result, run) = match failed {
            true => (1.0, self.run.saturating_add(1)),
            false => (0.0, 0),
        };
        let least_weight = LEAST_WEIGHT * f64::from(1_u32 << self.run.min(MOST_DOUBLINGS));
        let kept = self.kept(decay, now).min(1.0 - least_weight);
        Self {
            share: self.share * kept + result * (1.0 - kept),
            updated_at: self.updated_at.max(now),
            run,
        }
    }

    fn project(self, decay: f64, now: f64) -> f64 {
        if self.share == 0.0 {
            return 0.0;
        }
        self.share * self.kept(decay, now)
    }

    fn kept(self, decay: f64, now: f64) -> f64 {
        let age = (now - self.updated_at).max(0.0);
        if decay > 0.0 {
            (-age / decay).exp()
        } else {
            0.0
        }
    }
}

impl<S> OutcomeLoad<S> {
    /// Measures what the requests of `inner` come to: every error is a failure, and a request is complete when its
    /// response comes.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            outcomes: Outcomes::new(),
            classify: EveryErrorFails,
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<S, K, C> OutcomeLoad<S, K, C> {
    /// Measures by `outcomes`, which others may hold as well.
    #[must_use]
    pub fn with_outcomes(mut self, outcomes: Outcomes) -> Self {
        self.outcomes = outcomes;
        self
    }

    /// Lets `classify` say which results are failures.
    #[must_use]
    pub fn with_classify<K2>(self, classify: K2) -> OutcomeLoad<S, K2, C> {
        OutcomeLoad {
            inner: self.inner,
            outcomes: self.outcomes,
            classify,
            completion: self.completion,
        }
    }

    /// Lets `completion` say when a request is complete: at the end of its body, say.
    #[must_use]
    pub fn with_completion<C2>(self, completion: C2) -> OutcomeLoad<S, K, C2> {
        OutcomeLoad {
            inner: self.inner,
            outcomes: self.outcomes,
            classify: self.classify,
            completion,
        }
    }
}

impl<S, K, C> Load for OutcomeLoad<S, K, C> {
    type Metric = f64;

    #[inline]
    fn load(&self) -> f64 {
        self.outcomes.cost()
    }

    #[inline]
    fn load_at(&self, now: Instant) -> f64 {
        self.outcomes.cost_at(now)
    }
}

impl<S, K, C, Req> Service<Req> for OutcomeLoad<S, K, C>
where
    S: Service<Req>,
    K: Classify<(), S::Response, S::Error> + Clone,
    C: TrackCompletion<Ticket, S::Response>,
{
    type Response = C::Output;
    type Error = S::Error;
    type Future = OutcomeFuture<S::Future, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        OutcomeFuture {
            ticket: Some(self.outcomes.start()),
            inner: self.inner.call(req),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<F, K, C, T, E> Future for OutcomeFuture<F, K, C>
where
    F: Future<Output = Result<T, E>>,
    K: Classify<(), T, E>,
    C: TrackCompletion<Ticket, T>,
{
    type Output = Result<C::Output, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut ticket = this.ticket.take().expect("polled after complete");
        ticket.class = Some(this.classify.classify(&(), &result));
        // Where it failed the ticket is dropped here.
        Poll::Ready(result.map(|response| this.completion.track_completion(ticket, response)))
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes")
            .field("settings", &self.shared.settings)
            .field("published", &self.shared.published)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
