//! Answers with an error, rather than waiting, where a service has no capacity.
//!
//! [`LoadShed`] is for servers: a request that would have to wait is better refused at once, while its
//! caller can still go elsewhere, than answered when nobody waits for it any more. It is always ready;
//! a request that finds the inner service not ready fails with [`Overloaded`].
//!
//! It goes *around* what limits: a concurrency limit, a rate limit, a buffer. Without one, the inner
//! service is ready for ever more work, and nothing is shed.
//!
//! # When not to use it
//!
//! - Where the work can wait: a batch job, a queue's consumer. Back-pressure paces them.
//! - Over a service whose readiness takes time to come by, such as a connection that is still being made:
//!   the requests until then are refused, although nothing is overloaded.
//! - Over handles that share a first-come, first-served limit and that lie idle afterwards. A handle that
//!   was told to wait keeps its place in the queue, so that a permit may fall to a handle that nobody
//!   uses. Make a handle per request and drop it (as `ServiceExt::oneshot` on a clone does), or
//!   use a limit that rejects by itself and doesn't queue.
//!
//! # What it costs
//!
//! A flag set and read: 1–2 ns a call, no allocation unless it sheds (the error's box), no lock.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps services in [`LoadShed`].
#[derive(Clone, Default)]
pub struct LoadShedLayer {
    _priv: (),
}

/// Fails the requests for which the inner service isn't ready, instead of making them wait.
///
/// **Readiness.** Ready at once, unless the inner service's readiness fails. Each `poll_ready` asks the
/// inner service anew, so the last one before the call decides. What the inner service reserved is held
/// until the call, or until this service is dropped.
///
/// **Errors.** [`Overloaded`], and the inner service's own. A `call` without a `poll_ready` before it
/// holds no readiness of the inner service, and fails with [`Overloaded`], too; a clone of a ready service
/// isn't ready.
///
/// # Example
///
/// ```
/// use tower_load_shed::{LoadShed, Overloaded};
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut service, mut handle) = mock::spawn_with::<&str, &str, _, _>(LoadShed::new);
/// handle.allow(1);
///
/// assert!(service.poll_ready().is_ready());
/// let accepted = service.call("first");
///
/// // There is no capacity for a second one. It is refused, it doesn't wait.
/// assert!(service.poll_ready().is_ready());
/// let error = service.call("second").await.unwrap_err();
/// assert!(error.is::<Overloaded>());
///
/// let (_, answer) = handle.next_request().await.unwrap();
/// answer.send_response("done");
/// assert_eq!(accepted.await.unwrap(), "done");
/// # }
/// ```
#[derive(Debug)]
pub struct LoadShed<S> {
    inner: S,
    /// Whether the inner service was ready when last asked, and hasn't been called since.
    is_ready: bool,
}

pin_project! {
    /// The response of [`LoadShed`]: the inner service's, or [`Overloaded`].
    ///
    /// **Cancellation.** Dropping it drops the inner service's future.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called { #[pin] future: F },
        Shed,
    }
}

/// The service had no capacity for the request, which was not sent.
#[derive(Default)]
pub struct Overloaded {
    _priv: (),
}

impl LoadShedLayer {
    /// Makes the layer.
    pub const fn new() -> Self {
        Self { _priv: () }
    }
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShed<S>;

    fn layer(&self, service: S) -> Self::Service {
        LoadShed::new(service)
    }
}

impl fmt::Debug for LoadShedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadShedLayer")
    }
}

impl<S> LoadShed<S> {
    /// Sheds what `inner` has no capacity for.
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            is_ready: false,
        }
    }
}

impl<S, Req> Service<Req> for LoadShed<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    // These three always: else the future of all that is inside is handed over through memory.
    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Asked even if it was ready before: it may have failed since.
        self.is_ready = match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
            Poll::Ready(Err(error)) => {
                self.is_ready = false;
                return Poll::Ready(Err(error.into()));
            }
        };
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, req: Req) -> Self::Future {
        let state = if self.is_ready {
            self.is_ready = false;
            let future = self.inner.call(req);
            State::Called { future }
        } else {
            State::Shed
        };
        ResponseFuture { state }
    }
}

impl<S: Clone> Clone for LoadShed<S> {
    fn clone(&self) -> Self {
        // The clone of the inner service has no reservation, so there is no readiness to copy.
        Self::new(self.inner.clone())
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Called { future } => ready!(future.poll(cx)).map_err(Into::into),
            StateProj::Shed => Err(Overloaded::new().into()),
        })
    }
}

impl<F: fmt::Debug> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseFuture").field(&self.state).finish()
    }
}

impl Overloaded {
    /// Makes the error.
    pub const fn new() -> Self {
        Self { _priv: () }
    }
}

impl fmt::Debug for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overloaded")
    }
}

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service overloaded")
    }
}

impl std::error::Error for Overloaded {}
