//! Fails requests that take longer than a bound.
//!
//! [`Timeout`] is for clients that won't wait for ever, and for servers that won't work for ever: a
//! response that isn't there in time fails with [`Elapsed`], and the inner service's future is dropped.
//!
//! # What is measured
//!
//! By default only the response: the clock starts in `call`, and waiting for readiness (for a permit, a
//! connection, a place in a queue) isn't counted. Where the wait matters, bound it as well:
//!
//! - [`with_readiness_timeout`](TimeoutLayer::with_readiness_timeout): how long `poll_ready` may keep a
//!   caller waiting;
//! - [`with_total_timeout`](TimeoutLayer::with_total_timeout): readiness and response together; what
//!   the wait took is no longer there for the response.
//!
//! # When not to use it
//!
//! - To cancel work that must be done wholly or not at all: it is dropped at whichever `await` it stands.
//! - To stop code that never awaits. A timeout is noticed when the task is polled.
//!
//! # What it costs
//!
//! One clock read a call (about 20 ns). A timer is set only when the response isn't ready at its first
//! poll. Timers that weren't needed are used again, up to 64 a thread, as a runtime moves one to a later
//! deadline for a fraction of what it takes to add one and to remove it; so in the long run there is no
//! allocation. (Where the clock is paused, they are not.)

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use crate::timers::{Timer, poll_unconstrained};

mod timers;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps services in [`Timeout`].
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    bounds: Bounds,
}

/// Fails responses, and where asked to also readiness, that take longer than a bound.
///
/// **Readiness.** The inner service's. With a [readiness](Self::with_readiness_timeout) or a
/// [total](Self::with_total_timeout) timeout, the wait is measured from the first `poll_ready` that
/// isn't ready; when the time is up, `poll_ready` fails with [`Elapsed`]. That isn't the end of the
/// service: the next `poll_ready` begins a new wait. Each clone measures its own.
///
/// **Cancellation.** When the time is up the inner service's future stays where it is until the response
/// future is dropped, as any future that has completed.
///
/// **Errors.** [`Elapsed`], [`NoRuntime`], and the inner service's own.
///
/// **Panics.** In a Tokio runtime whose time driver isn't enabled, the first poll that needs a timer
/// panics, as all timers of Tokio do there. So does the poll of a response that has waited before, on a runtime that
/// has been shut down since. The service itself may outlive its runtime.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_service::Service;
/// use tower_test::mock;
/// use tower_timeout::{Elapsed, Timeout};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (mut service, mut handle) =
///     mock::spawn_with::<&str, &str, _, _>(|mock| Timeout::new(mock, Duration::from_secs(1)));
///
/// assert!(service.poll_ready().is_ready());
/// let in_time = service.call("quick");
/// let (_, answer) = handle.next_request().await.unwrap();
/// answer.send_response("done");
/// assert_eq!(in_time.await.unwrap(), "done");
///
/// assert!(service.poll_ready().is_ready());
/// let error = service.call("slow").await.unwrap_err();
/// assert!(error.is::<Elapsed>());
/// # }
/// ```
#[derive(Debug)]
pub struct Timeout<T> {
    inner: T,
    response: Duration,
    // Few bound it, and the others shall pay no more than a look at this.
    readiness: Option<Box<Readiness>>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    response: Duration,
    readiness: Option<Duration>,
    total: Option<Duration>,
}

/// Readiness whose wait is bounded.
#[derive(Debug)]
struct Readiness {
    /// How long the wait may be.
    bound: Duration,
    /// How long the wait and the response may be together.
    total: Option<Duration>,
    wait: Wait,
}

/// The wait for readiness.
#[derive(Debug)]
enum Wait {
    /// None since the last call.
    None,
    /// It goes on since `since`. The timer is missing where no runtime could make it.
    Pending {
        since: Instant,
        timer: Option<Pin<Box<Sleep>>>,
    },
    /// It has ended with the service ready.
    Over { took: Duration },
}

