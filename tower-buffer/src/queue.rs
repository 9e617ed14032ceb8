//! The queue that all handles of a buffer share: who is served where, and who learns of it.
//!
//! Three things are synchronised, each in the way that its users need:
//!
//! - `slots` bounds the queue, and has the flags that say which slow path has to be taken.
//! - `host` has the service. It is only ever *tried*: whoever finds it locked, queues. So it may stay locked
//!   while the service's own code runs, and a service that calls its own buffer queues instead of deadlocking.
//! - `state` has the messages. No foreign code runs under it: wakers are woken and requests dropped after it is
//!   unlocked. It may be locked under `host`, and `slots` under it, never the other way round.
//!
//! A caller that finds the queue empty and the service free calls it right there, after a short wait if need be. All
//! others queue, and are served by the worker: a caller never serves another one, whose request would then see its task locals,
//! its tracing span and its delay.
//!
//! No wake is lost. Whoever makes the queue non-empty sets `QUEUED` and wakes the worker. If the worker then finds
//! `host` locked, the caller that holds it has yet to free its host, sees `QUEUED` when it does, and wakes
//! the worker again. A caller that polled the service in vain wakes the worker in any case, as the service
//! may have woken it too early, when the message was not yet queued. `CLOSED` works like `QUEUED`: the last who
//! holds the service drops it. So does `DRAINING`: whoever holds the service wakes the worker, which ends.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{EnterGuard, Handle};
use tokio::task;
use tower_close::Closer;
use tower_deadline::enter_unbounded;

mod closing;
mod line;

pub(crate) use self::line::Failure;
use self::line::{Message, Origin, Stage, State};
use crate::ServiceError;
use crate::fifo::{Fifo, Key};
use crate::slots::{CLOSED, DRAINING, QUEUED, SERVING, Slots, UNSTARTED};
use crate::sync::{Alarm, AtomicUsize, Mutex, MutexGuard, Ordering, lock, try_lock};

/// How many messages the worker serves before it lets other tasks run.
const TURNS: usize = 1024;

/// The flags that keep callers from the service.
const AWAY: usize = QUEUED | CLOSED | DRAINING | UNSTARTED;

/// How often a caller looks whether another one has done with the service, before it queues: some 8 µs in all,
/// twice as long each time.
const ROUNDS: u32 = if cfg!(tower_loom) { 1 } else { 4 };

/// How long it waits first, in pauses of 16 ns. Each look takes the cache lines away from the others, who are
/// several calls further if they are left alone that long. Two threads that do nothing but call take 100 ns a
/// call in this way; 190 ns where the first wait is one pause; 30 ns is what one thread takes.
const FIRST_WAIT: u32 = 32;

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

pub(crate) struct Queue<Req, F> {
    slots: Slots,
    host: Mutex<Host<Req, F>>,
    state: Mutex<State<Req, F>>,
    callers: AtomicUsize,
    alarm: Arc<Alarm>,
    /// Says to the worker by when it has to end.
    closer: Closer,
}

/// Where the service is served.
struct Host<Req, F> {
    /// Gone when the queue is closed.
    service: Option<Box<dyn Serve<Req, F>>>,
    /// The worker's runtime: what the service spawns belongs there, whoever calls it.
    runtime: Option<Handle>,
    /// Wakes the worker, through the alarm.
    waker: Waker,
}

type Answer<F> = (Key, Result<F, Failure>);

impl<Req, F> Queue<Req, F> {
    pub(crate) fn new(
        service: Box<dyn Serve<Req, F>>,
        bound: usize,
        limit: Option<usize>,
    ) -> Arc<Self> {
        let alarm = Arc::new(Alarm::new());
        let host = Host {
            service: Some(service),
            runtime: None,
            waker: Waker::from(Arc::clone(&alarm)),
        };
        Arc::new(Self {
            slots: Slots::new(bound, limit, UNSTARTED),
            host: Mutex::new(host),
            state: Mutex::new(State {
                failure: None,
                messages: Fifo::new(),
            }),
            callers: AtomicUsize::new(0),
            alarm,
            closer: tower_close::closer().0,
        })
    }

