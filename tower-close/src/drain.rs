//! The middleware that counts requests in flight, so that a service can be closed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Close, Closer, Closing, Signal, closer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps services in [`Drain`], all of which it can close.
#[derive(Clone, Debug)]
pub struct DrainLayer {
    closer: Closer,
}

/// A service that can be closed: it refuses new requests then, and counts those that it still has.
///
/// Clones are closed together. Closing waits for the response futures to end or to be dropped; it doesn't drop
/// them, as they belong to their callers. What is left at the deadline is told by
/// [`NotClosed::CutOff`](crate::NotClosed::CutOff).
///
/// **Readiness.** That of the inner service; once it is closed, it is ready, and calls fail. Whoever waits then is
/// woken.
///
/// **Cancellation.** Dropping a response future drops the inner service's, and closing no longer waits for it.
///
/// **Errors.** [`IsClosed`] for requests that come too late, and the inner service's own.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_close::{Close, DrainLayer, IsClosed};
/// use tower_deadline::Deadline;
/// use tower_layer::Layer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (mock, mut handle) = mock::pair::<&str, &str>();
/// let layer = DrainLayer::new();
/// let mut service = layer.layer(mock);
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("in time"));
/// let (_, answer) = handle.next_request().await.unwrap();
///
/// let closing = layer.close(Deadline::after(Duration::from_secs(30)));
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// assert!(service.call("too late").await.unwrap_err().is::<IsClosed>());
///
/// answer.send_response("finished");
/// assert_eq!(response.await??, "finished");
/// closing.await?;
/// # Ok(())
/// # }
/// ```
pub struct Drain<S> {
    inner: S,
    closer: Closer,
    /// Wakes whoever waits for the inner service when this is closed. Made when one has to.
    told: Option<Told>,
}

type Told = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The service was closed before the request came. Nothing was done for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsClosed;

pin_project! {
    /// The response of a [`Drain`]: the inner service's, or [`IsClosed`].
    #[derive(Debug)]
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
        Called {
            #[pin]
            future: F,
            // Dropped with the response, or with this future.
            in_flight: Option<Signal>,
        },
        Refused,
    }
}

impl DrainLayer {
    /// Makes a layer whose services are closed together, by [closing](Close) the layer.
    pub fn new() -> Self {
        let (closer, _) = closer();
        Self { closer }
    }
}

impl Default for DrainLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Drain {
            inner,
            closer: self.closer.clone(),
            told: None,
        }
    }
}

impl<S> Drain<S> {
    /// Makes a service that can be closed.
    pub fn new(inner: S) -> Self {
        DrainLayer::new().layer(inner)
    }

    /// Has the task woken when this is closed. Ready if it is already.
    #[cold]
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let asked = &self.closer.asked;
        let told = self.told.get_or_insert_with(|| {
            let asked = Arc::clone(asked);
            Box::pin(async move { asked.first.notified().await })
        });
        ready!(told.as_mut().poll(cx));
        self.told = None;
        Poll::Ready(())
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.closer.asked.by.receiver_count()
    }
}

impl<S: Clone> Clone for Drain<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            closer: self.closer.clone(),
            told: None,
        }
    }
}

impl Close for DrainLayer {
    fn close(&self, by: Deadline) -> Closing {
        self.closer.close(by)
    }
}

impl<S> Close for Drain<S> {
    fn close(&self, by: Deadline) -> Closing {
        self.closer.close(by)
    }
}

impl<S, Req> Service<Req> for Drain<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.closer.asked().is_some() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.inner.poll_ready(cx);
        // Looks again after it has said that it waits, as closing may have come in between.
        if polled.is_pending() && (self.poll_told(cx).is_ready() || self.closer.asked().is_some()) {
            return Poll::Ready(Ok(()));
        }
        polled.map_err(Into::into)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        // Counted before it is asked: whoever closes either finds it in the count, or is seen here.
        let in_flight = self.closer.signal();
        let state = match in_flight.asked() {
            Some(_) => {
                #[cfg(feature = "metrics")]
                metrics::counter!("tower_drain_refused_total").increment(1);
                State::Refused
            }
            None => State::Called {
                future: self.inner.call(req),
                in_flight: Some(in_flight),
            },
        };
        ResponseFuture { state }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { future, in_flight } => {
                let result = ready!(future.poll(cx));
                *in_flight = None;
                Poll::Ready(result.map_err(Into::into))
            }
            StateProj::Refused => Poll::Ready(Err(IsClosed.into())),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("inner", &self.inner)
            .field("closer", &self.closer)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for IsClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service is closed")
    }
}

impl std::error::Error for IsClosed {}
