//! Drives a service to readiness on a task of its own.
//!
//! A service that becomes ready by being polled (it connects, it handshakes, it fills a cache) makes progress only
//! while somebody polls it. A caller that polls many such services, or that turns to something else after
//! `Pending`, leaves them where they are. [`SpawnReady`] gives a service that isn't ready to a task, which polls it
//! until it is, and gives it back.
//!
//! # When not to use it
//!
//! - Where the caller polls until the service is ready, which is what `oneshot` and most servers do. The task
//!   then only adds a hop.
//! - Beneath a `Buffer`, whose worker drives its service already.
//!
//! # What it costs
//!
//! Nothing while the service is ready: its `poll_ready` and `call` are forwarded, and errors are boxed. Each time
//! that it isn't, one task is spawned, which allocates once; the first time, twice.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tower_close::{Close, Closer, Closing, Signal, closer};
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Span};

type BoxError = Box<dyn Error + Send + Sync>;

/// Puts a [`SpawnReady`] around services.
#[derive(Clone, Debug, Default)]
pub struct SpawnReadyLayer(());

/// Drives its service to readiness on a task of its own.
///
/// # Readiness
///
/// While the service is ready, nothing is added. When it says `Pending`, it is moved to a task on the current tokio
/// runtime, in the current tracing span, and this waits until the task gives it back. Readiness is so
/// reached even if this isn't polled.
///
/// # Cancellation
///
/// Dropping this aborts the task, and the service with it. [`Close`] does so while it is kept, and waits.
///
/// # Errors
///
/// From `poll_ready`:
///
/// - the error of the service's readiness, boxed. The service is kept, and may be polled again.
/// - [`NoRuntime`], if the service isn't ready and there is no tokio runtime to drive it on.
/// - [`Panicked`], if the service panicked on the task, from then on.
/// - [`Aborted`], if the runtime was shut down before the service was ready, from then on.
/// - [`Closed`], once this was [closed](Close). So does the future of a `call`.
///
/// A `call` without readiness never reaches the service. Its future fails with [`NotReady`].
///
/// # Example
///
/// ```
/// use std::task::{Context, Waker};
/// use tower_service::Service;
/// use tower_spawn_ready::SpawnReady;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let (connection, mut handle) = tower_test::mock::pair::<&str, &str>();
/// # handle.allow(0);
/// let mut service = SpawnReady::new(connection);
///
/// // Nobody polls again, yet the service is driven on.
/// let mut cx = Context::from_waker(Waker::noop());
/// assert!(service.poll_ready(&mut cx).is_pending());
/// # handle.allow(1);
/// tokio::task::yield_now().await;
/// assert!(service.poll_ready(&mut cx).is_ready());
///
/// let response = service.call("hello");
/// # handle.next_request().await.unwrap().1.send_response("world");
/// assert_eq!(response.await?, "world");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SpawnReady<S> {
    state: State<S>,
    is_closed: AtomicBool,
    /// Made with the first task, to wait for its end.
    closer: OnceLock<Closer>,
}

#[derive(Debug)]
enum State<S> {
    /// `ready` is what its last poll said, until it is called.
    Here { service: S, ready: bool },
    /// The service is on its task.
    Driven(JoinHandle<(S, Result<(), BoxError>)>),
    /// The service was dropped with its task.
    Lost(Loss),
}

#[derive(Clone, Debug)]
enum Loss {
    Panicked(Panicked),
    Aborted,
}

pin_project! {
    /// The response of a [`SpawnReady`]: that of its service, with the error boxed.
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: ResponseState<F>,
        _error: PhantomData<fn(E)>,
    }
}

pin_project! {
    #[project = ResponseStateProj]
    enum ResponseState<F> {
        Called {
            #[pin]
            future: F,
        },
        NotReady,
        Closed,
        Done,
    }
}

/// A [`SpawnReady`] was closed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Closed;

/// A [`SpawnReady`] was called without being ready.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotReady;

/// A service isn't ready, and there is no tokio runtime to drive it on.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoRuntime;

/// The task that drove a service was aborted, because its runtime was shut down.
#[derive(Debug)]
#[non_exhaustive]
pub struct Aborted;

/// A service panicked while it was driven to readiness.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Panicked {
    message: Option<Arc<str>>,
}

impl SpawnReadyLayer {
    /// Makes a layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for SpawnReadyLayer {
    type Service = SpawnReady<S>;

    fn layer(&self, service: S) -> Self::Service {
        SpawnReady::new(service)
    }
}

