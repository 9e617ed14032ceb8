//! Another service for the requests that a breaker refuses.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_classify::{Classify, EveryErrorFails};
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxError, Breaker, BreakerLayer, ResponseFuture};

/// Wraps services in [`Fallback`]; see [`BreakerLayer::with_fallback`].
#[derive(Clone, Debug)]
pub struct FallbackLayer<F, C = EveryErrorFails> {
    breaker: BreakerLayer<C>,
    fallback: F,
}

/// A [`Breaker`] whose refused requests go to another service: a cache, a default, a second region.
///
/// **Readiness.** The breaker's; where it isn't open the fallback's as well, so that either can be called. A
/// request that is refused though the breaker was open when it was polled fails with
/// [`Refused`](crate::Refused), as the fallback hasn't been made ready.
///
/// **Cancellation.** Dropping the response future drops that of the service that was called.
///
/// **Errors.** Those of the service, the fallback and the breaker. What the fallback answers says nothing about the
/// service and counts for nothing.
///
/// # Example
///
/// ```
/// use tower_breaker::{BreakerLayer, Settings};
/// use tower_layer::Layer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (service, _server) = mock::pair::<&str, &str>();
/// let (cache, mut cache_server) = mock::pair::<&str, &str>();
/// let mut service = BreakerLayer::new(Settings::default())
///     .with_fallback(cache)
///     .layer(service);
///
/// service.breaker().handle().hold_shut();
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = service.call("hello");
/// let (_, answer) = cache_server.next_request().await.unwrap();
/// answer.send_response("what it was yesterday");
/// assert_eq!(response.await?, "what it was yesterday");
/// # Ok(())
/// # }
/// ```
pub struct Fallback<S, F, C = EveryErrorFails> {
    breaker: Breaker<S, C>,
    fallback: F,
    /// Whether the fallback has a place for the next call.
    is_reserved: bool,
}

pin_project! {
    /// The response of a [`Fallback`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct FallbackFuture<F, G, C = EveryErrorFails> {
        #[pin]
        state: State<F, G, C>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, G, C> {
        Breaker { #[pin] future: ResponseFuture<F, C> },
        Fallback { #[pin] future: G },
    }
}

impl<C> BreakerLayer<C> {
    /// Sends what the breakers refuse to clones of `fallback`.
    #[must_use]
    pub fn with_fallback<F>(self, fallback: F) -> FallbackLayer<F, C> {
        FallbackLayer {
            breaker: self,
            fallback,
        }
    }
}

impl<S, F, C> Fallback<S, F, C> {
    /// Sends what `breaker` refuses to `fallback`.
    pub const fn new(breaker: Breaker<S, C>, fallback: F) -> Self {
        Self {
            breaker,
            fallback,
            is_reserved: false,
        }
    }

    /// The breaker.
    pub const fn breaker(&self) -> &Breaker<S, C> {
        &self.breaker
    }
}

impl<S, F, C> Layer<S> for FallbackLayer<F, C>
where
    F: Clone,
    C: Clone,
{
    type Service = Fallback<S, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Fallback::new(self.breaker.layer(inner), self.fallback.clone())
    }
}

impl<S, F, C> Clone for Fallback<S, F, C>
where
    S: Clone,
    F: Clone,
    C: Clone,
{
    fn clone(&self) -> Self {
        Self::new(self.breaker.clone(), self.fallback.clone())
    }
}

impl<S, F, C, Req> Service<Req> for Fallback<S, F, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    F: Service<Req, Response = S::Response>,
    F::Error: Into<BoxError>,
    C: Classify<(), S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = FallbackFuture<S::Future, F::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.breaker.poll_ready(cx))?;
        if self.breaker.may_refuse() {
            ready!(self.fallback.poll_ready(cx)).map_err(Into::into)?;
            self.is_reserved = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let state = match self.breaker.admit() {
            Err(_) if self.is_reserved => {
                self.is_reserved = false;
                State::Fallback {
                    future: self.fallback.call(req),
                }
            }
            admitted => State::Breaker {
                future: self.breaker.send(admitted, req),
            },
        };
        FallbackFuture { state }
    }
}

impl<F, G, C, Res, E, E2> Future for FallbackFuture<F, G, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    G: Future<Output = Result<Res, E2>>,
    E2: Into<BoxError>,
    C: Classify<(), Res, E>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Breaker { future } => future.poll(cx),
            StateProj::Fallback { future } => future.poll(cx).map_err(Into::into),
        }
    }
}

impl<S, F, C> fmt::Debug for Fallback<S, F, C>
where
    S: fmt::Debug,
    F: fmt::Debug,
    C: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("breaker", &self.breaker)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}
