//! Combinators, boxed services and helpers for Tower services.
//!
//! - [`service_fn`] makes a service of an asynchronous function, [`future_service`] of a future of one.
//! - [`ServiceExt`] is what one can do with any service: [`ready`](ServiceExt::ready) and
//!   [`oneshot`](ServiceExt::oneshot) call it, [`call_all`](ServiceExt::call_all) sends it a stream of
//!   requests, [`map_request`](ServiceExt::map_request) and its kin put a function beside it.
//! - [`BoxService`] and its kin forget a service's type, [`BoxLayer`] and its kin a layer's.
//! - [`Either`], [`option_layer`] and [`option_layer_into`] choose at run time.
//! - [`find_source`] finds an error of a known type inside a box.
//!
//! ```
//! use std::convert::Infallible;
//! use tower_util::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let length = service_fn(|text: String| async move { Ok::<_, Infallible>(text.len()) });
//! let service = length
//!     .map_request(|number: u32| number.to_string())
//!     .map_response(|digits| digits > 2);
//! assert!(service.oneshot(1_000).await.unwrap());
//! # }
//! ```
//!
//! # When not to use it
//!
//! A middleware that is used in more than one place deserves a type of its own: it has a name in error
//! messages, and its future can be written down. The closures of `map_*` are for the one place.
//!
//! # Cost
//!
//! The combinators compile to what would be written by hand: no allocation, no lock. The boxed services
//! allocate once a call. `call_all` allocates a node for each request in flight.

mod boxed;
mod call_all;
mod check;
mod either;
mod future_service;
mod map;
pub mod optional;
mod ready;
mod service_fn;
mod source;

use std::future::Future;

use futures_core::Stream;
use tower_service::Service;

pub use self::boxed::{
    BoxCloneService, BoxCloneServiceLayer, BoxCloneSyncService, BoxCloneSyncServiceLayer, BoxLayer,
    BoxService, UnsyncBoxCloneService, UnsyncBoxService,
};
pub use self::call_all::{CallAll, CallAllUnordered};
pub use self::check::check_service;
pub use self::either::{
    Either, EitherResponseFuture, OptionLayer, OptionService, option_layer, option_layer_into,
};
pub use self::future_service::{FutureService, future_service};
pub use self::map::{
    AndThen, AndThenFuture, AndThenLayer, MapErr, MapErrFuture, MapErrLayer, MapFuture,
    MapFutureLayer, MapRequest, MapRequestLayer, MapResponse, MapResponseFuture, MapResponseLayer,
    MapResult, MapResultFuture, MapResultLayer, Then, ThenFuture, ThenLayer,
};
pub use self::ready::{Oneshot, Ready, ReadyOneshot};
pub use self::service_fn::{ServiceFn, service_fn};
pub use self::source::find_source;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What one can do with any [`Service`]: wait for it, call it, and combine it with functions.
///
/// Where a service answers more than one type of request, the compiler may need to be told which one is
/// meant: `ServiceExt::<Request>::ready(&mut service)`.
pub trait ServiceExt<Request>: Service<Request> {
    /// Waits until the service is ready.
    ///
    /// Call it at once then: a ready service holds what it needs for the request, a place in a queue say,
    /// and others may wait for that. To wait for the request is to be done before.
    ///
    /// **Cancellation.** Nothing is lost by dropping the future.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_service::Service;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut service = service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) });
    /// let response = service.ready().await.unwrap().call(1).await.unwrap();
    /// assert_eq!(response, 2);
    /// # }
    /// ```
    fn ready(&mut self) -> Ready<'_, Self, Request>
    where
        Self: Sized,
    {
        Ready::new(self)
    }

    /// Waits until the service is ready, and gives it back.
    ///
    /// This is [`ready`](Self::ready) for a service that moves into the future.
    fn ready_oneshot(self) -> ReadyOneshot<Self, Request>
    where
        Self: Sized,
    {
        ReadyOneshot::new(self)
    }

    /// Sends one request, once the service is ready.
    ///
    /// It takes the service: pass `&mut service` to keep it, or a clone. It is dropped when it was called.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut service = service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) });
    /// assert_eq!((&mut service).oneshot(1).await.unwrap(), 2);
    /// assert_eq!(service.oneshot(2).await.unwrap(), 3);
    /// # }
    /// ```
    fn oneshot(self, req: Request) -> Oneshot<Self, Request>
    where
        Self: Sized,
    {
        Oneshot::new(self, req)
    }

