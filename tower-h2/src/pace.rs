//! Decides whether a server polls requests where it accepts them, or in tasks of their own.
//!
//! Polling where they are accepted saves a task, its allocation and its wake-ups, and lets the responses of
//! one wake-up leave in one write. But what computes for long there keeps the other streams of its
//! connection waiting, and leaves the other threads idle. So each request's first poll is timed: one
//! that takes much longer than the protocol's own work for a request counts as slow, and the requests
//! after it get tasks until enough of them were quick.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A poll below this is quick on any machine: it is many times what a task costs.
const QUICK: Duration = Duration::from_micros(50);
/// How many times the protocol's own work a poll may take. As a ratio it means the same on slow machines.
const RATIO: u32 = 16;
/// How many requests get tasks after a slow one, at first and at most.
const PENALTY: u32 = 16;
const MAX_PENALTY: u32 = 1024;

/// What was seen of a connection's requests.
///
/// Orderings are relaxed: it is advice, and a race only moves a request to a task or out of it.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How many quick requests there must be before one is polled in place.
    wary: AtomicU32,
    /// What `wary` is set to by the next slow request.
    penalty: AtomicU32,
}

impl Pace {
    /// Nothing was seen yet, so the first request gets a task.
    pub(crate) fn new() -> Self {
        Self {
            wary: AtomicU32::new(1),
            penalty: AtomicU32::new(PENALTY),
        }
    }

    /// What counts as slow where the protocol's work for a request took `overhead`.
    pub(crate) fn bar(overhead: Duration) -> Duration {
        QUICK.max(overhead.saturating_mul(RATIO))
    }

    /// Whether the next request may be polled where it was accepted.
    pub(crate) fn in_place(&self) -> bool {
        self.wary.load(Ordering::Relaxed) == 0
    }

    /// Takes in when the first poll of a request began and ended; says whether it took longer than `bar`.
    pub(crate) fn observe(&self, start: Instant, end: Instant, bar: Duration) -> bool {
        if start.checked_add(bar).is_some_and(|due| end > due) {
            let penalty = self.penalty.load(Ordering::Relaxed);
            self.wary.store(penalty, Ordering::Relaxed);
            self.penalty
                .store((penalty * 2).min(MAX_PENALTY), Ordering::Relaxed);
            return true;
        }
        match self.wary.load(Ordering::Relaxed) {
            0 => {
                if self.penalty.load(Ordering::Relaxed) != PENALTY {
                    self.penalty.store(PENALTY, Ordering::Relaxed);
                }
            }
            wary => self.wary.store(wary - 1, Ordering::Relaxed),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(1);
    const SHORT: Duration = Duration::from_micros(5);

    fn observe(pace: &Pace, took: Duration) -> bool {
        let start = Instant::now();
        pace.observe(start, start + took, BAR)
    }

    #[test]
    fn the_first_request_gets_a_task_and_quick_ones_after_it_none() {
        let pace = Pace::new();
        assert!(!pace.in_place());
        observe(&pace, SHORT);
        assert!(pace.in_place());
    }

    #[test]
    fn after_a_slow_request_as_many_quick_ones_are_wanted_as_the_penalty() {
        let pace = Pace::new();
        observe(&pace, SHORT);
        assert!(observe(&pace, LONG));
        for _ in 0..PENALTY {
            assert!(!pace.in_place());
            observe(&pace, SHORT);
        }
        assert!(pace.in_place());
    }

    #[test]
    fn a_service_that_stays_slow_is_tried_ever_more_rarely_up_to_a_bound() {
        let pace = Pace::new();
        for _ in 0..20 {
            observe(&pace, LONG);
        }
        assert_eq!(pace.wary.load(Ordering::Relaxed), MAX_PENALTY);
    }

    #[test]
    fn the_bar_rises_with_the_work_of_the_protocol() {
        assert_eq!(Pace::bar(Duration::from_micros(1)), QUICK);
        assert_eq!(
            Pace::bar(Duration::from_micros(100)),
            Duration::from_micros(1600)
        );
    }
}
