//! Builds a stack of middleware, from the outside in.

use std::fmt;
#[cfg(any(feature = "limit", feature = "timeout"))]
use std::time::Duration;

use tower_layer::{Identity, Layer, LayerFn, Stack, layer_fn};
use tower_service::Service;

#[cfg(feature = "util")]
use crate::util::{BoxCloneService, BoxService, Either};

/// Builds a stack of middleware, from the outside in.
///
/// The layer that is added **first** sees a request first, and its response last. With
///
/// ```
/// # #[cfg(all(feature = "buffer", feature = "limit", feature = "util"))]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
///
/// let service = ServiceBuilder::new()
///     .buffer(100)
///     .concurrency_limit(10)
///     .service_fn(async |n: u32| Ok::<_, BoxError>(n + 1));
///
/// assert_eq!(service.oneshot(1).await?, 2);
/// # Ok(()) }
/// # #[cfg(not(all(feature = "buffer", feature = "limit", feature = "util")))] fn main() {}
/// ```
///
/// a request first waits in the queue of 100 and then for one of ten permits: at most 10 are in flight and
/// 100 more wait. The other way round,
///
/// ```
/// # #[cfg(all(feature = "buffer", feature = "limit", feature = "util"))]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// # use tower::{BoxError, ServiceBuilder, ServiceExt};
/// let service = ServiceBuilder::new()
///     .concurrency_limit(10)
///     .buffer(100)
///     .service_fn(async |n: u32| Ok::<_, BoxError>(n + 1));
/// # assert_eq!(service.oneshot(1).await?, 2);
/// # Ok(()) }
/// # #[cfg(not(all(feature = "buffer", feature = "limit", feature = "util")))] fn main() {}
/// ```
///
/// there are never more than ten requests altogether, and most of the queue is of no use.
///
/// The builder is a [`Layer`] itself. It is `Clone` where its layers are. Building costs nothing at run
/// time; a wrong stack fails to compile, and [`check_service`](Self::check_service) finds out where. The
/// [guide](crate#which-middleware-in-which-order) says which middleware goes where, and why.
#[derive(Clone)]
pub struct ServiceBuilder<L> {
    layer: L,
}

/// What [`ServiceBuilder::boxed`] adds. The return types of tower 0.5, spelt out once.
#[cfg(feature = "util")]
type BoxLayerFn<L, S, R> = LayerFn<
    fn(
        <L as Layer<S>>::Service,
    ) -> BoxService<
        R,
        <<L as Layer<S>>::Service as Service<R>>::Response,
        <<L as Layer<S>>::Service as Service<R>>::Error,
    >,
>;

/// What [`ServiceBuilder::boxed_clone`] adds.
#[cfg(feature = "util")]
type BoxCloneLayerFn<L, S, R> = LayerFn<
    fn(
        <L as Layer<S>>::Service,
    ) -> BoxCloneService<
        R,
        <<L as Layer<S>>::Service as Service<R>>::Response,
        <<L as Layer<S>>::Service as Service<R>>::Error,
    >,
>;

impl ServiceBuilder<Identity> {
    /// Begins an empty stack.
    pub const fn new() -> Self {
        Self {
            layer: Identity::new(),
        }
    }
}

impl Default for ServiceBuilder<Identity> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> ServiceBuilder<L> {
    /// Wraps in `layer`, inside of those that were added before.
    pub fn layer<T>(self, layer: T) -> ServiceBuilder<Stack<T, L>> {
        ServiceBuilder {
            layer: Stack::new(layer, self.layer),
        }
    }

    /// Wraps in `layer` where there is one, and leaves the service as it is where there is none.
    ///
    /// Both arms have the same error type, so `layer` must keep the service's. Where it doesn't (a timeout
    /// makes it [`BoxError`](crate::BoxError)), use [`option_layer_into`](Self::option_layer_into).
    #[cfg(feature = "util")]
    pub fn option_layer<T>(
        self,
        layer: Option<T>,
    ) -> ServiceBuilder<Stack<Either<T, Identity>, L>> {
        self.layer(crate::util::option_layer(layer))
    }

