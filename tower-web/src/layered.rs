//! Layers around routes, and services of any kind as routes.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::StatusCode;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::body::{Body, BodyError};
use crate::extract::Request;
use crate::problem::{IntoProblem, Problem, Rejection};
use crate::respond::{IntoResponse, Response};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a layer of an application is put around: the layers inside it, and the routes.
///
/// A [`Layer`] that [`App::layer`](crate::App::layer) takes is a `Layer<Next>`. Its service may change the request's body, and
/// answer with any body and any error: errors become problems right where they leave the layer, so
/// that the layers outside of it see a response, and may put their headers on it.
///
/// **Readiness.** Always: each request takes a clone of the layers' services, waits until that is ready, and drops it in the
/// end. A limit is held by requests, not by connections.
///
/// **Cancellation.** Dropping the future drops all that runs inside.
#[derive(Clone)]
pub struct Next {
    stage: Arc<dyn Stage>,
}

/// A service whose type is erased.
pub(crate) trait Stage: Send + Sync {
    fn run(&self, request: Request) -> BoxFuture<Response>;
}

impl Next {
    pub(crate) fn new(stage: impl Stage + 'static) -> Self {
        Self {
            stage: Arc::new(stage),
        }
    }

    /// Runs what is inside, to its response. Nothing has to be ready before, and nothing fails: an error is a problem already.
    pub fn run(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        self.stage.run(request)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

impl<B> Service<http::Request<B>> for Next
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = NextFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> NextFuture {
        NextFuture {
            response: self.stage.run(request.map(Body::new)),
        }
    }
}

/// The response of [`Next`].
#[must_use = "futures do nothing unless polled"]
pub struct NextFuture {
    response: BoxFuture<Response>,
}

impl Future for NextFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for NextFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextFuture").finish_non_exhaustive()
    }
}

/// A layer whose type is erased: what it makes of what is inside.
pub(crate) type ErasedLayer = Box<dyn FnOnce(Next) -> Next + Send>;

pub(crate) fn erase<L, S, B>(layer: L) -> ErasedLayer
where
    L: Layer<Next, Service = S> + Send + 'static,
    S: Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Box::new(move |next| Next::new(Erased(layer.layer(next))))
}

/// Puts layers, outermost first, around what is inside.
pub(crate) fn wrap(layers: Vec<ErasedLayer>, inside: Next) -> Next {
    layers
        .into_iter()
        .rev()
        .fold(inside, |inside, layer| layer(inside))
}

/// Any service, as a stage.
pub(crate) struct Erased<S>(pub(crate) S);

impl<S, B> Stage for Erased<S>
where
    S: Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn run(&self, request: Request) -> BoxFuture<Response> {
        let mut service = self.0.clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| service.poll_ready(cx)).await {
                return problem_of(error.into()).into_response();
            }
            match service.call(request).await {
                Ok(response) => response.map(Body::new),
                Err(error) => problem_of(error.into()).into_response(),
            }
        })
    }
}

/// The problem that a layer's error is: a [`Rejection`] is its own, a body that is too large a 413, a timeout a 504, a limit
/// a 503, any other a 500. What a layer has wrapped is looked into.
fn problem_of(error: BoxError) -> Problem {
    let error = match error.downcast::<Rejection>() {
        Ok(rejection) => return rejection.into_problem(),
        Err(error) => error,
    };
    let error = match error.downcast::<BodyError>() {
        Ok(error) => return Rejection::from(*error).into_problem(),
        Err(error) => error,
    };
    let mut source: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(current) = source {
        if let Some(status) = status_of(current) {
            tracing::warn!(status = status.as_u16(), error = %current, "a layer refused a request");
            return Problem::new(status);
        }
        source = current.source();
    }
    tracing::error!(%error, "a layer failed");
    Problem::internal(error).told()
}

#[cfg(feature = "middleware")]
fn status_of(error: &(dyn Error + 'static)) -> Option<StatusCode> {
    if error.is::<tower_timeout::Elapsed>() {
        Some(StatusCode::GATEWAY_TIMEOUT)
    } else if error.is::<tower_load_shed::Overloaded>()
        || error.is::<tower_limit::bulkhead::AtCapacity>()
        || error.is::<tower_limit::bulkhead::WaitElapsed>()
    {
        Some(StatusCode::SERVICE_UNAVAILABLE)
    } else {
        None
    }
}

#[cfg(not(feature = "middleware"))]
fn status_of(_: &(dyn Error + 'static)) -> Option<StatusCode> {
    None
}

/// Runs a handler to its end, or to its panic: that is a 500, and the connection goes on.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct CatchPanic {
    /// `None` once it has ended.
    running: Option<BoxFuture<Response>>,
}

impl CatchPanic {
    pub(crate) fn new(running: BoxFuture<Response>) -> Self {
        Self {
            running: Some(running),
        }
    }
}

impl CatchPanic {
    /// Drops the handler, which may panic once more.
    #[cold]
    pub(crate) fn cancel(&mut self) {
        let running = &mut self.running;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| *running = None)) {
            let _ = panicked(&*panic);
        }
    }
}

impl Future for CatchPanic {
    type Output = Response;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut polled = Poll::Pending;
        self.poll_into(&mut polled, |response| response, cx);
        polled
    }
}

impl CatchPanic {
    /// Polls it, and puts what `made` makes of the response into `polled`. A response is large: it isn't passed on by
    /// `catch_unwind`, nor moved more often than need be.
    #[inline]
    pub(crate) fn poll_into<T>(
        &mut self,
        polled: &mut Poll<T>,
        made: impl Fn(Response) -> T,
        cx: &mut Context<'_>,
    ) {
        let running = &mut self.running;
        // What a panic leaves half done is dropped here, and nobody else sees it, but for what the handler itself
        // shares: its locks are poisoned.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            // There is none after its end, when only a broken caller polls.
            let Some(future) = running else { return };
            if let Poll::Ready(response) = future.as_mut().poll(cx) {
                *polled = Poll::Ready(made(response));
                *running = None;
            }
        }));
        if let Err(panic) = caught {
            // It may panic again, when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| *running = None));
            *polled = Poll::Ready(made(panicked(&*panic).into_response()));
        }
    }
}

#[cold]
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Problem {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = message, "a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
}