pin_project! {
    /// The response of [`Timeout`]: the inner service's, or [`Elapsed`] when its time is up.
    ///
    /// The inner service's future is polled first: a response that is there is delivered, however late.
    ///
    /// **Cancellation.** Dropping it drops the inner service's future and the timer.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<T> {
        #[pin]
        response: T,
        clock: Clock,
    }
}

/// The time that a response has.
#[derive(Debug)]
enum Clock {
    /// Nobody has waited yet. Most responses are there at once, and never need a timer.
    Started { called: Instant, timeout: Duration },
    /// The timer was set at the first poll that found no response.
    Set(Timer),
    /// The time is longer than the clock can count, which is no bound.
    Unbounded,
}

/// The time is up.
#[derive(Debug, Default)]
pub struct Elapsed(());

/// There is no Tokio runtime here whose timer could bound the wait.
///
/// A response that isn't ready at once needs a timer; polled outside of a runtime, it fails with this
/// error rather than wait without bound.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NoRuntime;

impl TimeoutLayer {
    /// Bounds the time from a call to its response.
    pub const fn new(timeout: Duration) -> Self {
        Self {
            bounds: Bounds::new(timeout),
        }
    }

    /// Bounds the time that `poll_ready` may keep a caller waiting, too.
    #[must_use]
    pub const fn with_readiness_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.readiness = Some(timeout);
        self
    }

    /// Bounds the time that `poll_ready` keeps a caller waiting and the time to the response together.
    ///
    /// The time between the two, when the service is ready and isn't called, is the caller's and isn't
    /// counted.
    #[must_use]
    pub const fn with_total_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.total = Some(timeout);
        self
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, service: S) -> Self::Service {
        Timeout {
            inner: service,
            response: self.bounds.response,
            readiness: Readiness::new(self.bounds),
        }
    }
}

impl<T> Timeout<T> {
    /// Bounds the time from a call of `inner` to its response.
    ///
    /// A duration longer than the clock can count, such as [`Duration::MAX`], is no bound.
    pub const fn new(inner: T, timeout: Duration) -> Self {
        Self {
            inner,
            response: timeout,
            readiness: None,
        }
    }

    /// As [`TimeoutLayer::with_readiness_timeout`].
    #[must_use]
    pub fn with_readiness_timeout(self, timeout: Duration) -> Self {
        let bounds = Bounds {
            readiness: Some(timeout),
            ..self.bounds()
        };
        TimeoutLayer { bounds }.layer(self.inner)
    }

    /// As [`TimeoutLayer::with_total_timeout`].
    #[must_use]
    pub fn with_total_timeout(self, timeout: Duration) -> Self {
        let bounds = Bounds {
            total: Some(timeout),
            ..self.bounds()
        };
        TimeoutLayer { bounds }.layer(self.inner)
    }

    fn bounds(&self) -> Bounds {
        let readiness = self.readiness.as_deref();
        Bounds {
            response: self.response,
            readiness: readiness.map(|readiness| readiness.bound),
            total: readiness.and_then(|readiness| readiness.total),
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<S, Request> Service<Request> for Timeout<S>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let polled = self.inner.poll_ready(cx).map_err(Into::into);
        match &mut self.readiness {
            None => polled,
            Some(readiness) => readiness.poll(polled, cx),
        }
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        // The clock starts before the inner service works, which it may do in `call`.
        let now = Instant::now();
        let timeout = match &mut self.readiness {
            None => self.response,
            Some(readiness) => readiness.end(now).min(self.response),
        };
        ResponseFuture {
            response: self.inner.call(req),
            clock: Clock::Started {
                called: now,
                timeout,
            },
        }
    }
}

impl<T: Clone> Clone for Timeout<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            response: self.response,
            // The wait is this handle's own.
            readiness: Readiness::new(self.bounds()),
        }
    }
}

impl Bounds {
    const fn new(response: Duration) -> Self {
        Self {
            response,
            readiness: None,
            total: None,
        }
    }
}

impl Readiness {
    fn new(bounds: Bounds) -> Option<Box<Self>> {
        let bound = match (bounds.readiness, bounds.total) {
            (Some(readiness), Some(total)) => readiness.min(total),
            (readiness, total) => readiness.or(total)?,
        };
        Some(Box::new(Self {
            bound,
            total: bounds.total,
            wait: Wait::None,
        }))
    }

