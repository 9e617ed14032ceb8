//! A service that may be missing: [`Optional`], how it fails, and its response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::BoxError;

/// A service that may be missing, in which case requests fail.
///
/// **Readiness.** The service's; without one always ready.
///
/// **Errors.** The service's, boxed, or [`None`] without one.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_util::{ServiceExt, optional, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let echo = service_fn(|n: u32| async move { Ok::<_, Infallible>(n) });
/// let present = optional::Optional::new(Some(echo));
/// assert_eq!(present.oneshot(7).await.unwrap(), 7);
///
/// let absent = optional::Optional::new(false.then_some(echo));
/// assert!(absent.oneshot(7).await.unwrap_err().is::<optional::None>());
/// # }
/// ```
#[derive(Debug)]
pub struct Optional<T> {
    inner: Option<T>,
}

/// The service is missing.
#[derive(Debug)]
pub struct None(());

pin_project! {
    /// The response of an [`Optional`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<T> {
        #[pin]
        inner: Option<T>,
    }
}

impl<T> Optional<T> {
    /// Makes a service of one that may be missing.
    pub const fn new<Request>(inner: Option<T>) -> Self
    where
        T: Service<Request>,
        T::Error: Into<BoxError>,
    {
        Self { inner }
    }
}

impl<T, Request> Service<Request> for Optional<T>
where
    T: Service<Request>,
    T::Error: Into<BoxError>,
{
    type Response = T::Response;
    type Error = BoxError;
    type Future = ResponseFuture<T::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.inner {
            Some(inner) => inner.poll_ready(cx).map_err(Into::into),
            Option::None => Poll::Ready(Ok(())),
        }
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        ResponseFuture {
            inner: self.inner.as_mut().map(|inner| inner.call(req)),
        }
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
        match self.project().inner.as_pin_mut() {
            Some(inner) => inner.poll(cx).map_err(Into::into),
            Option::None => Poll::Ready(Err(None(()).into())),
        }
    }
}

impl fmt::Display for None {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("None")
    }
}

impl std::error::Error for None {}
