//! At most so many requests started a period.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;
use tower_layer::Layer;
#[cfg(feature = "load")]
use tower_load::Load;
use tower_service::Service;

use crate::timer::Timer;
use crate::window::{Full, Schedule};

/// So many requests a period.
#[derive(Debug, Copy, Clone)]
pub struct Rate {
    num: u64,
    per: Duration,
}

/// Over which period requests are counted.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Window {
    /// Windows of one period, each of which begins with the first request after the end of the last.
    ///
    /// The cheapest, and the default. Two windows' requests may follow each other at once: nearly twice the
    /// number can start within one period that lies across their edge.
    #[default]
    Fixed,
    /// Every period, wherever it begins: there is none in which more than the number start.
    ///
    /// Remembers when each of the last requests started: 16 bytes for each that a period allows.
    Sliding,
}

/// Wraps each service in a [`RateLimit`] of its own.
///
/// The clones of a service share its limit; services that the layer wraps one by one don't.
/// [`GlobalRateLimitLayer`] gives one limit to all of them.
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    rate: Rate,
    window: Window,
}

/// Wraps services in [`RateLimit`]s that share one limit.
///
/// Such as a server's, that wraps a service for each connection.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_layer::Layer;
/// use tower_limit::rate::GlobalRateLimitLayer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// let layer = GlobalRateLimitLayer::new(1, Duration::from_secs(1));
/// let (mut first, _handle) = mock::spawn_layer::<(), (), _>(&layer);
/// let (mut second, _handle) = mock::spawn_layer::<(), (), _>(&layer);
///
/// assert!(first.poll_ready().is_ready());
/// assert!(second.poll_ready().is_pending());
/// ```
#[derive(Clone)]
pub struct GlobalRateLimitLayer {
    shared: Arc<Mutex<Shared>>,
}

/// Lets at most so many requests start a period; the others wait.
///
/// All clones share the limit.
///
/// **Readiness.** Waits until a request may start, reserves the start, and then waits for the inner service. The
/// reservation is kept until the call, however long that takes, and counts in every period: two
/// clones that are ready can both be called at any time, and the limit isn't exceeded. A service that is ready
/// and isn't going to be called should be dropped, which gives the reservation back. A clone has none. Who
/// waits isn't queued: a start that becomes free goes to whoever polls first.
///
/// **`call` without readiness.** The request is forwarded, as the response future is the inner service's and can
/// neither wait nor fail. It counts as started, so the excess is repaid before the service is ready again.
///
/// **Deadlines.** A rate is waited for by `poll_ready` alone, before there is a request. A caller that is in a hurry drops
/// its wait, as [`Deadline::within`](tower_deadline::Deadline::within) does, and leaves nothing behind.
///
/// **Errors.** Only the inner service's.
///
/// Outside of a Tokio runtime there is no timer to wait with: there it asks to be polled again at once,
/// until the time has come.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_limit::rate::{Rate, RateLimit, Window};
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let rate = Rate::new(1, Duration::from_millis(10));
/// let (mut service, mut handle) =
///     mock::spawn_with::<&str, &str, _, _>(|mock| {
///         RateLimit::new(mock, rate).with_window(Window::Sliding)
///     });
///
/// assert!(service.poll_ready().is_ready());
/// let _response = service.call("first");
/// assert!(service.poll_ready().is_pending());
///
/// tokio::time::advance(Duration::from_millis(10)).await;
/// assert!(service.is_woken());
/// assert!(service.poll_ready().is_ready());
/// # }
/// ```
pub struct RateLimit<T> {
    inner: T,
    limiter: Limiter,
}

/// One service's part in a limit.
struct Limiter {
    state: Mutex<State>,
    place: Place,
}

/// The state of the limit.
///
/// Nobody but a clone needs to share it. As long as there is none, it is reached through `&mut self`, for
/// which the mutex around it costs nothing: it is only locked by `clone`, which has no more than `&self`.
enum State {
    Sole(Schedule),
    Shared(Arc<Mutex<Shared>>),
}

/// The state that clones share.
struct Shared {
    schedule: Schedule,
    next_id: u64,
    /// Who to tell when a reservation is given back, or used.
    waiting: BTreeMap<u64, Waker>,
    /// Whether one of those waits for nothing else, having no time to wait for.
    is_used_awaited: bool,
}

/// How far one service has come with its next request.
enum Place {
    None,
    Reserved,
    /// Boxed, as it is rare, and the other two pass through every call.
    Waiting(Box<Waiting>),
}

