//! Measures how loaded a service is, so that a balancer can prefer the less loaded one.
//!
//! A service that implements [`Load`] can be asked for a metric that compares with that of its peers:
//!
//! - [`PeakEwma`](peak_ewma::PeakEwma) estimates what a request would cost: a moving average of response
//!   times that rises at once and falls slowly, times the requests in flight.
//! - [`OutcomeLoad`](outcome::OutcomeLoad) does so as well, and lets failures and requests that hang cost.
//! - [`PendingRequests`](pending_requests::PendingRequests) counts the requests in flight.
//! - [`ReportedLoad`](reported::ReportedLoad) is what the server says with its responses.
//! - [`Constant`] is a number that you choose, such as a weight or the distance to a zone.
//!
//! A server's own view is that of a [`Meter`](meter::Meter), which answers probes.
//!
//! Those that measure need to know when a request is complete. For most protocols this is when the
//! response arrives ([`CompleteOnResponse`]). Where the response is the beginning of a stream,
//! a [`TrackCompletion`] of your own can keep the request's handle in the body until its end; for HTTP,
//! `CompleteOnBody` of `tower-http-load` does.
//!
//! # When not to use it
//!
//! Without a balancer nobody reads the metric. Over endpoints that answer alike,
//! [`PendingRequests`](pending_requests::PendingRequests) balances as well as
//! [`PeakEwma`](peak_ewma::PeakEwma) for less.
//!
//! # Cost
//!
//! `Constant` costs nothing. `PendingRequests` clones and drops an `Arc` for each request (14 ns), and
//! reading its load is one atomic load. `PeakEwma` adds a clock reading when a request starts and
//! another when it ends (20 ns each), and a short lock to record what it took; reading its load takes
//! none. Neither allocates.
//!
//! # Features
//!
//! - `discover`: the streams that add a metric to discovered services.

mod ewma;
pub mod meter;
pub mod outcome;
pub mod peak_ewma;
pub mod pending_requests;
pub mod reported;
mod snapshot;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

#[cfg(feature = "discover")]
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::Instant;
#[cfg(feature = "discover")]
use tower_discover::{Change, Discover};
use tower_service::Service;

/// Tells how loaded a service is.
///
/// # Example
///
/// ```
/// use tower_load::{Constant, Load};
///
/// let near = Constant::new("service", 1);
/// let far = Constant::new("service", 10);
/// assert!(near.load() < far.load());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't tell its load",
    label = "a balancer can't compare this service's load with that of its peers",
    note = "wrap it in `tower::load::PeakEwma`, `tower::load::PendingRequests` or `tower::load::Constant`",
    note = "for services that are discovered, wrap the stream: `tower::load::PeakEwmaDiscover::new(discover, …)`"
)]
pub trait Load {
    /// What the load is measured in. Of two services the one with the smaller metric is preferred.
    type Metric: PartialOrd;

    /// Reads the present load. Reading changes nothing, however often it is done.
    fn load(&self) -> Self::Metric;

    /// Reads the load as of `now`.
    ///
    /// For balancers, which compare several services and so need to read the clock only once. A metric
    /// that depends on time should implement it; by default it is [`load`](Self::load).
    #[inline]
    fn load_at(&self, now: Instant) -> Self::Metric {
        let _ = now;
        self.load()
    }

    /// Tells whether [`load_at`](Self::load_at) looks at the time.
    ///
    /// It does by default. Where it doesn't, saying so spares balancers a reading of the clock (20 ns):
    /// they use [`load`](Self::load) then.
    #[inline]
    fn depends_on_time(&self) -> bool {
        true
    }
}

/// Decides when a request is complete, for the metrics that measure requests.
///
/// A metric gives each request a handle, and counts the request as in flight until the handle is dropped.
/// `track_completion` is called with the handle when the response has come, and may drop it or hide it
/// in the value that the caller gets.
///
/// A request that fails or is cancelled completes at once: its handle is dropped.
///
/// # Example
///
/// A completion that keeps a streamed response in flight until its body is dropped:
///
/// ```
/// use tower_load::TrackCompletion;
///
/// struct Body;
///
/// struct Tracked<H> {
///     body: Body,
///     handle: H,
/// }
///
/// #[derive(Clone)]
/// struct CompleteOnBodyEnd;
///
/// impl<H> TrackCompletion<H, Body> for CompleteOnBodyEnd {
///     type Output = Tracked<H>;
///
///     fn track_completion(&self, handle: H, body: Body) -> Tracked<H> {
///         Tracked { body, handle }
///     }
/// }
///
/// let handle = std::sync::Arc::new(());
/// let tracked = CompleteOnBodyEnd.track_completion(handle.clone(), Body);
/// assert_eq!(std::sync::Arc::strong_count(&handle), 2);
/// drop(tracked);
/// assert_eq!(std::sync::Arc::strong_count(&handle), 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't say when a response of type `{V}` is complete",
    note = "`tower::load::CompleteOnResponse` does for every type of response"
)]
pub trait TrackCompletion<H, V>: Clone {
    /// What the caller gets instead of the response.
    type Output;

