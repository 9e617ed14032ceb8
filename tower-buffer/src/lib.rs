//! Puts a bounded queue in front of a service, and makes it cloneable.
//!
//! Many middlewares and connections are one object that can't be cloned, and that is ready for one caller at
//! a time. A [`Buffer`] is a cheap handle to such a service, for any number of callers: each reserves one of
//! `bound` slots when it becomes ready, and its request waits in the queue until the service takes it.
//!
//! A request that finds the queue empty and the service ready doesn't wait for anybody: the caller makes
//! the call itself. All others are served in order by the worker, a task that [`Buffer::new`] spawns, or
//! that the caller runs who got it from [`Buffer::pair`].
//!
//! # When not to use it
//!
//! - Over a service that is cheap to clone and always ready. A clone does the same without a queue.
//! - To absorb overload. A queue only adds its delay to that of the service: keep the bound small, and put a
//!   `LoadShed` and a `Timeout` outside of it.
//! - To limit what is in progress. The bound is of what *waits*; once called, a request no longer counts.
//!   [`BufferLayer::with_in_flight_limit`] bounds requests in flight.
//!
//! # What it costs
//!
//! A call that needn't wait costs four atomic operations on shared memory, a virtual call, and from outside of the
//! worker's runtime entering that: about 50 ns in all, no allocation, and no task is woken. While another caller
//! is inside the service's `call`, or the worker empties the queue, it spins for 8 µs at most, then queues. A call
//! that queues costs a short lock at each end, and a wake of the worker and of its caller. The queue's memory is
//! used again; it grows to the greatest number of requests that were queued, or answered but not yet looked at.
//!
//! As the service's `poll_ready` and `call` run where the call is made, they see that task's locals. They run on the
//! worker's runtime in any case, and in the tracing span of the call. (One case is missed, for speed: a task of
//! that runtime that has called before, and now blocks on another runtime, or has entered it, and calls from there.)
//!
//! # Failure
//!
//! A service that fails its readiness, or panics, is dropped, and all callers, waiting and coming, get a
//! [`ServiceError`] that has the cause: what failed, or what [panicked](Panicked). With
//! [`Buffer::rebuilding`] only the request at hand gets it; the others are served by a new service.

mod caller;
mod failures;
mod fifo;
mod queue;
mod services;
mod slots;
mod sync;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_close::{Close, Closing, Signal};
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_service::Service;

use crate::caller::{Caller, Permit, Submitted, Ticket};
use crate::queue::{Failure, Queue, Serve};
use crate::services::{Rebuilding, Single};

pub use self::failures::{AtCapacity, Closed, NoRuntime, Panicked, ServiceError};

type BoxError = Box<dyn Error + Send + Sync>;

/// Puts a [`Buffer`] around services, and has its options.
///
/// # Example
///
/// ```
/// use tower_buffer::BufferLayer;
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let layer = BufferLayer::new(16).with_in_flight_limit(1);
/// # let echo = tower_util::service_fn(|req: u32| async move { Ok::<_, std::convert::Infallible>(req) });
/// let mut service = layer.layer(echo);
/// let mut other = service.clone();
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = service.call(7);
/// // One is in flight, until its response is there.
/// let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// assert!(other.poll_ready(&mut cx).is_pending());
/// assert_eq!(response.await?, 7);
/// assert!(other.poll_ready(&mut cx).is_ready());
/// # Ok(())
/// # }
/// ```
pub struct BufferLayer<Request> {
    bound: usize,
    in_flight: Option<usize>,
    _request: PhantomData<fn(Request)>,
}

