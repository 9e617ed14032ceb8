//! Wakes requests at their deadlines: one timer for many of them.
//!
//! Nearly all handlers that wait are done long before their time is up. A timer for each would be set and taken back for
//! nothing, at some 3 500 instructions; a place in a list costs a tenth of it. The list's keeper, a task, sleeps until the
//! earliest deadline that there was when it last looked, and looks again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How many lists there are. Threads that have one each don't wait for each other.
const SHARDS: usize = 16;

/// All lists.
pub(crate) struct Alarms {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
struct Shard {
    list: Mutex<List>,
    /// The keeper has to look again.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct List {
    alarms: Slab<Alarm>,
    /// How many have been set. A place is given to one after the other.
    count: u64,
    keeper: Keeper,
}

struct Alarm {
    number: u64,
    at: Instant,
    waker: Waker,
}

/// What the list's keeper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Keeper {
    /// There is none.
    #[default]
    Absent,
    /// It sleeps until then. Alarms that are later needn't wake it.
    Asleep(Instant),
    /// It has panicked: the runtime has no timers.
    Broken,
}

/// Where an alarm stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    shard: usize,
    key: usize,
    number: u64,
}

impl Alarms {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Shard::default()),
        })
    }

    /// Sets the alarm, at first, and is ready once it has rung.
    ///
    /// Outside of a runtime there is nobody who would ring it.
    pub(crate) fn poll(
        self: &Arc<Self>,
        ticket: &mut Option<Ticket>,
        at: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(ticket) = ticket else {
            *ticket = Some(self.set(at, cx.waker().clone()));
            return Poll::Pending;
        };
        // What a waker does is its own affair, and isn't done under the lock.
        let mut waker = None;
        loop {
            let mut list = self.shards[ticket.shard].lock();
            let Some(alarm) = list.find(*ticket) else {
                return Poll::Ready(());
            };
            alarm.at = at;
            let before = if alarm.waker.will_wake(cx.waker()) {
                None
            } else if let Some(waker) = waker.take() {
                Some(std::mem::replace(&mut alarm.waker, waker))
            } else {
                drop(list);
                waker = Some(cx.waker().clone());
                continue;
            };
            self.keep(list, ticket.shard, at);
            drop(before);
            return Poll::Pending;
        }
    }

    fn set(self: &Arc<Self>, at: Instant, waker: Waker) -> Ticket {
        let shard = own_shard();
        let mut list = self.shards[shard].lock();
        list.count += 1;
        let number = list.count;
        let key = list.alarms.insert(Alarm { number, at, waker });
        self.keep(list, shard, at);
        Ticket { shard, key, number }
    }

    /// Sees to it that the list has a keeper who looks at it in time for this alarm.
    fn keep(self: &Arc<Self>, mut list: MutexGuard<'_, List>, shard: usize, at: Instant) {
        match list.keeper {
            Keeper::Asleep(until) if at >= until => {}
            Keeper::Asleep(_) => {
                list.keeper = Keeper::Asleep(at);
                drop(list);
                self.shards[shard].changed.notify_one();
            }
            Keeper::Broken => {}
            Keeper::Absent => {
                let Ok(runtime) = Handle::try_current() else {
                    return;
                };
                list.keeper = Keeper::Asleep(at);
                drop(list);
                let guard = Guard {
                    alarms: Arc::downgrade(self),
                    shard,
                    is_done: false,
                };
                let changed = Arc::clone(&self.shards[shard].changed);
                drop(runtime.spawn(watch(guard, changed)));
            }
        }
    }

    /// Takes an alarm back, if it hasn't rung.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let mut list = self.shards[ticket.shard].lock();
        let is_there = list.find(ticket).is_some();
        let cancelled = is_there.then(|| list.alarms.remove(ticket.key));
        drop(list);
        // Its waker is dropped when the lock is free.
        drop(cancelled);
    }
}

/// The keeper of a list.
async fn watch(mut guard: Guard, changed: Arc<Notify>) {
    while let Some(until) = guard.look() {
        // Either is a reason to look.
        let _ = timeout_at(until, changed.notified()).await;
    }
    guard.is_done = true;
}

/// Leaves the list without a keeper, however that ends: its runtime may be gone, and those who wait live in another.
struct Guard {
    alarms: Weak<Alarms>,
    shard: usize,
    /// Whether it has left by itself. There may be another since.
    is_done: bool,
}

