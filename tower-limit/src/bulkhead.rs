//! A concurrency limit whose requests fail at capacity, instead of waiting without end.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_deadline::Deadline;
use tower_layer::Layer;
#[cfg(feature = "load")]
use tower_load::Load;
use tower_service::Service;

use crate::permits::{Permit, Permits, Waiter};
use crate::timer::Timer;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps each service in a [`Bulkhead`] of its own, which its clones share.
#[derive(Debug, Clone)]
pub struct BulkheadLayer {
    settings: Settings,
}

/// Wraps services in [`Bulkhead`]s that share one limit.
#[derive(Debug, Clone)]
pub struct GlobalBulkheadLayer {
    permits: Permits,
    settings: Settings,
}

/// Lets at most so many requests be in flight at once; the others fail, at once or after a bounded wait.
///
/// As [`ConcurrencyLimit`](crate::concurrency::ConcurrencyLimit), but at capacity it is *ready*, and the
/// request fails with [`AtCapacity`]; with [`with_max_wait`](Self::with_max_wait), a permit is waited for
/// first, and the request fails with [`WaitElapsed`]. Unlike a load shedder around a concurrency limit it
/// keeps no place in a queue for a request that it has refused.
///
/// **Readiness.** Takes a permit, or finds that there is none in time; with a permit, it waits for the
/// inner service. A service that found none looks again whenever it is polled. A clone has neither a
/// permit nor a place in the queue; to drop a service frees what it has.
///
/// A wait also ends at the [deadline](tower_deadline::Deadline::current) of the task, with [`WaitElapsed`].
///
/// **`call` without readiness.** Takes a permit if one is free, and fails with [`AtCapacity`] otherwise.
///
/// **Cancellation.** Dropping the response future drops the inner service's future, then frees the permit.
///
/// **Errors.** [`AtCapacity`], [`WaitElapsed`], and the inner service's own. Outside of a Tokio runtime a
/// wait can't be bounded: there the request fails with [`AtCapacity`] at once.
///
/// # Example
///
/// ```
/// use tower_limit::bulkhead::{AtCapacity, Bulkhead};
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut service, _handle) =
///     mock::spawn_with::<&str, &str, _, _>(|mock| Bulkhead::new(mock, 1));
///
/// assert!(service.poll_ready().is_ready());
/// let _in_flight = service.call("first");
///
/// assert!(service.poll_ready().is_ready());
/// let error = service.call("second").await.unwrap_err();
/// assert_eq!(error.downcast_ref::<AtCapacity>().unwrap().limit, 1);
/// # }
/// ```
#[derive(Debug)]
pub struct Bulkhead<T> {
    inner: T,
    permits: Permits,
    settings: Settings,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    limit: usize,
    /// Zero: a request that finds no permit fails at once.
    max_wait: Duration,
}

/// How far a service has come with its next request.
#[derive(Debug)]
enum Place {
    None,
    Waiting {
        waiter: Waiter,
        since: Instant,
        timer: Timer,
    },
    Held(Permit),
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    AtCapacity,
    WaitElapsed,
}

pin_project! {
    /// The response of [`Bulkhead`]. It holds the request's permit until it is dropped.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Admitted {
            #[pin]
            future: F,
            _permit: Permit,
        },
        Refused {
            refusal: Refusal,
            settings: Settings,
        },
    }
}

/// As many requests were in flight as may be; this one was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct AtCapacity {
    /// How many requests may be in flight.
    pub limit: usize,
}

/// No permit became free in time; the request was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct WaitElapsed {
    /// How many requests may be in flight.
    pub limit: usize,
    /// How long a request may wait for its permit.
    pub max_wait: Duration,
}

impl BulkheadLayer {
    /// Lets each service have at most `limit` requests in flight.
    pub const fn new(limit: usize) -> Self {
        Self {
            settings: Settings::new(limit),
        }
    }

    /// As [`Bulkhead::with_max_wait`].
    #[must_use]
    pub const fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, service: S) -> Self::Service {
        Bulkhead::over(service, Permits::new(self.settings.limit), self.settings)
    }
}

impl GlobalBulkheadLayer {
    /// Lets all services together have at most `limit` requests in flight.
    pub fn new(limit: usize) -> Self {
        Self {
            permits: Permits::new(limit),
            settings: Settings::new(limit),
        }
    }

    /// As [`Bulkhead::with_max_wait`].
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }
}

impl<S> Layer<S> for GlobalBulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, service: S) -> Self::Service {
        Bulkhead::over(service, self.permits.clone(), self.settings)
    }
}

impl<T> Bulkhead<T> {
    /// Lets `inner` and its clones have at most `limit` requests in flight.
    pub fn new(inner: T, limit: usize) -> Self {
        Self::over(inner, Permits::new(limit), Settings::new(limit))
    }

    /// Lets a request wait for its permit, first come, first served, for at most `max_wait`.
    ///
    /// The wait is measured from the `poll_ready` that first finds no permit.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives the inner service back, and the permit, if there is one.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn over(inner: T, permits: Permits, settings: Settings) -> Self {
        Self {
            inner,
            permits,
            settings,
            place: Place::None,
        }
    }
}

