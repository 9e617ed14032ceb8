//! One of two services or layers, chosen at run time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{ErrInto, TryFutureExt};
use pin_project_lite::pin_project;
use tower_layer::{Identity, Layer};
use tower_service::Service;

/// One of two services, or of two layers, as one type.
///
/// For a choice made when the stack is put together. Two services need the same response and error type.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_util::{Either, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// for loud in [false, true] {
///     let plain = service_fn(|name: &'static str| async move { Ok::<_, Infallible>(name.to_owned()) });
///     let service = if loud {
///         Either::Left(plain.map_response(|name| name.to_uppercase()))
///     } else {
///         Either::Right(plain)
///     };
///     let expected = if loud { "ADA" } else { "Ada" };
///     assert_eq!(service.oneshot("Ada").await.unwrap(), expected);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Either<A, B> {
    /// One of them.
    Left(A),
    /// The other.
    Right(B),
}

pin_project! {
    /// The response of an [`Either`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct EitherResponseFuture<A, B> {
        #[pin]
        kind: Kind<A, B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<A, B> {
        Left { #[pin] response: A },
        Right { #[pin] response: B },
    }
}

/// A layer that may be missing. [`option_layer_into`] makes it.
#[derive(Clone, Debug)]
pub struct OptionLayer<L> {
    layer: Option<L>,
}

/// A service `A` made by a layer around a `B`, or the bare `B` failing with `A`'s error.
///
/// [`option_layer_into`] makes a layer of them.
#[derive(Clone, Debug)]
pub struct OptionService<A, B> {
    inner: Either<A, B>,
}

/// A layer that may be missing: without one, services stay as they are.
///
/// The layered service and the bare one need the same error type. Where the layer changes it, as those do
/// that can fail by themselves, use [`option_layer_into`].
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_layer::Layer;
/// use tower_util::{MapRequestLayer, ServiceExt, option_layer, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let echo = service_fn(|n: u32| async move { Ok::<_, Infallible>(n) });
/// let double = MapRequestLayer::new(|n: u32| n * 2);
///
/// for (wanted, answer) in [(true, 8), (false, 4)] {
///     let service = option_layer(wanted.then_some(double.clone())).layer(echo);
///     assert_eq!(service.oneshot(4).await.unwrap(), answer);
/// }
/// # }
/// ```
pub fn option_layer<L>(layer: Option<L>) -> Either<L, Identity> {
    match layer {
        Some(layer) => Either::Left(layer),
        None => Either::Right(Identity::new()),
    }
}

/// A layer that may be missing and that may change the error type: without one, services stay as they are,
/// save that their errors are converted [`Into`] the layered service's.
///
/// Of whichever of the two the service is made, its error is the same, so that the layers above see one
/// type. It costs no allocation beyond the conversion of an error.
///
/// # Example
///
/// A filter fails with a boxed error, the service in it with an [`io::Error`](std::io::Error):
///
/// ```
/// use std::io;
/// use tower_layer::Layer;
/// use tower_util::{BoxCloneService, MapErrLayer, ServiceExt, option_layer_into, service_fn};
///
/// type BoxError = Box<dyn std::error::Error + Send + Sync>;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let read = service_fn(|path: &'static str| async move {
///     if path == "/" { Ok("root") } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
/// });
/// for wanted in [true, false] {
///     let boxing = wanted.then(|| MapErrLayer::new(|error: io::Error| -> BoxError { error.into() }));
///
///     // `option_layer` would make an `Either` of two error types here, which is no service.
///     let service = option_layer_into(boxing).layer(read);
///
///     let service: BoxCloneService<&str, &str, BoxError> = service.boxed_clone();
///     assert_eq!(service.clone().oneshot("/").await.unwrap(), "root");
///     let error = service.oneshot("/nowhere").await.unwrap_err();
///     assert!(error.is::<io::Error>());
/// }
/// # }
/// ```
pub fn option_layer_into<L>(layer: Option<L>) -> OptionLayer<L> {
    OptionLayer { layer }
}

impl<A, B, Request> Service<Request> for Either<A, B>
where
    A: Service<Request>,
    B: Service<Request, Response = A::Response, Error = A::Error>,
{
    type Response = A::Response;
    type Error = A::Error;
    type Future = EitherResponseFuture<A::Future, B::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Left(service) => service.poll_ready(cx),
            Self::Right(service) => service.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        match self {
            Self::Left(service) => EitherResponseFuture::left(service.call(req)),
            Self::Right(service) => EitherResponseFuture::right(service.call(req)),
        }
    }
}

impl<S, A, B> Layer<S> for Either<A, B>
where
    A: Layer<S>,
    B: Layer<S>,
{
    type Service = Either<A::Service, B::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        match self {
            Self::Left(layer) => Either::Left(layer.layer(inner)),
            Self::Right(layer) => Either::Right(layer.layer(inner)),
        }
    }
}

impl<A, B> EitherResponseFuture<A, B> {
    #[inline]
    fn left(response: A) -> Self {
        Self {
            kind: Kind::Left { response },
        }
    }

    #[inline]
    fn right(response: B) -> Self {
        Self {
            kind: Kind::Right { response },
        }
    }
}

impl<A, B> Future for EitherResponseFuture<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Left { response } => response.poll(cx),
            KindProj::Right { response } => response.poll(cx),
        }
    }
}

impl<S, L> Layer<S> for OptionLayer<L>
where
    L: Layer<S>,
{
    type Service = OptionService<L::Service, S>;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = match &self.layer {
            Some(layer) => Either::Left(layer.layer(inner)),
            None => Either::Right(inner),
        };
        OptionService { inner }
    }
}

impl<A, B, Request> Service<Request> for OptionService<A, B>
where
    A: Service<Request>,
    B: Service<Request, Response = A::Response>,
    B::Error: Into<A::Error>,
{
    type Response = A::Response;
    type Error = A::Error;
    type Future = EitherResponseFuture<A::Future, ErrInto<B::Future, A::Error>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match &mut self.inner {
            Either::Left(service) => service.poll_ready(cx),
            Either::Right(service) => service.poll_ready(cx).map_err(Into::into),
        }
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        match &mut self.inner {
            Either::Left(service) => EitherResponseFuture::left(service.call(req)),
            Either::Right(service) => EitherResponseFuture::right(service.call(req).err_into()),
        }
    }
}
