//! A service that a test answers by hand.
//!
//! [`pair`] makes a [`Mock`] and its [`Handle`]. Requests that the mock is called with come out of
//! the handle, each with a [`SendResponse`] to answer it; the handle also says how many requests
//! the mock may take and makes it fail. [`spawn()`] and its kin wrap the mock, or a middleware over
//! it, in a [`Spawn`], which polls readiness without a runtime and says whether it was woken.
//!
//! # Example
//!
//! ```
//! use tower_test::mock;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (mut service, mut handle) = mock::spawn::<&str, usize>();
//!
//! handle.allow(1);
//! assert!(service.poll_ready().is_ready());
//! let response = service.call("hello");
//! assert!(service.poll_ready().is_pending());
//!
//! let (request, send) = handle.next_request().await.unwrap();
//! send.send_response(request.len());
//! assert_eq!(response.await.unwrap(), 5);
//!
//! handle.allow(1);
//! assert!(service.is_woken());
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{mpsc, oneshot};
use tokio_test::task;
use tower_layer::Layer;
use tower_service::Service;

pub use self::spawn::Spawn;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that hands each request to its [`Handle`].
///
/// **Readiness.** Ready while the allowance of [`Handle::allow`] lasts, which is without end at
/// first. Being ready takes one from the allowance; calling uses it up, and dropping the mock
/// gives it back. A clone starts not ready, and waits in a place of its own.
///
/// **Errors.** [`error::Closed`] once the handle is dropped, and whatever the handle sends.
///
/// **Panics.** [`call`](Service::call) panics when [`poll_ready`](Service::poll_ready) has not said
/// that the mock is ready: it exists to catch this mistake.
#[derive(Debug)]
pub struct Mock<T, U> {
    id: u64,
    reservation: Option<Reservation>,
    requests: mpsc::UnboundedSender<Request<T, U>>,
    state: Arc<Mutex<State>>,
}

/// Sees the requests of a [`Mock`] and its clones, and says how they fare.
///
/// Dropping it makes all of them, and the requests that it has not taken, fail with
/// [`error::Closed`].
#[derive(Debug)]
pub struct Handle<T, U> {
    requests: mpsc::UnboundedReceiver<Request<T, U>>,
    state: Arc<Mutex<State>>,
}

/// Answers one request.
///
/// Dropping it unused makes the response fail with [`error::Closed`].
#[derive(Debug)]
pub struct SendResponse<T> {
    response: oneshot::Sender<Result<T, BoxError>>,
}

type Request<T, U> = (T, SendResponse<U>);

/// One request that may be made, out of the allowance of the given generation.
#[derive(Debug)]
struct Reservation {
    generation: u64,
}

/// What a handle and its mocks share.
#[derive(Debug)]
struct State {
    /// Requests that mocks which aren't ready yet may make.
    allowed: u64,
    /// Counts the calls of `allow`, so that a reservation isn't given back to a later allowance.
    generation: u64,
    next_id: u64,
    /// The mocks that wait to become ready, by their id.
    waiting: BTreeMap<u64, Waker>,
    /// What the next `poll_ready` fails with.
    error: Option<BoxError>,
    closed: bool,
}

/// Makes a mock and its handle.
#[must_use]
pub fn pair<T, U>() -> (Mock<T, U>, Handle<T, U>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let state = Arc::new(Mutex::new(State {
        allowed: u64::MAX,
        generation: 0,
        next_id: 1,
        waiting: BTreeMap::new(),
        error: None,
        closed: false,
    }));
    let mock = Mock {
        id: 0,
        reservation: None,
        requests: sender,
        state: Arc::clone(&state),
    };
    let handle = Handle {
        requests: receiver,
        state,
    };
    (mock, handle)
}

/// Makes a mock on a mock task, and its handle.
#[must_use]
pub fn spawn<T, U>() -> (Spawn<Mock<T, U>>, Handle<T, U>) {
    let (mock, handle) = pair();
    (Spawn::new(mock), handle)
}

