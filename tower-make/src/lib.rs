//! Services that make services and connections.
//!
//! Some services answer with a service: a connector, whose request is an address and whose response is
//! the client of one connection; or a server's factory, which makes a handler for each connection that
//! it accepts. [`MakeService`] is the name of the bound for them, and [`MakeConnection`] that for services
//! that answer with a byte stream. Both are implemented for every [`Service`] that fits, and can't be
//! implemented by hand.
//!
//! [`Shared`] is a `MakeService` of clones of one service.
//!
//! # When not to use it
//!
//! In code that names the service it makes: there a plain `Service` bound says the same. The traits pay
//! in generic code, where spelling out `M: Service<T, Response = S>, S: Service<Req>` at each place would
//! add a parameter to each type.
//!
//! # Cost
//!
//! None: everything forwards, save that [`Shared`] clones its service for each request.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

/// A service that makes services: its response is a `Service<Request>`.
///
/// Implemented for every such `Service<Target>`; it is an alias for the bound and is sealed.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_make::{MakeService, Shared};
/// use tower_util::{ServiceExt, service_fn};
///
/// /// Makes a service for the target, and sends it one request.
/// async fn first_answer<M>(mut make: M, target: &'static str, request: u32) -> M::Response
/// where
///     M: MakeService<&'static str, u32, MakeError = Infallible, Error = Infallible>,
/// {
///     std::future::poll_fn(|cx| make.poll_ready(cx)).await.unwrap();
///     let service = make.make_service(target).await.unwrap();
///     service.oneshot(request).await.unwrap()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(n * 2) });
/// assert_eq!(first_answer(Shared::new(double), "anywhere", 4).await, 8);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `MakeService` for `{Target}` and `{Request}`",
    label = "does not make a `Service<{Request}>` for a `{Target}`",
    note = "a `Service<{Target}>` whose response is a `Service<{Request}>` is one; `Shared::new(service)` makes one of a \
            service that is `Clone`"
)]
pub trait MakeService<Target, Request>: sealed::Sealed<(Target, Request)> {
    /// What the services that are made answer with.
    type Response;

    /// How the services that are made fail.
    type Error;

    /// The service that is made.
    type Service: Service<Request, Response = Self::Response, Error = Self::Error>;

    /// How making one fails.
    type MakeError;

    /// The future of the service.
    type Future: Future<Output = Result<Self::Service, Self::MakeError>>;

    /// Says whether a service can be made; see [`Service::poll_ready`].
    ///
    /// # Errors
    ///
    /// An error means that no more services can be made.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::MakeError>>;

    /// Makes a service for `target`; see [`Service::call`].
    fn make_service(&mut self, target: Target) -> Self::Future;

    /// Turns this into a [`Service`] of targets alone, for combinators that want that bound.
    ///
    /// It names the `Request` of the services that are made, so that no type has to be annotated later.
    fn into_service(self) -> IntoService<Self, Request>
    where
        Self: Sized,
    {
        IntoService {
            make: self,
            _request: PhantomData,
        }
    }

    /// Borrows this as a [`Service`] of targets alone; see [`into_service`](Self::into_service).
    fn as_service(&mut self) -> AsService<'_, Self, Request>
    where
        Self: Sized,
    {
        AsService {
            make: self,
            _request: PhantomData,
        }
    }
}

/// A service that makes connections: its response is an [`AsyncRead`] and [`AsyncWrite`].
///
/// Implemented for every such `Service<Target>`; it is an alias for the bound and is sealed.
///
/// # Example
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower_make::MakeConnection;
///
/// /// Connects, and says hello.
/// async fn greet<M>(mut connector: M, address: &'static str) -> std::io::Result<()>
/// where
///     M: MakeConnection<&'static str, Error = std::io::Error>,
///     M::Connection: Unpin,
/// {
///     std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
///     let mut connection = connector.make_connection(address).await?;
///     connection.write_all(b"hello").await?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (connection, mut peer) = tokio::io::duplex(64);
/// let mut once = Some(connection);
/// let connector = tower_util::service_fn(move |_address| {
///     let connection = once.take().ok_or_else(|| std::io::Error::other("connected already"));
///     async { connection }
/// });
/// greet(connector, "example.org:80").await.unwrap();
///
/// let mut greeting = String::new();
/// peer.read_to_string(&mut greeting).await.unwrap();
/// assert_eq!(greeting, "hello");
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make connections to `{Target}`",
    label = "not a `MakeConnection<{Target}>`",
    note = "a `Service<{Target}>` whose response is `AsyncRead` and `AsyncWrite` is one"
)]
pub trait MakeConnection<Target>: sealed::Sealed<(Target,)> {
    /// The connection that is made.
    type Connection: AsyncRead + AsyncWrite;

