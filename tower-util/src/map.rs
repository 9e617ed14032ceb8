//! Services with a function before or behind them: what goes in, what comes out, or the future itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::TryFuture;
use futures_util::future::{self, ErrInto, FutureExt, TryFutureExt};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// Defines a service with a function beside it, and its layer; all but the `Service` implementation, in
/// which alone the seven differ.
macro_rules! combinator {
    ($(#[$doc:meta])* $Service:ident, $(#[$derive:meta])* $Layer:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $Service<S, F> {
            inner: S,
            f: F,
        }

        #[doc = concat!("Puts a [`", stringify!($Service), "`] around services.")]
        $(#[$derive])*
        pub struct $Layer<F> {
            f: F,
        }

        impl<S, F> $Service<S, F> {
            /// Puts the function `f` beside the service `inner`.
            pub const fn new(inner: S, f: F) -> Self {
                Self { inner, f }
            }

            #[doc = concat!("Makes a layer that puts `f` beside services: a [`", stringify!($Layer), "`].")]
            pub fn layer(f: F) -> $Layer<F> {
                $Layer { f }
            }
        }

        impl<S, F> fmt::Debug for $Service<S, F>
        where
            S: fmt::Debug,
        {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Service))
                    .field("inner", &self.inner)
                    .field("f", &format_args!("{}", std::any::type_name::<F>()))
                    .finish()
            }
        }

        impl<F> $Layer<F> {
            #[doc = concat!("Makes a layer of [`", stringify!($Service), "`].")]
            pub const fn new(f: F) -> Self {
                Self { f }
            }
        }

        impl<S, F> Layer<S> for $Layer<F>
        where
            F: Clone,
        {
            type Service = $Service<S, F>;

            fn layer(&self, inner: S) -> Self::Service {
                $Service::new(inner, self.f.clone())
            }
        }
    };
}

/// Defines a response future that is a combinator of `futures-util` under a name of our own.
macro_rules! response_future {
    ($(#[$doc:meta])* $Future:ident<$($param:ident),*>($inner:ty) $(where $bounded:ident: $bound:path)?) => {
        pin_project! {
            $(#[$doc])*
            #[must_use = "futures do nothing unless you `.await` or poll them"]
            pub struct $Future<$($param),*> $(where $bounded: $bound)? {
                #[pin]
                inner: $inner,
            }
        }

        impl<$($param),*> Future for $Future<$($param),*>
        where
            $inner: Future,
            $($bounded: $bound,)?
        {
            type Output = <$inner as Future>::Output;

            #[inline]
            fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                self.project().inner.poll(cx)
            }
        }

        impl<$($param),*> fmt::Debug for $Future<$($param),*> $(where $bounded: $bound)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Future)).finish_non_exhaustive()
            }
        }
    };
}

combinator! {
    /// Rewrites requests. [`ServiceExt::map_request`](crate::ServiceExt::map_request) makes it.
    MapRequest, #[derive(Clone, Debug)] MapRequestLayer
}

combinator! {
    /// Rewrites responses. [`ServiceExt::map_response`](crate::ServiceExt::map_response) makes it.
    MapResponse, #[derive(Clone, Debug)] MapResponseLayer
}

combinator! {
    /// Rewrites errors, those of readiness too. [`ServiceExt::map_err`](crate::ServiceExt::map_err) makes it.
    MapErr, #[derive(Clone, Debug)] MapErrLayer
}

combinator! {
    /// Rewrites results. [`ServiceExt::map_result`](crate::ServiceExt::map_result) makes it.
    ///
    /// **Errors.** One of readiness doesn't pass through the function, but is converted by
    /// [`From`].
    MapResult, #[derive(Clone, Debug)] MapResultLayer
}

combinator! {
    /// Goes on asynchronously from a response. [`ServiceExt::and_then`](crate::ServiceExt::and_then) makes it.
    AndThen, #[derive(Clone, Debug)] AndThenLayer
}

combinator! {
    /// Goes on asynchronously from a result. [`ServiceExt::then`](crate::ServiceExt::then) makes it.
    ///
    /// **Errors.** One of readiness doesn't pass through the function, but is converted by
    /// [`Into`].
    Then, #[derive(Clone, Debug)] ThenLayer
}