    /// Sends all requests of a stream, and gives a stream of the responses.
    ///
    /// The responses come in the order of the requests, though as many of them run at once as the service
    /// is ready for. [`CallAll::unordered`] gives them as they come.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use futures_util::stream::{self, StreamExt};
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
    /// let responses = double.call_all(stream::iter([1, 2, 3]));
    /// let responses: Vec<_> = responses.map(Result::unwrap).collect().await;
    /// assert_eq!(responses, [2, 4, 6]);
    /// # }
    /// ```
    fn call_all<S>(self, reqs: S) -> CallAll<Self, S>
    where
        Self: Sized,
        S: Stream<Item = Request>,
    {
        CallAll::new(self, reqs)
    }

    /// Goes on asynchronously from a response.
    ///
    /// An error passes by the function, and is converted into that of its future.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let user_of = service_fn(|token: u32| async move { Ok::<_, Infallible>(token / 10) });
    /// let name_of = |user: u32| async move { if user == 7 { Ok("Ada") } else { Err(NoSuchUser) } };
    /// # #[derive(Debug, PartialEq)]
    /// # struct NoSuchUser;
    /// # impl From<Infallible> for NoSuchUser { fn from(never: Infallible) -> Self { match never {} } }
    ///
    /// let service = user_of.and_then(name_of);
    /// assert_eq!(service.clone().oneshot(70).await, Ok("Ada"));
    /// assert_eq!(service.oneshot(80).await, Err(NoSuchUser));
    /// # }
    /// ```
    fn and_then<F>(self, f: F) -> AndThen<Self, F>
    where
        Self: Sized,
        F: Clone,
    {
        AndThen::new(self, f)
    }

    /// Rewrites responses.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
    /// let service = double.map_response(|n| n.to_string());
    /// assert_eq!(service.oneshot(4).await.unwrap(), "8");
    /// # }
    /// ```
    fn map_response<F, Response>(self, f: F) -> MapResponse<Self, F>
    where
        Self: Sized,
        F: FnOnce(Self::Response) -> Response + Clone,
    {
        MapResponse::new(self, f)
    }

    /// Rewrites errors: those of responses, and of readiness.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let fails = service_fn(|code: u16| async move { Err::<(), _>(code) });
    /// let service = fails.map_err(|code| format!("failed with {code}"));
    /// assert_eq!(service.oneshot(7).await.unwrap_err(), "failed with 7");
    /// # }
    /// ```
    fn map_err<F, Error>(self, f: F) -> MapErr<Self, F>
    where
        Self: Sized,
        F: FnOnce(Self::Error) -> Error + Clone,
    {
        MapErr::new(self, f)
    }

    /// Rewrites results, so that a response may become an error and the other way round.
    ///
    /// An error of readiness can't become a response; it is converted by [`From`].
    ///
    /// # Example
    ///
    /// ```
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let parse = service_fn(|text: &'static str| async move { text.parse::<u32>() });
    /// let service = parse.map_result(|result| Ok::<_, std::num::ParseIntError>(result.unwrap_or(0)));
    /// assert_eq!(service.oneshot("seven").await, Ok(0));
    /// # }
    /// ```
    fn map_result<F, Response, Error>(self, f: F) -> MapResult<Self, F>
    where
        Self: Sized,
        Error: From<Self::Error>,
        F: FnOnce(Result<Self::Response, Self::Error>) -> Result<Response, Error> + Clone,
    {
        MapResult::new(self, f)
    }

    /// Rewrites requests.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let double = service_fn(|n: usize| async move { Ok::<_, Infallible>(n * 2) });
    /// let service = double.map_request(|text: &str| text.len());
    /// assert_eq!(service.oneshot("four").await.unwrap(), 8);
    /// # }
    /// ```
    fn map_request<F, NewRequest>(self, f: F) -> MapRequest<Self, F>
    where
        Self: Sized,
        F: FnMut(NewRequest) -> Request,
    {
        MapRequest::new(self, f)
    }

    /// Sends on those requests that a predicate admits, and rejects the others.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
    /// let service = double.filter(|text: &str| text.parse::<u32>());
    /// assert_eq!(service.clone().oneshot("4").await.unwrap(), 8);
    /// assert!(service.oneshot("four").await.is_err());
    /// # }
    /// ```
    #[cfg(feature = "filter")]
    fn filter<F, NewRequest>(self, filter: F) -> tower_filter::Filter<Self, F>
    where
        Self: Sized,
        F: tower_filter::Predicate<NewRequest>,
    {
        tower_filter::Filter::new(self, filter)
    }

    /// Sends on those requests that a predicate admits in its own time, and rejects the others.
    #[cfg(feature = "filter")]
    fn filter_async<F, NewRequest>(self, filter: F) -> tower_filter::AsyncFilter<Self, F>
    where
        Self: Sized,
        F: tower_filter::AsyncPredicate<NewRequest>,
    {
        tower_filter::AsyncFilter::new(self, filter)
    }

    /// Goes on asynchronously from a result.
    ///
    /// An error of readiness can't become a response; it is converted by [`From`].
    ///
    /// # Example
    ///
    /// ```
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let primary = service_fn(|n: u32| async move { if n < 5 { Ok(n) } else { Err("too big") } });
    /// let service = primary.then(|result| async move {
    ///     match result {
    ///         Ok(n) => Ok(n),
    ///         Err(_) => Ok::<_, &str>(5), // asked elsewhere
    ///     }
    /// });
    /// assert_eq!(service.oneshot(7).await, Ok(5));
    /// # }
    /// ```
    fn then<F, Response, Error, Fut>(self, f: F) -> Then<Self, F>
    where
        Self: Sized,
        Error: From<Self::Error>,
        F: FnOnce(Result<Self::Response, Self::Error>) -> Fut + Clone,
        Fut: Future<Output = Result<Response, Error>>,
    {
        Then::new(self, f)
    }

    /// Wraps response futures, with a span or a measurement say.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use futures_util::future::FutureExt;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
    /// let service = double.map_future(|response| response.inspect(|result| println!("{result:?}")));
    /// assert_eq!(service.oneshot(4).await.unwrap(), 8);
    /// # }
    /// ```
    fn map_future<F, Fut, Response, Error>(self, f: F) -> MapFuture<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Future) -> Fut,
        Error: From<Self::Error>,
        Fut: Future<Output = Result<Response, Error>>,
    {
        MapFuture::new(self, f)
    }

