//! At most so many requests in flight.

use std::fmt;
use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};
#[cfg(feature = "load")]
use tokio::time::Instant;
use tower_layer::Layer;
#[cfg(feature = "load")]
use tower_load::Load;
use tower_service::Service;

use crate::permits::{Held, Permit, Permits, Waiter};

/// Wraps each service in a [`ConcurrencyLimit`] of its own.
///
/// The clones of a service share its limit; services that the layer wraps one by one don't.
/// [`GlobalConcurrencyLimitLayer`] gives one limit to all of them.
#[derive(Debug, Clone)]
pub struct ConcurrencyLimitLayer {
    max: usize,
    while_pending: WhilePending,
}

/// Wraps services in [`ConcurrencyLimit`]s that share one limit.
#[derive(Debug, Clone)]
pub struct GlobalConcurrencyLimitLayer {
    pool: Pool,
    while_pending: WhilePending,
}

/// Lets at most so many requests be in flight at once; the others wait.
///
/// A request is in flight from `poll_ready`, which takes one of the permits, until its response future is
/// dropped. All clones share the permits.
///
/// **Readiness.** Waits for a permit, first come, first served, and then, holding it, for the inner service. A
/// clone has no permit and no place in the queue. To drop a service frees its permit, or its place; a service
/// that is told to wait and is kept, but never polled again, will in its turn get a permit, and keep it.
///
/// **`call` without readiness.** The request takes a permit if one is free. Otherwise the inner service's
/// future is made, but isn't polled before a permit is there: the limit holds whatever the caller does.
///
/// **Cancellation.** Dropping the response future drops the inner service's future, then frees the permit.
///
/// **Deadlines.** As its errors are the inner service's, a wait can't fail at the [deadline](tower_deadline::Deadline) of its
/// request. It ends with the future that waits, which [`DeadlineLayer`](tower_deadline::DeadlineLayer) and
/// [`Deadline::within`](tower_deadline::Deadline::within) drop. A [`Bulkhead`](crate::bulkhead::Bulkhead) ends its waits itself.
///
/// **Errors.** Only the inner service's. After a readiness error the permit is free.
///
/// A limit of 0 is never ready. Neither is a service over a [`Semaphore`] that has been closed.
///
/// # Example
///
/// ```
/// use tower_limit::concurrency::ConcurrencyLimit;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut service, mut handle) =
///     mock::spawn_with::<&str, &str, _, _>(|mock| ConcurrencyLimit::new(mock, 1));
///
/// assert!(service.poll_ready().is_ready());
/// let response = service.call("first");
/// assert!(service.poll_ready().is_pending());
///
/// let (_, answer) = handle.next_request().await.unwrap();
/// answer.send_response("done");
/// assert_eq!(response.await.unwrap(), "done");
/// assert!(service.is_woken());
/// assert!(service.poll_ready().is_ready());
/// # }
/// ```
pub struct ConcurrencyLimit<T> {
    inner: T,
    pool: Pool,
    claim: Claim,
    while_pending: WhilePending,
}

pin_project! {
    /// The response of [`ConcurrencyLimit`]. It holds the request's permit until it is dropped.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<T> {
        // Declared first and so dropped first: the permit is free when the request is gone, not before.
        #[pin]
        inner: T,
        claim: Claim,
    }
}

/// Where the permits come from.
#[derive(Clone)]
enum Pool {
    Own(Permits),
    Semaphore(Arc<Semaphore>),
}

/// What a service, or a request, has of a permit. It is given up when dropped.
///
/// It passes through every call, and so is two words large, and takes next to no code to move and to drop.
struct Claim(Stage);

/// How far a claim has come.
///
/// Only the claim drops what is in here: the compiler's own drop of it would be large, and in line wherever
/// a claim is dropped.
enum Stage {
    None,
    Held(Held),
    /// Of one permit. Tokio's `OwnedSemaphorePermit` counts its permits, and is larger.
    HeldOfSemaphore(ManuallyDrop<Arc<Semaphore>>),
    /// Boxed, as it is rare and large.
    Waiting(ManuallyDrop<Box<Waiting>>),
}

enum Waiting {
    /// A request that was made without readiness, and at capacity, before it is first polled.
    Unqueued(Pool),
    Queued(Waiter),
    QueuedAtSemaphore(AcquireOwned),
    /// The semaphore is closed. No permit ever comes, and there is no error to say so with.
    ForEver,
}

type AcquireOwned =
    Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;

/// What happens to the permit while the inner service isn't ready.
#[derive(Debug, Clone, Copy)]
enum WhilePending {
    Keep,
    Release,
}

impl ConcurrencyLimitLayer {
    /// Lets each service have at most `max` requests in flight.
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            while_pending: WhilePending::Keep,
        }
    }

    /// As [`ConcurrencyLimit::release_while_pending`].
    #[must_use]
    pub const fn release_while_pending(mut self) -> Self {
        self.while_pending = WhilePending::Release;
        self
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, service: S) -> Self::Service {
        ConcurrencyLimit::over(service, Pool::new(self.max), self.while_pending)
    }
}