/// A handle of a service that any number of callers share, each with its own clone.
///
/// # Readiness
///
/// [`poll_ready`](Service::poll_ready) reserves one of the slots, and waits in line for it where all are
/// taken. A clone has no reservation, and is ready only after a poll of its own. A slot is free again when
/// its request is the next to be served, or given up. It says nothing of the service's own
/// readiness: requests wait for that in the queue.
///
/// Slots don't depend on tokio's cooperative budget: a handle is ready if and only if there is
/// capacity, so that a `LoadShed` outside sheds only at capacity.
///
/// A `call` without readiness takes a free slot; if there is none, it fails with [`AtCapacity`].
///
/// # Cancellation
///
/// Dropping a response future takes the request out of the queue and frees its slot at once. Dropping
/// a handle that is ready frees its reservation. When all handles are dropped, the worker serves what is
/// still queued, drops the service and ends. [`Close`] lets it do so while there are handles, by a deadline.
///
/// # Errors
///
/// From `poll_ready` and from the response:
///
/// - [`ServiceError`], if the service failed its readiness or panicked.
/// - [`Closed`], if the buffer was [closed](Close), or its worker was dropped, for instance because its runtime was shut down.
/// - [`NoRuntime`], if the buffer was made outside of a runtime by [`Buffer::new`].
/// - [`Expired`](tower_deadline::Expired), if the [deadline](tower_deadline::Deadline::current) of the call has
///   passed when it is the request's turn. It is served under that deadline otherwise, whoever serves it.
///
/// Errors of the service's own responses are passed on as they are.
///
/// # Example
///
/// ```
/// use tower_buffer::Buffer;
/// use tower_service::Service;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let mut served = 0;
/// // Not cloneable: it counts.
/// let counter = tower_util::service_fn(move |name: &'static str| {
///     served += 1;
///     let greeting = format!("hello {name}, you are number {served}");
///     async move { Ok::<_, std::convert::Infallible>(greeting) }
/// });
/// let mut first = Buffer::new(counter, 8);
/// let mut second = first.clone();
///
/// std::future::poll_fn(|cx| first.poll_ready(cx)).await?;
/// assert_eq!(first.call("Ann").await?, "hello Ann, you are number 1");
/// std::future::poll_fn(|cx| second.poll_ready(cx)).await?;
/// assert_eq!(second.call("Bob").await?, "hello Bob, you are number 2");
/// # Ok(())
/// # }
/// ```
pub struct Buffer<Req, F> {
    caller: Caller<Req, F>,
}

/// The task that serves what is queued, made by [`Buffer::pair`].
///
/// It ends when all handles of the buffer are dropped, or when its service fails. Dropping it closes the
/// buffer: all callers get [`Closed`]. Nothing is served before it is first polled, as only then is it known on
/// which runtime the service is to run. It needs no tokio runtime itself.
pub struct Worker<S, Req>
where
    S: Service<Req>,
{
    queue: Arc<Queue<Req, S::Future>>,
    end: End,
    _service: PhantomData<fn() -> S>,
}

/// When a worker ends whatever is left. Dropping it with the worker tells who has closed the buffer.
enum End {
    Open(Signal),
    Closing(CutOff),
}

type CutOff = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

pin_project! {
    /// The response of a [`Buffer`]: the request's turn in the queue, then the service's own future.
    ///
    /// # Cancellation
    ///
    /// Dropping it takes the request out of the queue, or drops the service's future.
    pub struct ResponseFuture<T> {
        #[pin]
        state: ResponseState<T>,
        // Freed when the response is there, even if this future is kept.
        permit: Option<Permit<T>>,
    }
}

pin_project! {
    #[project = ResponseStateProj]
    enum ResponseState<T> {
        Queued {
            ticket: Ticket<T>,
        },
        Called {
            #[pin]
            future: T,
        },
        Failed {
            error: Option<BoxError>,
        },
    }
}

impl<Request> BufferLayer<Request> {
    /// Makes a layer whose buffers have `bound` slots. Zero is taken for one.
    ///
    /// A request that is next to be served needs no slot, so that `bound + 1` can wait.
    pub const fn new(bound: usize) -> Self {
        Self {
            bound,
            in_flight: None,
            _request: PhantomData,
        }
    }

    /// Bounds the requests in flight, too. Zero is taken for one.
    ///
    /// A request is in flight from its reservation in `poll_ready` until its response future has completed
    /// or is dropped. At the limit `poll_ready` waits until some have. It costs a short lock at
    /// each end of a request.
    #[must_use]
    pub const fn with_in_flight_limit(mut self, limit: usize) -> Self {
        self.in_flight = Some(limit);
        self
    }

    /// Makes a buffer and its worker, as [`Buffer::pair`] does, with the options of this layer.
    pub fn pair<S>(&self, service: S) -> (Buffer<Request, S::Future>, Worker<S, Request>)
    where
        S: Service<Request> + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send + Sync,
        Request: Send + 'static,
    {
        self.pair_over(Box::new(Single { service }))
    }