    /// Forgets the service's type: see [`BoxService`].
    fn boxed(self) -> BoxService<Request, Self::Response, Self::Error>
    where
        Self: Sized + Send + 'static,
        Self::Future: Send + 'static,
    {
        BoxService::new(self)
    }

    /// Forgets the service's type and stays [`Clone`]: see [`BoxCloneService`].
    fn boxed_clone(self) -> BoxCloneService<Request, Self::Response, Self::Error>
    where
        Self: Clone + Sized + Send + 'static,
        Self::Future: Send + 'static,
    {
        BoxCloneService::new(self)
    }

    /// Forgets the type of a service that stays on its thread: see [`UnsyncBoxService`].
    fn boxed_unsync(self) -> UnsyncBoxService<Request, Self::Response, Self::Error>
    where
        Self: Sized + 'static,
        Self::Future: 'static,
    {
        UnsyncBoxService::new(self)
    }

    /// Forgets the type of a service that stays on its thread, and stays [`Clone`]: see
    /// [`UnsyncBoxCloneService`].
    fn boxed_clone_unsync(self) -> UnsyncBoxCloneService<Request, Self::Response, Self::Error>
    where
        Self: Clone + Sized + 'static,
        Self::Future: 'static,
    {
        UnsyncBoxCloneService::new(self)
    }

    /// Puts a bounded queue in front of the service, which makes it [`Clone`]: see
    /// [`Buffer::new`](tower_buffer::Buffer::new).
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_util::{ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut sum = 0;
    /// // Clones of this would each have a sum of their own ...
    /// let sum = service_fn(move |n: u32| {
    ///     sum += n;
    ///     let sum = sum;
    ///     async move { Ok::<_, Infallible>(sum) }
    /// });
    ///
    /// // ... whereas those of the queue in front of it share one.
    /// let service = sum.buffered(8);
    /// assert_eq!(service.clone().oneshot(3).await.unwrap(), 3);
    /// assert_eq!(service.clone().oneshot(4).await.unwrap(), 7);
    /// # }
    /// ```
    #[cfg(feature = "buffer")]
    fn buffered(self, bound: usize) -> tower_buffer::Buffer<Request, Self::Future>
    where
        Self: Sized + Send + 'static,
        Self::Error: Into<BoxError> + Send + Sync,
        Self::Future: Send,
        Request: Send + 'static,
    {
        tower_buffer::Buffer::new(self, bound)
    }

    /// Sends a request again as long as `policy` says so: see [`Retry`](tower_retry::Retry).
    #[cfg(feature = "retry")]
    fn retry<P>(self, policy: P) -> tower_retry::Retry<P, Self>
    where
        Self: Clone + Sized,
        P: tower_retry::Policy<Request, Self::Response, Self::Error> + Clone,
    {
        tower_retry::Retry::new(policy, self)
    }
}

impl<T: ?Sized, Request> ServiceExt<Request> for T where T: Service<Request> {}
