//! How many may enter the queue, and in which order.
//!
//! A slot is reserved and freed with one atomic operation each, while nobody waits. Those that find none free wait
//! in line, and a slot that is freed is given to the first of them: nobody can snatch it.
//!
//! The count shares its word with flags, a few of them the queue's own. Every change of the word is a
//! read-modify-write, and those have one order. So whoever frees a slot learns in the same step whether somebody
//! waits for it, or has left something to be done; and whoever sets a flag can rely on that.

use std::task::{Poll, Waker, ready};

use crate::fifo::{Fifo, Key};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// Callers wait for a slot.
const WAITING: usize = 1;
/// There are no more slots to be had.
pub(crate) const CLOSED: usize = 1 << 1;
/// For the queue: there are messages, so that callers must queue behind them.
pub(crate) const QUEUED: usize = 1 << 2;
/// For the queue: its worker hasn't been polled yet.
pub(crate) const UNSTARTED: usize = 1 << 3;
/// For the queue: its worker is serving what is queued.
pub(crate) const SERVING: usize = 1 << 4;
/// No more slots are given, but what has entered the queue is served.
pub(crate) const DRAINING: usize = 1 << 5;
/// One slot. The count of those that are taken fills the rest of the word.
const SLOT: usize = 1 << 6;

/// The highest bound, which keeps the count from reaching the end of the word.
const MAX_BOUND: usize = usize::MAX / SLOT / 2;

pub(crate) struct Slots {
    word: AtomicUsize,
    bound: usize,
    /// How many may be in flight, from the reservation of a slot to the end of the response.
    limit: Option<usize>,
    line: Mutex<Line>,
}

struct Line {
    waiters: Fifo<Waiter>,
    /// Counted only if there is a limit.
    in_flight: usize,
}

enum Waiter {
    Waiting(Waker),
    /// Out of the line, with a slot.
    Granted,
    /// Out of the line, as there will be no slot.
    Dismissed,
}

/// What one caller has of the slots. It must be given back, unless it is `None`.
#[derive(Debug)]
pub(crate) enum Reservation {
    None,
    Waiting(Key),
    Held,
}

/// A flag that is set.
pub(crate) struct Raised<'a> {
    slots: &'a Slots,
    flag: usize,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.slots.clear(self.flag);
    }
}

impl Slots {
    pub(crate) fn new(bound: usize, limit: Option<usize>, flags: usize) -> Self {
        Self {
            word: AtomicUsize::new(flags),
            bound: bound.clamp(1, MAX_BOUND),
            limit: limit.map(|limit| limit.max(1)),
            line: Mutex::new(Line {
                waiters: Fifo::new(),
                in_flight: 0,
            }),
        }
    }

    /// The flags that are set, among other things.
    #[inline]
    pub(crate) fn flags(&self) -> usize {
        self.word.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.flags() & CLOSED != 0
    }