    pub(crate) fn closer(&self) -> &Closer {
        &self.closer
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// Whether it takes no more messages.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.slots.is_shut()
    }

    /// Why it takes no more messages.
    #[cold]
    pub(crate) fn failure(&self) -> Failure {
        lock(&self.state).failure.clone().unwrap_or(Failure::Closed)
    }

    // --- Callers.

    /// Counts one caller more.
    pub(crate) fn arrive(&self) {
        self.callers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one caller less. After the last one the worker ends.
    pub(crate) fn leave(&self) {
        if self.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.alarm.ring();
        }
    }

    /// Serves `req` right here, unless others come first or the service is busy.
    #[inline]
    pub(crate) fn serve_here(
        &self,
        req: Req,
        home: &mut Option<task::Id>,
    ) -> Result<Served<Req, F>, Req> {
        if self.slots.flags() & AWAY != 0 && !self.wait_for_worker() {
            return Err(req);
        }
        let Some(mut host) = self.wait_for_host() else {
            return Err(req);
        };
        let Host {
            service: Some(service),
            runtime,
            waker,
        } = &mut *host
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
            return Ok(Served::Broken(self.break_down(host, error)));
        }
        Ok(served)
    }

    /// Gives the worker the time to empty the queue, if it is at it. Says whether it has.
    ///
    /// Else callers on other threads, who are answered before the queue is empty, would keep it from ever being
    /// so, and each call would cost two wakes.
    #[cold]
    fn wait_for_worker(&self) -> bool {
        for round in 0..ROUNDS {
            let flags = self.slots.flags();
            if flags & AWAY == 0 {
                return true;
            }
            if flags & SERVING == 0 {
                return false;
            }
            pause(round);
        }
        false
    }

    /// Takes the service. If another caller has it, that is over sooner than a trip through the worker.
    #[inline]
    fn wait_for_host(&self) -> Option<MutexGuard<'_, Host<Req, F>>> {
        for round in 0..ROUNDS {
            if let Some(host) = try_lock(&self.host) {
                return Some(host);
            }
            pause(round);
        }
        None
    }

    /// Frees the slot of a caller that was served.
    #[inline]
    pub(crate) fn after_serving(&self) {
        let flags = self.slots.free();
        if flags & (QUEUED | CLOSED | DRAINING) != 0 {
            self.catch_up(flags);
        }
    }

    /// Makes up for what others left undone because the service was busy.
    #[cold]
    fn catch_up(&self, flags: usize) {
        if flags & CLOSED != 0 {
            self.drop_service();
        }
        self.alarm.ring();
    }

    /// Puts `req` in the line. Its slot goes with it.
    #[cold]
    pub(crate) fn enqueue(&self, req: Req, polled: bool) -> Result<Key, Failure> {
        let origin = Origin::current();
        let mut state = lock(&self.state);
        let is_draining = self.slots.flags() & DRAINING != 0;
        let draining = || is_draining.then_some(Failure::Closed);
        if let Some(failure) = state.failure.clone().or_else(draining) {
            drop(state);
            self.after_serving();
            // Last, as are all requests: their destructors may panic.
            drop((req, origin));
            return Err(failure);
        }
        let key = state.messages.push_back(Message {
            stage: Stage::Queued(req, origin),
            waker: None,
        });
        let mut granted = None;
        let first = state.messages.len() == 1;
        if first {
            self.slots.set(QUEUED);
            granted = self.slots.free_without_waking();
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
    pub(crate) fn poll_answer(&self, key: Key, waker: &Waker) -> Poll<Result<F, Failure>> {
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

    /// Takes back a message whose caller has left, and frees its host.
    #[cold]
    pub(crate) fn cancel(&self, key: Key) {
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
        let finished = state.messages.len() == 0
            && (self.callers.load(Ordering::Acquire) == 0 || self.is_shut());
        drop(state);
        wake(granted);
        if finished {
            self.alarm.ring();
        }
        drop((message, old));
    }

    /// Takes a message out of the line, and with it one slot: its own, or that of the one that is first now.
    fn leave_line(&self, state: &mut State<Req, F>, key: Key) -> Option<Waker> {
        state.messages.leave(key);
        if state.messages.len() == 0 {
            self.slots.clear(QUEUED);
            return None;
        }
        self.slots.free_without_waking()
    }

    // --- The worker.

    /// Serves what is queued, until the service isn't ready. Ready when there will be no more.
    pub(crate) fn work(&self, cx: &Context<'_>) -> Poll<()> {
        self.alarm.set(cx.waker());
        let Some(mut host) = try_lock(&self.host) else {
            // The caller that has it wakes this task when it is done.
            return self.poll_closed();
        };
        self.start(&mut host);
        let _serving = (self.slots.flags() & QUEUED != 0).then(|| self.slots.set_while(SERVING));
        let mut answer = None;
        for turn in 0.. {
            let Some((key, req, origin)) = self.turn(answer.take()) else {
                drop(host);
                return self.poll_finished();
            };
            if turn == TURNS {
                self.put_back(key, req, origin);
                break;
            }
            if origin.has_expired() {
                // Nobody waits for what it would be told.
                drop_quietly((req, origin));
                answer = Some((key, Err(Failure::Expired)));
                continue;
            }
            let Host {
                service: Some(service),
                waker,
                ..
            } = &mut *host
            else {
                self.put_back(key, req, origin);
                drop(host);
                return self.poll_closed();
            };
            let served = {
                let _entered = origin.span.enter();
                let serve = || service.serve(req, &mut Context::from_waker(waker));
                enter_unbounded(|| match origin.deadline {
                    None => serve(),
                    Some(deadline) => deadline.enter(serve),
                })
            };
            answer = match served {
                Served::Called(future) => Some((key, Ok(future))),
                Served::Refused(error) => Some((key, Err(Failure::Service(error)))),
                Served::Pending(req) => {
                    if self.put_back(key, req, origin) {
                        return Poll::Pending;
                    }
                    None
                }
                Served::Broken(error) => {
                    self.break_down(host, error);
                    return Poll::Ready(());
                }
            };
        }
        drop(host);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start(&self, host: &mut Host<Req, F>) {
        if self.slots.flags() & UNSTARTED != 0 {
            host.runtime = Handle::try_current().ok();
            self.slots.clear(UNSTARTED);
        }
    }

    /// Answers a message, and takes the next one from the line.
    fn turn(&self, answer: Option<Answer<F>>) -> Option<(Key, Req, Origin)> {
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
        wake(waker);
        wake(granted);
        drop_quietly(unwanted);
        next
    }

    /// Puts a request back that couldn't be served. Says whether anybody still wants it.
    fn put_back(&self, key: Key, req: Req, origin: Origin) -> bool {
        let mut state = lock(&self.state);
        if let Some(Message {
            stage: stage @ Stage::Serving,
            ..
        }) = state.messages.get_mut(key)
        {
            *stage = Stage::Queued(req, origin);
            return true;
        }
        let granted = self.leave_line(&mut state, key);
        let message = state.messages.remove(key);
        drop(state);
        wake(granted);
        drop_quietly((message, req, origin));
        false
    }

    fn poll_closed(&self) -> Poll<()> {
        if self.is_closed() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_finished(&self) -> Poll<()> {
        {
            // Under the lock: the last caller may queue a message and go, between two looks.
            let state = lock(&self.state);
            let is_wanted =
                self.callers.load(Ordering::Acquire) > 0 && self.slots.flags() & DRAINING == 0;
            if state.messages.len() > 0 || is_wanted {
                return self.poll_closed();
            }
        }
        self.close(Failure::Closed);
        Poll::Ready(())
    }
}

fn pause(round: u32) {
    for _ in 0..FIRST_WAIT << round {
        std::hint::spin_loop();
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

/// Drops what its owner has left here. A panic of its destructor is none of the other callers' business.
pub(crate) fn drop_quietly<T>(left: T) {
    let drop = std::panic::AssertUnwindSafe(|| drop(left));
    let _ = std::panic::catch_unwind(drop);
}

#[cfg(all(test, tower_loom))]
mod tests;
