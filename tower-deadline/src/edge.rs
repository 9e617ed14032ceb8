//! The middleware that sets deadlines, refuses what they leave no time for, and ends what they overtake.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Deadline, Expired, Within, earliest};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Carries deadlines in requests. Protocols implement it, for a type of their own.
///
/// It is apart from the request's type, so that it can be implemented for the types of others, and so that
/// one type can carry deadlines in two ways: in a header where it comes in, in another where it goes out.
///
/// Both methods do nothing by default: what only reads leaves `write` out, and the other way round.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use tower_deadline::{Carry, Deadline};
///
/// /// A request as it may come over a wire.
/// struct Request {
///     timeout_ms: Option<u64>,
/// }
///
/// #[derive(Clone)]
/// struct TimeoutField;
///
/// impl Carry<Request> for TimeoutField {
///     fn read(&self, request: &Request, now: Instant) -> Option<Deadline> {
///         let timeout = Duration::from_millis(request.timeout_ms?);
///         now.checked_add(timeout).map(Deadline::at)
///     }
///
///     fn write(&self, request: &mut Request, deadline: Deadline, now: Instant) {
///         let timeout = deadline.remaining_at(now).as_millis();
///         request.timeout_ms = u64::try_from(timeout).ok();
///     }
/// }
///
/// let now = Instant::now();
/// let mut request = Request { timeout_ms: Some(500) };
/// let deadline = TimeoutField.read(&request, now).unwrap();
/// TimeoutField.write(&mut request, deadline, now + Duration::from_millis(200));
/// assert_eq!(request.timeout_ms, Some(300));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't carry deadlines in requests of type `{Req}`",
    note = "`tower_deadline::Nowhere` does for every type of request, by leaving them out"
)]
pub trait Carry<Req> {
    /// The deadline that came with a request, if one did.
    ///
    /// `now` is when the request was called, for protocols that carry the time that is left.
    fn read(&self, req: &Req, now: Instant) -> Option<Deadline> {
        let _ = (req, now);
        None
    }

    /// Sends a deadline along with a request.
    fn write(&self, req: &mut Req, deadline: Deadline, now: Instant) {
        let _ = (req, deadline, now);
    }
}

/// Carries no deadline: the one that counts is that of the task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl<Req> Carry<Req> for Nowhere {}

/// Wraps services in [`DeadlineService`].
///
/// By default it takes the deadline of the task, refuses requests for which it has passed, and ends those that
/// it overtakes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer<C = Nowhere> {
    carry: C,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// The longest that a request may take, whatever its caller says.
    max: Option<Duration>,
    /// The least time that the work takes.
    min_time: Duration,
    /// What of the time the work doesn't get.
    reserve: Duration,
}

/// Gives requests a deadline, refuses those that can't be done before it, and ends those that aren't.
///
/// The deadline is the earliest of three: the one that came with the request ([`Carry::read`]), that of
/// the task ([`Deadline::current`]), and [`with_max`](DeadlineLayer::with_max) from now; less the
/// [reserve](DeadlineLayer::with_reserve). The inner service works within it, and it is written into the
/// request ([`Carry::write`]). Without any, a request passes as it is.
///
/// **Readiness.** That of the inner service. It isn't bounded, as the deadline comes with the request: put
/// what waits for readiness (a buffer, [`oneshot`](https://docs.rs/tower/latest/tower/trait.ServiceExt.html#method.oneshot)) within
/// the deadline instead, where the request's future waits.
///
/// **Cancellation.** Dropping the response future drops the inner service's and the timer.
///
/// **Errors.** [`Expired`], and the inner service's own. A request that is refused leaves the inner
/// service's reservation as it is, for the next.
///
/// **Panics.** As [`Within`] does.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_deadline::{Deadline, DeadlineLayer, Expired};
/// use tower_layer::Layer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (mock, mut handle) = mock::pair::<&str, &str>();
/// let layer = DeadlineLayer::new()
///     .with_max(Duration::from_secs(2))
///     .with_min_time(Duration::from_millis(100));
/// let mut service = layer.layer(mock);
///
/// // Whoever has only 50 ms needn't try.
/// let hurried = Deadline::after(Duration::from_millis(50));
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let error = hurried.within(hurried.enter(|| service.call("quick!"))).await?.unwrap_err();
/// assert!(!error.downcast_ref::<Expired>().unwrap().was_started());
///
/// // And nobody has more than two seconds.
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("take your time"));
/// let (_, _never_answers) = handle.next_request().await.unwrap();
/// let error = response.await?.unwrap_err();
/// assert!(error.downcast_ref::<Expired>().unwrap().was_started());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DeadlineService<S, C = Nowhere> {
    inner: S,
    carry: C,
    bounds: Bounds,
}

