//! Balancers over what a service discovers.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_discover::Discover;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Balance, BoxError};

/// Makes a [`Balance`] of every [`Discover`] that a service makes.
///
/// # Readiness, Cancellation, Errors
///
/// As those of the service inside.
pub struct MakeBalance<S, Req> {
    inner: S,
    _request: PhantomData<fn(Req)>,
}

/// Wraps services that make a [`Discover`] in [`MakeBalance`].
pub struct MakeBalanceLayer<D, Req> {
    _marker: PhantomData<fn(D, Req)>,
}

pin_project! {
    /// The future of a [`MakeBalance`], which resolves to a [`Balance`].
    pub struct MakeFuture<F, Req> {
        #[pin]
        inner: F,
        _request: PhantomData<fn(Req)>,
    }
}

impl<S, Req> MakeBalance<S, Req> {
    /// Makes a [`Balance`] of every [`Discover`] that `inner` makes.
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            _request: PhantomData,
        }
    }
}

impl<S, Target, Req> Service<Target> for MakeBalance<S, Req>
where
    S: Service<Target>,
    S::Response: Discover,
    <S::Response as Discover>::Key: Hash,
    <S::Response as Discover>::Service: Service<Req>,
    <<S::Response as Discover>::Service as Service<Req>>::Error: Into<BoxError>,
{
    type Response = Balance<S::Response, Req>;
    type Error = S::Error;
    type Future = MakeFuture<S::Future, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        MakeFuture {
            inner: self.inner.call(target),
            _request: PhantomData,
        }
    }
}

impl<S, Req> Clone for MakeBalance<S, Req>
where
    S: Clone,
{
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S, Req> fmt::Debug for MakeBalance<S, Req>
where
    S: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeBalance")
            .field("inner", &self.inner)
            .finish()
    }
}

impl<F, T, E, Req> Future for MakeFuture<F, Req>
where
    F: Future<Output = Result<T, E>>,
    T: Discover,
    T::Key: Hash,
    T::Service: Service<Req>,
    <T::Service as Service<Req>>::Error: Into<BoxError>,
{
    type Output = Result<Balance<T, Req>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_ok(Balance::new)
    }
}

impl<F, Req> fmt::Debug for MakeFuture<F, Req>
where
    F: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeFuture")
            .field("inner", &self.inner)
            .finish()
    }
}

impl<D, Req> MakeBalanceLayer<D, Req> {
    /// Makes the layer.
    pub const fn new() -> Self {
        Self {
            _marker: PhantomData,
        }
    }
}

impl<S, Req> Layer<S> for MakeBalanceLayer<S, Req> {
    type Service = MakeBalance<S, Req>;

    fn layer(&self, inner: S) -> Self::Service {
        MakeBalance::new(inner)
    }
}

impl<D, Req> Clone for MakeBalanceLayer<D, Req> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<D, Req> Default for MakeBalanceLayer<D, Req> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D, Req> fmt::Debug for MakeBalanceLayer<D, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeBalanceLayer").finish()
    }
}