/// Makes what `layer` makes of a mock, on a mock task, and the mock's handle.
pub fn spawn_layer<T, U, L>(layer: L) -> (Spawn<L::Service>, Handle<T, U>)
where
    L: Layer<Mock<T, U>>,
{
    spawn_with(|mock| layer.layer(mock))
}

/// Makes what `f` makes of a mock, on a mock task, and the mock's handle.
pub fn spawn_with<T, U, F, S>(f: F) -> (Spawn<S>, Handle<T, U>)
where
    F: Fn(Mock<T, U>) -> S,
{
    let (mock, handle) = pair();
    (Spawn::new(f(mock)), handle)
}

impl<T, U> Service<T> for Mock<T, U> {
    type Response = U;
    type Error = BoxError;
    type Future = future::ResponseFuture<U>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Poll::Ready(Err(error::Closed::new().into()));
        }
        if let Some(error) = state.error.take() {
            return Poll::Ready(Err(error));
        }
        if self.reservation.is_some() {
            return Poll::Ready(Ok(()));
        }
        if state.allowed == 0 {
            state.waiting.insert(self.id, cx.waker().clone());
            return Poll::Pending;
        }
        state.allowed -= 1;
        state.waiting.remove(&self.id);
        self.reservation = Some(Reservation {
            generation: state.generation,
        });
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: T) -> future::ResponseFuture<U> {
        if lock(&self.state).closed {
            return future::ResponseFuture::closed();
        }
        assert!(
            self.reservation.take().is_some(),
            "service not ready; poll_ready must be called first"
        );
        let (sender, receiver) = oneshot::channel();
        let send_response = SendResponse { response: sender };
        match self.requests.send((req, send_response)) {
            Ok(()) => future::ResponseFuture::new(receiver),
            // The handle went between the two looks at it.
            Err(_) => future::ResponseFuture::closed(),
        }
    }
}

impl<T, U> Clone for Mock<T, U> {
    fn clone(&self) -> Self {
        let id = {
            let mut state = lock(&self.state);
            let id = state.next_id;
            state.next_id += 1;
            id
        };
        Self {
            id,
            reservation: None,
            requests: self.requests.clone(),
            state: Arc::clone(&self.state),
        }
    }
}

impl<T, U> Drop for Mock<T, U> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.waiting.remove(&self.id);
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        if reservation.generation == state.generation {
            state.allowed += 1;
            wake_all(state);
        }
    }
}

impl<T, U> Handle<T, U> {
    /// The next request, for which it says `Pending` where there is none yet, and `None` when
    /// every mock is gone.
    ///
    /// It wakes nobody; [`next_request`](Self::next_request) does.
    pub fn poll_request(&mut self) -> Poll<Option<(T, SendResponse<U>)>> {
        // `try_recv`, unlike a poll, doesn't depend on how much of its budget the task has left.
        match self.requests.try_recv() {
            Ok(next) => Poll::Ready(Some(next)),
            Err(mpsc::error::TryRecvError::Empty) => Poll::Pending,
            Err(mpsc::error::TryRecvError::Disconnected) => Poll::Ready(None),
        }
    }

    /// Waits for the next request; `None` when every mock is gone.
    pub async fn next_request(&mut self) -> Option<(T, SendResponse<U>)> {
        self.requests.recv().await
    }

    /// Lets the mocks take `num` more requests, whatever was allowed before.
    ///
    /// A mock that is ready already stays so, and isn't counted again.
    pub fn allow(&mut self, num: u64) {
        let mut state = lock(&self.state);
        state.allowed = num;
        state.generation += 1;
        if num > 0 {
            wake_all(state);
        }
    }

    /// Makes the next [`poll_ready`](Service::poll_ready) of one of the mocks fail.
    pub fn send_error<E: Into<BoxError>>(&mut self, e: E) {
        let mut state = lock(&self.state);
        state.error = Some(e.into());
        wake_all(state);
    }
}

impl<T, U> Drop for Handle<T, U> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.closed = true;
        wake_all(state);
    }
}

impl<T> SendResponse<T> {
    /// Answers the request. Nothing happens if its response future is gone.
    pub fn send_response(self, response: T) {
        let _ = self.response.send(Ok(response));
    }

