//! An ambient deadline: set where a request comes in, known to everything that works for it, and only ever
//! shrinking on the way.
//!
//! A timeout is a bound of one hop. Three tiers that each allow themselves two seconds work on for seconds
//! after the caller of the first has gone, and under overload that is all that they do. A [`Deadline`] is the
//! caller's: a point in time that belongs to the request, and that whoever waits, queues, retries or calls on
//! can ask for. This crate has it, and knows nothing of what is bounded.
//!
//! - **At the edge**, [`DeadlineLayer`] takes the deadline out of a request (by a [`Carry`], which a protocol
//!   provides) or sets one, refuses what can't be done in time, and ends what isn't.
//! - **On the way**, [`Deadline::current`] tells it, wherever it is asked within the request's future. It is a
//!   variable of the task, so that no signature changes.
//! - **Where a task is spawned**, the new task knows of none, unless [`inherit`] passes it on.
//! - **Towards the next hop**, the same layer around the client takes less of the time than there is
//!   ([`with_reserve`](DeadlineLayer::with_reserve)) and writes it into the request.
//!
//! The rules are those of gRPC (deadlines propagate, and shrink by what has passed) and of Finagle's
//! `Deadline` context. There are no clocks to compare: within a process it is an instant; between processes
//! the time that is left should travel, as in `grpc-timeout`.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower_deadline::{Deadline, inherit};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let deadline = Deadline::after(Duration::from_secs(1));
//! let outcome = deadline
//!     .within(async {
//!         assert_eq!(Deadline::current(), Some(deadline));
//!
//!         // Who asks for more gets what there is.
//!         let longer = Deadline::after(Duration::from_secs(60));
//!         longer
//!             .scope(async move { assert_eq!(Deadline::current(), Some(deadline)) })
//!             .await;
//!
//!         // A task is given it.
//!         let task = tokio::spawn(inherit(async { Deadline::current() }));
//!         assert_eq!(task.await.unwrap(), Some(deadline));
//!
//!         tokio::time::sleep(Duration::from_secs(60)).await;
//!     })
//!     .await;
//! assert!(outcome.unwrap_err().was_started());
//! # }
//! ```
//!
//! # When not to use it
//!
//! For work that must be done wholly or not at all: what runs [`within`](Deadline::within) a deadline is
//! dropped at whichever `await` it stands. Let such work run in a task of its own, or [`unbounded`].
//!
//! # What it costs
//!
//! To ask for the current deadline is to read a variable of the thread. A layer reads the clock once a
//! request, to refuse, and sets a timer only where the response isn't there at the first poll. Nothing is
//! allocated.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

mod edge;
mod within;

pub use self::edge::{Carry, DeadlineLayer, DeadlineService, Nowhere, ResponseFuture};
pub use self::within::Within;

thread_local! {
    // Without a destructor, so that it is a plain variable and can be asked while a thread ends.
    static CURRENT: Cell<Option<Deadline>> = const { Cell::new(None) };
}

/// What stands for "longer than the clock can count": as tokio's, some thirty years.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// A point in time at which whoever asked for the work has given up.
///
/// It is an instant of tokio's clock, and so stands still where that is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

pin_project! {
    /// A future that knows of a deadline; see [`Deadline::scope`] and [`inherit`].
    ///
    /// **Cancellation.** Dropping it drops the future inside.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        deadline: Option<Deadline>,
        #[pin]
        future: F,
    }
}

pin_project! {
    /// A future that knows of no deadline; see [`unbounded`].
    ///
    /// **Cancellation.** Dropping it drops the future inside.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Unbounded<F> {
        #[pin]
        future: F,
    }
}

/// The deadline has passed, or comes too soon for what was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expired {
    was_started: bool,
}

/// Puts back what it found, in a panic, too.
struct Entered {
    outer: Option<Deadline>,
}

impl Deadline {
    /// A deadline at `instant`.
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// A deadline in `duration` from now. Reads the clock.
    ///
    /// One that the clock can't count up to is some thirty years away.
    pub fn after(duration: Duration) -> Self {
        Self::after_instant(Instant::now(), duration)
    }

