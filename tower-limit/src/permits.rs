//! A pool of permits, taken by one atomic operation and waited for in a fair queue.
//!
//! One word holds the number of free permits and whether anybody waits. While nobody does, taking and
//! releasing are a compare-and-swap each. Once somebody waits, there are no free permits, and every
//! release goes through the queue: it hands its permit to the waiter at the front, so that nobody can
//! snatch it and the queue is served in order.
//!
//! A waiter is in the queue under a ticket. That its ticket is gone is how it learns that it has been given
//! a permit, so there is nothing else to keep in step.
//!
//! A permit may outlive every handle of its pool. Were the pool in an `Arc`, each permit would have to
//! clone it, which costs as much again as taking and releasing the permit (14 of 30 ns). But the pool
//! knows how many permits are out without another count. So pools are in slots that live for ever: when
//! its last handle is gone and its last permit is back, a slot goes to a list, for the next pool to use.

#[cfg(tower_loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::PoisonError;
#[cfg(not(tower_loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
use std::task::{Context, Poll, Waker};

/// A handle of a pool of permits; clones share the pool.
pub(crate) struct Permits {
    slot: &'static Slot,
}

/// One permit, given back when dropped.
pub(crate) struct Permit {
    slot: &'static Slot,
}

/// A permit that is given back by [`release`](Self::release) only, so that it has no code for its drop.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    slot: &'static Slot,
}

/// A place in the queue, given up when dropped. If it holds a permit by then, that is passed on.
pub(crate) struct Waiter {
    permits: Permits,
    /// `None` once the permit has been taken out.
    ticket: Option<u64>,
}

/// Where a pool is.
struct Slot {
    /// Twice the number of free permits, plus [`QUEUED`] while releases have to go through the queue; then
    /// none is free.
    ///
    /// `QUEUED` is set and cleared under the lock of the queue.
    state: AtomicUsize,
    handles: AtomicUsize,
    queue: Mutex<Queue>,
}

struct Queue {
    max: usize,
    next_ticket: u64,
    /// Who waits, in order of arrival.
    waiting: BTreeMap<u64, Waker>,
    /// Once no handle is left: how many permits are still out.
    retiring: Option<usize>,
}

const QUEUED: usize = 1;
const ONE: usize = 2;

impl Permits {
    /// The most permits that a pool can have: more than there can be requests in flight.
    pub(crate) const MAX: usize = usize::MAX / ONE;

    /// Makes a pool of `max` permits, or of [`Self::MAX`] if that is less.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slot: Slot::new(max.min(Self::MAX)),
        }
    }

    /// Takes a permit if one is free, which none is while somebody waits.
    #[inline]
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.slot.try_take()
    }

    /// Takes a permit if one is free, or else a place in the queue.
    pub(crate) fn acquire(&self, cx: &mut Context<'_>) -> Result<Permit, Waiter> {
        // Foreign code, that may panic: not under the lock, nor after the flag is set, which promises a waiter.
        let waker = cx.waker().clone();
        let mut queue = self.slot.lock();
        loop {
            if let Some(permit) = self.slot.try_take() {
                return Ok(permit);
            }
            // A permit may come back between the two. Once the flag is set it can't any more: its
            // release then waits for the lock that we hold.
            match self
                .slot
                .state
                .compare_exchange(0, QUEUED, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) | Err(QUEUED) => break,
                Err(_) => {}
            }
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.insert(ticket, waker);
        Err(Waiter {
            permits: self.clone(),
            ticket: Some(ticket),
        })
    }

    fn available(&self) -> usize {
        self.slot.state.load(Ordering::Relaxed) / ONE
    }
}

impl Clone for Permits {
    fn clone(&self) -> Self {
        self.slot.handles.fetch_add(1, Ordering::Relaxed);
        Self { slot: self.slot }
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        // As in `Arc`: what was done through the other handles has happened before the slot retires.
        if self.slot.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.slot.retire();
        }
    }
}

impl Waiter {
    /// Whether the permit has come. It is ready once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Permit> {
        let slot = self.permits.slot;
        let Some(ticket) = self.ticket else {
            return Poll::Pending;
        };
        let replaced = {
            let mut queue = slot.lock();
            match queue.waiting.get_mut(&ticket) {
                None => None,
                Some(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
                Some(waker) => Some(mem::replace(waker, cx.waker().clone())),
            }
        };
        if replaced.is_some() {
            // The waker is dropped here, after the lock is let go: that may run anything, too.
            return Poll::Pending;
        }
        self.ticket = None;
        Poll::Ready(Permit { slot })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let slot = self.permits.slot;
        let waker = slot.lock().leave(ticket, &slot.state);
        if waker.is_none() {
            slot.release();
        }
    }
}