impl<S> SpawnReady<S> {
    /// Makes a service that drives `service` to readiness.
    ///
    /// It needs a tokio runtime when it is polled, and only if `service` isn't ready.
    pub const fn new(service: S) -> Self {
        Self {
            state: State::Here {
                service,
                ready: false,
            },
            is_closed: AtomicBool::new(false),
            closer: OnceLock::new(),
        }
    }

    /// Makes a [`SpawnReadyLayer`].
    pub fn layer() -> SpawnReadyLayer {
        SpawnReadyLayer::new()
    }

    /// Moves the service to a task.
    fn drive<Req>(&mut self) -> Result<(), NoRuntime>
    where
        Req: 'static,
        S: Service<Req> + Send + 'static,
        S::Error: Into<BoxError>,
    {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
        // Its place is taken by the task, in the next statement.
        let vacant = State::Lost(Loss::Aborted);
        self.state = match std::mem::replace(&mut self.state, vacant) {
            State::Here { service, .. } => {
                let signal = self.closer.get_or_init(|| closer().0).signal();
                let driven = until_ready::<S, Req>(service, signal).instrument(Span::current());
                State::Driven(runtime.spawn(driven))
            }
            state => state,
        };
        Ok(())
    }
}

/// The signal tells by being dropped that the task has ended.
async fn until_ready<S, Req>(mut service: S, _signal: Signal) -> (S, Result<(), BoxError>)
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    let result = poll_fn(|cx| service.poll_ready(cx).map_err(Into::into)).await;
    (service, result)
}

impl<S, Req> Service<Req> for SpawnReady<S>
where
    Req: 'static,
    S: Service<Req> + Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Poll::Ready(Err(Closed.into()));
        }
        loop {
            match &mut self.state {
                // Here -> Here, Driven.
                State::Here { service, ready } => {
                    let polled = service.poll_ready(cx);
                    *ready = matches!(polled, Poll::Ready(Ok(())));
                    if polled.is_ready() {
                        return polled.map_err(Into::into);
                    }
                    self.drive::<Req>()?;
                }
                // Driven -> Here, Lost.
                State::Driven(task) => match ready!(Pin::new(task).poll(cx)) {
                    Ok((service, result)) => {
                        let ready = result.is_ok();
                        self.state = State::Here { service, ready };
                        return Poll::Ready(result);
                    }
                    Err(error) => self.state = State::Lost(error.into()),
                },
                State::Lost(loss) => return Poll::Ready(Err(loss.clone().into())),
            }
        }
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let state = match &mut self.state {
            _ if self.is_closed.load(Ordering::Relaxed) => ResponseState::Closed,
            State::Here { service, ready } if *ready => {
                *ready = false;
                ResponseState::Called {
                    future: service.call(req),
                }
            }
            _ => ResponseState::NotReady,
        };
        ResponseFuture {
            state,
            _error: PhantomData,
        }
    }
}

/// Takes no more requests, and ends the task that drives the service, if there is one: no request waits for it, so
/// nothing has to be finished.
impl<S> Close for SpawnReady<S> {
    fn close(&self, by: Deadline) -> Closing {
        self.is_closed.store(true, Ordering::Relaxed);
        if let State::Driven(task) = &self.state {
            task.abort();
        }
        self.closer.get_or_init(|| closer().0).close(by)
    }
}

impl<S> Drop for SpawnReady<S> {
    fn drop(&mut self) {
        if let State::Driven(task) = &self.state {
            task.abort();
        }
    }
}

impl<F, T, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let result = match state.as_mut().project() {
            ResponseStateProj::Called { future } => ready!(future.poll(cx)).map_err(Into::into),
            ResponseStateProj::NotReady => Err(NotReady.into()),
            ResponseStateProj::Closed => Err(Closed.into()),
            ResponseStateProj::Done => panic!("`ResponseFuture` polled after completion"),
        };
        // What the service's future holds, such as a permit, isn't kept until this one is dropped.
        state.set(ResponseState::Done);
        Poll::Ready(result)
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl From<JoinError> for Loss {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::Panicked(Panicked::new(&*payload)),
            Err(_) => Self::Aborted,
        }
    }
}

impl From<Loss> for BoxError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Panicked(panicked) => panicked.into(),
            Loss::Aborted => Aborted.into(),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service is closed")
    }
}

impl Error for Closed {}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service was called without readiness")
    }
}

impl Error for NotReady {}

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no tokio runtime to drive the service to readiness on")
    }
}

impl Error for NoRuntime {}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("runtime was shut down before the service was ready")
    }
}

impl Error for Aborted {}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let message = tower_close::panic_message(payload).map(Arc::from);
        Self { message }
    }

    /// What the panic said, if that is text.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "service panicked: {message}"),
            None => f.write_str("service panicked"),
        }
    }
}

impl Error for Panicked {}