combinator! {
    /// Wraps response futures. [`ServiceExt::map_future`](crate::ServiceExt::map_future) makes it.
    MapFuture, #[derive(Clone)] MapFutureLayer
}

response_future! {
    /// The response of a [`MapResponse`].
    MapResponseFuture<F, N>(future::MapOk<F, N>)
}

response_future! {
    /// The response of a [`MapErr`].
    MapErrFuture<F, N>(future::MapErr<F, N>)
}

response_future! {
    /// The response of a [`MapResult`].
    MapResultFuture<F, N>(future::Map<F, N>)
}

response_future! {
    /// The response of an [`AndThen`].
    AndThenFuture<F1, F2, N>(future::AndThen<ErrInto<F1, F2::Error>, F2, N>) where F2: TryFuture
}

response_future! {
    /// The response of a [`Then`].
    ThenFuture<F1, F2, N>(future::Then<F1, F2, N>)
}

impl<S, F, R1, R2> Service<R1> for MapRequest<S, F>
where
    S: Service<R2>,
    F: FnMut(R1) -> R2,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: R1) -> S::Future {
        self.inner.call((self.f)(req))
    }
}

impl<S, F, Request, Response> Service<Request> for MapResponse<S, F>
where
    S: Service<Request>,
    F: FnOnce(S::Response) -> Response + Clone,
{
    type Response = Response;
    type Error = S::Error;
    type Future = MapResponseFuture<S::Future, F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        MapResponseFuture {
            inner: self.inner.call(req).map_ok(self.f.clone()),
        }
    }
}

impl<S, F, Request, Error> Service<Request> for MapErr<S, F>
where
    S: Service<Request>,
    F: FnOnce(S::Error) -> Error + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = MapErrFuture<S::Future, F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The function is cloned only where it is needed: it may hold an `Arc`.
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.f.clone()(error))
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        MapErrFuture {
            inner: self.inner.call(req).map_err(self.f.clone()),
        }
    }
}

impl<S, F, Request, Response, Error> Service<Request> for MapResult<S, F>
where
    S: Service<Request>,
    Error: From<S::Error>,
    F: FnOnce(Result<S::Response, S::Error>) -> Result<Response, Error> + Clone,
{
    type Response = Response;
    type Error = Error;
    type Future = MapResultFuture<S::Future, F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        MapResultFuture {
            inner: self.inner.call(req).map(self.f.clone()),
        }
    }
}

impl<S, F, Request, Fut> Service<Request> for AndThen<S, F>
where
    S: Service<Request>,
    S::Error: Into<Fut::Error>,
    F: FnOnce(S::Response) -> Fut + Clone,
    Fut: TryFuture,
{
    type Response = Fut::Ok;
    type Error = Fut::Error;
    type Future = AndThenFuture<S::Future, Fut, F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fut::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        AndThenFuture {
            inner: self.inner.call(req).err_into().and_then(self.f.clone()),
        }
    }
}

impl<S, F, Request, Response, Error, Fut> Service<Request> for Then<S, F>
where
    S: Service<Request>,
    S::Error: Into<Error>,
    F: FnOnce(Result<S::Response, S::Error>) -> Fut + Clone,
    Fut: Future<Output = Result<Response, Error>>,
{
    type Response = Response;
    type Error = Error;
    type Future = ThenFuture<S::Future, Fut, F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        ThenFuture {
            inner: self.inner.call(req).then(self.f.clone()),
        }
    }
}

impl<R, S, F, T, E, Fut> Service<R> for MapFuture<S, F>
where
    S: Service<R>,
    F: FnMut(S::Future) -> Fut,
    E: From<S::Error>,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: R) -> Fut {
        (self.f)(self.inner.call(req))
    }
}

impl<S, F> MapFuture<S, F> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the function off the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<F> fmt::Debug for MapFutureLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapFutureLayer")
            .field("f", &format_args!("{}", std::any::type_name::<F>()))
            .finish()
    }
}
