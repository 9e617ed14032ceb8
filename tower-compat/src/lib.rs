#![no_std]
//! Adapters between the [`Service`] and [`Layer`] of these crates and those of crates.io's
//! `tower-service` 0.3 and `tower-layer` 0.3, for applications that use both without patching.
//!
//! axum, tonic, reqwest, tower-http and hyper-util are written against crates.io's traits. Two wrapper
//! types, one a direction, carry services and layers across:
//!
//! | you have | it is wanted as | wrap it in |
//! |---|---|---|
//! | our service or layer: a [`Service`], a [`Layer`] | crates.io's, as by `axum::Router::layer`, `axum::serve`, `hyper_util::service::TowerToHyperService` | [`ToCratesIo`] |
//! | crates.io's service or layer: an `axum::Router`, a `tonic::transport::Channel`, a layer of tower-http | ours, as by our `ServiceBuilder` | [`FromCratesIo`] |
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_compat::{FromCratesIo, ToCratesIo};
//! use tower_timeout::TimeoutLayer;
//! // `upstream` is crates.io's tower 0.5.
//! use upstream::{BoxError, ServiceBuilder, ServiceExt, layer::layer_fn, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let greet = service_fn(|name: &'static str| async move {
//!     tokio::time::sleep(Duration::from_millis(10)).await;
//!     Ok::<_, BoxError>(format!("hello, {name}"))
//! });
//!
//! // Our layer among crates.io's: wrapped, it is one of them.
//! let timeout = TimeoutLayer::new(Duration::from_secs(1));
//! let service = ServiceBuilder::new()
//!     .layer(ToCratesIo::new(timeout.clone()))
//!     .service(greet);
//! assert_eq!(service.oneshot("world").await.unwrap(), "hello, world");
//!
//! // crates.io's among ours: the layer and the service are both wrapped. The stack is ours, so it is
//! // wrapped once more to be called by crates.io's `oneshot`.
//! use tower_layer::Layer as _;
//! let shout = layer_fn(|inner| upstream::util::MapResponse::new(inner, |s: String| s.to_uppercase()));
//! let stack = (timeout, FromCratesIo::new(shout)).layer(FromCratesIo::new(greet));
//! assert_eq!(ToCratesIo::new(stack).oneshot("world").await.unwrap(), "HELLO, WORLD");
//! # }
//! ```
//!
//! # Patched
//!
//! `[patch.crates-io]` makes the two pairs of traits one and the same, and needs none of this. Code that
//! uses the wrappers compiles and does the same there, so a library may use them whatever the
//! application at the end does.
//!
//! # What crosses, and what doesn't
//!
//! The wrappers implement `Service` and `Layer`. A consumer that asks for another trait besides, as tonic's
//! `add_service` asks for `NamedService`, doesn't take a wrapped service; give it the wrapped *layer*
//! instead. Types of crates.io's tower stay its own: a `tower::timeout::error::Elapsed` of crates.io's
//! in a boxed error doesn't downcast to ours, nor the other way round.
//!
//! # Cost
//!
//! None. A wrapper is as large as what it wraps, and its two methods are inlined calls. Requests,
//! responses, errors and futures pass through as they are.

use core::task::{Context, Poll};

// Not through the module's name: patched, that qualifies what is in scope anyway, and is warned of.
use tower_compat_relay::{Layer as TheirLayer, Service as TheirService};
use tower_layer::Layer;
use tower_service::Service;

/// Our service or layer, as crates.io's.
///
/// Over a service `S`, it is crates.io's `Service<Request>` where `S` is our [`Service<Request>`](Service).
/// Over a layer `L`, it is crates.io's `Layer`, and decorates crates.io's services: each is shown to
/// `L` as [`FromCratesIo`], and what `L` makes of it comes back as `ToCratesIo`.
///
/// **Readiness**, **cancellation** and **errors** are those of what is wrapped: the task's context goes
/// in and the response future comes out untouched. A clone is a clone of it, and a reservation is
/// the wrapped handle's.
///
/// # Example
///
/// Our concurrency limit, in crates.io's `ServiceBuilder`:
///
/// ```
/// use tower_compat::ToCratesIo;
/// use tower_limit::concurrency::ConcurrencyLimitLayer;
/// use upstream::{BoxError, ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(ToCratesIo::new(ConcurrencyLimitLayer::new(10)))
///     .service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) });
/// assert_eq!(service.oneshot(1).await.unwrap(), 2);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ToCratesIo<T> {
    inner: T,
}

/// crates.io's service or layer, as ours.
///
/// Over a service `S`, it is our [`Service<Request>`](Service) where `S` is crates.io's. Over a layer `L`, it
/// is our [`Layer`], and decorates our services: each is shown to `L` as [`ToCratesIo`], and what `L`
/// makes of it comes back as `FromCratesIo`.
///
/// **Readiness**, **cancellation** and **errors** are those of what is wrapped: the task's context goes
/// in and the response future comes out untouched. A clone is a clone of it, and a reservation is
/// the wrapped handle's.
///
/// # Example
///
/// A service of crates.io's under our timeout:
///
/// ```
/// use std::time::Duration;
///
/// use tower_compat::FromCratesIo;
/// use tower_service::Service;
/// use tower_timeout::Timeout;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let never = upstream::service_fn(|()| std::future::pending::<Result<(), upstream::BoxError>>());
/// let mut service = Timeout::new(FromCratesIo::new(never), Duration::from_secs(1));
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let error = service.call(()).await.unwrap_err();
/// assert_eq!(error.to_string(), "request timed out");
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FromCratesIo<T> {
    inner: T,
}

impl<T> ToCratesIo<T> {
    /// Wraps our service or layer.
    #[inline]
    pub const fn new(inner: T) -> Self {
        Self { inner }
    }

    /// What is wrapped.
    #[inline]
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped, mutably.
    #[inline]
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the wrapper off.
    #[inline]
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T> FromCratesIo<T> {
    /// Wraps crates.io's service or layer.
    #[inline]
    pub const fn new(inner: T) -> Self {
        Self { inner }
    }

    /// What is wrapped.
    #[inline]
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped, mutably.
    #[inline]
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Takes the wrapper off.
    #[inline]
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<S, Request> TheirService<Request> for ToCratesIo<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> S::Future {
        self.inner.call(request)
    }
}

impl<S, Request> Service<Request> for FromCratesIo<S>
where
    S: TheirService<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> S::Future {
        self.inner.call(request)
    }
}

impl<L, S> TheirLayer<S> for ToCratesIo<L>
where
    L: Layer<FromCratesIo<S>>,
{
    type Service = ToCratesIo<L::Service>;

    #[inline]
    fn layer(&self, inner: S) -> Self::Service {
        ToCratesIo::new(self.inner.layer(FromCratesIo::new(inner)))
    }
}

impl<L, S> Layer<S> for FromCratesIo<L>
where
    L: TheirLayer<ToCratesIo<S>>,
{
    type Service = FromCratesIo<L::Service>;

    #[inline]
    fn layer(&self, inner: S) -> Self::Service {
        FromCratesIo::new(self.inner.layer(ToCratesIo::new(inner)))
    }
}
