//! A pool of permits, taken by one atomic operation and waited for in a fair queue.
//!
//! One word holds the number of free permits and whether anybody waits. While nobody does, taking and
//! releasing are a compare-and-swap each. Once somebody waits, there are no free permits, and every
//! release goes through the queue: it hands its permit to the waiter at the front, so that nobody can
//! snatch it and the queue is served in order.
//!
//! A waiter is in the queue under a ticket. That its ticket is gone is how it learns that it has been given
//! a permit, so there is nothing else to keep in step.

#[cfg(tower_loom)]
use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
#[cfg(not(tower_loom))]
use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
use std::task::{Context, Poll, Waker};

/// A pool of permits; clones share it.
#[derive(Clone)]
pub(crate) struct Permits {
    shared: Arc<Shared>,
}

/// One permit, given back when dropped.
pub(crate) struct Permit {
    shared: Arc<Shared>,
}

/// A place in the queue, given up when dropped. If it holds a permit by then, that is passed on.
pub(crate) struct Waiter {
    shared: Arc<Shared>,
    /// `None` once the permit has been taken out.
    ticket: Option<u64>,
}

struct Shared {
    /// Twice the number of free permits, plus [`QUEUED`] while somebody waits; then none is free.
    ///
    /// `QUEUED` is set and cleared under the lock of the queue.
    state: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next_ticket: u64,
    /// Who waits, in order of arrival.
    waiting: BTreeMap<u64, Waker>,
}

const QUEUED: usize = 1;
const ONE: usize = 2;

impl Permits {
    /// The most permits that a pool can have: more than there can be requests in flight.
    pub(crate) const MAX: usize = usize::MAX / ONE;

    /// Makes a pool of `max` permits, or of [`Self::MAX`] if that is less.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: AtomicUsize::new(max.min(Self::MAX) * ONE),
                queue: Mutex::new(Queue::default()),
            }),
        }
    }

    /// Takes a permit if one is free, which none is while somebody waits.
    #[inline]
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.shared.try_take().then(|| self.permit())
    }

    /// Takes a permit if one is free, or else a place in the queue.
    pub(crate) fn acquire(&self, cx: &mut Context<'_>) -> Result<Permit, Waiter> {
        let mut queue = self.shared.lock();
        loop {
            if self.shared.try_take() {
                return Ok(self.permit());
            }
            // A permit may come back between the two. Once the flag is set it can't any more: its
            // release then waits for the lock that we hold.
            match self.shared.state.compare_exchange(
                0,
                QUEUED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) | Err(QUEUED) => break,
                Err(_) => {}
            }
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.insert(ticket, cx.waker().clone());
        Err(Waiter {
            shared: self.shared.clone(),
            ticket: Some(ticket),
        })
    }

    #[inline]
    fn permit(&self) -> Permit {
        Permit {
            shared: self.shared.clone(),
        }
    }

    fn available(&self) -> usize {
        self.shared.state.load(Ordering::Relaxed) / ONE
    }
}