    /// How connecting fails.
    type Error;

    /// The future of the connection.
    type Future: Future<Output = Result<Self::Connection, Self::Error>>;

    /// Says whether a connection can be made; see [`Service::poll_ready`].
    ///
    /// # Errors
    ///
    /// An error means that no more connections can be made.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Connects to `target`; see [`Service::call`].
    fn make_connection(&mut self, target: Target) -> Self::Future;
}

/// A [`MakeService`] as a [`Service`]. [`MakeService::into_service`] makes it.
pub struct IntoService<M, Request> {
    make: M,
    _request: PhantomData<Request>,
}

/// A borrowed [`MakeService`] as a [`Service`]. [`MakeService::as_service`] makes it.
pub struct AsService<'a, M, Request> {
    make: &'a mut M,
    _request: PhantomData<Request>,
}

/// Makes clones of one service, whatever the target.
///
/// For servers that want a `MakeService` where one handler serves all connections.
///
/// **Readiness.** Always ready. A clone has to become ready by itself, as any clone has.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_make::Shared;
/// use tower_util::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let handler = service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) });
/// let mut make = Shared::new(handler);
/// for connection in ["first", "second"] {
///     let handler = (&mut make).oneshot(connection).await.unwrap();
///     assert_eq!(handler.oneshot(1).await.unwrap(), 2);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shared<S> {
    service: S,
}

pin_project! {
    /// The service that a [`Shared`] makes.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct SharedFuture<S> {
        #[pin]
        inner: Ready<Result<S, Infallible>>,
    }
}

mod sealed {
    /// `T` tells the blanket implementations of the two traits apart.
    #[expect(unnameable_types, reason = "that is how a trait is sealed")]
    pub trait Sealed<T> {}
}

impl<M, S, Target, Request> sealed::Sealed<(Target, Request)> for M
where
    M: Service<Target, Response = S>,
    S: Service<Request>,
{
}

impl<M, S, Target, Request> MakeService<Target, Request> for M
where
    M: Service<Target, Response = S>,
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Service = S;
    type MakeError = M::Error;
    type Future = M::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::MakeError>> {
        Service::poll_ready(self, cx)
    }

    #[inline]
    fn make_service(&mut self, target: Target) -> Self::Future {
        Service::call(self, target)
    }
}

impl<C, Target> sealed::Sealed<(Target,)> for C
where
    C: Service<Target>,
    C::Response: AsyncRead + AsyncWrite,
{
}

impl<C, Target> MakeConnection<Target> for C
where
    C: Service<Target>,
    C::Response: AsyncRead + AsyncWrite,
{
    type Connection = C::Response;
    type Error = C::Error;
    type Future = C::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(self, cx)
    }

    #[inline]
    fn make_connection(&mut self, target: Target) -> Self::Future {
        Service::call(self, target)
    }
}

impl<M, S, Target, Request> Service<Target> for IntoService<M, Request>
where
    M: Service<Target, Response = S>,
    S: Service<Request>,
{
    type Response = M::Response;
    type Error = M::Error;
    type Future = M::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.make.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, target: Target) -> Self::Future {
        self.make.call(target)
    }
}

impl<M, Request> Clone for IntoService<M, Request>
where
    M: Clone,
{
    fn clone(&self) -> Self {
        Self {
            make: self.make.clone(),
            _request: PhantomData,
        }
    }
}

impl<M, Request> fmt::Debug for IntoService<M, Request>
where
    M: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoService")
            .field("make", &self.make)
            .finish()
    }
}

impl<M, S, Target, Request> Service<Target> for AsService<'_, M, Request>
where
    M: Service<Target, Response = S>,
    S: Service<Request>,
{
    type Response = M::Response;
    type Error = M::Error;
    type Future = M::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.make.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, target: Target) -> Self::Future {
        self.make.call(target)
    }
}

impl<M, Request> fmt::Debug for AsService<'_, M, Request>
where
    M: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsService")
            .field("make", &self.make)
            .finish()
    }
}

impl<S> Shared<S> {
    /// Makes a maker of clones of `service`.
    pub const fn new(service: S) -> Self {
        Self { service }
    }
}

impl<S, T> Service<T> for Shared<S>
where
    S: Clone,
{
    type Response = S;
    type Error = Infallible;
    type Future = SharedFuture<S>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _target: T) -> SharedFuture<S> {
        SharedFuture {
            inner: ready(Ok(self.service.clone())),
        }
    }
}

impl<S> Future for SharedFuture<S>
where
    Ready<Result<S, Infallible>>: Future,
{
    type Output = <Ready<Result<S, Infallible>> as Future>::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S> fmt::Debug for SharedFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFuture").finish_non_exhaustive()
    }
}