    /// Makes a buffer that rebuilds its service, as [`Buffer::rebuilding`] does, with the options of this layer.
    pub fn rebuilding<S, M>(&self, mut make: M) -> Buffer<Request, S::Future>
    where
        M: FnMut() -> S + Send + 'static,
        S: Service<Request> + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send + Sync,
        Request: Send + 'static,
    {
        let service = make();
        spawn(self.pair_over::<S>(Box::new(Rebuilding { service, make })))
    }

    fn pair_over<S>(
        &self,
        service: Box<dyn Serve<Request, S::Future>>,
    ) -> (Buffer<Request, S::Future>, Worker<S, Request>)
    where
        S: Service<Request>,
    {
        let queue = Queue::new(service, self.bound, self.in_flight);
        let caller = Caller::new(Arc::clone(&queue));
        let worker = Worker {
            end: End::Open(queue.closer().signal()),
            queue,
            _service: PhantomData,
        };
        (Buffer { caller }, worker)
    }
}

impl<S, Request> Layer<S> for BufferLayer<Request>
where
    S: Service<Request> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send + Sync,
    Request: Send + 'static,
{
    type Service = Buffer<Request, S::Future>;

    fn layer(&self, service: S) -> Self::Service {
        spawn(self.pair(service))
    }
}

impl<Request> Clone for BufferLayer<Request> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Request> Copy for BufferLayer<Request> {}

impl<Request> fmt::Debug for BufferLayer<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferLayer")
            .field("bound", &self.bound)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}

impl<Req, F> Buffer<Req, F>
where
    F: 'static,
{
    /// Puts a queue with `bound` slots in front of `service`, and spawns its worker on the current runtime.
    ///
    /// Outside of a tokio runtime it makes a buffer that fails with [`NoRuntime`]. [`BufferLayer::new`]
    /// says more of the bound.
    pub fn new<S>(service: S, bound: usize) -> Self
    where
        S: Service<Req, Future = F> + Send + 'static,
        F: Send,
        S::Error: Into<BoxError> + Send + Sync,
        Req: Send + 'static,
    {
        BufferLayer::new(bound).layer(service)
    }

    /// Puts a queue with `bound` slots in front of `service`, and gives the worker that has to be run.
    ///
    /// For other executors than tokio's, or where the worker needs to be run in some special place.
    pub fn pair<S>(service: S, bound: usize) -> (Self, Worker<S, Req>)
    where
        S: Service<Req, Future = F> + Send + 'static,
        F: Send,
        S::Error: Into<BoxError> + Send + Sync,
        Req: Send + 'static,
    {
        BufferLayer::new(bound).pair(service)
    }

    /// Puts a queue in front of the service that `make` makes, and replaces it when it fails.
    ///
    /// Where the service panics, or fails its readiness, the request at hand gets a [`ServiceError`], and
    /// `make` makes the service for those that follow. One attempt is made for each request, so that a service
    /// that can't be made to work fails its callers instead of keeping the worker busy. If `make`
    /// itself panics, the buffer has failed for good.
    ///
    /// # Panics
    ///
    /// If `make` panics at its first call, which is made here.
    ///
    /// # Example
    ///
    /// ```
    /// use std::error::Error;
    /// use tower_buffer::{Buffer, ServiceError};
    /// use tower_service::Service;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    /// # std::panic::set_hook(Box::new(|_| {}));
    /// let divide = || {
    ///     tower_util::service_fn(|(a, b): (u32, u32)| {
    ///         let quotient = a / b;
    ///         async move { Ok::<_, std::convert::Infallible>(quotient) }
    ///     })
    /// };
    /// let mut service = Buffer::rebuilding(divide, 8);
    ///
    /// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    /// let error = service.call((1, 0)).await.unwrap_err();
    /// let cause = error.downcast_ref::<ServiceError>().unwrap().source().unwrap();
    /// assert_eq!(cause.to_string(), "service panicked: attempt to divide by zero");
    ///
    /// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    /// assert_eq!(service.call((6, 3)).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn rebuilding<S, M>(make: M, bound: usize) -> Self
    where
        M: FnMut() -> S + Send + 'static,
        S: Service<Req, Future = F> + Send + 'static,
        F: Send,
        S::Error: Into<BoxError> + Send + Sync,
        Req: Send + 'static,
    {
        BufferLayer::new(bound).rebuilding(make)
    }
}