impl Permit {
    /// Makes it the holder's to give back.
    #[inline]
    pub(crate) fn hold(self) -> Held {
        let slot = self.slot;
        mem::forget(self);
        Held { slot }
    }
}

impl Held {
    #[inline]
    pub(crate) fn release(self) {
        self.slot.release();
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.slot.release();
    }
}

impl Slot {
    /// Makes a pool, in a slot that no pool uses any more if there is one.
    fn new(max: usize) -> &'static Self {
        let slot = slots::reuse().unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                state: AtomicUsize::new(0),
                handles: AtomicUsize::new(0),
                queue: Mutex::new(Queue {
                    max: 0,
                    next_ticket: 0,
                    waiting: BTreeMap::new(),
                    retiring: None,
                }),
            }))
        });
        {
            let mut queue = slot.lock();
            queue.max = max;
            queue.retiring = None;
        }
        slot.handles.store(1, Ordering::Relaxed);
        slot.state.store(max * ONE, Ordering::Relaxed);
        slot
    }

    #[inline]
    fn try_take(&'static self) -> Option<Permit> {
        let mut state = self.state.load(Ordering::Relaxed);
        while state >= ONE {
            // Acquire: what was done under the permit's last holder has happened before us.
            match self.state.compare_exchange_weak(
                state,
                state - ONE,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Permit { slot: self }),
                Err(now) => state = now,
            }
        }
        None
    }

    #[inline]
    fn release(&'static self) {
        let state = self.state.load(Ordering::Relaxed);
        let released = state & QUEUED == 0
            && self
                .state
                .compare_exchange(
                    state,
                    state.wrapping_add(ONE),
                    Ordering::Release,
                    Ordering::Relaxed,
                )
                .is_ok();
        if !released {
            self.release_contended();
        }
    }

    #[cold]
    fn release_contended(&'static self) {
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

    /// Gives a permit to whoever waits longest, or notes that it has come back to a pool that retires. If
    /// the permit is to be released as ever, says `false`.
    fn hand_over(&'static self) -> bool {
        let mut queue = self.lock();
        let waker = match (queue.waiting.first_key_value(), queue.retiring) {
            (Some((&ticket, _)), _) => queue.leave(ticket, &self.state),
            (None, Some(out)) => {
                queue.retiring = Some(out - 1);
                None
            }
            (None, None) => return false,
        };
        let is_retired = queue.retiring == Some(0);
        drop(queue);
        // After the lock is let go: a waker may run anything, a release of another permit too.
        if let Some(waker) = waker {
            waker.wake();
        }
        if is_retired {
            slots::recycle(self);
        }
        true
    }

    /// Takes leave of the last handle. Nobody waits any more, nor takes permits.
    #[cold]
    fn retire(&'static self) {
        let mut queue = self.lock();
        // The permits that are out come back through the queue. Acquire: the releases of the others
        // have happened before the slot is used again.
        let free = self.state.swap(QUEUED, Ordering::Acquire) / ONE;
        let out = queue.max - free;
        queue.retiring = Some(out);
        drop(queue);
        if out == 0 {
            slots::recycle(self);
        }
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

/// The slots that no pool uses. There are never more slots than there were pools at once.
#[cfg(not(tower_loom))]
mod slots {
    use super::{Mutex, PoisonError, Slot};

    static UNUSED: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

    pub(super) fn reuse() -> Option<&'static Slot> {
        UNUSED.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn recycle(slot: &'static Slot) {
        UNUSED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
    }
}

/// Under loom a slot can't outlive its model, so here it is only checked that each retires once.
#[cfg(tower_loom)]
mod slots {
    use super::{Ordering, Slot};

    pub(super) fn reuse() -> Option<&'static Slot> {
        None
    }

    pub(super) fn recycle(slot: &'static Slot) {
        assert_eq!(slot.handles.swap(usize::MAX, Ordering::Relaxed), 0);
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
mod tests;

#[cfg(all(test, tower_loom))]
mod loom_tests;