    /// Fails the request. Nothing happens if its response future is gone.
    pub fn send_error<E: Into<BoxError>>(self, err: E) {
        let _ = self.response.send(Err(err.into()));
    }
}

/// Nothing panics while it holds the lock, save a waker's `clone` or `drop`, after which the state
/// is whole all the same.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes every mock that waits, after the lock is let go: a waker may run anything.
fn wake_all(mut state: MutexGuard<'_, State>) {
    let waiting = mem::take(&mut state.waiting);
    drop(state);
    for waker in waiting.into_values() {
        waker.wake();
    }
}

pub mod error {
    //! How a mock fails.

    use super::fmt;

    /// The [`Handle`](super::Handle) or the [`SendResponse`](super::SendResponse) is gone.
    #[derive(Debug)]
    pub struct Closed(());

    impl Closed {
        pub(super) fn new() -> Self {
            Self(())
        }
    }

    impl fmt::Display for Closed {
        fn fmt(&self, fmt: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt.write_str("service closed")
        }
    }

    impl std::error::Error for Closed {}
}

pub mod future {
    //! The response of a mock.

    use super::{BoxError, Context, Future, Pin, Poll, error, oneshot};

    /// Resolves when the handle has answered the request.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<T> {
        /// `None` when the handle was gone before the call.
        response: Option<oneshot::Receiver<Result<T, BoxError>>>,
    }

    impl<T> ResponseFuture<T> {
        pub(super) fn new(response: oneshot::Receiver<Result<T, BoxError>>) -> Self {
            Self {
                response: Some(response),
            }
        }

        pub(super) fn closed() -> Self {
            Self { response: None }
        }
    }

    impl<T> Future for ResponseFuture<T> {
        type Output = Result<T, BoxError>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let Some(response) = &mut self.response else {
                return Poll::Ready(Err(error::Closed::new().into()));
            };
            Pin::new(response)
                .poll(cx)
                .map(|sent| sent.unwrap_or_else(|_| Err(error::Closed::new().into())))
        }
    }
}

pub mod spawn {
    //! A service on a mock task.

    use super::{Poll, Service, fmt, task};

    /// A service whose readiness is polled by hand, on a task that only notes that it was woken.
    ///
    /// A clone has a task of its own.
    pub struct Spawn<T> {
        inner: T,
        task: task::Spawn<()>,
    }

    impl<T> Spawn<T> {
        /// Puts `inner` on a task of its own.
        pub fn new(inner: T) -> Self {
            Self {
                inner,
                task: task::spawn(()),
            }
        }

        /// Whether the task was woken since the last [`poll_ready`](Self::poll_ready).
        pub fn is_woken(&self) -> bool {
            self.task.is_woken()
        }

        /// How many wakers of the task there are besides its own.
        pub fn waker_ref_count(&self) -> usize {
            self.task.waker_ref_count()
        }

        /// Polls the readiness of the service on the task.
        pub fn poll_ready<Request>(&mut self) -> Poll<Result<(), T::Error>>
        where
            T: Service<Request>,
        {
            let Self { inner, task } = self;
            task.enter(|cx, _| inner.poll_ready(cx))
        }

        /// Calls the service.
        pub fn call<Request>(&mut self, req: Request) -> T::Future
        where
            T: Service<Request>,
        {
            self.inner.call(req)
        }

        /// Gives the service back.
        pub fn into_inner(self) -> T {
            self.inner
        }

        /// The service.
        pub fn get_ref(&self) -> &T {
            &self.inner
        }

        /// The service, to change.
        pub fn get_mut(&mut self) -> &mut T {
            &mut self.inner
        }
    }

    impl<T: Clone> Clone for Spawn<T> {
        fn clone(&self) -> Self {
            Self::new(self.inner.clone())
        }
    }

    impl<T: fmt::Debug> fmt::Debug for Spawn<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Spawn")
                .field("inner", &self.inner)
                .field("is_woken", &self.is_woken())
                .finish_non_exhaustive()
        }
    }
}