    /// Puts `handle` where it will be dropped when the request is complete.
    fn track_completion(&self, handle: H, value: V) -> Self::Output;
}

/// Completes a request when its response comes.
///
/// # Example
///
/// ```
/// use tower_load::{CompleteOnResponse, TrackCompletion};
///
/// let handle = std::sync::Arc::new(());
/// let response = CompleteOnResponse::default().track_completion(handle.clone(), "response");
/// assert_eq!(response, "response");
/// assert_eq!(std::sync::Arc::strong_count(&handle), 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CompleteOnResponse {}

pin_project! {
    /// The response future of a service whose requests are tracked by a [`TrackCompletion`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the request's handle, so the request no longer counts.
    ///
    /// # Panics
    ///
    /// If polled after it has resolved.
    #[derive(Debug)]
    pub struct TrackCompletionFuture<F, C, H> {
        #[pin]
        future: F,
        handle: Option<H>,
        completion: C,
    }
}

pin_project! {
    /// A service whose load is a number that you choose.
    ///
    /// Also makes a whole set of discovered services of the same load from one [`Discover`] (feature
    /// `discover`).
    ///
    /// # Readiness, Cancellation, Errors
    ///
    /// As those of the service inside.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_load::{Constant, Load};
    ///
    /// let backup = Constant::new("service", 100);
    /// assert_eq!(backup.load(), 100);
    /// ```
    #[derive(Debug)]
    pub struct Constant<T, M> {
        inner: T,
        load: M,
    }
}

impl<H, V> TrackCompletion<H, V> for CompleteOnResponse {
    type Output = V;

    #[inline]
    fn track_completion(&self, handle: H, value: V) -> V {
        drop(handle);
        value
    }
}

impl<F, C, H> TrackCompletionFuture<F, C, H> {
    /// Makes a future that passes `handle` to `completion` when `future` gives its response.
    pub const fn new(completion: C, handle: H, future: F) -> Self {
        Self {
            future,
            handle: Some(handle),
            completion,
        }
    }
}

impl<F, C, H, T, E> Future for TrackCompletionFuture<F, C, H>
where
    F: Future<Output = Result<T, E>>,
    C: TrackCompletion<H, T>,
{
    type Output = Result<C::Output, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        // Taken before the result is looked at, so that a failed request completes now and not when
        // its future is dropped.
        let handle = this.handle.take().expect("polled after complete");
        Poll::Ready(result.map(|response| this.completion.track_completion(handle, response)))
    }
}

impl<T, M: Copy> Constant<T, M> {
    /// Gives `inner` a load.
    pub const fn new(inner: T, load: M) -> Self {
        Self { inner, load }
    }
}

impl<T, M: Copy + PartialOrd> Load for Constant<T, M> {
    type Metric = M;

    #[inline]
    fn load(&self) -> M {
        self.load
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        false
    }
}

impl<S, M, Request> Service<Request> for Constant<S, M>
where
    S: Service<Request>,
    M: Copy,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> S::Future {
        self.inner.call(req)
    }
}

#[cfg(feature = "discover")]
impl<D: Discover + Unpin, M: Copy> Stream for Constant<D, M> {
    type Item = Result<Change<D::Key, Constant<D::Service, M>>, D::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let load = *this.load;
        let change = ready!(Pin::new(this.inner).poll_discover(cx));
        Poll::Ready(
            change.map(|result| {
                result.map(|change| map_service(change, |svc| Constant::new(svc, load)))
            }),
        )
    }
}

/// Wraps the service of an insert.
#[cfg(feature = "discover")]
fn map_service<K, S, T>(change: Change<K, S>, wrap: impl FnOnce(S) -> T) -> Change<K, T> {
    match change {
        Change::Insert(key, service) => Change::Insert(key, wrap(service)),
        Change::Remove(key) => Change::Remove(key),
    }
}
