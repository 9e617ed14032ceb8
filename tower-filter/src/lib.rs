//! Admits, rejects or rewrites requests by a predicate.
//!
//! [`Filter`] asks a [`Predicate`] on the spot; [`AsyncFilter`] asks an [`AsyncPredicate`], which may
//! look something up first. A predicate takes the request and gives back the one to send on, which may
//! be of another type, or the error to answer with. Closures are predicates.
//!
//! # When not to use it
//!
//! A rejection is an *error* of the service, in a box. Where the protocol has an answer for it (HTTP's
//! 403, say), a middleware that returns this answer serves the callers better. To rewrite requests
//! without rejecting any, `map_request` costs less still.
//!
//! # Cost
//!
//! The predicate, and a move of the request. No allocation, no lock; a rejection allocates the box of its
//! error. `AsyncFilter` clones the inner service once a call.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::mem;
use std::pin::Pin;
use std::task::{self, Context, Poll};

use futures_util::future::{Either, ErrInto, TryFutureExt};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Decides at once about a request.
///
/// Implemented for functions from a request to a `Result` of the request to send on.
///
/// # Example
///
/// ```
/// use tower_filter::Predicate;
///
/// let mut digits = |text: &'static str| text.parse::<u32>();
/// assert_eq!(digits.check("7").unwrap(), 7);
/// assert!(digits.check("seven").is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Predicate` of `{Request}`",
    label = "cannot decide about a `{Request}`",
    note = "a predicate may be a closure from a request to a `Result` of the request to send on, with an error that is \
            `Into<BoxError>`"
)]
pub trait Predicate<Request> {
    /// The request that is sent on.
    type Request;

    /// Gives the request to send on.
    ///
    /// # Errors
    ///
    /// What the caller is answered with, in place of a response.
    fn check(&mut self, request: Request) -> Result<Self::Request, BoxError>;
}

/// Decides about a request in its own time.
///
/// Implemented for functions from a request to a future of a `Result` of the request to send on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `AsyncPredicate` of `{Request}`",
    label = "cannot decide about a `{Request}`",
    note = "a predicate may be a closure from a request to a future of a `Result` of the request to send on, with an \
            error that is `Into<BoxError>`"
)]
pub trait AsyncPredicate<Request> {
    /// The future of the decision.
    type Future: Future<Output = Result<Self::Request, BoxError>>;

    /// The request that is sent on.
    type Request;

    /// Starts to decide. The future gives the request to send on, or what the caller is answered with
    /// in place of a response.
    fn check(&mut self, request: Request) -> Self::Future;
}

/// Sends on those requests that a [`Predicate`] admits.
///
/// **Readiness.** The inner service's. A rejected request doesn't use it up: the service stays ready.
///
/// **Errors.** The predicate's and the inner service's, boxed.
///
/// # Example
///
/// ```
/// use tower_filter::Filter;
/// use tower_util::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let halve = service_fn(|number: u32| async move { Ok::<_, std::convert::Infallible>(number / 2) });
/// let even_only = |number: u32| if number % 2 == 0 { Ok(number) } else { Err("odd") };
///
/// let mut service = Filter::new(halve, even_only);
/// assert_eq!((&mut service).oneshot(8).await.unwrap(), 4);
/// assert_eq!((&mut service).oneshot(7).await.unwrap_err().to_string(), "odd");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Filter<T, U> {
    inner: T,
    predicate: U,
}

/// Puts a [`Filter`] around services.
#[derive(Clone, Debug)]
pub struct FilterLayer<U> {
    predicate: U,
}

/// Sends on those requests that an [`AsyncPredicate`] admits.
///
/// **Readiness.** The inner service's. What it reserves for the request is held while the predicate
/// decides, so that an admitted request is sent at once.
///
/// **Cancellation.** Dropping the response future drops the predicate's or the inner service's, whichever
/// runs, and frees what was reserved.
///
/// **Errors.** The predicate's and the inner service's, boxed.
///
/// # Example
///
/// ```
/// use tower_filter::AsyncFilter;
/// use tower_util::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let greet = service_fn(|name: &'static str| async move {
///     Ok::<_, std::convert::Infallible>(format!("hello, {name}"))
/// });
/// let log_in = |token: u32| async move {
///     tokio::task::yield_now().await; // a look at the database
///     if token == 7 { Ok("Ada") } else { Err("unknown token") }
/// };
///
/// let mut service = AsyncFilter::new(greet, log_in);
/// assert_eq!((&mut service).oneshot(7).await.unwrap(), "hello, Ada");
/// assert_eq!((&mut service).oneshot(8).await.unwrap_err().to_string(), "unknown token");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncFilter<T, U> {
    inner: T,
    predicate: U,
}

/// Puts an [`AsyncFilter`] around services.
#[derive(Clone, Debug)]
pub struct AsyncFilterLayer<U> {
    predicate: U,
}

type FilterFuture<R, F> = Either<Ready<Result<R, BoxError>>, ErrInto<F, BoxError>>;

pin_project! {
    /// The response of a [`Filter`].
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<R, F> {
        #[pin]
        inner: FilterFuture<R, F>,
    }
}