    /// Bounds what the inner service said of its readiness.
    fn poll(
        &mut self,
        polled: Poll<Result<(), BoxError>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        match (&mut self.wait, polled) {
            // Ready at once, or again: there is nothing to measure.
            (Wait::None | Wait::Over { .. }, Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            // Pending -> Over, or None where the whole of the total went by: then there is no time left
            // to send a request in.
            (Wait::Pending { since, .. }, Poll::Ready(Ok(()))) => {
                let took = since.elapsed();
                self.wait = Wait::Over { took };
                if self.total.is_some_and(|total| took >= total) {
                    self.wait = Wait::None;
                    return Poll::Ready(Err(Elapsed::new().into()));
                }
                Poll::Ready(Ok(()))
            }
            // -> None
            (_, Poll::Ready(Err(error))) => {
                self.wait = Wait::None;
                Poll::Ready(Err(error))
            }
            // Pending -> Pending, or None when the time is up.
            (Wait::Pending { since, timer }, Poll::Pending) => {
                let since = *since;
                let polled = poll_bound(timer, since, self.bound, cx);
                if polled.is_ready() {
                    self.wait = Wait::None;
                }
                polled
            }
            // None | Over -> Pending. A service that was ready and isn't any more begins a new wait.
            (Wait::None | Wait::Over { .. }, Poll::Pending) => {
                self.wait = Wait::Pending {
                    since: Instant::now(),
                    timer: None,
                };
                self.poll(Poll::Pending, cx)
            }
        }
    }

    /// Ends the wait with a call, and says how much of the total it has left.
    fn end(&mut self, now: Instant) -> Duration {
        let took = match std::mem::replace(&mut self.wait, Wait::None) {
            Wait::None => Duration::ZERO,
            Wait::Pending { since, .. } => now.saturating_duration_since(since),
            Wait::Over { took } => took,
        };
        self.total
            .map_or(Duration::MAX, |total| total.saturating_sub(took))
    }
}

/// Waits for `since + bound`, at which it fails.
fn poll_bound(
    timer: &mut Option<Pin<Box<Sleep>>>,
    since: Instant,
    bound: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<(), BoxError>> {
    let Some(deadline) = since.checked_add(bound) else {
        return Poll::Pending;
    };
    if Instant::now() >= deadline {
        return Poll::Ready(Err(Elapsed::new().into()));
    }
    if Handle::try_current().is_err() {
        return Poll::Ready(Err(NoRuntime.into()));
    }
    // Each poll makes a new timer, in the place of the old one: a service may outlive a runtime, and the
    // timer of a runtime that is gone panics.
    let sleep = sleep_until(deadline);
    let timer = match timer {
        Some(timer) => {
            timer.set(sleep);
            timer
        }
        None => timer.insert(Box::pin(sleep)),
    };
    ready!(poll_unconstrained(timer.as_mut(), cx));
    Poll::Ready(Err(Elapsed::new().into()))
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.response.poll(cx) {
            return Poll::Ready(response.map_err(Into::into));
        }
        ready!(this.clock.poll(cx)?);
        Poll::Ready(Err(Elapsed::new().into()))
    }
}

impl Clock {
    /// Waits until the time is up.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoRuntime>> {
        loop {
            match self {
                // Started -> Set | Unbounded
                Self::Started { called, timeout } => {
                    *self = match called.checked_add(*timeout) {
                        Some(deadline) => Self::Set(Timer::new(deadline)?),
                        None => Self::Unbounded,
                    };
                }
                Self::Set(timer) => return timer.poll(cx).map(Ok),
                Self::Unbounded => return Poll::Pending,
            }
        }
    }
}

impl Elapsed {
    /// Makes the error.
    pub const fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("request timed out")
    }
}

impl std::error::Error for Elapsed {}

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timeout needs a Tokio runtime to wait in")
    }
}

impl std::error::Error for NoRuntime {}
