//! Timers that are used again.
//!
//! Putting a timer into the runtime's wheel and taking it out again takes two locks and some 500 instructions,
//! and most timers of a timeout never fire. So one that wasn't needed stays in the wheel, as it is, and waits on
//! its thread for the next response. That one's deadline is later, in a service that is in use; if the timer
//! fires before, it is set anew then. A timer thus costs its place in the wheel once per timeout that passes,
//! rather than once per response.
//!
//! A spare timer that fires wakes the task that it was last for. That is allowed, and the task has mostly
//! ended. Until then it holds the task's waker. (To leave it with another takes a poll, and to poll a timer
//! whose runtime is shutting down panics.)

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::NoRuntime;

/// The number of spare timers that a thread keeps: about as many as it has responses pending at once. What is
/// beyond is made anew, at the price of a plain timer.
const MOST_SPARE: usize = 64;

thread_local! {
    static SPARE: RefCell<Spare> = const {
        RefCell::new(Spare {
            runtime: None,
            timers: Vec::new(),
        })
    };
}

/// The timers that a thread has to spare, all of one runtime.
struct Spare {
    runtime: Option<Id>,
    timers: Vec<Pin<Box<Sleep>>>,
}

/// A timer in use.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Instant,
    // `None` only while it is dropped. It may be set to a time before the deadline, never after.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The runtime to whose wheel it belongs, where it may be used again.
    runtime: Option<Id>,
}

impl Timer {
    /// Sets a timer of the current runtime to `deadline`.
    pub(crate) fn new(deadline: Instant) -> Result<Self, NoRuntime> {
        Self::set(deadline, || !clock_is_paused())
    }

    /// As `new`; `reusable` decides whether a timer that has to be made may be used again.
    fn set(deadline: Instant, reusable: impl FnOnce() -> bool) -> Result<Self, NoRuntime> {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?.id();
        if let Some(mut sleep) = Spare::take(runtime) {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            return Ok(Self {
                deadline,
                sleep: Some(sleep),
                runtime: Some(runtime),
            });
        }
        Ok(Self {
            deadline,
            sleep: Some(Box::pin(sleep_until(deadline))),
            runtime: reusable().then_some(runtime),
        })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Ready(());
        };
        ready!(poll_unconstrained(sleep.as_mut(), cx));
        if sleep.deadline() >= self.deadline {
            return Poll::Ready(());
        }
        // It was still set for an earlier response.
        sleep.as_mut().reset(self.deadline);
        poll_unconstrained(sleep.as_mut(), cx)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let (Some(sleep), Some(runtime)) = (self.sleep.take(), self.runtime) {
            Spare::put(sleep, runtime);
        }
    }
}

impl Spare {
    fn take(runtime: Id) -> Option<Pin<Box<Sleep>>> {
        let (timer, strange) = SPARE.with_borrow_mut(|spare| {
            if spare.runtime == Some(runtime) {
                return (spare.timers.pop(), Vec::new());
            }
            // The thread has entered another runtime: a timer works only in the one that made it.
            spare.runtime = Some(runtime);
            (None, mem::take(&mut spare.timers))
        });
        // After the borrow: with a timer goes a waker, perhaps with that a task, and with the task its timers.
        drop(strange);
        timer
    }

    fn put(sleep: Pin<Box<Sleep>>, runtime: Id) {
        // A thread that ends has no spare timers any more, and drops this one.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.runtime == Some(runtime) && spare.timers.len() < MOST_SPARE {
                spare.timers.push(sleep);
            }
        });
    }
}

/// Polls a timer outside of the task's cooperative budget.
///
/// An inner service that has used the budget up would otherwise stop the timer, too, time after time,
/// and never be stopped itself.
pub(crate) fn poll_unconstrained(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(timer)).poll(cx)
}