#[derive(Default)]
struct Waiting {
    /// Under which clones know of it.
    id: Option<u64>,
    timer: Timer,
}

impl Rate {
    /// Lets `num` requests start every `per`.
    ///
    /// # Panics
    ///
    /// If `num` or `per` is zero.
    pub const fn new(num: u64, per: Duration) -> Self {
        assert!(num > 0);
        assert!(per.as_nanos() > 0);
        Self { num, per }
    }

    #[inline]
    pub(crate) const fn num(&self) -> u64 {
        self.num
    }

    #[inline]
    pub(crate) const fn per(&self) -> Duration {
        self.per
    }
}

impl RateLimitLayer {
    /// Lets `num` requests start every `per`, for each service.
    ///
    /// # Panics
    ///
    /// If `num` or `per` is zero.
    pub const fn new(num: u64, per: Duration) -> Self {
        Self {
            rate: Rate::new(num, per),
            window: Window::Fixed,
        }
    }

    /// Counts requests over another kind of window.
    #[must_use]
    pub const fn with_window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, service: S) -> Self::Service {
        RateLimit::new(service, self.rate).with_window(self.window)
    }
}

impl GlobalRateLimitLayer {
    /// Lets `num` requests start every `per`, for all services together.
    ///
    /// # Panics
    ///
    /// If `num` or `per` is zero.
    pub fn new(num: u64, per: Duration) -> Self {
        Self::over(Schedule::new(Rate::new(num, per), Window::Fixed))
    }

    /// Counts requests over another kind of window.
    ///
    /// The limit begins anew: what was wrapped before keeps the old one.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        let rate = lock(&self.shared).schedule.rate();
        Self::over(Schedule::new(rate, window))
    }

    fn over(schedule: Schedule) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared::new(schedule))),
        }
    }
}

impl<S> Layer<S> for GlobalRateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, service: S) -> Self::Service {
        RateLimit {
            inner: service,
            limiter: Limiter::new(State::Shared(Arc::clone(&self.shared))),
        }
    }
}

impl fmt::Debug for GlobalRateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalRateLimitLayer")
            .field("rate", &lock(&self.shared).schedule.rate())
            .finish_non_exhaustive()
    }
}

impl<T> RateLimit<T> {
    /// Lets requests of `inner` and its clones start at `rate`.
    pub fn new(inner: T, rate: Rate) -> Self {
        let schedule = Schedule::new(rate, Window::Fixed);
        Self {
            inner,
            limiter: Limiter::new(State::Sole(schedule)),
        }
    }

    /// Counts requests over another kind of window.
    ///
    /// The limit begins anew: clones that were made before keep the old one.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        let schedule = Schedule::new(self.limiter.rate(), window);
        Self {
            inner: self.inner,
            limiter: Limiter::new(State::Sole(schedule)),
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The inner service, to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives the inner service back, and the reservation, if there is one.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<S, Request> Service<Request> for RateLimit<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.limiter.try_reserve() {
            ready!(self.limiter.poll_reserve(cx));
        }
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        self.limiter.start(Instant::now());
        self.inner.call(request)
    }
}

#[cfg(feature = "load")]
impl<S> Load for RateLimit<S>
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

impl<T: Clone> Clone for RateLimit<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            limiter: Limiter::new(State::Shared(self.limiter.share())),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for RateLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("rate", &self.limiter.rate())
            .finish_non_exhaustive()
    }
}