pin_project! {
    /// The response of a [`DeadlineService`]: the inner service's, or [`Expired`].
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
        Called { #[pin] future: Within<F> },
        Refused,
    }
}

impl DeadlineLayer {
    /// Makes a layer that goes by the deadline of the task.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<C> DeadlineLayer<C> {
    /// Reads deadlines from requests, and writes them into requests, by `carry`.
    #[must_use]
    pub fn with_carry<C2>(self, carry: C2) -> DeadlineLayer<C2> {
        DeadlineLayer {
            carry,
            bounds: self.bounds,
        }
    }

    /// Gives no request more time than `max`: also those without a deadline.
    #[must_use]
    pub const fn with_max(mut self, max: Duration) -> Self {
        self.bounds.max = Some(max);
        self
    }

    /// Refuses requests that have no more time than `min_time` left, as the work takes that long at least.
    #[must_use]
    pub const fn with_min_time(mut self, min_time: Duration) -> Self {
        self.bounds.min_time = min_time;
        self
    }

    /// Keeps `reserve` of the time back, for what comes after the work: an answer takes time to travel.
    ///
    /// It is also kept of a [`with_max`](Self::with_max).
    #[must_use]
    pub const fn with_reserve(mut self, reserve: Duration) -> Self {
        self.bounds.reserve = reserve;
        self
    }
}

impl<S, C> Layer<S> for DeadlineLayer<C>
where
    C: Clone,
{
    type Service = DeadlineService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService {
            inner,
            carry: self.carry.clone(),
            bounds: self.bounds,
        }
    }
}

impl<S, C> DeadlineService<S, C> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl Bounds {
    /// The deadline of a request that came at `now`, if it has one.
    #[inline]
    fn deadline(&self, asked: Option<Deadline>, now: Instant) -> Option<Deadline> {
        let max = self.max.map(|max| Deadline::after_instant(now, max));
        let deadline = earliest(asked, max)?;
        Some(match self.reserve.is_zero() {
            true => deadline,
            false => deadline.earlier_by(self.reserve),
        })
    }
}

impl<S, C, Req> Service<Req> for DeadlineService<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Carry<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut req: Req) -> Self::Future {
        let now = Instant::now();
        let asked = earliest(self.carry.read(&req, now), Deadline::current());
        let state = match self.bounds.deadline(asked, now) {
            None => State::Called {
                future: Within::new(None, self.inner.call(req)),
            },
            Some(deadline) if !deadline.allows(now, self.bounds.min_time) => State::Refused,
            Some(deadline) => {
                self.carry.write(&mut req, deadline, now);
                let future = deadline.enter(|| self.inner.call(req));
                State::Called {
                    future: deadline.within(future),
                }
            }
        };
        ResponseFuture { state }
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
            StateProj::Called { future } => match ready!(future.poll(cx)) {
                Ok(result) => result.map_err(Into::into),
                Err(expired) => Err(counted(expired).into()),
            },
            StateProj::Refused => Err(counted(Expired::before_work()).into()),
        })
    }
}

/// Counts what expires.
#[cold]
fn counted(expired: Expired) -> Expired {
    #[cfg(feature = "metrics")]
    {
        let when = if expired.was_started() {
            "during_work"
        } else {
            "before_work"
        };
        metrics::counter!("tower_deadline_expired_total", "when" => when).increment(1);
    }
    expired
}
