//! A world with a clock of its own: a queue of events at exact instants, under which tokio's paused clock runs.
//!
//! Tokio's timers are good to a millisecond, and so would change the rates of a laboratory that slept on them:
//! a thousand arrivals a second would come in bursts. Its *clock* is exact. So what the laboratory does itself
//! (arrivals, the network, the work of servers) stands in a queue at nanoseconds, and the driver moves tokio's
//! clock to the next event. The middleware's own timers (timeouts, backoffs, hedging delays) are tokio's, and
//! fire at the milliseconds where they would; the driver never moves the clock over one.
//!
//! One thread, no hashing with random keys, no `select!`: what happens follows from the seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{unconstrained, yield_now};

/// An instant or a span, in nanoseconds; instants since the world began.
pub(crate) type Nanos = u64;

#[cfg(test)]
pub(crate) const MICRO: Nanos = 1_000;
pub(crate) const MILLI: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// Converts to what middleware takes.
pub(crate) const fn duration(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos)
}

/// Converts seconds, as files state them.
pub(crate) fn seconds(seconds: f64) -> Nanos {
    (seconds * SECOND as f64).round() as Nanos
}

/// Converts milliseconds, as files state them.
pub(crate) fn millis(millis: f64) -> Nanos {
    (millis * MILLI as f64).round() as Nanos
}

/// A handle to the world: its clock, its queue, and what was recorded of it.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    now: AtomicU64,
    queue: Mutex<Queue>,
    trace: AtomicU64,
}

#[derive(Default)]
struct Queue {
    events: BinaryHeap<Reverse<Event>>,
    /// Of two events at the same instant the one that was put in first comes first.
    next: u64,
}

struct Event {
    at: Nanos,
    number: u64,
    action: Box<dyn FnOnce() + Send>,
}

impl World {
    /// Runs a world for some time. `start` sets it up; what it returns is given back at the end.
    ///
    /// Tasks that are left over are dropped.
    pub(crate) fn run<T>(until: Nanos, start: impl FnOnce(&Self) -> T) -> (T, Self) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            // The driver is to go on only when no task can: not after 61 of them, as is the default.
            .event_interval(u32::MAX)
            .build()
            .expect("a runtime without I/O can be made");
        let world = Self(Arc::new(Inner {
            now: AtomicU64::new(0),
            queue: Mutex::default(),
            trace: AtomicU64::new(0xcbf2_9ce4_8422_2325),
        }));
        let result = runtime.block_on(unconstrained(async {
            let result = start(&world);
            world.drive(until).await;
            result
        }));
        (result, world)
    }

    /// Alternates between the tasks, until none can go on, and the clock.
    async fn drive(&self, until: Nanos) {
        loop {
            yield_now().await;
            let now = self.now();
            if now >= until {
                return;
            }
            let tick = (now / MILLI + 1) * MILLI;
            let next = self.queue().next_at().unwrap_or(until);
            self.advance(next.min(tick).min(until)).await;
            while let Some(action) = self.take_due() {
                action();
            }
        }
    }

    /// Moves the clock, and fires the timers that are due.
    async fn advance(&self, to: Nanos) {
        let now = self.now();
        if to > now {
            self.0.now.store(to, Relaxed);
            tokio::time::advance(duration(to - now)).await;
        }
    }

    fn take_due(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let now = self.now();
        let mut queue = self.queue();
        let is_due = queue.next_at().is_some_and(|at| at <= now);
        is_due
            .then(|| queue.events.pop())
            .flatten()
            .map(|Reverse(event)| event.action)
    }

    pub(crate) fn now(&self) -> Nanos {
        self.0.now.load(Relaxed)
    }

    /// Does something at an instant; at once after what is under way, if that has passed.
    pub(crate) fn at(&self, at: Nanos, action: impl FnOnce() + Send + 'static) {
        self.queue().push(at, Box::new(action));
    }

    /// Does something after a span.
    pub(crate) fn after(&self, span: Nanos, action: impl FnOnce() + Send + 'static) {
        self.at(self.now() + span, action);
    }

    /// Waits until an instant, exactly.
    pub(crate) async fn sleep_until(&self, at: Nanos) {
        if at <= self.now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        self.at(at, move || {
            // Whoever has gone doesn't wait.
            let _ = wake.send(());
        });
        let _ = woken.await;
    }

    /// Waits for a span, exactly.
    pub(crate) async fn sleep(&self, span: Nanos) {
        self.sleep_until(self.now() + span).await;
    }

    /// Runs a task, which ends with the world at the latest.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(tokio::spawn(task));
    }

    /// Adds what happens now to the trace.
    pub(crate) fn note(&self, what: u64) {
        let mut hash = self.0.trace.load(Relaxed);
        for word in [self.now(), what] {
            // FNV-1a, by words.
            hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
            hash ^= hash >> 29;
        }
        self.0.trace.store(hash, Relaxed);
    }

    /// The hash of all that was noted.
    pub(crate) fn trace(&self) -> u64 {
        self.0.trace.load(Relaxed)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn push(&mut self, at: Nanos, action: Box<dyn FnOnce() + Send>) {
        let number = self.next;
        self.next += 1;
        self.events.push(Reverse(Event { at, number, action }));
    }

    fn next_at(&self) -> Option<Nanos> {
        self.events.peek().map(|Reverse(event)| event.at)
    }
}