    /// Wraps in `layer` where there is one, and converts the service's error to the layer's where there is none.
    ///
    /// ```
    /// # #[cfg(feature = "timeout")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::io;
    /// use std::time::Duration;
    /// use tower::timeout::TimeoutLayer;
    /// use tower::{ServiceBuilder, ServiceExt};
    ///
    /// for limit in [None, Some(Duration::from_secs(1))] {
    ///     // The timeout's error is a `BoxError`, so the service's is made one in either case.
    ///     let service = ServiceBuilder::new()
    ///         .option_layer_into(limit.map(TimeoutLayer::new))
    ///         .service_fn(async |n: u8| Ok::<_, io::Error>(n));
    ///     assert_eq!(service.oneshot(1).await.unwrap(), 1);
    /// }
    /// # }
    /// # #[cfg(not(feature = "timeout"))] fn main() {}
    /// ```
    #[cfg(feature = "util")]
    pub fn option_layer_into<T>(
        self,
        layer: Option<T>,
    ) -> ServiceBuilder<Stack<crate::util::OptionLayer<T>, L>> {
        self.layer(crate::util::option_layer_into(layer))
    }

    /// Wraps in what `f` makes of the service: a layer without a type of its own.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    ///
    /// struct Tag<S>(&'static str, S);
    ///
    /// let tagged = ServiceBuilder::new().layer_fn(|inner| Tag("api", inner)).service("any service");
    /// assert_eq!(tagged.0, "api");
    /// ```
    pub fn layer_fn<F>(self, f: F) -> ServiceBuilder<Stack<LayerFn<F>, L>> {
        self.layer(layer_fn(f))
    }

    /// Queues up to `bound` requests in front of the service, which becomes [`Clone`]. See [`buffer`](crate::buffer).
    ///
    /// Put it outside of what isn't `Clone` and inside of load shedding. Its error is a
    /// [`BoxError`](crate::BoxError). The request's type has to be known here; `buffer::<Request>(bound)` names it.
    #[cfg(feature = "buffer")]
    pub fn buffer<Request>(
        self,
        bound: usize,
    ) -> ServiceBuilder<Stack<crate::buffer::BufferLayer<Request>, L>> {
        self.layer(crate::buffer::BufferLayer::new(bound))
    }

    /// Lets at most `max` requests be in flight. See [`limit::concurrency`](crate::limit::concurrency).
    ///
    /// Each service that the stack is put around gets a limit of its own; its clones share it. A server that
    /// applies the stack for each connection wants
    /// [`GlobalConcurrencyLimitLayer`](crate::limit::GlobalConcurrencyLimitLayer).
    #[cfg(feature = "limit")]
    pub fn concurrency_limit(
        self,
        max: usize,
    ) -> ServiceBuilder<Stack<crate::limit::ConcurrencyLimitLayer, L>> {
        self.layer(crate::limit::ConcurrencyLimitLayer::new(max))
    }

    /// Answers with [`Overloaded`](crate::load_shed::error::Overloaded), rather than waiting, where what is inside
    /// has no capacity. See [`load_shed`](crate::load_shed).
    #[cfg(feature = "load-shed")]
    pub fn load_shed(self) -> ServiceBuilder<Stack<crate::load_shed::LoadShedLayer, L>> {
        self.layer(crate::load_shed::LoadShedLayer::new())
    }

    /// Starts at most `num` requests in any window of `per`. See [`limit::rate`](crate::limit::rate).
    ///
    /// # Panics
    ///
    /// Where `num` or `per` is zero.
    #[cfg(feature = "limit")]
    pub fn rate_limit(
        self,
        num: u64,
        per: Duration,
    ) -> ServiceBuilder<Stack<crate::limit::RateLimitLayer, L>> {
        self.layer(crate::limit::RateLimitLayer::new(num, per))
    }

    /// Tries failed requests again as `policy` says. See [`retry`](crate::retry).
    ///
    /// The service must be [`Clone`].
    #[cfg(feature = "retry")]
    pub fn retry<P>(self, policy: P) -> ServiceBuilder<Stack<crate::retry::RetryLayer<P>, L>> {
        self.layer(crate::retry::RetryLayer::new(policy))
    }

    /// Fails requests that take longer than `timeout` with [`Elapsed`](crate::timeout::error::Elapsed).
    /// See [`timeout`](crate::timeout).
    #[cfg(feature = "timeout")]
    pub fn timeout(
        self,
        timeout: Duration,
    ) -> ServiceBuilder<Stack<crate::timeout::TimeoutLayer, L>> {
        self.layer(crate::timeout::TimeoutLayer::new(timeout))
    }

