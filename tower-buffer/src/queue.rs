//! The queue that all handles of a buffer share: who may enter it, who serves it, who waits.
//!
//! Three things are synchronised, each in the way that its users need:
//!
//! - `word` counts the slots that are taken, and has flags that say which slow path has to be taken. Reserving
//!   a slot and freeing one is a single atomic operation each while nobody waits.
//! - `slot` has the service. It is only ever *tried*: whoever finds it locked, queues. So it may stay
//!   locked while the service's own code runs, and a service that calls its own buffer queues instead of
//!   deadlocking.
//! - `state` has the messages and the waiting callers. No foreign code runs under it: wakers are woken and
//!   requests dropped after it is unlocked. It may be locked under `slot`, never the other way round.
//!
//! A caller that finds the queue empty and the service free calls it right there. All others queue, and are
//! served by the worker: a caller never serves another one, whose request would then see its task locals,
//! its tracing span and its delay.
//!
//! No wake is lost, because every change of `word` is a read-modify-write, and these have one order. Whoever
//! makes the queue non-empty sets `QUEUED` and wakes the worker. If the worker then finds `slot` locked,
//! the caller that holds it has yet to free its slot in `word`, and sees `QUEUED` when it does: it
//! wakes the worker again. `WAITING` and `CLOSED` work in the same way.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::{EnterGuard, Handle};
use tokio::task;
use tracing::Span;

use crate::fifo::{Fifo, Key};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock, try_lock};
use crate::{AtCapacity, BoxError, Closed, NoRuntime, ServiceError};

/// There are messages, so that callers must queue behind them.
const QUEUED: usize = 1;
/// Callers wait for a slot, which nobody may snatch from them.
const WAITING: usize = 1 << 1;
/// The queue takes no more messages.
const CLOSED: usize = 1 << 2;
/// The worker hasn't been polled yet, so that nobody knows on which runtime the service belongs.
const UNSTARTED: usize = 1 << 3;
/// One slot. The count of those that are taken fills the rest of the word.
const SLOT: usize = 1 << 4;

/// The highest bound. It keeps the count from reaching the end of the word.
const MAX_BOUND: usize = usize::MAX / SLOT / 2;

/// How many messages the worker serves before it lets other tasks run.
const TURNS: usize = 1024;

/// How often a caller looks whether another one has done with the service, before it queues. It waits
/// twice as long each time: the other is faster if nobody takes its cache line away.
const ROUNDS: u32 = if cfg!(tower_loom) { 1 } else { 8 };

/// A service behind the queue, which never panics.
pub(crate) trait Serve<Req, F>: Send {
    /// Calls the service with `req`, if it is ready.
    fn serve(&mut self, req: Req, cx: &mut Context<'_>) -> Served<Req, F>;
}

pub(crate) enum Served<Req, F> {
    /// It was called.
    Called(F),
    /// It isn't ready, and will wake the task.
    Pending(Req),
    /// The request failed. The service can be used again.
    Refused(ServiceError),
    /// The request failed, and the service for good.
    Broken(ServiceError),
}

/// Why a queue takes no more messages.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Service(ServiceError),
    Closed,
    NoRuntime,
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Service(error) => error.into(),
            Failure::Closed => Closed.into(),
            Failure::NoRuntime => NoRuntime.into(),
        }
    }
}

pub(crate) struct Queue<Req, F> {
    front: Front<Req, F>,
    bound: usize,
    /// How many requests may be in flight, from the reservation to the end of the response.
    limit: Option<usize>,
    callers: AtomicUsize,
    state: Mutex<State<Req, F>>,
    alarm: Arc<Alarm>,
}

/// What a call touches that needn't wait, in one cache line.
#[repr(align(64))]
struct Front<Req, F> {
    /// Flags, and the count of taken slots: those that are reserved, and those of the messages behind the
    /// first one. (The first message is in the worker's hands, not in the queue.)
    word: AtomicUsize,
    slot: Mutex<Slot<Req, F>>,
}

/// Where the service is served.
struct Slot<Req, F> {
    /// Gone when the queue is closed.
    service: Option<Box<dyn Serve<Req, F>>>,
    /// The worker's runtime: what the service spawns belongs there, whoever calls it.
    runtime: Option<Handle>,
    /// Wakes the worker, through the alarm.
    waker: Waker,
}