    /// The deadline of the future that is being polled, if it has one.
    #[inline]
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// When it is.
    #[inline]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// How much time there is at `now`: zero where it has passed.
    #[inline]
    pub fn remaining_at(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// How much time there is. Reads the clock.
    pub fn remaining(self) -> Duration {
        self.remaining_at(Instant::now())
    }

    /// Whether it has passed at `now`.
    #[inline]
    pub fn has_passed_at(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// Whether something that begins at `now` and takes `duration` ends before it.
    ///
    /// This is what to ask before a wait: for a backoff, a probe, a place in a queue.
    #[inline]
    pub fn allows(self, now: Instant, duration: Duration) -> bool {
        self.remaining_at(now) > duration
    }

    /// A deadline that comes `reserve` earlier.
    ///
    /// What is needed to send an answer back, say. Where the clock doesn't reach so far back, it has passed.
    #[must_use]
    pub fn earlier_by(self, reserve: Duration) -> Self {
        self.0
            .checked_sub(reserve)
            .map_or_else(|| self.min(Self(Instant::now())), Self)
    }

    /// Lets `future` know of this deadline, or of the current one where that comes sooner.
    ///
    /// It isn't stopped when the time is up; see [`within`](Self::within).
    pub const fn scope<F>(self, future: F) -> Scope<F> {
        Scope {
            deadline: Some(self),
            future,
        }
    }

    /// Does `work` knowing of this deadline, or of the current one where that comes sooner.
    #[inline]
    pub fn enter<R>(self, work: impl FnOnce() -> R) -> R {
        let _entered = Entered::shrink(Some(self));
        work()
    }

    /// As [`scope`](Self::scope), and drops `future` when the time is up.
    pub const fn within<F>(self, future: F) -> Within<F> {
        Within::new(Some(self), future)
    }

    fn after_instant(now: Instant, duration: Duration) -> Self {
        Self(now.checked_add(duration).unwrap_or_else(|| now + FAR))
    }
}

/// Takes the current deadline along, into a task or to wherever `future` will be polled.
///
/// Without a current deadline it adds nothing.
pub fn inherit<F>(future: F) -> Scope<F> {
    Scope {
        deadline: Deadline::current(),
        future,
    }
}

/// Hides the current deadline from `future`.
///
/// For what one request happens to drive and others depend on: a connection that is shared, the filling of
/// a cache. It doesn't keep `future` from being dropped.
pub const fn unbounded<F>(future: F) -> Unbounded<F> {
    Unbounded { future }
}

/// Does `work` without knowing of the current deadline: see [`unbounded`].
pub fn enter_unbounded<R>(work: impl FnOnce() -> R) -> R {
    let _entered = Entered::replace(None);
    work()
}

impl<F> Scope<F> {
    /// The deadline that the future was given.
    pub const fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Gives the future back.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::shrink(*this.deadline);
        this.future.poll(cx)
    }
}

impl<F: Future> Future for Unbounded<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = Entered::replace(None);
        self.project().future.poll(cx)
    }
}

impl Entered {
    #[inline]
    fn shrink(to: Option<Deadline>) -> Self {
        let outer = CURRENT.get();
        Self::replace(earliest(outer, to))
    }

    #[inline]
    fn replace(with: Option<Deadline>) -> Self {
        Self {
            outer: CURRENT.replace(with),
        }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// The one that comes first, where there is one.
#[inline]
fn earliest(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

impl Expired {
    /// The work was refused, and nothing done.
    pub const fn before_work() -> Self {
        Self { was_started: false }
    }

    /// The work was begun, and dropped.
    pub const fn during_work() -> Self {
        Self { was_started: true }
    }

    /// Whether anything was done. If not, the refusal says nothing about the service that was to do it.
    pub const fn was_started(self) -> bool {
        self.was_started
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.was_started {
            true => "deadline has passed",
            false => "deadline leaves no time to begin",
        })
    }
}

impl std::error::Error for Expired {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn durations_that_the_clock_cannot_count_are_far_away() {
        let remaining = Deadline::after(Duration::MAX).remaining();
        assert!(remaining > FAR - SECOND && remaining <= FAR);
    }

    #[test]
    fn a_reserve_longer_than_the_past_has_passed() {
        let deadline = Deadline::after(SECOND).earlier_by(Duration::MAX);
        assert!(deadline.has_passed_at(Instant::now()));
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[test]
    fn what_ends_at_the_deadline_is_too_late() {
        let now = Instant::now();
        let deadline = Deadline::at(now + SECOND);
        assert!(deadline.allows(now, SECOND - Duration::from_nanos(1)));
        assert!(!deadline.allows(now, SECOND));
        assert!(deadline.has_passed_at(now + SECOND));
    }

    #[test]
    fn a_panic_leaves_the_outer_deadline() {
        let outer = Deadline::after(2 * SECOND);
        outer.enter(|| {
            let inner = Deadline::after(SECOND);
            let panicked = std::panic::catch_unwind(|| inner.enter(|| panic!("on purpose")));
            assert!(panicked.is_err());
            assert_eq!(Deadline::current(), Some(outer));
        });
        assert_eq!(Deadline::current(), None);
    }

    proptest! {
        #[test]
        fn nested_scopes_only_ever_shrink_it(millis in prop::collection::vec(0..1000_u64, 1..20)) {
            fn nest(now: Instant, millis: &[u64], least: u64) {
                let Some((first, rest)) = millis.split_first() else { return };
                let least = least.min(*first);
                let own = Deadline::at(now + Duration::from_millis(*first));
                own.enter(|| {
                    let expected = Deadline::at(now + Duration::from_millis(least));
                    assert_eq!(Deadline::current(), Some(expected));
                    nest(now, rest, least);
                    assert_eq!(Deadline::current(), Some(expected));
                });
            }
            nest(Instant::now(), &millis, u64::MAX);
            prop_assert_eq!(Deadline::current(), None);
        }
    }
}