impl Guard {
    /// Rings what is due, and says when to look again. `None` where nobody waits.
    fn look(&self) -> Option<Instant> {
        let alarms = self.alarms.upgrade()?;
        alarms.shards[self.shard].ring(Instant::now())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let Some(alarms) = self.alarms.upgrade() else {
            return;
        };
        let mut list = alarms.shards[self.shard].lock();
        if std::thread::panicking() {
            list.keeper = Keeper::Broken;
            drop(list);
            tracing::error!("the runtime has no timers: handlers may take as long as they like");
            return;
        }
        list.keeper = Keeper::Absent;
        // They find another keeper.
        let wakers: Vec<Waker> = list
            .alarms
            .iter()
            .map(|(_, alarm)| alarm.waker.clone())
            .collect();
        drop(list);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings what is due, and says when the next is.
    fn ring(&self, now: Instant) -> Option<Instant> {
        let mut list = self.lock();
        let (due, next) = list.take_due(now);
        list.keeper = match next {
            Some(next) => Keeper::Asleep(next),
            None => Keeper::Absent,
        };
        drop(list);
        due.into_iter().for_each(|alarm| alarm.waker.wake());
        next
    }
}

impl List {
    fn find(&mut self, ticket: Ticket) -> Option<&mut Alarm> {
        let alarm = self.alarms.get_mut(ticket.key)?;
        (alarm.number == ticket.number).then_some(alarm)
    }

    /// Takes out what is due, and says when the first of the others is.
    fn take_due(&mut self, now: Instant) -> (Vec<Alarm>, Option<Instant>) {
        let due: Vec<usize> = self
            .alarms
            .iter()
            .filter(|(_, alarm)| alarm.at <= now)
            .map(|(key, _)| key)
            .collect();
        let due = due
            .into_iter()
            .filter_map(|key| self.alarms.try_remove(key))
            .collect();
        let next = self.alarms.iter().map(|(_, alarm)| alarm.at).min();
        (due, next)
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        // Their keepers find nothing to keep.
        for shard in &self.shards {
            shard.changed.notify_one();
        }
    }
}

/// Each thread has one of the lists.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.try_with(|own| *own).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::future::poll_fn;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits for an alarm.
    async fn ring(alarms: &Arc<Alarms>, at: Instant) {
        let mut ticket = None;
        poll_fn(|cx| alarms.poll(&mut ticket, at, cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_alarm_rings_in_time_whatever_the_order() {
        let alarms = Alarms::new();
        let start = Instant::now();
        let waiting = [5, 30, 1, 30, 2].map(|seconds| {
            let alarms = Arc::clone(&alarms);
            tokio::spawn(async move {
                ring(&alarms, start + SECOND * seconds).await;
                assert_eq!(start.elapsed().as_secs(), u64::from(seconds));
            })
        });
        for task in waiting {
            task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_is_taken_back_does_not_ring_another_s() {
        let alarms = Alarms::new();
        let at = Instant::now() + SECOND;
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (None, None);
        assert!(alarms.poll(&mut first, at, &mut cx).is_pending());
        alarms.cancel(first.unwrap());
        // It has the other's place.
        assert!(alarms.poll(&mut second, at, &mut cx).is_pending());
        assert_eq!(first.unwrap().key, second.unwrap().key);
        alarms.cancel(first.unwrap());
        assert!(alarms.poll(&mut second, at, &mut cx).is_pending());
        assert!(alarms.poll(&mut first, at, &mut cx).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_may_be_set_to_another_time() {
        let alarms = Alarms::new();
        let start = Instant::now();
        let mut ticket = None;
        let mut cx = Context::from_waker(Waker::noop());
        let far = start + SECOND * 100;
        assert!(alarms.poll(&mut ticket, far, &mut cx).is_pending());
        poll_fn(|cx| alarms.poll(&mut ticket, start + SECOND, cx)).await;
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[test]
    fn a_runtime_that_ends_takes_no_alarm_along() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
        };
        let alarms = Alarms::new();
        let mut ticket = None;
        let first = runtime();
        first.block_on(async {
            let far = Instant::now() + SECOND * 1000;
            poll_fn(|cx| {
                assert!(alarms.poll(&mut ticket, far, cx).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        });
        drop(first);
        runtime().block_on(async {
            let soon = Instant::now() + SECOND;
            poll_fn(|cx| alarms.poll(&mut ticket, soon, cx)).await;
        });
    }

    #[test]
    fn where_there_are_no_timers_nothing_rings_and_nothing_breaks() {
        let alarms = Alarms::new();
        let mut cx = Context::from_waker(Waker::noop());
        let mut ticket = None;
        assert!(
            alarms
                .poll(&mut ticket, Instant::now(), &mut cx)
                .is_pending()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let later = Instant::now() + SECOND;
            for _ in 0..3 {
                assert!(alarms.poll(&mut ticket, later, &mut cx).is_pending());
                tokio::task::yield_now().await;
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_due_is_taken_and_the_first_of_the_rest_is_told(millis in prop::collection::vec(0..100_u64, 0..20), now in 0..100_u64) {
            let start = Instant::now();
            let after = |millis| start + Duration::from_millis(millis);
            let mut list = List::default();
            for (number, at) in (0..).zip(&millis) {
                list.alarms.insert(Alarm { number, at: after(*at), waker: Waker::noop().clone() });
            }
            let (due, next) = list.take_due(after(now));
            let due: HashSet<u64> = due.iter().map(|alarm| alarm.number).collect();
            for (number, at) in (0..).zip(&millis) {
                prop_assert_eq!(due.contains(&number), *at <= now);
            }
            prop_assert_eq!(next, millis.iter().filter(|at| **at > now).min().map(|at| after(*at)));
        }
    }
}