struct State<Req, F> {
    /// Why the queue is closed, if it is.
    failure: Option<Failure>,
    messages: Fifo<Message<Req, F>>,
    waiters: Fifo<Waiter>,
    /// Counted only if there is a limit.
    in_flight: usize,
}

struct Message<Req, F> {
    stage: Stage<Req, F>,
    /// The task that waits for the answer.
    waker: Option<Waker>,
}

enum Stage<Req, F> {
    Queued(Req, Span),
    /// First in the line, its request in the worker's hands.
    Serving,
    /// The same, but the caller has left.
    Abandoned,
    /// Out of the line.
    Answered(Result<F, Failure>),
}

enum Waiter {
    Waiting(Waker),
    /// Has a slot. Out of the line.
    Granted,
    /// Was woken because the queue is closed. Out of the line.
    Dismissed,
}

type Answer<F> = (Key, Result<F, Failure>);

impl<Req, F> State<Req, F> {
    /// Takes the request out of the first message, which stays in the line.
    fn take_front(&mut self) -> Option<(Key, Req, Span)> {
        let key = self.messages.front()?;
        let stage = &mut self.messages.get_mut(key)?.stage;
        match std::mem::replace(stage, Stage::Serving) {
            Stage::Queued(req, span) => Some((key, req, span)),
            other => {
                *stage = other;
                None
            }
        }
    }
}

/// The worker's task, to be woken from anywhere.
struct Alarm {
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    fn set(&self, waker: &Waker) {
        let old = {
            let mut current = lock(&self.waker);
            if current.as_ref().is_some_and(|w| w.will_wake(waker)) {
                return;
            }
            current.replace(waker.clone())
        };
        drop(old);
    }