pin_project! {
    /// The response of an [`AsyncFilter`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct AsyncResponseFuture<P, S, Request>
    where
        P: AsyncPredicate<Request>,
        S: Service<P::Request>,
    {
        #[pin]
        state: State<P::Future, S, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<C, S, F> {
        // The predicate decides; `service` is the instance that is ready for the request.
        Check { #[pin] check: C, service: S },
        // The inner service answers.
        Respond { #[pin] response: F },
    }
}

impl<F, T, R, E> Predicate<T> for F
where
    F: FnMut(T) -> Result<R, E>,
    E: Into<BoxError>,
{
    type Request = R;

    #[inline]
    fn check(&mut self, request: T) -> Result<R, BoxError> {
        self(request).map_err(Into::into)
    }
}

impl<F, T, U, R, E> AsyncPredicate<T> for F
where
    F: FnMut(T) -> U,
    U: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Future = ErrInto<U, BoxError>;
    type Request = R;

    #[inline]
    fn check(&mut self, request: T) -> Self::Future {
        self(request).err_into()
    }
}

impl<T, U> Filter<T, U> {
    /// Makes a filter around `inner`.
    pub const fn new(inner: T, predicate: U) -> Self {
        Self { inner, predicate }
    }

    /// Makes a layer of filters with this predicate.
    pub fn layer(predicate: U) -> FilterLayer<U> {
        FilterLayer::new(predicate)
    }

    /// Asks the predicate, without calling the inner service.
    ///
    /// # Errors
    ///
    /// The predicate's, where it rejects the request.
    pub fn check<R>(&mut self, request: R) -> Result<U::Request, BoxError>
    where
        U: Predicate<R>,
    {
        self.predicate.check(request)
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the filter off the inner service.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<U> FilterLayer<U> {
    /// Makes a layer of filters with this predicate.
    pub const fn new(predicate: U) -> Self {
        Self { predicate }
    }
}

impl<U: Clone, S> Layer<S> for FilterLayer<U> {
    type Service = Filter<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        Filter::new(inner, self.predicate.clone())
    }
}

impl<T, U, Request> Service<Request> for Filter<T, U>
where
    U: Predicate<Request>,
    T: Service<U::Request>,
    T::Error: Into<BoxError>,
{
    type Response = T::Response;
    type Error = BoxError;
    type Future = ResponseFuture<T::Response, T::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        let inner = match self.predicate.check(request) {
            Ok(request) => Either::Right(self.inner.call(request).err_into()),
            Err(rejection) => Either::Left(ready(Err(rejection))),
        };
        ResponseFuture { inner }
    }
}

impl<R, F> Future for ResponseFuture<R, F>
where
    FilterFuture<R, F>: Future,
{
    type Output = <FilterFuture<R, F> as Future>::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<R, F> fmt::Debug for ResponseFuture<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<T, U> AsyncFilter<T, U> {
    /// Makes a filter around `inner`.
    pub const fn new(inner: T, predicate: U) -> Self {
        Self { inner, predicate }
    }

    /// Makes a layer of **synchronous** filters with this predicate.
    ///
    /// The name promises an [`AsyncFilterLayer`]; the type is this one for compatibility. For a layer of
    /// asynchronous filters use [`AsyncFilterLayer::new`].
    pub fn layer(predicate: U) -> FilterLayer<U> {
        FilterLayer::new(predicate)
    }

    /// Asks the predicate, without calling the inner service.
    ///
    /// # Errors
    ///
    /// The predicate's, where it rejects the request.
    pub async fn check<R>(&mut self, request: R) -> Result<U::Request, BoxError>
    where
        U: AsyncPredicate<R>,
    {
        self.predicate.check(request).await
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the filter off the inner service.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<U> AsyncFilterLayer<U> {
    /// Makes a layer of filters with this predicate.
    pub const fn new(predicate: U) -> Self {
        Self { predicate }
    }
}

impl<U: Clone, S> Layer<S> for AsyncFilterLayer<U> {
    type Service = AsyncFilter<S, U>;

    fn layer(&self, inner: S) -> Self::Service {
        AsyncFilter::new(inner, self.predicate.clone())
    }
}

impl<T, U, Request> Service<Request> for AsyncFilter<T, U>
where
    U: AsyncPredicate<Request>,
    T: Service<U::Request> + Clone,
    T::Error: Into<BoxError>,
{
    type Response = T::Response;
    type Error = BoxError;
    type Future = AsyncResponseFuture<U, T, Request>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The instance that is ready goes with the request; the clone has to become ready for the next.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        let check = self.predicate.check(request);
        AsyncResponseFuture {
            state: State::Check { check, service },
        }
    }
}

impl<P, S, Request> Future for AsyncResponseFuture<P, S, Request>
where
    P: AsyncPredicate<Request>,
    S: Service<P::Request>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                // -> Respond, when the request is admitted.
                StateProj::Check { check, service } => {
                    let request = task::ready!(check.poll(cx))?;
                    let response = service.call(request);
                    state.set(State::Respond { response });
                }
                StateProj::Respond { response } => return response.poll(cx).map_err(Into::into),
            }
        }
    }
}
