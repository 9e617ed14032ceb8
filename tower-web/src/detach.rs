//! Work that is finished although its client has gone away.
//!
//! A handler is dropped with the request that it answers: where a client hangs up, nobody works for it any longer. Where half the work
//! is worse than all of it (a payment taken, and no order made), [`Detach`] is a [layer](crate::App::layer) that lets it go on.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

use crate::BoxError;
use crate::extract::Request;

/// Finishes what is inside, also when the client goes away.
///
/// The work runs in a task of its own, under the deadline and in the span of its request. A shutdown waits for it as for any
/// other request, until the drain's deadline, where it is the layer of a route or of a resource; around a whole application, where
/// no route is known yet, it doesn't.
///
/// **Readiness** is that of what is inside. **Cancellation**: dropping the future leaves the work running. What is streamed back
/// afterwards isn't detached: the response's head is all that is waited for. **Errors** are those of what is inside, and a panic in it
/// goes on in the caller.
///
/// It costs a task for each request.
///
/// # Example
///
/// ```
/// use tower_web::detach::Detach;
/// use tower_web::prelude::*;
///
/// #[post("/orders")]
/// #[layer(Detach)]
/// async fn order() -> StatusCode {
///     // The card is charged, and then the order is written down, whatever the client does meanwhile.
///     StatusCode::CREATED
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// App::new().route(order).test().post("/orders").await.assert_status(201);
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Detach;

impl<S> Layer<S> for Detach {
    type Service = Detached<S>;

    fn layer(&self, inner: S) -> Detached<S> {
        Detached { inner }
    }
}

/// What [`Detach`] makes of a service.
#[derive(Debug, Clone)]
pub struct Detached<S> {
    inner: S,
}

impl<S> Service<Request> for Detached<S>
where
    S: Service<Request>,
    S::Response: Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = DetachedFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return DetachedFuture { task: None };
        };
        let shutdown = crate::routing::shutdown_of(&request);
        let work = self.inner.call(request);
        let work = async move {
            // Held to the end: this is what the shutdown waits for.
            let _shutdown = shutdown;
            work.await.map_err(Into::into)
        };
        let work = tower_deadline::inherit(work.in_current_span());
        DetachedFuture {
            task: Some(runtime.spawn(work)),
        }
    }
}

/// The answer of work that goes on without it.
#[must_use = "the work goes on, but nobody learns how it ends"]
pub struct DetachedFuture<T> {
    // `None` where there is no runtime to run it.
    task: Option<JoinHandle<Result<T, BoxError>>>,
}

impl<T> Future for DetachedFuture<T> {
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.task else {
            return Poll::Ready(Err(
                "work can be detached only within a tokio runtime".into()
            ));
        };
        Pin::new(task).poll(cx).map(|ended| match ended {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down.
                Err(error) => Err(error.into()),
            },
        })
    }
}

impl<T> fmt::Debug for DetachedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedFuture").finish_non_exhaustive()
    }
}