    fn ring(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn clear(&self) {
        let waker = lock(&self.waker).take();
        drop(waker);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What closing leaves to be done outside of the lock.
struct Wreck<Req> {
    wakers: Vec<Waker>,
    requests: Vec<(Req, Span)>,
}

impl<Req, F> Queue<Req, F> {
    pub(crate) fn new(
        service: Box<dyn Serve<Req, F>>,
        bound: usize,
        limit: Option<usize>,
    ) -> Arc<Self> {
        let alarm = Arc::new(Alarm {
            waker: Mutex::new(None),
        });
        let slot = Slot {
            service: Some(service),
            runtime: None,
            waker: Waker::from(Arc::clone(&alarm)),
        };
        Arc::new(Self {
            front: Front {
                word: AtomicUsize::new(UNSTARTED),
                slot: Mutex::new(slot),
            },
            bound: bound.clamp(1, MAX_BOUND),
            limit: limit.map(|limit| limit.max(1)),
            callers: AtomicUsize::new(0),
            state: Mutex::new(State {
                failure: None,
                messages: Fifo::new(),
                waiters: Fifo::new(),
                in_flight: 0,
            }),
            alarm,
        })
    }

    // --- Reserving and freeing slots.

    /// Takes a slot, if one is free and nobody waits for it.
    #[inline]
    fn try_reserve(&self) -> bool {
        if self.limit.is_some() {
            return self.claim(&mut lock(&self.state), false);
        }
        let mut word = self.front.word.load(Ordering::Relaxed);
        while word & (WAITING | CLOSED) == 0 && word / SLOT < self.bound {
            let taken = self.front.word.compare_exchange_weak(
                word,
                word + SLOT,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a slot, or gets in line for one.
    #[cold]
    fn reserve_or_wait(&self, waker: &Waker) -> Result<Reservation, Failure> {
        let waker = waker.clone();
        let mut state = lock(&self.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if self.claim(&mut state, true) {
            return Ok(Reservation::Held);
        }
        Ok(Reservation::Waiting(
            state.waiters.push_back(Waiter::Waiting(waker)),
        ))
    }

    /// Takes a slot, if one is free and nobody waits for it; else says that somebody waits, if `wait`.
    fn claim(&self, state: &mut State<Req, F>, wait: bool) -> bool {
        let full = self.limit.is_some_and(|limit| state.in_flight >= limit);
        let mut word = self.front.word.load(Ordering::Relaxed);
        loop {
            let free = !full && word & (WAITING | CLOSED) == 0 && word / SLOT < self.bound;
            let next = match (free, wait) {
                (true, _) => word + SLOT,
                (false, true) => word | WAITING,
                (false, false) => return false,
            };
            match self.front.word.compare_exchange_weak(
                word,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.count_in_flight(state, free);
                    return free;
                }
                Err(now) => word = now,
            }
        }
    }

    fn count_in_flight(&self, state: &mut State<Req, F>, one: bool) {
        if one && self.limit.is_some() {
            state.in_flight += 1;
        }
    }

    /// Gives a free slot to the first caller in the line. Called once for each slot that was freed.
    fn grant(&self, state: &mut State<Req, F>) -> Option<Waker> {
        let word = self.front.word.load(Ordering::Acquire);
        let full = self.limit.is_some_and(|limit| state.in_flight >= limit);
        if word & WAITING == 0 || word / SLOT >= self.bound || full {
            return None;
        }
        let mut waker = None;
        if let Some(key) = state.waiters.front() {
            // Under `WAITING` slots are taken under the lock only, so the one that we saw is still free.
            self.front.word.fetch_add(SLOT, Ordering::AcqRel);
            self.count_in_flight(state, true);
            state.waiters.leave(key);
            let waiter = state.waiters.get_mut(key);
            if let Some(Waiter::Waiting(w)) = waiter.map(|w| std::mem::replace(w, Waiter::Granted))
            {
                waker = Some(w);
            }
        }
        self.clear_waiting(state);
        waker
    }

    fn clear_waiting(&self, state: &mut State<Req, F>) {
        if state.waiters.len() == 0 {
            self.front.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }

    /// Frees a slot, and gives the word as it was before.
    #[inline]
    fn free_slot(&self) -> usize {
        let word = self.front.word.fetch_sub(SLOT, Ordering::AcqRel);
        if word & WAITING != 0 {
            self.grant_and_wake();
        }
        word
    }

    #[cold]
    fn grant_and_wake(&self) {
        let granted = self.grant(&mut lock(&self.state));
        wake(granted);
    }

    /// Gives back what a caller reserved and didn't use.
    fn free_reservation(&self) {
        self.free_slot();
        if self.limit.is_some() {
            self.end_flight();
        }
    }

    #[cold]
    fn end_flight(&self) {
        let mut state = lock(&self.state);
        state.in_flight -= 1;
        let granted = self.grant(&mut state);
        drop(state);
        wake(granted);
    }

    /// Says whether a waiting caller got a slot, or learns where to find it otherwise.
    fn poll_waiter(&self, key: Key, waker: &Waker) -> Poll<()> {
        let mut state = lock(&self.state);
        let old = match state.waiters.get_mut(key) {
            Some(Waiter::Waiting(current)) if current.will_wake(waker) => return Poll::Pending,
            Some(Waiter::Waiting(current)) => std::mem::replace(current, waker.clone()),
            _ => {
                state.waiters.remove(key);
                return Poll::Ready(());
            }
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// Takes a caller out of the line. Says whether it had got a slot.
    #[cold]
    fn stop_waiting(&self, key: Key) -> bool {
        let mut state = lock(&self.state);
        let waiter = state.waiters.remove(key);
        self.clear_waiting(&mut state);
        drop(state);
        matches!(waiter, Some(Waiter::Granted))
    }

    // --- Callers.

    /// Serves `req` right here, unless others come first or the service is busy.
    #[inline]
    fn serve_here(&self, req: Req, home: &mut Option<task::Id>) -> Result<Served<Req, F>, Req> {
        let word = self.front.word.load(Ordering::Acquire);
        if word & (QUEUED | CLOSED | UNSTARTED) != 0 {
            return Err(req);
        }
        let Some(mut slot) = self.wait_for_slot() else {
            return Err(req);
        };
        let Slot {
            service: Some(service),
            runtime,
            waker,
        } = &mut *slot
        else {
            return Err(req);
        };
        let served = {
            let _runtime = runtime
                .as_ref()
                .and_then(|runtime| come_home(runtime, home));
            service.serve(req, &mut Context::from_waker(waker))
        };
        if let Served::Broken(error) = served {
            return Ok(Served::Broken(self.break_down(slot, error)));
        }
        Ok(served)
    }

    /// Takes the service. If another caller has it, that is over sooner than a trip through the worker.
    #[inline]
    fn wait_for_slot(&self) -> Option<MutexGuard<'_, Slot<Req, F>>> {
        for round in 0..ROUNDS {
            if let Some(slot) = try_lock(&self.front.slot) {
                return Some(slot);
            }
            for _ in 0..1 << round {
                std::hint::spin_loop();
            }
        }
        None
    }

    /// Frees the slot of a caller that was served.
    #[inline]
    fn after_serving(&self) {
        let word = self.free_slot();
        if word & (QUEUED | CLOSED) != 0 {
            self.catch_up(word);
        }
    }

    /// Makes up for what others left undone because the service was busy.
    #[cold]
    fn catch_up(&self, word: usize) {
        if word & CLOSED != 0 {
            self.drop_service();
        }
        self.alarm.ring();
    }

    /// Puts `req` in the line. Its slot goes with it.
    #[cold]
    fn enqueue(&self, req: Req, polled: bool) -> Result<Key, Failure> {
        let span = Span::current();
        let mut state = lock(&self.state);
        if let Some(failure) = state.failure.clone() {
            drop(state);
            drop((req, span));
            let word = self.free_slot();
            self.catch_up(word);
            return Err(failure);
        }
        let key = state.messages.push_back(Message {
            stage: Stage::Queued(req, span),
            waker: None,
        });
        let mut granted = None;
        let first = state.messages.len() == 1;
        if first {
            self.front.word.fetch_or(QUEUED, Ordering::AcqRel);
            self.front.word.fetch_sub(SLOT, Ordering::AcqRel);
            granted = self.grant(&mut state);
        }
        drop(state);
        wake(granted);
        // If this caller held the service, the worker may have come in vain meanwhile.
        if first || polled {
            self.alarm.ring();
        }
        Ok(key)
    }

    /// Gives the answer to a message, or learns where to find its caller.
    fn poll_answer(&self, key: Key, waker: &Waker) -> Poll<Result<F, Failure>> {
        let mut state = lock(&self.state);
        let Some(message) = state.messages.get_mut(key) else {
            return Poll::Ready(Err(Failure::Closed));
        };
        if !matches!(message.stage, Stage::Answered(_)) {
            let old = match &mut message.waker {
                Some(current) if current.will_wake(waker) => None,
                current => current.replace(waker.clone()),
            };
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        let message = state.messages.remove(key);
        drop(state);
        match message.map(|message| message.stage) {
            Some(Stage::Answered(answer)) => Poll::Ready(answer),
            _ => Poll::Ready(Err(Failure::Closed)),
        }
    }

    /// Takes back a message whose caller has left, and frees its slot.
    #[cold]
    fn cancel(&self, key: Key) {
        let mut state = lock(&self.state);
        let mut granted = None;
        let mut message = None;
        let mut old = None;
        match state.messages.get_mut(key) {
            Some(Message {
                stage: stage @ Stage::Serving,
                waker,
            }) => {
                *stage = Stage::Abandoned;
                old = waker.take();
            }
            Some(Message {
                stage: Stage::Queued(..),
                ..
            }) => {
                granted = self.leave_line(&mut state, key);
                message = state.messages.remove(key);
            }
            _ => message = state.messages.remove(key),
        }
        let finished = state.messages.len() == 0 && self.callers.load(Ordering::Acquire) == 0;
        drop(state);
        drop((message, old));
        wake(granted);
        if finished {
            self.alarm.ring();
        }
    }

    /// Takes a message out of the line, and with it one slot: its own, or that of the one that is first now.
    fn leave_line(&self, state: &mut State<Req, F>, key: Key) -> Option<Waker> {
        state.messages.leave(key);
        if state.messages.len() == 0 {
            self.front.word.fetch_and(!QUEUED, Ordering::AcqRel);
            return None;
        }
        self.front.word.fetch_sub(SLOT, Ordering::AcqRel);
        self.grant(state)
    }

    // --- The worker.

    /// Serves what is queued, until the service isn't ready. Ready when there will be no more.
    pub(crate) fn work(&self, cx: &Context<'_>) -> Poll<()> {
        self.alarm.set(cx.waker());
        let Some(mut slot) = try_lock(&self.front.slot) else {
            // The caller that has it wakes this task when it is done.
            return self.poll_closed();
        };
        self.start(&mut slot);
        let mut answer = None;
        for turn in 0.. {
            let Some((key, req, span)) = self.turn(answer.take()) else {
                drop(slot);
                return self.poll_finished();
            };
            if turn == TURNS {
                self.put_back(key, req, span);
                break;
            }
            let Slot {
                service: Some(service),
                waker,
                ..
            } = &mut *slot
            else {
                self.put_back(key, req, span);
                drop(slot);
                return self.poll_closed();
            };
            let served = {
                let _entered = span.enter();
                service.serve(req, &mut Context::from_waker(waker))
            };
            answer = match served {
                Served::Called(future) => Some((key, Ok(future))),
                Served::Refused(error) => Some((key, Err(Failure::Service(error)))),
                Served::Pending(req) => {
                    if self.put_back(key, req, span) {
                        return Poll::Pending;
                    }
                    None
                }
                Served::Broken(error) => {
                    self.break_down(slot, error);
                    return Poll::Ready(());
                }
            };
        }
        drop(slot);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start(&self, slot: &mut Slot<Req, F>) {
        if self.front.word.load(Ordering::Relaxed) & UNSTARTED != 0 {
            slot.runtime = Handle::try_current().ok();
            self.front.word.fetch_and(!UNSTARTED, Ordering::AcqRel);
        }
    }

    /// Answers a message, and takes the next one from the line.
    fn turn(&self, answer: Option<Answer<F>>) -> Option<(Key, Req, Span)> {
        let mut state = lock(&self.state);
        let mut granted = None;
        let mut waker = None;
        let mut unwanted = None;
        if let Some((key, result)) = answer {
            granted = self.leave_line(&mut state, key);
            match state.messages.get_mut(key) {
                Some(message) if matches!(message.stage, Stage::Serving) => {
                    message.stage = Stage::Answered(result);
                    waker = message.waker.take();
                }
                _ => unwanted = Some((state.messages.remove(key), result)),
            }
        }
        let next = state.take_front();
        drop(state);
        drop(unwanted);
        wake(waker);
        wake(granted);
        next
    }

    /// Puts a request back that couldn't be served. Says whether anybody still wants it.
    fn put_back(&self, key: Key, req: Req, span: Span) -> bool {
        let mut state = lock(&self.state);
        if let Some(Message {
            stage: stage @ Stage::Serving,
            ..
        }) = state.messages.get_mut(key)
        {
            *stage = Stage::Queued(req, span);
            return true;
        }
        let granted = self.leave_line(&mut state, key);
        let message = state.messages.remove(key);
        drop(state);
        drop((message, req, span));
        wake(granted);
        false
    }

    fn poll_closed(&self) -> Poll<()> {
        if self.is_closed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_finished(&self) -> Poll<()> {
        if self.callers.load(Ordering::Acquire) > 0 {
            return self.poll_closed();
        }
        self.close(Failure::Closed);
        Poll::Ready(())
    }

    // --- The end.

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.front.word.load(Ordering::Acquire) & CLOSED != 0
    }

    #[cold]
    fn failure(&self) -> Failure {
        lock(&self.state).failure.clone().unwrap_or(Failure::Closed)
    }

    /// Fails all callers because the service did.
    #[cold]
    fn break_down(
        &self,
        mut slot: MutexGuard<'_, Slot<Req, F>>,
        error: ServiceError,
    ) -> ServiceError {
        let service = slot.service.take();
        let runtime = slot.runtime.clone();
        // Fail the queue before anybody can find the service missing.
        let wreck = self.condemn(Failure::Service(error.clone()));
        drop(slot);
        let _runtime = runtime.as_ref().map(|runtime| runtime.enter());
        drop_quietly(service);
        self.clear_away(wreck);
        error
    }

    /// Closes the queue, fails all callers, and drops the service.
    pub(crate) fn close(&self, failure: Failure) {
        let wreck = self.condemn(failure);
        self.drop_service();
        self.clear_away(wreck);
    }

    /// The worker has gone.
    pub(crate) fn close_for_good(&self) {
        self.close(Failure::Closed);
        self.alarm.clear();
    }

    fn condemn(&self, failure: Failure) -> Wreck<Req> {
        let mut wreck = Wreck {
            wakers: Vec::new(),
            requests: Vec::new(),
        };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.failure.is_some() {
            return wreck;
        }
        while let Some(key) = state.messages.front() {
            state.messages.leave(key);
            let Some(message) = state.messages.get_mut(key) else {
                continue;
            };
            let answer = Stage::Answered(Err(failure.clone()));
            match std::mem::replace(&mut message.stage, answer) {
                Stage::Queued(req, span) => wreck.requests.push((req, span)),
                Stage::Abandoned => drop(state.messages.remove(key)),
                Stage::Serving | Stage::Answered(_) => {}
            }
            if let Some(message) = state.messages.get_mut(key) {
                wreck.wakers.extend(message.waker.take());
            }
        }
        while let Some(key) = state.waiters.front() {
            state.waiters.leave(key);
            let waiter = state.waiters.get_mut(key);
            if let Some(Waiter::Waiting(waker)) =
                waiter.map(|w| std::mem::replace(w, Waiter::Dismissed))
            {
                wreck.wakers.push(waker);
            }
        }
        state.failure = Some(failure);
        self.front.word.fetch_or(CLOSED, Ordering::AcqRel);
        wreck
    }

    fn clear_away(&self, wreck: Wreck<Req>) {
        for waker in wreck.wakers {
            waker.wake();
        }
        self.alarm.ring();
        drop(wreck.requests);
    }

    /// Drops the service of a closed queue. Where a caller has it, that caller does so.
    fn drop_service(&self) {
        let Some(mut slot) = try_lock(&self.front.slot) else {
            return;
        };
        let service = slot.service.take();
        let runtime = slot.runtime.clone();
        drop(slot);
        let _runtime = runtime.as_ref().map(|runtime| runtime.enter());
        drop_quietly(service);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Enters the worker's runtime, unless the caller is on it.
///
/// Entering counts references, which all threads of the runtime share. So a caller keeps the name of a task
/// that is known to run there: tasks don't move to another runtime.
#[inline]
fn come_home<'a>(runtime: &'a Handle, home: &mut Option<task::Id>) -> Option<EnterGuard<'a>> {
    let task = task::try_id();
    if task.is_some() && task == *home {
        return None;
    }
    if Handle::try_current().is_ok_and(|here| here.id() == runtime.id()) {
        *home = task;
        return None;
    }
    Some(runtime.enter())
}

/// Drops a service whose destructor may panic: its cause was told already.
pub(crate) fn drop_quietly<T>(service: T) {
    let drop = std::panic::AssertUnwindSafe(|| drop(service));
    let _ = std::panic::catch_unwind(drop);
}

/// A handle of the queue: the core of a `Buffer`.
pub(crate) struct Caller<Req, F> {
    queue: Arc<Queue<Req, F>>,
    reservation: Reservation,
    /// A task that runs on the worker's runtime.
    home: Option<task::Id>,
}

enum Reservation {
    None,
    Waiting(Key),
    Held,
}

/// What becomes of a call.
pub(crate) enum Submitted<F> {
    Called(F),
    Queued(Ticket<F>),
    Failed(BoxError),
}

impl<Req, F> Caller<Req, F> {
    pub(crate) fn new(queue: &Arc<Queue<Req, F>>) -> Self {
        queue.callers.fetch_add(1, Ordering::Relaxed);
        Self {
            queue: Arc::clone(queue),
            reservation: Reservation::None,
            home: None,
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<Req, F>> {
        &self.queue
    }

    /// Reserves a slot, or waits in line for one.
    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), Failure>> {
        if self.queue.is_closed() {
            return Poll::Ready(Err(self.queue.failure()));
        }
        match self.reservation {
            Reservation::Held => {}
            Reservation::None if self.queue.try_reserve() => self.reservation = Reservation::Held,
            _ => return self.poll_wait(cx),
        }
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn poll_wait(&mut self, cx: &Context<'_>) -> Poll<Result<(), Failure>> {
        self.reservation = match self.reservation {
            Reservation::Waiting(key) => {
                std::task::ready!(self.queue.poll_waiter(key, cx.waker()));
                if self.queue.is_closed() {
                    // The key is no longer ours.
                    self.reservation = Reservation::None;
                    return Poll::Ready(Err(self.queue.failure()));
                }
                Reservation::Held
            }
            _ => match self.queue.reserve_or_wait(cx.waker()) {
                Ok(reservation) => reservation,
                Err(failure) => return Poll::Ready(Err(failure)),
            },
        };
        match self.reservation {
            Reservation::Held => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Sees to it that a slot is held for one call. It takes a free one, if `poll_ready` didn't.
    fn take_reservation(&mut self) -> bool {
        match std::mem::replace(&mut self.reservation, Reservation::None) {
            Reservation::Held => true,
            Reservation::Waiting(key) => self.queue.stop_waiting(key) || self.queue.try_reserve(),
            Reservation::None => self.queue.try_reserve(),
        }
    }
}

impl<Req, F> Caller<Req, F>
where
    Req: Send + 'static,
    F: Send + 'static,
{
    /// Calls the service, or queues the request.
    #[inline]
    pub(crate) fn call(&mut self, req: Req) -> (Submitted<F>, Option<Permit<F>>) {
        if !self.take_reservation() {
            return (Submitted::Failed(self.turned_away()), None);
        }
        let permit = match self.queue.limit {
            Some(_) => Some(Permit(Arc::clone(&self.queue) as _)),
            None => None,
        };
        let submitted = match self.queue.serve_here(req, &mut self.home) {
            Ok(Served::Called(future)) => {
                self.queue.after_serving();
                Submitted::Called(future)
            }
            Ok(Served::Pending(req)) => self.enqueue(req, true),
            Err(req) => self.enqueue(req, false),
            Ok(Served::Refused(error) | Served::Broken(error)) => {
                self.queue.after_serving();
                Submitted::Failed(error.into())
            }
        };
        (submitted, permit)
    }

    #[cold]
    fn enqueue(&self, req: Req, polled: bool) -> Submitted<F> {
        match self.queue.enqueue(req, polled) {
            Ok(key) => Submitted::Queued(Ticket {
                queue: Arc::clone(&self.queue) as _,
                key: Some(key),
            }),
            Err(failure) => Submitted::Failed(failure.into()),
        }
    }

    #[cold]
    fn turned_away(&self) -> BoxError {
        if self.queue.is_closed() {
            return self.queue.failure().into();
        }
        AtCapacity.into()
    }
}

impl<Req, F> Clone for Caller<Req, F> {
    fn clone(&self) -> Self {
        let mut clone = Self::new(&self.queue);
        clone.home = self.home;
        clone
    }
}

impl<Req, F> Drop for Caller<Req, F> {
    fn drop(&mut self) {
        let held = match self.reservation {
            Reservation::None => false,
            Reservation::Waiting(key) => self.queue.stop_waiting(key),
            Reservation::Held => true,
        };
        if held {
            self.queue.free_reservation();
        }
        if self.queue.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.alarm.ring();
        }
    }
}

/// The queue as a response future sees it, which doesn't know the type of the request.
pub(crate) trait Answers<F>: Send + Sync {
    fn poll_answer(&self, key: Key, waker: &Waker) -> Poll<Result<F, Failure>>;
    fn cancel(&self, key: Key);
    fn end_flight(&self);
}

impl<Req, F> Answers<F> for Queue<Req, F>
where
    Req: Send,
    F: Send,
{
    fn poll_answer(&self, key: Key, waker: &Waker) -> Poll<Result<F, Failure>> {
        self.poll_answer(key, waker)
    }

    fn cancel(&self, key: Key) {
        self.cancel(key);
    }

    fn end_flight(&self) {
        self.end_flight();
    }
}

/// A place in the queue. Dropping it takes the request back.
pub(crate) struct Ticket<F> {
    queue: Arc<dyn Answers<F>>,
    /// None after the answer.
    key: Option<Key>,
}

impl<F> Ticket<F> {
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<F, BoxError>> {
        let Some(key) = self.key else {
            return Poll::Ready(Err(Closed.into()));
        };
        let answer = std::task::ready!(self.queue.poll_answer(key, cx.waker()));
        self.key = None;
        Poll::Ready(answer.map_err(Into::into))
    }
}

impl<F> Drop for Ticket<F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.queue.cancel(key);
        }
    }
}

/// The right to be in flight, where that is limited.
pub(crate) struct Permit<F>(Arc<dyn Answers<F>>);

impl<F> Drop for Permit<F> {
    fn drop(&mut self) {
        self.0.end_flight();
    }
}