impl<S, Request> Service<Request> for Bulkhead<S>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let was_refused = match self.place {
            Place::Refused(refusal) => Some(refusal),
            _ => None,
        };
        ready!(self.place.poll(&self.permits, self.settings, cx));
        if let Place::Refused(_) = self.place {
            return Poll::Ready(Ok(()));
        }
        let polled = self.inner.poll_ready(cx);
        match (&polled, was_refused) {
            (Poll::Ready(Ok(())), _) | (Poll::Pending, None) => {}
            (Poll::Ready(Err(_)), _) => self.place = Place::None,
            // What was ready stays ready: it goes on refusing, and keeps no permit that it can't use.
            (Poll::Pending, Some(refusal)) => {
                self.place = Place::Refused(refusal);
                return Poll::Ready(Ok(()));
            }
        }
        polled.map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        let permit = match mem::replace(&mut self.place, Place::None) {
            Place::Held(permit) => Ok(permit),
            Place::None => self.permits.try_acquire().ok_or(Refusal::AtCapacity),
            Place::Waiting { .. } => Err(Refusal::AtCapacity),
            Place::Refused(refusal) => Err(refusal),
        };
        let state = match permit {
            Ok(permit) => State::Admitted {
                future: self.inner.call(req),
                _permit: permit,
            },
            Err(refusal) => {
                #[cfg(feature = "metrics")]
                metrics::counter!("tower_bulkhead_refused_total", "reason" => refusal.name())
                    .increment(1);
                State::Refused {
                    refusal,
                    settings: self.settings,
                }
            }
        };
        ResponseFuture { state }
    }
}

#[cfg(feature = "load")]
impl<S> Load for Bulkhead<S>
where
    S: Load,
{
    type Metric = S::Metric;

    #[inline]
    fn load(&self) -> Self::Metric {
        self.inner.load()
    }

    #[inline]
    fn load_at(&self, now: Instant) -> Self::Metric {
        self.inner.load_at(now)
    }
}

impl<T: Clone> Clone for Bulkhead<T> {
    fn clone(&self) -> Self {
        Self::over(self.inner.clone(), self.permits.clone(), self.settings)
    }
}

impl Settings {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            max_wait: Duration::ZERO,
        }
    }
}

impl Place {
    /// Goes on until it is known whether there is a permit: to `Held` or to `Refused`.
    #[inline]
    fn poll(&mut self, permits: &Permits, settings: Settings, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // Held -> Held
            Self::Held(_) => Poll::Ready(()),
            // None -> Held | Refused | Waiting
            Self::None => match permits.try_acquire() {
                Some(permit) => self.end(Self::Held(permit)),
                None if settings.max_wait.is_zero() => self.end(Self::Refused(Refusal::AtCapacity)),
                None => self.enqueue(permits, settings, cx),
            },
            // Refused -> Held | Refused
            Self::Refused(_) => {
                if let Some(permit) = permits.try_acquire() {
                    *self = Self::Held(permit);
                }
                Poll::Ready(())
            }
            // Waiting -> Held | Refused | Waiting
            Self::Waiting { .. } => self.poll_wait(settings, cx),
        }
    }

    #[cold]
    fn enqueue(&mut self, permits: &Permits, settings: Settings, cx: &mut Context<'_>) -> Poll<()> {
        match permits.acquire(cx) {
            Ok(permit) => self.end(Self::Held(permit)),
            Err(waiter) => {
                *self = Self::Waiting {
                    waiter,
                    since: Instant::now(),
                    timer: Timer::default(),
                };
                self.poll_wait(settings, cx)
            }
        }
    }

    #[cold]
    fn poll_wait(&mut self, settings: Settings, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Waiting {
            waiter,
            since,
            timer,
        } = self
        else {
            return Poll::Ready(());
        };
        if let Poll::Ready(permit) = waiter.poll(cx) {
            return self.end(Self::Held(permit));
        }
        // Nobody waits past the deadline of the task.
        let longest = since.checked_add(settings.max_wait);
        let asked = Deadline::current().map(Deadline::instant);
        let Some(deadline) = longest.into_iter().chain(asked).min() else {
            return Poll::Pending;
        };
        if Instant::now() >= deadline {
            return self.end(Self::Refused(Refusal::WaitElapsed));
        }
        let refusal = match ready!(timer.poll(deadline, cx)) {
            Ok(()) => Refusal::WaitElapsed,
            Err(_) => Refusal::AtCapacity,
        };
        self.end(Self::Refused(refusal))
    }

    #[inline]
    fn end(&mut self, end: Self) -> Poll<()> {
        *self = end;
        Poll::Ready(())
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Admitted { future, .. } => ready!(future.poll(cx)).map_err(Into::into),
            StateProj::Refused { refusal, settings } => Err(refusal.error(*settings)),
        })
    }
}

impl Refusal {
    #[cfg(feature = "metrics")]
    const fn name(self) -> &'static str {
        match self {
            Self::AtCapacity => "at_capacity",
            Self::WaitElapsed => "waited_too_long",
        }
    }

    fn error(self, Settings { limit, max_wait }: Settings) -> BoxError {
        match self {
            Self::AtCapacity => AtCapacity { limit }.into(),
            Self::WaitElapsed => WaitElapsed { limit, max_wait }.into(),
        }
    }
}

impl fmt::Display for AtCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at capacity: {} requests in flight", self.limit)
    }
}

impl std::error::Error for AtCapacity {}

impl fmt::Display for WaitElapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at capacity for {:?}: {} requests in flight",
            self.max_wait, self.limit
        )
    }
}

impl std::error::Error for WaitElapsed {}
