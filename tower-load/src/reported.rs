//! The load as servers tell it along with their responses.
//!
//! A client sees only its own requests. A server that is shared knows what all of them come to, and may say so with
//! each response: gRPC and Envoy have a format for it, ORCA, in trailers and headers. [`Reported`] keeps what was said
//! last, for as long as it is worth something; [`ReportedLoad`] takes it from the responses of a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::snapshot::Snapshot;
use crate::{CompleteOnResponse, Load, TrackCompletion};

/// What a server has said last about its load, until that is too old.
///
/// The value is what it costs the server to work at one more request, compared with its peers: how much of it is used
/// (0 to 1), say, or the inverse of a weight, as the share used by requests per second. The less the better.
///
/// A value is worth three minutes by default, as in gRFC A58, and what isn't known counts as
/// [one](Self::with_default). Clones share the value.
///
/// # What it costs
///
/// A report reads the clock and takes a short lock. A reading takes none.
///
/// # Example
///
/// ```
/// use tower_load::reported::Reported;
///
/// let (busy, unknown) = (Reported::new(), Reported::new());
/// assert!(busy.report(1.5));
/// assert!(unknown.cost(0) < busy.cost(0));
/// assert!(unknown.cost(1) > busy.cost(0));
/// ```
#[derive(Clone)]
pub struct Reported {
    shared: Arc<Shared>,
}

/// Keeps a request in flight until it is dropped, and takes what its response says meanwhile.
#[derive(Debug)]
pub struct Flight {
    reported: Reported,
}

/// A service whose load is what its server [reports](Reported), times the requests in flight and one more.
///
/// A closure reads the report from each response; where it finds none, the last one stands. What comes with the
/// trailers is read by a [completion](Self::with_completion) that wraps the body.
///
/// **Readiness, Errors.** As those of the service inside.
///
/// **Cancellation.** A request that is cancelled is no longer in flight, and reports nothing.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_load::Load;
/// use tower_load::reported::ReportedLoad;
/// use tower_service::Service;
/// # let (service, mut handle) = tower_test::mock::pair::<(), (&str, f64)>();
///
/// // The response says how much of the server is used.
/// let used = |response: &(&str, f64)| Some(response.1);
/// let mut service = ReportedLoad::new(service, used);
/// assert_eq!(service.load(), 1.0);
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let response = service.call(());
/// assert_eq!(service.load(), 2.0);
/// # handle.next_request().await.unwrap().1.send_response(("hello", 0.25));
/// response.await.unwrap();
/// assert_eq!(service.load(), 0.25);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReportedLoad<S, F, C = CompleteOnResponse> {
    inner: S,
    reported: Reported,
    read: F,
    completion: C,
}

/// A service that takes reports from its responses: a pool says where they go.
pub trait Reports {
    /// Sends what is reported from now on to `reported`.
    fn report_to(&mut self, reported: Reported);
}

pin_project! {
    /// The response of a [`ReportedLoad`].
    ///
    /// # Panics
    ///
    /// If polled after it has resolved.
    #[derive(Debug)]
    pub struct ReportedFuture<T, F, C> {
        #[pin]
        inner: T,
        flight: Option<Flight>,
        read: F,
        completion: C,
    }
}

struct Shared {
    start: Instant,
    settings: Settings,
    /// The bits of the value, and when it came in nanoseconds since the start.
    last: Snapshot,
    in_flight: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    max_age: Duration,
    default: f64,
}

/// Before the first report. No report is this.
const UNKNOWN: (u64, u64) = (f64::NAN.to_bits(), 0);

impl Reported {
    /// Knows of no report yet.
    pub fn new() -> Self {
        Self::with(Settings {
            max_age: Duration::from_secs(180),
            default: 1.0,
        })
    }

    /// Sets for how long a report is believed: three minutes by default. Forgets what was said.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self::with(Settings {
            max_age,
            ..self.shared.settings
        })
    }

    /// Sets the value of a server that has said nothing lately: one by default. Forgets what was said.
    ///
    /// Between those of a busy server and of an idle one it neither draws all requests nor none. What isn't a number
    /// from zero on is taken as one.
    #[must_use]
    pub fn with_default(self, default: f64) -> Self {
        let default = if is_sound(default) { default } else { 1.0 };
        Self::with(Settings {
            default,
            ..self.shared.settings
        })
    }

    /// Makes one with the same settings, for another server.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::with(self.shared.settings)
    }

    fn with(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                start: Instant::now(),
                settings,
                last: Snapshot::new(UNKNOWN),
                in_flight: AtomicU32::new(0),
            }),
        }
    }

    /// Forgets what was said. Requests in flight stay.
    pub fn reset(&self) {
        self.shared.last.update(|_| UNKNOWN);
    }

    /// The server says so now. Returns whether it makes sense: what isn't a number from zero on changes nothing.
    pub fn report(&self, value: f64) -> bool {
        self.report_at(value, Instant::now())
    }

    /// As [`report`](Self::report), at `now`. What was said later than that stays.
    pub fn report_at(&self, value: f64, now: Instant) -> bool {
        if !is_sound(value) {
            return false;
        }
        let said = (value.to_bits(), self.shared.since_start(now));
        let later = |last: (u64, u64)| if last.1 > said.1 { last } else { said };
        self.shared.last.update(later);
        true
    }

    /// What was said last, unless it is too old.
    pub fn value(&self) -> Option<f64> {
        self.value_at(Instant::now())
    }

    /// What was said last, unless it is too old at `now`.
    #[inline]
    pub fn value_at(&self, now: Instant) -> Option<f64> {
        let (value, at) = self.shared.last.read();
        let value = f64::from_bits(value);
        let age = Duration::from_nanos(self.shared.since_start(now).saturating_sub(at));
        (!value.is_nan() && age < self.shared.settings.max_age).then_some(value)
    }

    /// The cost of one more request where `in_flight` are: the value times the requests.
    pub fn cost(&self, in_flight: u32) -> f64 {
        self.cost_at(in_flight, Instant::now())
    }

    /// The cost of one more request where `in_flight` are, as of `now`.
    #[inline]
    pub fn cost_at(&self, in_flight: u32, now: Instant) -> f64 {
        let value = self.value_at(now).unwrap_or(self.shared.settings.default);
        value * (f64::from(in_flight) + 1.0)
    }

    /// A request is sent. It is in flight until what this gives is dropped.
    pub fn start(&self) -> Flight {
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight {
            reported: self.clone(),
        }
    }

    /// How many requests were [started](Self::start) and are in flight.
    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

