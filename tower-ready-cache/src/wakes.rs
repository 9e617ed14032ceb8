//! Which services were woken: the one piece of the cache that other threads touch.
//!
//! Each service is polled with a waker of its own, which is made once and used for the service's whole
//! life. Waking it queues the service's slot, once, and wakes the task that polls the cache.
//!
//! Nothing is lost: whoever is about to sleep registers its task and looks at the queue under the same
//! lock under which slots are queued. A wake that comes late, for a service that has left its slot, at
//! worst has the slot's next service polled once more than needed.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

#[cfg(tower_loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
#[cfg(not(tower_loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

/// The consumer's end: the cache has one.
#[derive(Debug)]
pub(crate) struct Wakes {
    shared: Arc<Shared>,
}

/// The producer's end: each service has one.
#[derive(Debug)]
pub(crate) struct Handle {
    flag: Arc<Flag>,
    waker: Waker,
}

#[derive(Debug)]
struct Shared {
    /// Whether `queue` holds anything, to be read without the lock. Written under it.
    any: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    slots: Vec<usize>,
    task: Option<Waker>,
}

#[derive(Debug)]
struct Flag {
    slot: usize,
    /// Whether the slot is in the queue, so that it is there once.
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Wakes {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                any: AtomicBool::new(false),
                queue: Mutex::new(Queue::default()),
            }),
        }
    }

    /// Makes the waker of the service in `slot`.
    pub(crate) fn handle(&self, slot: usize) -> Handle {
        let flag = Arc::new(Flag {
            slot,
            queued: AtomicBool::new(false),
            shared: Arc::clone(&self.shared),
        });
        let waker = Waker::from(Arc::clone(&flag));
        Handle { flag, waker }
    }

    /// Moves the slots that were woken to the end of `woken`. Costs one load where there are none.
    #[inline]
    pub(crate) fn drain_into(&self, woken: &mut VecDeque<usize>) {
        // A wake that this load misses is seen by `register`, under the lock.
        if self.shared.any.load(Ordering::Relaxed) {
            let mut queue = self.shared.lock();
            self.shared.any.store(false, Ordering::Relaxed);
            woken.extend(queue.slots.drain(..));
        }
    }

    /// Has the next wake wake `task`. If slots are queued already, it is woken now.
    pub(crate) fn register(&self, task: &Waker) {
        let mut queue = self.shared.lock();
        if !queue.slots.is_empty() {
            drop(queue);
            task.wake_by_ref();
        } else if !queue
            .task
            .as_ref()
            .is_some_and(|registered| registered.will_wake(task))
        {
            let replaced = queue.task.replace(task.clone());
            // Dropping a waker may drop a task, and with it what wakes services: not under the lock.
            drop(queue);
            drop(replaced);
        }
    }
}

/// Services may be outlived by their wakers. These shouldn't keep the task alive.
impl Drop for Wakes {
    fn drop(&mut self) {
        let task = self.shared.lock().task.take();
        drop(task);
    }
}

impl Handle {
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Lets the service be queued again. Called before it is polled, never after: a wake during the
    /// poll must count.
    #[inline]
    pub(crate) fn unqueue(&self) {
        // Most polls follow a call and not a wake; the load spares them the exchange, which is half of
        // what such a poll costs. A wake that it misses has queued the slot for another poll.
        if self.flag.queued.load(Ordering::Relaxed) {
            // Acquires what the wakers that found the slot queued did before: they rely on the coming poll.
            self.flag.queued.swap(false, Ordering::AcqRel);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that could leave the queue in disorder panics under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.shared.lock();
        queue.slots.push(self.slot);
        self.shared.any.store(true, Ordering::Relaxed);
        // Taken: the task that is woken registers again, should it sleep again.
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;

    fn drain(wakes: &Wakes) -> Vec<usize> {
        let mut woken = VecDeque::new();
        wakes.drain_into(&mut woken);
        woken.into()
    }

    #[test]
    fn a_slot_is_queued_once_until_it_is_unqueued() {
        let wakes = Wakes::new();
        let (three, five) = (wakes.handle(3), wakes.handle(5));
        three.waker().wake_by_ref();
        five.waker().wake_by_ref();
        three.waker().wake_by_ref();
        assert_eq!(drain(&wakes), [3, 5]);

        three.waker().wake_by_ref();
        assert_eq!(drain(&wakes), [0; 0], "it was not polled yet");
        three.unqueue();
        three.waker().wake_by_ref();
        assert_eq!(drain(&wakes), [3]);
    }

    #[test]
    fn registering_with_slots_queued_wakes_at_once() {
        let mut task = tokio_test::task::spawn(());
        let wakes = Wakes::new();
        wakes.handle(0).waker().wake_by_ref();
        task.enter(|cx, _| wakes.register(cx.waker()));
        assert!(task.is_woken());
    }

    #[test]
    fn a_dropped_cache_lets_go_of_the_task() {
        let mut task = tokio_test::task::spawn(());
        let wakes = Wakes::new();
        let handle = wakes.handle(0);
        task.enter(|cx, _| wakes.register(cx.waker()));
        assert_eq!(task.waker_ref_count(), 2);
        drop(wakes);
        assert_eq!(task.waker_ref_count(), 1);
        handle.waker().wake_by_ref();
        assert!(!task.is_woken());
    }
}

#[cfg(all(test, tower_loom))]
mod loom_tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    use loom::sync::atomic::AtomicUsize;
    use loom::{future::block_on, thread};

    /// Bounded, as three threads take minutes otherwise. Almost every bug shows within three preemptions.
    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    // What stands for the readiness of services is written and read relaxed, so that only the protocol
    // under test makes a change visible to the poll that follows a wake. A lost wake hangs the model,
    // which loom reports.

    #[test]
    fn loom_no_wake_of_two_services_is_lost() {
        check(|| {
            let wakes = Wakes::new();
            let handles = [wakes.handle(0), wakes.handle(1)];
            let ready = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            for slot in 0..2 {
                let waker = handles[slot].waker().clone();
                let ready = Arc::clone(&ready);
                thread::spawn(move || {
                    ready[slot].store(1, Ordering::Relaxed);
                    waker.wake();
                });
            }

            let mut woken = VecDeque::new();
            let mut seen = [0, 0];
            block_on(poll_fn(|cx| {
                wakes.drain_into(&mut woken);
                for slot in woken.drain(..) {
                    handles[slot].unqueue();
                    seen[slot] = ready[slot].load(Ordering::Relaxed);
                }
                if seen == [1, 1] {
                    return Poll::Ready(());
                }
                wakes.register(cx.waker());
                Poll::Pending
            }));
        });
    }

    #[test]
    fn loom_a_wake_during_the_poll_counts() {
        check(|| {
            let wakes = Wakes::new();
            let handle = wakes.handle(0);
            let ready = Arc::new(AtomicUsize::new(0));
            let waker = handle.waker().clone();
            let setter = Arc::clone(&ready);
            thread::spawn(move || {
                for _ in 0..2 {
                    setter.fetch_add(1, Ordering::Relaxed);
                    waker.wake_by_ref();
                }
            });

            let mut woken = VecDeque::new();
            let mut seen = 0;
            block_on(poll_fn(|cx| {
                wakes.drain_into(&mut woken);
                for _ in woken.drain(..) {
                    handle.unqueue();
                    seen = ready.load(Ordering::Relaxed);
                }
                if seen == 2 {
                    return Poll::Ready(());
                }
                wakes.register(cx.waker());
                Poll::Pending
            }));
        });
    }
}