impl Event {
    fn key(&self) -> (Nanos, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// Collects what is sent to it.
    fn log() -> (Arc<Mutex<Vec<Nanos>>>, impl Fn(Nanos) + Clone + Send) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&log);
        (log, move |at| writer.lock().unwrap().push(at))
    }

    #[test]
    fn events_happen_at_their_instants_in_order_and_tokios_clock_agrees() {
        let (seen, write) = log();
        World::run(SECOND, |world| {
            let start = Instant::now();
            for at in [5 * MILLI + 300, 700, 5 * MILLI + 300, 999_999_999] {
                let (world, write) = (world.clone(), write.clone());
                world.clone().at(at, move || {
                    assert_eq!(world.now(), at);
                    assert_eq!(start.elapsed(), duration(at));
                    write(at);
                });
            }
        });
        let expected = [700, 5 * MILLI + 300, 5 * MILLI + 300, 999_999_999];
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[test]
    fn a_timer_of_tokios_fires_at_its_millisecond_between_two_events() {
        let (seen, write) = log();
        World::run(SECOND, |world| {
            let inner = world.clone();
            world.spawn(async move {
                tokio::time::sleep(duration(10 * MILLI + 1)).await;
                write(inner.now());
                inner.sleep(10 * MICRO).await;
                write(inner.now());
            });
            world.at(500 * MILLI, || {});
        });
        let expected = [11 * MILLI, 11 * MILLI + 10 * MICRO];
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[test]
    fn a_thousand_tasks_that_wake_each_other_are_done_before_the_clock_moves() {
        let (seen, write) = log();
        World::run(SECOND, |world| {
            let (mut first, mut last) = (None, None);
            for _ in 0..1000 {
                let (wake, woken) = oneshot::channel::<()>();
                let before: Option<oneshot::Receiver<()>> = last.replace(woken);
                match before {
                    Some(before) => world.spawn(async move {
                        let _ = before.await;
                        let _ = wake.send(());
                    }),
                    None => first = Some(wake),
                }
            }
            let inner = world.clone();
            world.spawn(async move {
                let _ = last.expect("there is a last").await;
                write(inner.now());
            });
            world.at(123, move || drop(first));
            world.at(124, || {});
        });
        assert_eq!(*seen.lock().unwrap(), [123]);
    }

    #[test]
    fn the_trace_tells_times_and_orders_apart() {
        let trace = |notes: &[(Nanos, u64)]| {
            let (_, world) = World::run(MILLI, |world| {
                for &(at, what) in notes {
                    let inner = world.clone();
                    world.at(at, move || inner.note(what));
                }
            });
            world.trace()
        };
        assert_eq!(trace(&[(1, 1), (2, 2)]), trace(&[(1, 1), (2, 2)]));
        assert_ne!(trace(&[(1, 1), (2, 2)]), trace(&[(1, 2), (2, 1)]));
        assert_ne!(trace(&[(1, 1), (2, 2)]), trace(&[(1, 1), (3, 2)]));
    }
}