impl Default for Reported {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    #[inline]
    fn since_start(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

fn is_sound(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

impl Flight {
    /// The response says so, as [`Reported::report`].
    pub fn report(&self, value: f64) -> bool {
        self.reported.report(value)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let shared = &self.reported.shared;
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S, F> ReportedLoad<S, F> {
    /// Takes what the server of `inner` reports from its responses, by `read`.
    pub fn new(inner: S, read: F) -> Self {
        Self {
            inner,
            reported: Reported::new(),
            read,
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<S, F, C> ReportedLoad<S, F, C> {
    /// Reports to `reported`, which others may hold as well.
    #[must_use]
    pub fn with_reported(mut self, reported: Reported) -> Self {
        self.reported = reported;
        self
    }

    /// Lets `completion` say when a request is complete, and report once more until then.
    #[must_use]
    pub fn with_completion<C2>(self, completion: C2) -> ReportedLoad<S, F, C2> {
        ReportedLoad {
            inner: self.inner,
            reported: self.reported,
            read: self.read,
            completion,
        }
    }

    /// What the server has said.
    pub const fn reported(&self) -> &Reported {
        &self.reported
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, F, C> Reports for ReportedLoad<S, F, C> {
    fn report_to(&mut self, reported: Reported) {
        self.reported = reported;
    }
}

impl<S, F, C> Load for ReportedLoad<S, F, C> {
    type Metric = f64;

    #[inline]
    fn load(&self) -> f64 {
        self.load_at(Instant::now())
    }

    #[inline]
    fn load_at(&self, now: Instant) -> f64 {
        self.reported.cost_at(self.reported.in_flight(), now)
    }
}

impl<S, F, C, Req> Service<Req> for ReportedLoad<S, F, C>
where
    S: Service<Req>,
    F: Fn(&S::Response) -> Option<f64> + Clone,
    C: TrackCompletion<Flight, S::Response>,
{
    type Response = C::Output;
    type Error = S::Error;
    type Future = ReportedFuture<S::Future, F, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        ReportedFuture {
            flight: Some(self.reported.start()),
            inner: self.inner.call(req),
            read: self.read.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<R, F, C, T, E> Future for ReportedFuture<R, F, C>
where
    R: Future<Output = Result<T, E>>,
    F: Fn(&T) -> Option<f64>,
    C: TrackCompletion<Flight, T>,
{
    type Output = Result<C::Output, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let flight = this.flight.take().expect("polled after complete");
        Poll::Ready(result.map(|response| {
            if let Some(value) = (this.read)(&response) {
                flight.report(value);
            }
            this.completion.track_completion(flight, response)
        }))
    }
}

impl fmt::Debug for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reported")
            .field("value", &f64::from_bits(self.shared.last.read().0))
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_report_is_believed_until_it_is_too_old() {
        let reported = Reported::new().with_max_age(10 * SECOND).with_default(0.5);
        assert_eq!((reported.value(), reported.cost(1)), (None, 1.0));
        assert!(reported.report(0.25));
        advance(9 * SECOND).await;
        assert_eq!((reported.value(), reported.cost(1)), (Some(0.25), 0.5));
        advance(SECOND).await;
        assert_eq!((reported.value(), reported.cost(1)), (None, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_makes_no_sense_changes_nothing() {
        let reported = Reported::new();
        assert!(reported.report(0.25));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1] {
            assert!(!reported.report(value));
            assert_eq!(reported.value(), Some(0.25));
            assert_eq!(Reported::new().with_default(value).cost(0), 1.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fork_knows_nothing_and_a_reset_forgets() {
        let reported = Reported::new().with_default(3.0);
        reported.report(0.25);
        assert_eq!(reported.fork().cost(0), 3.0);
        let flight = reported.start();
        reported.reset();
        assert_eq!((reported.value(), reported.in_flight()), (None, 1));
        drop(flight);
        assert_eq!(reported.in_flight(), 0);
    }

    proptest! {
        /// The oracle remembers all that was said.
        #[test]
        fn the_latest_sound_report_counts(
            said in prop::collection::vec((-1.0..2.0_f64, 0..20_u64), 0..20), max_age in 0..20_u32, now in 20..40_u64,
        ) {
            let reported = Reported::new().with_max_age(max_age * SECOND);
            let start = reported.shared.start;
            let mut all = Vec::new();
            for (value, at) in said {
                prop_assert_eq!(reported.report_at(value, start + at as u32 * SECOND), value >= 0.0);
                if value >= 0.0 {
                    all.push((at, value));
                }
            }
            let mut latest = None;
            for (at, value) in all {
                if latest.is_none_or(|(before, _)| at >= before) {
                    latest = Some((at, value));
                }
            }
            let expected = latest.filter(|(at, _)| now - at < u64::from(max_age)).map(|(_, value)| value);
            prop_assert_eq!(reported.value_at(start + now as u32 * SECOND), expected);
        }
    }
}