/// Whether the clock stands still, as in tests that pause it.
///
/// An idle runtime then moves it on to the next timer. A spare one would be in its way: the clock would go
/// on by itself where it had nothing to go on to. So timers are not used again there.
fn clock_is_paused() -> bool {
    Instant::now() == Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A paused runtime, so that no test waits. Timers are kept here all the same.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    fn spare() -> usize {
        SPARE.with_borrow(|spare| spare.timers.len())
    }

    fn set(deadline: Instant) -> Timer {
        Timer::set(deadline, || true).unwrap()
    }

    /// A timer that is in the wheel.
    fn polled(deadline: Instant) -> Timer {
        let mut timer = set(deadline);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(timer.poll(&mut cx).is_pending());
        timer
    }

    async fn fires_at(mut timer: Timer, deadline: Instant) {
        std::future::poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(Instant::now(), deadline);
    }

    #[test]
    fn a_timer_that_was_not_needed_is_used_again() {
        runtime().block_on(async {
            let timer = polled(Instant::now() + HOUR);
            let address = &raw const **timer.sleep.as_ref().unwrap();
            drop(timer);
            assert_eq!(spare(), 1);

            let again = polled(Instant::now() + HOUR);
            assert_eq!(&raw const **again.sleep.as_ref().unwrap(), address);
            assert_eq!(spare(), 0);
        });
    }

    #[test]
    fn a_timer_used_again_for_a_later_deadline_fires_then_and_not_before() {
        runtime().block_on(async {
            drop(polled(Instant::now() + HOUR));
            let deadline = Instant::now() + 2 * HOUR;
            let timer = set(deadline);
            assert!(timer.sleep.as_ref().unwrap().deadline() < deadline);
            fires_at(timer, deadline).await;
        });
    }

    #[test]
    fn a_timer_used_again_for_an_earlier_deadline_fires_then() {
        runtime().block_on(async {
            drop(polled(Instant::now() + 2 * HOUR));
            let deadline = Instant::now() + HOUR;
            fires_at(set(deadline), deadline).await;
        });
    }

    #[test]
    fn a_timer_that_has_fired_is_set_anew() {
        runtime().block_on(async {
            let deadline = Instant::now() + HOUR;
            fires_at(set(deadline), deadline).await;
            assert_eq!(spare(), 1);
            let deadline = Instant::now() + HOUR;
            fires_at(set(deadline), deadline).await;
        });
    }

    #[test]
    fn no_more_are_kept_than_the_bound() {
        runtime().block_on(async {
            let deadline = Instant::now() + HOUR;
            let timers: Vec<_> = (0..2 * MOST_SPARE).map(|_| polled(deadline)).collect();
            drop(timers);
            assert_eq!(spare(), MOST_SPARE);
        });
    }

    #[test]
    fn another_runtime_does_not_get_them() {
        runtime().block_on(async { drop(polled(Instant::now() + HOUR)) });
        assert_eq!(spare(), 1);
        runtime().block_on(async {
            let timer = polled(Instant::now() + HOUR);
            assert_eq!(spare(), 0);
            drop(timer);
            assert_eq!(spare(), 1);
        });
    }

    /// A task that has a timer, and that nobody but its waker keeps.
    struct Task(#[allow(dead_code, reason = "dropped with the task")] Mutex<Timer>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_spare_timer_whose_waker_drops_another_one_is_dropped_quietly() {
        let first = runtime();
        first.block_on(async {
            let deadline = Instant::now() + HOUR;
            let waker = Waker::from(Arc::new(Task(Mutex::new(polled(deadline)))));
            let mut timer = set(deadline);
            assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        });
        assert_eq!(spare(), 1);
        runtime().block_on(async { drop(polled(Instant::now() + HOUR)) });
        assert_eq!(spare(), 1);
    }

    #[test]
    fn a_timer_that_outlives_its_runtime_is_dropped_quietly() {
        let timer = runtime().block_on(async { polled(Instant::now() + HOUR) });
        drop(timer);
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_kept_where_the_clock_is_paused() {
        drop(Timer::new(Instant::now() + HOUR).unwrap());
        assert_eq!(spare(), 0);
    }

    #[tokio::test]
    async fn one_is_kept_where_the_clock_goes() {
        drop(Timer::new(Instant::now() + HOUR).unwrap());
        assert_eq!(spare(), 1);
    }
}