impl GlobalConcurrencyLimitLayer {
    /// Lets all services together have at most `max` requests in flight.
    pub fn new(max: usize) -> Self {
        Self {
            pool: Pool::new(max),
            while_pending: WhilePending::Keep,
        }
    }

    /// Takes the permits from `semaphore`.
    pub fn with_semaphore(semaphore: Arc<Semaphore>) -> Self {
        Self {
            pool: Pool::Semaphore(semaphore),
            while_pending: WhilePending::Keep,
        }
    }

    /// As [`ConcurrencyLimit::release_while_pending`].
    #[must_use]
    pub fn release_while_pending(mut self) -> Self {
        self.while_pending = WhilePending::Release;
        self
    }
}

impl<S> Layer<S> for GlobalConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, service: S) -> Self::Service {
        ConcurrencyLimit::over(service, self.pool.clone(), self.while_pending)
    }
}

impl<T> ConcurrencyLimit<T> {
    /// Lets `inner` and its clones have at most `max` requests in flight.
    pub fn new(inner: T, max: usize) -> Self {
        Self::over(inner, Pool::new(max), WhilePending::Keep)
    }

    /// Takes the permits from `semaphore`, which may be shared with anything, and resized.
    ///
    /// It is about twice as slow as [`new`](Self::new), as a `Semaphore` locks whenever a permit is given back.
    pub fn with_semaphore(inner: T, semaphore: Arc<Semaphore>) -> Self {
        Self::over(inner, Pool::Semaphore(semaphore), WhilePending::Keep)
    }

    /// Gives the permit back while the inner service isn't ready.
    ///
    /// By default the permit is taken first and kept while the inner service is waited for, so that a
    /// clone whose inner service is stuck (its connection is down, say) starves the others of permits that
    /// nobody uses. With this option they get them.
    ///
    /// # Deadlock
    ///
    /// Don't use it over an inner service that is acquired anew while a request is in flight, as a retry does.
    /// Over a retry over a buffer of one slot, say: a clone without a permit waits in the buffer's queue and
    /// is given the slot; the requests that hold the permits then wait for the slot in order to retry, and
    /// the holder of the slot waits for one of their permits.
    #[must_use]
    pub fn release_while_pending(mut self) -> Self {
        self.while_pending = WhilePending::Release;
        self
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives the inner service back, and the permit, if there is one.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn over(inner: T, pool: Pool, while_pending: WhilePending) -> Self {
        Self {
            inner,
            pool,
            claim: Claim::none(),
            while_pending,
        }
    }
}

impl<S, Request> Service<Request> for ConcurrencyLimit<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    // These three always: a call that isn't inlined hands its future over through memory, and where every layer
    // does so, that is a third of what a stack costs.
    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let claimed = match self.claim.0 {
            Stage::None => self.pool.try_acquire().ok(),
            _ => None,
        };
        match claimed {
            // The claim was none, so it isn't dropped: that would ask in every call what it is.
            Some(claim) => mem::forget(mem::replace(&mut self.claim, claim)),
            None => ready!(self.claim.poll(&self.pool, cx)),
        }
        let polled = self.inner.poll_ready(cx);
        match (&polled, self.while_pending) {
            (Poll::Ready(Ok(())), _) | (Poll::Pending, WhilePending::Keep) => {}
            // Nothing is going to be called soon, so nothing needs the permit.
            (Poll::Ready(Err(_)), _) | (Poll::Pending, WhilePending::Release) => {
                self.claim = Claim::none();
            }
        }
        polled
    }

    #[inline(always)]
    fn call(&mut self, req: Request) -> Self::Future {
        if let Stage::None = self.claim.0 {
            self.claim = self.pool.claim();
        }
        // A service that waits gives the request its place in the queue.
        let claim = mem::replace(&mut self.claim, Claim::none());
        ResponseFuture {
            inner: self.inner.call(req),
            claim,
        }
    }
}

#[cfg(feature = "load")]
impl<S> Load for ConcurrencyLimit<S>
where
    S: Load,
{
    type Metric = S::Metric;

    #[inline]
    fn load(&self) -> Self::Metric {
        self.inner.load()
    }

    #[inline]
    fn load_at(&self, now: Instant) -> Self::Metric {
        self.inner.load_at(now)
    }
}

impl<T: Clone> Clone for ConcurrencyLimit<T> {
    fn clone(&self) -> Self {
        Self::over(self.inner.clone(), self.pool.clone(), self.while_pending)
    }
}

impl<T: fmt::Debug> fmt::Debug for ConcurrencyLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("inner", &self.inner)
            .field("pool", &self.pool)
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Stage::Waiting(_) = this.claim.0 {
            ready!(this.claim.poll_waiting(cx));
        }
        this.inner.poll(cx)
    }
}

/// Why there is no permit now.
enum NoPermit {
    Yet,
    /// The semaphore is closed.
    EverAgain,
}