impl Waiter {
    /// Whether the permit has come. It is ready once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(ticket) = self.ticket else {
            return Poll::Pending;
        };
        let replaced = {
            let mut queue = self.shared.lock();
            match queue.waiting.get_mut(&ticket) {
                None => None,
                Some(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
                Some(waker) => Some(std::mem::replace(waker, cx.waker().clone())),
            }
        };
        if replaced.is_some() {
            // The waker is dropped here, after the lock is let go: that may run anything, too.
            return Poll::Pending;
        }
        self.ticket = None;
        Poll::Ready(Permit {
            shared: self.shared.clone(),
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let waker = self.shared.lock().leave(ticket, &self.shared.state);
        if waker.is_none() {
            self.shared.release();
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.shared.release();
    }
}

impl Shared {
    #[inline]
    fn try_take(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state >= ONE {
            // Acquire: what was done under the permit's last holder has happened before us.
            match self.state.compare_exchange_weak(
                state,
                state - ONE,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[inline]
    fn release(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & QUEUED != 0 {
                if self.hand_over() {
                    return;
                }
                // The queue has emptied meanwhile.
                state = self.state.load(Ordering::Relaxed);
                continue;
            }
            match self.state.compare_exchange_weak(
                state,
                state + ONE,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
    }

    /// Gives a permit to whoever waits longest, if anybody does.
    #[cold]
    fn hand_over(&self) -> bool {
        let waker = {
            let mut queue = self.lock();
            let Some((&ticket, _)) = queue.waiting.first_key_value() else {
                return false;
            };
            queue.leave(ticket, &self.state)
        };
        // Woken after the lock is let go: a waker may run anything, a release of another permit too.
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Only a waker's `clone` can panic under the lock, and leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes a waiter out, and says so in `state` if it was the last.
    fn leave(&mut self, ticket: u64, state: &AtomicUsize) -> Option<Waker> {
        let waker = self.waiting.remove(&ticket)?;
        if self.waiting.is_empty() {
            // While the flag is set, only the holder of the lock changes the state.
            state.store(0, Ordering::Relaxed);
        }
        Some(waker)
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use tokio_test::task;

    /// One who takes permits, on a mock task.
    struct Client {
        task: task::Spawn<()>,
        place: Place,
    }

    enum Place {
        Out,
        Waiting(Waiter),
        Holding(#[allow(dead_code, reason = "held, to be dropped")] Permit),
    }

    impl Client {
        fn new() -> Self {
            Self {
                task: task::spawn(()),
                place: Place::Out,
            }
        }

        fn poll(&mut self, permits: &Permits) -> bool {
            let Self { task, place } = self;
            task.enter(|cx, _| match place {
                Place::Holding(_) => {}
                Place::Out => {
                    *place = match permits.acquire(cx) {
                        Ok(permit) => Place::Holding(permit),
                        Err(waiter) => Place::Waiting(waiter),
                    }
                }
                Place::Waiting(waiter) => {
                    if let Poll::Ready(permit) = waiter.poll(cx) {
                        *place = Place::Holding(permit);
                    }
                }
            });
            matches!(self.place, Place::Holding(_))
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Poll(usize),
        Try(usize),
        Drop(usize),
    }

    /// The same rules, without any cleverness.
    struct Oracle {
        free: usize,
        queue: VecDeque<usize>,
        /// Holders, and waiters that a permit was passed to.
        granted: [bool; CLIENTS],
    }

    const CLIENTS: usize = 5;

    impl Oracle {
        fn take(&mut self, client: usize) -> bool {
            if !self.granted[client] && !self.queue.contains(&client) && self.free > 0 {
                self.free -= 1;
                self.granted[client] = true;
            }
            self.granted[client]
        }

        fn poll(&mut self, client: usize) -> bool {
            let granted = self.take(client);
            if !granted && !self.queue.contains(&client) {
                self.queue.push_back(client);
            }
            granted
        }

        fn drop(&mut self, client: usize) {
            self.queue.retain(|&other| other != client);
            if std::mem::take(&mut self.granted[client]) {
                match self.queue.pop_front() {
                    Some(next) => self.granted[next] = true,
                    None => self.free += 1,
                }
            }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..CLIENTS, 0..4_u8).prop_map(|(client, kind)| match kind {
            0 | 1 => Step::Poll(client),
            2 => Step::Try(client),
            _ => Step::Drop(client),
        });
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_oracle(max in 0..4_usize, steps in steps()) {
            let permits = Permits::new(max);
            let mut clients: [Client; CLIENTS] = std::array::from_fn(|_| Client::new());
            let mut oracle = Oracle { free: max, queue: VecDeque::new(), granted: [false; CLIENTS] };
            for step in steps {
                match step {
                    Step::Poll(i) => prop_assert_eq!(clients[i].poll(&permits), oracle.poll(i)),
                    Step::Try(i) => {
                        if let Place::Out = clients[i].place {
                            let permit = permits.try_acquire();
                            prop_assert_eq!(permit.is_some(), oracle.take(i));
                            if let Some(permit) = permit {
                                clients[i].place = Place::Holding(permit);
                            }
                        }
                    }
                    Step::Drop(i) => {
                        clients[i] = Client::new();
                        oracle.drop(i);
                    }
                }
                for (i, client) in clients.iter().enumerate() {
                    // A waiter that was given a permit has been told.
                    if let Place::Waiting(_) = client.place {
                        prop_assert_eq!(client.task.is_woken(), oracle.granted[i]);
                    }
                }
                prop_assert_eq!(permits.available(), oracle.free);
            }
        }
    }

    /// Releases a permit when it is woken, or dropped.
    struct Releases(Mutex<Option<Permit>>);

    impl std::task::Wake for Releases {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().take();
        }
    }

    #[test]
    fn a_waker_that_is_woken_may_release_a_permit_of_the_same_pool() {
        let permits = Permits::new(2);
        let first = permits.try_acquire().unwrap();
        let second = Mutex::new(permits.try_acquire());
        let waker = Waker::from(Arc::new(Releases(second)));
        let waiter = permits.acquire(&mut Context::from_waker(&waker));
        assert!(waiter.is_err());
        drop(first);
        assert_eq!(permits.available(), 1);
        drop(waiter);
        assert_eq!(permits.available(), 2);
    }

    #[test]
    fn a_waker_that_is_dropped_may_release_a_permit_of_the_same_pool() {
        let permits = Permits::new(1);
        let held = Mutex::new(permits.try_acquire());
        let waker = Waker::from(Arc::new(Releases(held)));
        let mut waiter = permits
            .acquire(&mut Context::from_waker(&waker))
            .unwrap_err();
        drop(waker);
        // The first poll replaces the waker, whose permit goes to the waiter itself.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiter.poll(&mut cx).is_pending());
        assert!(waiter.poll(&mut cx).is_ready());
    }

    #[test]
    fn the_greatest_limit_is_no_overflow() {
        let permits = Permits::new(usize::MAX);
        assert_eq!(permits.available(), Permits::MAX);
        drop(permits.try_acquire());
        assert_eq!(permits.available(), Permits::MAX);
    }
}

#[cfg(all(test, tower_loom))]
mod loom_tests {
    use super::*;
    use loom::future::block_on;
    use loom::sync::atomic::AtomicUsize as Counter;
    use loom::thread;
    use std::future::{Future, poll_fn};

    async fn acquire(permits: Permits) -> Permit {
        let mut waiter = None;
        poll_fn(|cx| match &mut waiter {
            None => match permits.acquire(cx) {
                Ok(permit) => Poll::Ready(permit),
                Err(new) => {
                    waiter = Some(new);
                    Poll::Pending
                }
            },
            Some(waiter) => waiter.poll(cx),
        })
        .await
    }

    /// Counts who is inside at once.
    fn enter(inside: &Counter, max: usize) {
        assert!(inside.fetch_add(1, Ordering::Relaxed) < max);
        inside.fetch_sub(1, Ordering::Relaxed);
    }

    #[test]
    fn loom_every_waiter_gets_its_permit_and_the_limit_holds() {
        loom::model(|| {
            let permits = Permits::new(1);
            let inside = Arc::new(Counter::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (permits, inside) = (permits.clone(), inside.clone());
                    thread::spawn(move || {
                        let _permit = block_on(acquire(permits));
                        enter(&inside, 1);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(permits.available(), 1);
        });
    }

    #[test]
    fn loom_what_one_holder_did_is_seen_by_the_next() {
        loom::model(|| {
            let permits = Permits::new(1);
            let cell = Arc::new(loom::cell::UnsafeCell::new(0));
            let other = {
                let (permits, cell) = (permits.clone(), cell.clone());
                thread::spawn(move || {
                    if let Some(_permit) = permits.try_acquire() {
                        // loom fails the model if the two accesses race.
                        cell.with_mut(|_| ());
                    }
                })
            };
            {
                let _permit = block_on(acquire(permits.clone()));
                cell.with_mut(|_| ());
            }
            other.join().unwrap();
        });
    }

    #[test]
    fn loom_a_waiter_that_leaves_passes_its_permit_on() {
        loom::model(|| {
            let permits = Permits::new(1);
            let held = permits.try_acquire().unwrap();
            let leaver = {
                let mut cx = Context::from_waker(Waker::noop());
                permits.acquire(&mut cx).unwrap_err()
            };
            let release = thread::spawn(move || drop(held));
            // The permit comes by way of the queue's front, or straight to those behind it.
            let mut behind = Box::pin(acquire(permits.clone()));
            let mut cx = Context::from_waker(Waker::noop());
            let early = behind.as_mut().poll(&mut cx);
            drop(leaver);
            match early {
                Poll::Ready(permit) => drop(permit),
                Poll::Pending => drop(block_on(behind)),
            }
            release.join().unwrap();
            assert_eq!(permits.available(), 1);
        });
    }
}