impl Limiter {
    fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            place: Place::None,
        }
    }

    /// Whether a start is reserved, or can be without a look at the clock.
    #[inline]
    fn try_reserve(&mut self) -> bool {
        match self.place {
            Place::Reserved => true,
            Place::Waiting(_) => false,
            Place::None => {
                let is_reserved = match own(&mut self.state) {
                    State::Sole(schedule) => schedule.try_reserve(),
                    State::Shared(shared) => Shared::try_reserve(shared),
                };
                if is_reserved {
                    // Not assigned: that would ask in every call whether there is something to drop.
                    mem::forget(mem::replace(&mut self.place, Place::Reserved));
                }
                is_reserved
            }
        }
    }

    /// Waits until a start can be reserved: to `Waiting`, or to `Reserved`.
    #[cold]
    fn poll_reserve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if let Place::None = self.place {
            self.place = Place::Waiting(Box::default());
        }
        let Place::Waiting(waiting) = &mut self.place else {
            return Poll::Ready(());
        };
        let reserved = match own(&mut self.state) {
            State::Sole(schedule) => schedule.reserve(now),
            State::Shared(shared) => Shared::reserve(shared, now, &mut waiting.id, cx.waker()),
        };
        match reserved {
            Ok(()) => {
                self.place = Place::Reserved;
                return Poll::Ready(());
            }
            Err(Full::Reserved) => {}
            Err(Full::Until(then)) => match waiting.timer.poll(then, cx) {
                Poll::Pending => {}
                // The time has just come, or there is no runtime to wait for it in.
                Poll::Ready(_) => cx.waker().wake_by_ref(),
            },
        }
        Poll::Pending
    }

    /// Counts a request that starts.
    #[inline]
    fn start(&mut self, now: Instant) {
        let was_reserved = match mem::replace(&mut self.place, Place::None) {
            Place::Reserved => true,
            Place::None => false,
            Place::Waiting(waiting) => {
                self.leave(waiting);
                false
            }
        };
        match own(&mut self.state) {
            State::Sole(schedule) => schedule.start(now, was_reserved),
            State::Shared(shared) => Shared::start(shared, now, was_reserved),
        }
    }

    /// Gives up waiting.
    #[cold]
    #[inline(never)]
    #[allow(
        clippy::boxed_local,
        reason = "unboxed here, so that the callers don't do it inline"
    )]
    fn leave(&mut self, waiting: Box<Waiting>) {
        if let (Some(id), State::Shared(shared)) = (waiting.id, own(&mut self.state)) {
            // In a statement of its own, so that the waker is dropped after the lock is let go.
            let _waker = lock(shared).waiting.remove(&id);
        }
    }

    /// Makes the state one that clones share.
    fn share(&self) -> Arc<Mutex<Shared>> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Shared(shared) => Arc::clone(shared),
            State::Sole(schedule) => {
                let rate = schedule.rate();
                let schedule = mem::replace(schedule, Schedule::new(rate, Window::Fixed));
                let shared = Arc::new(Mutex::new(Shared::new(schedule)));
                *state = State::Shared(Arc::clone(&shared));
                shared
            }
        }
    }

    fn rate(&self) -> Rate {
        match &*lock(&self.state) {
            State::Sole(schedule) => schedule.rate(),
            State::Shared(shared) => lock(shared).schedule.rate(),
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        match mem::replace(&mut self.place, Place::None) {
            Place::None => {}
            Place::Waiting(waiting) => self.leave(waiting),
            Place::Reserved => {
                // What only this service knows of goes with it.
                if let State::Shared(shared) = own(&mut self.state) {
                    Shared::release(shared);
                }
            }
        }
    }
}

impl Shared {
    fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            next_id: 0,
            waiting: BTreeMap::new(),
            is_used_awaited: false,
        }
    }

    // Not inlined, nor is `start`: without them, the path of a service that has no clones is short.
    #[inline(never)]
    fn try_reserve(this: &Mutex<Self>) -> bool {
        lock(this).schedule.try_reserve()
    }

    /// Reserves a start, or sees to it that `waker` is woken when another's reservation ends.
    fn reserve(
        this: &Mutex<Self>,
        now: Instant,
        id: &mut Option<u64>,
        waker: &Waker,
    ) -> Result<(), Full> {
        let mut shared = lock(this);
        let reserved = shared.schedule.reserve(now);
        let _replaced = match &reserved {
            Ok(()) => id.and_then(|id| shared.waiting.remove(&id)),
            Err(full) => {
                shared.is_used_awaited |= *full == Full::Reserved;
                let id = *id.get_or_insert(shared.next_id);
                shared.next_id = shared.next_id.max(id + 1);
                shared.waiting.insert(id, waker.clone())
            }
        };
        // Before the replaced waker is dropped, which may run anything.
        drop(shared);
        reserved
    }

    #[inline(never)]
    fn start(this: &Mutex<Self>, now: Instant, was_reserved: bool) {
        let mut shared = lock(this);
        shared.schedule.start(now, was_reserved);
        if shared.is_used_awaited {
            // Now there is a window, and so a time for them to wait for.
            Self::wake_all(shared);
        }
    }

    fn release(this: &Mutex<Self>) {
        let mut shared = lock(this);
        shared.schedule.release();
        Self::wake_all(shared);
    }

    /// Wakes all who wait: one would do, if it were sure to poll.
    #[cold]
    fn wake_all(mut shared: MutexGuard<'_, Self>) {
        shared.is_used_awaited = false;
        let waiting = mem::take(&mut shared.waiting);
        drop(shared);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }
}

#[inline]
fn own(state: &mut Mutex<State>) -> &mut State {
    state.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Only a waker's `clone` can panic under these locks, and leaves what they guard whole.
#[inline]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