/// Runs the worker on the current runtime, or fails the buffer where there is none.
fn spawn<S, Req>(
    (buffer, worker): (Buffer<Req, S::Future>, Worker<S, Req>),
) -> Buffer<Req, S::Future>
where
    S: Service<Req> + 'static,
    S::Future: Send,
    Req: Send + 'static,
{
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(worker)),
        Err(_) => worker.queue.close(Failure::NoRuntime),
    }
    buffer
}

impl<Req, Rsp, F, E> Service<Req> for Buffer<Req, F>
where
    F: Future<Output = Result<Rsp, E>> + Send + 'static,
    E: Into<BoxError>,
    Req: Send + 'static,
{
    type Response = Rsp;
    type Error = BoxError;
    type Future = ResponseFuture<F>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.caller.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        let (submitted, permit) = self.caller.call(req);
        let state = match submitted {
            Submitted::Called(future) => ResponseState::Called { future },
            Submitted::Queued(ticket) => ResponseState::Queued { ticket },
            Submitted::Failed(error) => ResponseState::Failed { error: Some(error) },
        };
        ResponseFuture { state, permit }
    }
}

/// Takes no more requests: handles that wait for a slot, or call, get [`Closed`]. The worker serves what is queued by
/// the deadline, fails what is left with [`Closed`], drops the service, and ends.
///
/// The futures of requests that were served aren't waited for: they belong to the callers. A
/// [`Worker`] that runs outside of a tokio runtime has no deadline: it ends when all is served.
impl<Req, F> Close for Buffer<Req, F> {
    fn close(&self, by: Deadline) -> Closing {
        self.caller.queue().drain();
        self.caller.queue().closer().close(by)
    }
}

impl<Req, F> Clone for Buffer<Req, F>
where
    Req: Send + 'static,
    F: Send + 'static,
{
    fn clone(&self) -> Self {
        Self {
            caller: self.caller.clone(),
        }
    }
}

impl<Req, F> fmt::Debug for Buffer<Req, F>
where
    Req: fmt::Debug,
    F: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("closed", &self.caller.queue().is_closed())
            .finish_non_exhaustive()
    }
}

impl<S, Req> Future for Worker<S, Req>
where
    S: Service<Req>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let worked = self.queue.work(cx);
        if worked.is_ready() || !self.queue.is_shut() {
            return worked;
        }
        self.poll_cut_off(cx)
    }
}

impl<S, Req> Worker<S, Req>
where
    S: Service<Req>,
{
    /// Ends at the deadline, once the buffer is closed.
    #[cold]
    fn poll_cut_off(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let End::Open(signal) = &self.end {
            if tokio::runtime::Handle::try_current().is_err() {
                // There are no timers outside of a runtime.
                return Poll::Pending;
            }
            let mut signal = signal.clone();
            self.end = End::Closing(Box::pin(async move { signal.cut_off().await }));
        }
        if let End::Closing(cut_off) = &mut self.end {
            ready!(cut_off.as_mut().poll(cx));
        }
        self.queue.close(Failure::Closed);
        Poll::Ready(())
    }
}

impl<S, Req> Drop for Worker<S, Req>
where
    S: Service<Req>,
{
    fn drop(&mut self) {
        self.queue.close_for_good();
    }
}

impl<S, Req> fmt::Debug for Worker<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("closed", &self.queue.is_closed())
            .finish_non_exhaustive()
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = loop {
            // Queued -> Called, Failed; Called and Failed -> done.
            match this.state.as_mut().project() {
                ResponseStateProj::Queued { ticket } => {
                    let next = match ready!(ticket.poll(cx)) {
                        Ok(future) => ResponseState::Called { future },
                        Err(error) => ResponseState::Failed { error: Some(error) },
                    };
                    this.state.set(next);
                }
                ResponseStateProj::Called { future } => {
                    break ready!(future.poll(cx)).map_err(Into::into);
                }
                // Polled after completion, it is failed in some sensible way.
                ResponseStateProj::Failed { error } => {
                    break Err(error.take().unwrap_or_else(|| Closed.into()));
                }
            }
        };
        *this.permit = None;
        Poll::Ready(response)
    }
}

impl<T> fmt::Debug for ResponseFuture<T>
where
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state: &dyn fmt::Debug = match &self.state {
            ResponseState::Queued { .. } => &"queued",
            ResponseState::Called { future } => future,
            ResponseState::Failed { error } => error,
        };
        f.debug_struct("ResponseFuture")
            .field("state", state)
            .finish()
    }
}