    /// Admits, rejects or rewrites each request by `predicate`. See [`filter`](crate::filter).
    #[cfg(feature = "filter")]
    pub fn filter<P>(
        self,
        predicate: P,
    ) -> ServiceBuilder<Stack<crate::filter::FilterLayer<P>, L>> {
        self.layer(crate::filter::FilterLayer::new(predicate))
    }

    /// Admits, rejects or rewrites each request by an asynchronous `predicate`. See [`filter`](crate::filter).
    ///
    /// The service must be [`Clone`].
    #[cfg(feature = "filter")]
    pub fn filter_async<P>(
        self,
        predicate: P,
    ) -> ServiceBuilder<Stack<crate::filter::AsyncFilterLayer<P>, L>> {
        self.layer(crate::filter::AsyncFilterLayer::new(predicate))
    }

    /// Changes each request before the service sees it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), std::convert::Infallible> {
    /// use std::convert::Infallible;
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// let service = ServiceBuilder::new()
    ///     .map_request(|name: &str| name.to_uppercase())
    ///     .service(service_fn(async |name: String| Ok::<_, Infallible>(format!("hello, {name}"))));
    ///
    /// assert_eq!(service.oneshot("ann").await?, "hello, ANN");
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "util")]
    pub fn map_request<F, R1, R2>(
        self,
        f: F,
    ) -> ServiceBuilder<Stack<crate::util::MapRequestLayer<F>, L>>
    where
        F: FnMut(R1) -> R2 + Clone,
    {
        self.layer(crate::util::MapRequestLayer::new(f))
    }

    /// Changes each successful response.
    #[cfg(feature = "util")]
    pub fn map_response<F>(
        self,
        f: F,
    ) -> ServiceBuilder<Stack<crate::util::MapResponseLayer<F>, L>> {
        self.layer(crate::util::MapResponseLayer::new(f))
    }

    /// Changes each error of a response or of readiness.
    #[cfg(feature = "util")]
    pub fn map_err<F>(self, f: F) -> ServiceBuilder<Stack<crate::util::MapErrLayer<F>, L>> {
        self.layer(crate::util::MapErrLayer::new(f))
    }

    /// Wraps each response future, in a tracing span say.
    #[cfg(feature = "util")]
    pub fn map_future<F>(self, f: F) -> ServiceBuilder<Stack<crate::util::MapFutureLayer<F>, L>> {
        self.layer(crate::util::MapFutureLayer::new(f))
    }

    /// Goes on with an asynchronous function after each response, successful or not.
    #[cfg(feature = "util")]
    pub fn then<F>(self, f: F) -> ServiceBuilder<Stack<crate::util::ThenLayer<F>, L>> {
        self.layer(crate::util::ThenLayer::new(f))
    }

    /// Goes on with an asynchronous function after each successful response.
    #[cfg(feature = "util")]
    pub fn and_then<F>(self, f: F) -> ServiceBuilder<Stack<crate::util::AndThenLayer<F>, L>> {
        self.layer(crate::util::AndThenLayer::new(f))
    }

    /// Changes the result of each response.
    #[cfg(feature = "util")]
    pub fn map_result<F>(self, f: F) -> ServiceBuilder<Stack<crate::util::MapResultLayer<F>, L>> {
        self.layer(crate::util::MapResultLayer::new(f))
    }

    /// Gives the layer that was built, to put around services elsewhere.
    pub fn into_inner(self) -> L {
        self.layer
    }

    /// Puts the stack around `service`.
    ///
    /// The builder is a layer of its own and stays; it may wrap many services.
    pub fn service<S>(&self, service: S) -> L::Service
    where
        L: Layer<S>,
    {
        self.layer.layer(service)
    }

    /// Puts the stack around the service that the asynchronous function `f` is. See
    /// [`service_fn`](crate::service_fn).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// # #[cfg(feature = "timeout")] {
    /// use std::time::Duration;
    /// use tower::{BoxError, ServiceBuilder, ServiceExt};
    ///
    /// let service = ServiceBuilder::new()
    ///     .timeout(Duration::from_secs(30))
    ///     .service_fn(async |name: &str| Ok::<_, BoxError>(format!("hello, {name}")));
    ///
    /// assert_eq!(service.oneshot("ann").await?, "hello, ann");
    /// # }
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "util")]
    pub fn service_fn<F>(self, f: F) -> L::Service
    where
        L: Layer<crate::util::ServiceFn<F>>,
    {
        self.service(crate::util::service_fn(f))
    }

    /// Checks at compile time that the builder is `Clone`. Does nothing at run time.
    #[inline]
    pub fn check_clone(self) -> Self
    where
        Self: Clone,
    {
        self
    }

    /// Checks at compile time that the stack around an `S` is `Clone`. Does nothing at run time.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    ///
    /// // Fails to compile, here and not far away, if a layer that isn't `Clone` gets in.
    /// let builder = ServiceBuilder::new().check_service_clone::<u8>();
    /// ```
    #[inline]
    pub fn check_service_clone<S>(self) -> Self
    where
        L: Layer<S>,
        L::Service: Clone,
    {
        self
    }

    /// Checks at compile time that the stack around an `S` is a service of requests `T`, responses `U` and errors
    /// `E`. Does nothing at run time.
    ///
    /// Put between two layers, it finds the one that breaks a bound. [`util::check_service`](crate::util::check_service)
    /// does the same for a finished service.
    ///
    /// ```
    /// # #[cfg(feature = "timeout")] {
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use tower::{BoxError, ServiceBuilder};
    /// # fn check<S>() where S: tower::Service<String, Response = String, Error = Infallible> {
    /// ServiceBuilder::new()
    ///     .timeout(Duration::from_secs(1))
    ///     .check_service::<S, String, String, BoxError>();
    /// # }
    /// # }
    /// ```
    #[inline]
    pub fn check_service<S, T, U, E>(self) -> Self
    where
        L: Layer<S>,
        L::Service: Service<T, Response = U, Error = E>,
    {
        self
    }

    /// Erases the type of the service so far: it becomes a [`BoxService`], which isn't `Clone`.
    ///
    /// Costs one allocation per request. Bounds on the way to the service are checked here, so an error message
    /// is shorter above.
    #[cfg(feature = "util")]
    pub fn boxed<S, R>(self) -> ServiceBuilder<Stack<BoxLayerFn<L, S, R>, L>>
    where
        L: Layer<S>,
        L::Service: Service<R> + Send + 'static,
        <L::Service as Service<R>>::Future: Send + 'static,
    {
        self.layer(BoxService::layer())
    }

    /// Erases the type of the service so far: it becomes a [`BoxCloneService`], which is `Clone` and `Send`.
    ///
    /// Costs one allocation per request, and one per clone.
    #[cfg(feature = "util")]
    pub fn boxed_clone<S, R>(self) -> ServiceBuilder<Stack<BoxCloneLayerFn<L, S, R>, L>>
    where
        L: Layer<S>,
        L::Service: Service<R> + Clone + Send + 'static,
        <L::Service as Service<R>>::Future: Send + 'static,
    {
        self.layer(BoxCloneService::layer())
    }

    /// Erases the types of the layers so far *and* of the service: it becomes a
    /// [`BoxCloneSyncService`](crate::util::BoxCloneSyncService), which is `Clone`, `Send` and `Sync`.
    ///
    /// Costs one allocation per request, and one per clone.
    #[cfg(feature = "util")]
    #[allow(clippy::type_complexity, reason = "tower 0.5 names this type")]
    pub fn boxed_clone_sync<S, R>(
        self,
    ) -> ServiceBuilder<
        Stack<
            crate::util::BoxCloneSyncServiceLayer<
                S,
                R,
                <L::Service as Service<R>>::Response,
                <L::Service as Service<R>>::Error,
            >,
            Identity,
        >,
    >
    where
        L: Layer<S> + Send + Sync + 'static,
        L::Service: Service<R> + Clone + Send + Sync + 'static,
        <L::Service as Service<R>>::Future: Send + 'static,
    {
        ServiceBuilder::new().layer(crate::util::BoxCloneSyncServiceLayer::new(self.layer))
    }
}

impl<S, L> Layer<S> for ServiceBuilder<L>
where
    L: Layer<S>,
{
    type Service = L::Service;

    fn layer(&self, inner: S) -> Self::Service {
        self.layer.layer(inner)
    }
}

impl<L: fmt::Debug> fmt::Debug for ServiceBuilder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceBuilder").field(&self.layer).finish()
    }
}
