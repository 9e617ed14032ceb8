//! One Tokio timer a thread, for all the deadlines that are waited for there.
//!
//! Most timers never fire: the response comes first. To put each into the runtime's timer wheel and to take it
//! out again costs two locks that all threads share, three clones of the runtime's handle, and 120 bytes in
//! every future. Here deadlines are kept in a heap of the thread's own, and only the earliest of them is in
//! the wheel. It stays there when its response has come: at most one timer in the length of a timeout
//! then fires for nothing, and is set to the deadline that is the earliest by then.
//!
//! When the timer fires, its waker (the alarm itself) wakes whoever is due, there and then. To set the timer
//! anew is left to a small task: on a runtime that is about to shut down a timer panics, whereas a
//! task is just dropped. A future stays with the alarm that it first met, whichever thread polls it later.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::NoRuntime;
use crate::deadlines::Deadlines;

thread_local! {
    /// The alarm of this thread, and the runtime whose time it goes by.
    static ALARM: RefCell<Option<(Id, Arc<Alarm>)>> = const { RefCell::new(None) };
}

/// A place among those who wait for a deadline, given up when dropped.
pub(crate) struct Registration {
    alarm: Arc<Alarm>,
    key: usize,
}

#[derive(Default)]
struct Alarm {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    deadlines: Deadlines,
    timer: Timer,
}

/// The timer, which is set for the earliest deadline or an earlier time.
#[derive(Default)]
enum Timer {
    #[default]
    Off,
    /// A task that will set it is on its way.
    Rearming,
    Set {
        until: Instant,
        _sleep: Pin<Box<Sleep>>,
    },
}

/// Sets the timer when polled. If the runtime drops it before, everyone has to look for themselves.
struct Rearm {
    alarm: Option<Arc<Alarm>>,
}

impl Registration {
    /// Waits for `deadline` on the alarm of this thread; `None` if it has passed.
    pub(crate) fn new(deadline: Instant, cx: &mut Context<'_>) -> Result<Option<Self>, NoRuntime> {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?.id();
        let alarm = Alarm::current(runtime);
        let mut state = alarm.lock();
        let key = state.deadlines.insert(deadline, cx.waker().clone());
        if state.timer.is_set_for(deadline) {
            drop(state);
            return Ok(Some(Self { alarm, key }));
        }
        drop(state);
        // From here on it is given up if something panics, as timers do on a runtime without time.
        let this = Self { alarm, key };
        this.alarm.set();
        let has_passed = this.alarm.lock().deadlines.get_mut(key).is_none();
        Ok(if has_passed { None } else { Some(this) })
    }

    /// Whether the deadline has passed.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), NoRuntime>> {
        let mut state = self.alarm.lock();
        let Some(waker) = state.deadlines.get_mut(self.key) else {
            return Poll::Ready(Ok(()));
        };
        let replaced =
            (!waker.will_wake(cx.waker())).then(|| mem::replace(waker, cx.waker().clone()));
        let is_off = matches!(state.timer, Timer::Off);
        drop(state);
        // After the lock is let go: a waker that is dropped may run anything.
        drop(replaced);
        if !is_off {
            return Poll::Pending;
        }
        // The runtime that it was set on is gone.
        if Handle::try_current().is_err() {
            return Poll::Ready(Err(NoRuntime));
        }
        self.alarm.set();
        match self.alarm.lock().deadlines.get_mut(self.key) {
            Some(_) => Poll::Pending,
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a statement of its own, so that the waker is dropped after the lock is let go.
        let _waker = self.alarm.lock().deadlines.remove(self.key);
    }
}

impl Alarm {
    /// The alarm of this thread for `runtime`.
    fn current(runtime: Id) -> Arc<Self> {
        let known = ALARM.try_with(|current| match &*current.borrow() {
            Some((id, alarm)) if *id == runtime => Some(Arc::clone(alarm)),
            _ => None,
        });
        match known {
            Ok(Some(alarm)) => alarm,
            Ok(None) => Self::install(runtime),
            // The thread is about to end.
            Err(_) => Arc::default(),
        }
    }

    #[cold]
    fn install(runtime: Id) -> Arc<Self> {
        let alarm = Arc::<Self>::default();
        let replaced = ALARM.try_with(|current| {
            let new = Some((runtime, Arc::clone(&alarm)));
            current.replace(new)
        });
        // After the cell is let go: it may be the last to know of a timer, which runs code of tokio's.
        drop(replaced);
        alarm
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only a waker's `clone` and a timer where there is no time driver can panic under the lock. Both
        // leave the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer for the earliest deadline, in the current runtime, and wakes whoever is due.
    #[cold]
    fn set(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut due = Vec::new();
        let mut state = self.lock();
        let replaced = mem::take(&mut state.timer);
        while let Some(until) = state.deadlines.earliest() {
            let mut sleep = Box::pin(sleep_until(until));
            // Not on the task's cooperative budget: once that is spent, the timer isn't even set.
            let polled = pin!(unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(&waker));
            if polled.is_pending() {
                state.timer = Timer::Set {
                    until,
                    _sleep: sleep,
                };
                break;
            }
            let now = Instant::now().max(until);
            due.extend(std::iter::from_fn(|| state.deadlines.expire(now)));
        }
        drop(state);
        drop(replaced);
        due.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Alarm {
    /// The timer has fired, because the time has come or because its runtime shuts down.
    fn wake(self: Arc<Self>) {
        let mut state = self.lock();
        let Timer::Set { .. } = state.timer else {
            return;
        };
        let fired = mem::take(&mut state.timer);
        let now = Instant::now();
        let due: Vec<_> = std::iter::from_fn(|| state.deadlines.expire(now)).collect();
        let rearm = state.deadlines.earliest().map(|_| {
            state.timer = Timer::Rearming;
            Rearm {
                alarm: Some(Arc::clone(&self)),
            }
        });
        drop(state);
        drop(fired);
        due.into_iter().for_each(Waker::wake);
        if let (Some(rearm), Ok(runtime)) = (rearm, Handle::try_current()) {
            runtime.spawn(rearm);
        }
    }
}

impl Future for Rearm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if let Some(alarm) = self.alarm.take() {
            // Not if a deadline earlier than all others came before.
            let is_awaited = matches!(alarm.lock().timer, Timer::Rearming);
            if is_awaited {
                alarm.set();
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Rearm {
    fn drop(&mut self) {
        let Some(alarm) = self.alarm.take() else {
            return;
        };
        let waiting: Vec<_> = {
            let mut state = alarm.lock();
            let Timer::Rearming = state.timer else {
                return;
            };
            state.timer = Timer::Off;
            state.deadlines.wakers().cloned().collect()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Timer {
    /// Whether somebody is woken at `deadline`, or before it.
    #[inline]
    fn is_set_for(&self, deadline: Instant) -> bool {
        match self {
            Self::Off => false,
            Self::Rearming => true,
            Self::Set { until, .. } => *until <= deadline,
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