impl Pool {
    fn new(max: usize) -> Self {
        Self::Own(Permits::new(max))
    }

    #[inline]
    fn try_acquire(&self) -> Result<Claim, NoPermit> {
        match self {
            Self::Own(permits) => match permits.try_acquire() {
                Some(permit) => Ok(Claim::held(permit)),
                None => Err(NoPermit::Yet),
            },
            Self::Semaphore(semaphore) => match semaphore.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    Ok(Claim::held_of_semaphore(Arc::clone(semaphore)))
                }
                Err(TryAcquireError::NoPermits) => Err(NoPermit::Yet),
                Err(TryAcquireError::Closed) => Err(NoPermit::EverAgain),
            },
        }
    }

    /// Claims a permit for a call that isn't backed by readiness: now, or when it is polled.
    #[cold]
    #[inline(never)]
    fn claim(&self) -> Claim {
        self.try_acquire()
            .unwrap_or_else(|_| Claim::waiting(Waiting::Unqueued(self.clone())))
    }
}

impl Claim {
    #[inline]
    const fn none() -> Self {
        Self(Stage::None)
    }

    #[inline]
    fn held(permit: Permit) -> Self {
        Self(Stage::Held(permit.hold()))
    }

    /// Of a permit that has been taken from `semaphore`.
    #[inline]
    fn held_of_semaphore(semaphore: Arc<Semaphore>) -> Self {
        Self(Stage::HeldOfSemaphore(ManuallyDrop::new(semaphore)))
    }

    fn waiting(waiting: Waiting) -> Self {
        Self(Stage::Waiting(ManuallyDrop::new(Box::new(waiting))))
    }

    /// Goes on to a permit, of `pool` if nothing is claimed yet.
    #[cold]
    #[inline(never)]
    fn poll(&mut self, pool: &Pool, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::None = self.0 {
            *self = match (pool.try_acquire(), pool) {
                (Ok(claim), _) => claim,
                (Err(NoPermit::EverAgain), _) => Self::waiting(Waiting::ForEver),
                (Err(NoPermit::Yet), Pool::Own(permits)) => match permits.acquire(cx) {
                    Ok(permit) => Self::held(permit),
                    Err(waiter) => {
                        *self = Self::waiting(Waiting::Queued(waiter));
                        return Poll::Pending;
                    }
                },
                // It has to be polled in order to get into the queue.
                (Err(NoPermit::Yet), Pool::Semaphore(semaphore)) => {
                    let acquire = Box::pin(Arc::clone(semaphore).acquire_owned());
                    Self::waiting(Waiting::QueuedAtSemaphore(acquire))
                }
            };
        }
        self.poll_waiting(cx)
    }

    /// Goes on with waiting, if it waits.
    #[cold]
    #[inline(never)]
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = match &mut self.0 {
            Stage::Waiting(waiting) => waiting,
            Stage::None | Stage::Held(_) | Stage::HeldOfSemaphore(_) => return Poll::Ready(()),
        };
        *self = match &mut ***waiting {
            // Waiting -> Held | Waiting
            Waiting::Unqueued(pool) => {
                // Not in its place, which must not be empty should this panic: it would pass for a permit.
                let mut claim = Self::none();
                let polled = claim.poll(&pool.clone(), cx);
                *self = claim;
                return polled;
            }
            // Waiting -> Held
            Waiting::Queued(waiter) => Self::held(ready!(waiter.poll(cx))),
            // Waiting -> Held | Waiting
            Waiting::QueuedAtSemaphore(acquire) => match ready!(acquire.as_mut().poll(cx)) {
                Ok(permit) => {
                    let semaphore = Arc::clone(permit.semaphore());
                    permit.forget();
                    Self::held_of_semaphore(semaphore)
                }
                Err(_closed) => {
                    *self = Self::waiting(Waiting::ForEver);
                    return Poll::Pending;
                }
            },
            Waiting::ForEver => return Poll::Pending,
        };
        Poll::Ready(())
    }

    /// Gives up what isn't one of our own permits.
    #[inline(never)]
    fn give_up(&mut self) {
        let stage = mem::replace(&mut self.0, Stage::None);
        if let Stage::HeldOfSemaphore(semaphore) = stage {
            semaphore.add_permits(1);
            drop(ManuallyDrop::into_inner(semaphore));
        } else {
            stage.give_up_waiting();
        }
    }
}

impl Stage {
    #[cold]
    #[inline(never)]
    fn give_up_waiting(self) {
        if let Self::Waiting(waiting) = self {
            drop(ManuallyDrop::into_inner(waiting));
        }
    }
}

impl Drop for Claim {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Held(permit) = self.0 {
            permit.release();
        } else {
            self.give_up();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(permits) => permits.fmt(f),
            Self::Semaphore(semaphore) => semaphore.fmt(f),
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stage::None => "None",
            Stage::Waiting(_) => "Waiting",
            Stage::Held(_) | Stage::HeldOfSemaphore(_) => "Held",
        })
    }
}