    /// Whether there are no more slots to be had: closed, or to be so once the queue is empty.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.flags() & (CLOSED | DRAINING) != 0
    }

    pub(crate) fn set(&self, flag: usize) {
        self.word.fetch_or(flag, Ordering::AcqRel);
    }

    pub(crate) fn clear(&self, flag: usize) {
        self.word.fetch_and(!flag, Ordering::AcqRel);
    }

    /// Sets a flag until what is returned is dropped.
    pub(crate) fn set_while(&self, flag: usize) -> Raised<'_> {
        self.set(flag);
        Raised { slots: self, flag }
    }

    pub(crate) fn limits_flight(&self) -> bool {
        self.limit.is_some()
    }

    /// Ready when `reservation` is held, or when the slots are closed.
    #[inline]
    pub(crate) fn poll_reserve(&self, reservation: &mut Reservation, waker: &Waker) -> Poll<()> {
        match reservation {
            Reservation::Held => {}
            Reservation::None if self.try_reserve() => *reservation = Reservation::Held,
            _ => return self.poll_wait(reservation, waker),
        }
        Poll::Ready(())
    }

    /// Uses up what was reserved, or takes a slot that is free. Says whether there was one.
    #[inline]
    pub(crate) fn take(&self, reservation: &mut Reservation) -> bool {
        match std::mem::replace(reservation, Reservation::None) {
            Reservation::Held => true,
            Reservation::None => self.try_reserve(),
            Reservation::Waiting(key) => self.stop_waiting(key) || self.try_reserve(),
        }
    }

    /// Gives back a reservation that isn't used.
    pub(crate) fn give_back(&self, reservation: &mut Reservation) {
        let held = match std::mem::replace(reservation, Reservation::None) {
            Reservation::None => false,
            Reservation::Waiting(key) => self.stop_waiting(key),
            Reservation::Held => true,
        };
        if held {
            self.free();
            self.end_flight();
        }
    }

    /// Takes a slot, if one is free and nobody waits for it.
    #[inline]
    fn try_reserve(&self) -> bool {
        if self.limit.is_some() {
            return self.claim(&mut lock(&self.line), 0);
        }
        let mut word = self.word.load(Ordering::Relaxed);
        while self.has_free(word) {
            match self.change(word, word + SLOT) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    fn has_free(&self, word: usize) -> bool {
        word & (WAITING | CLOSED | DRAINING) == 0 && word / SLOT < self.bound
    }

    #[inline]
    fn change(&self, old: usize, new: usize) -> Result<usize, usize> {
        self.word
            .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed)
    }

    /// Takes a slot, if one is free and nobody waits for it, else sets `flag`: in one step, so that whoever
    /// frees a slot next sees it.
    fn claim(&self, line: &mut Line, flag: usize) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = self.has_free(word) && !self.is_full(line);
            let next = if free { word + SLOT } else { word | flag };
            match self.change(word, next) {
                Ok(_) => {
                    self.begin_flight(line, free);
                    return free;
                }
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn poll_wait(&self, reservation: &mut Reservation, waker: &Waker) -> Poll<()> {
        *reservation = match *reservation {
            Reservation::Waiting(key) if ready!(self.poll_waiter(key, waker)) => Reservation::Held,
            Reservation::Waiting(_) => Reservation::None,
            _ => self.reserve_or_wait(waker.clone()),
        };
        match reservation {
            Reservation::Waiting(_) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn reserve_or_wait(&self, waker: Waker) -> Reservation {
        let mut line = lock(&self.line);
        if self.is_shut() {
            return Reservation::None;
        }
        if self.claim(&mut line, WAITING) {
            return Reservation::Held;
        }
        Reservation::Waiting(line.waiters.push_back(Waiter::Waiting(waker)))
    }

    /// Says whether a waiter got a slot, once that is decided.
    fn poll_waiter(&self, key: Key, waker: &Waker) -> Poll<bool> {
        let mut line = lock(&self.line);
        let old = match line.waiters.get_mut(key) {
            Some(Waiter::Waiting(current)) if current.will_wake(waker) => return Poll::Pending,
            Some(Waiter::Waiting(current)) => std::mem::replace(current, waker.clone()),
            _ => {
                let waiter = line.waiters.remove(key);
                return Poll::Ready(matches!(waiter, Some(Waiter::Granted)));
            }
        };
        drop(line);
        // Foreign code, as are all wakers: not under the lock.
        drop(old);
        Poll::Pending
    }

    /// Takes a waiter out of the line. Says whether it had got a slot.
    #[cold]
    fn stop_waiting(&self, key: Key) -> bool {
        let mut line = lock(&self.line);
        let waiter = line.waiters.remove(key);
        self.clear_waiting(&line);
        drop(line);
        matches!(waiter, Some(Waiter::Granted))
    }

    /// Frees a slot, and gives the flags as they were.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        let word = self.word.fetch_sub(SLOT, Ordering::AcqRel);
        if word & WAITING != 0 {
            self.grant_and_wake();
        }
        word
    }

    /// Frees a slot, for a caller that has to unlock something before it may wake.
    #[must_use]
    pub(crate) fn free_without_waking(&self) -> Option<Waker> {
        let word = self.word.fetch_sub(SLOT, Ordering::AcqRel);
        if word & WAITING == 0 {
            return None;
        }
        self.grant(&mut lock(&self.line))
    }

    #[cold]
    fn grant_and_wake(&self) {
        let granted = self.grant(&mut lock(&self.line));
        if let Some(waker) = granted {
            waker.wake();
        }
    }

    /// Gives a free slot to the first in the line. Called once for each slot that was freed, and for each end of
    /// a flight.
    fn grant(&self, line: &mut Line) -> Option<Waker> {
        let free = self.word.load(Ordering::Acquire) / SLOT < self.bound && !self.is_full(line);
        let key = line.waiters.front().filter(|_| free)?;
        // While somebody waits, slots are taken under the lock only. So the free one is so still.
        self.word.fetch_add(SLOT, Ordering::AcqRel);
        self.begin_flight(line, true);
        let waker = line.call_up(key, Waiter::Granted);
        self.clear_waiting(line);
        waker
    }

    fn clear_waiting(&self, line: &Line) {
        if line.waiters.len() == 0 {
            self.clear(WAITING);
        }
    }

    fn is_full(&self, line: &Line) -> bool {
        self.limit.is_some_and(|limit| line.in_flight >= limit)
    }

    fn begin_flight(&self, line: &mut Line, begins: bool) {
        if begins && self.limit.is_some() {
            line.in_flight += 1;
        }
    }

    /// Ends what began with a reservation.
    pub(crate) fn end_flight(&self) {
        if self.limit.is_none() {
            return;
        }
        let mut line = lock(&self.line);
        line.in_flight -= 1;
        let granted = self.grant(&mut line);
        drop(line);
        if let Some(waker) = granted {
            waker.wake();
        }
    }

    /// Gives no more slots, dismisses all that wait, and gives their wakers.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<Waker> {
        self.shut(CLOSED)
    }

    /// The same, for a queue that goes on until it is empty.
    #[must_use]
    pub(crate) fn drain(&self) -> Vec<Waker> {
        self.shut(DRAINING)
    }

    fn shut(&self, flag: usize) -> Vec<Waker> {
        let mut line = lock(&self.line);
        self.set(flag);
        let mut wakers = Vec::new();
        while let Some(key) = line.waiters.front() {
            wakers.extend(line.call_up(key, Waiter::Dismissed));
        }
        wakers
    }
}

impl Line {
    fn call_up(&mut self, key: Key, decided: Waiter) -> Option<Waker> {
        self.waiters.leave(key);
        match std::mem::replace(self.waiters.get_mut(key)?, decided) {
            Waiter::Waiting(waker) => Some(waker),
            Waiter::Granted | Waiter::Dismissed => None,
        }
    }
}

#[cfg(all(test, tower_loom))]
mod tests {
    use super::*;
    use crate::sync::model;
    use loom::future::block_on;
    use loom::thread;
    use std::future::poll_fn;
    use std::sync::Arc;

    /// Waits for a slot, and says whether it got one.
    fn reserve(slots: &Slots) -> bool {
        let mut reservation = Reservation::None;
        block_on(poll_fn(|cx| {
            slots.poll_reserve(&mut reservation, cx.waker())
        }));
        slots.take(&mut reservation)
    }

    #[test]
    fn loom_every_waiter_gets_its_turn() {
        model(2, || {
            let slots = Arc::new(Slots::new(1, None, 0));
            let threads = [(), ()].map(|()| {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    assert!(reserve(&slots));
                    slots.free();
                })
            });
            assert!(reserve(&slots));
            slots.free();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(slots.flags(), 0);
        });
    }

    #[test]
    fn loom_the_end_of_a_flight_wakes_a_waiter() {
        model(3, || {
            let slots = Arc::new(Slots::new(2, Some(1), 0));
            let other = Arc::clone(&slots);
            let thread = thread::spawn(move || {
                assert!(reserve(&other));
                other.free();
                other.end_flight();
            });
            assert!(reserve(&slots));
            slots.free();
            slots.end_flight();
            thread.join().unwrap();
            assert_eq!(slots.flags(), 0);
        });
    }

    #[test]
    fn loom_a_waiter_that_leaves_passes_its_slot_on() {
        model(3, || {
            let slots = Arc::new(Slots::new(1, None, 0));
            assert!(slots.try_reserve());
            let mut leaver = Reservation::None;
            let noop = Waker::noop();
            assert!(slots.poll_reserve(&mut leaver, noop).is_pending());
            let other = Arc::clone(&slots);
            let freeing = thread::spawn(move || {
                other.free();
            });
            let other = Arc::clone(&slots);
            let leaving = thread::spawn(move || other.give_back(&mut leaver));
            assert!(reserve(&slots));
            slots.free();
            freeing.join().unwrap();
            leaving.join().unwrap();
            assert_eq!(slots.flags(), 0);
        });
    }

    #[test]
    fn loom_closing_wakes_those_that_wait() {
        model(3, || {
            let slots = Arc::new(Slots::new(1, None, 0));
            assert!(slots.try_reserve());
            let other = Arc::clone(&slots);
            let thread = thread::spawn(move || assert!(!reserve(&other)));
            for waker in slots.close() {
                waker.wake();
            }
            thread.join().unwrap();
            assert!(!reserve(&slots));
        });
    }
}
