//! The synchronisation that the queue is made of: the standard library's, or loom's under its model checker.

#[cfg(not(tower_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(tower_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

use std::sync::{Arc, PoisonError, TryLockError};
use std::task::{Wake, Waker};

/// Locks, whatever happened to an earlier owner: every critical section leaves a consistent state before
/// anything in it can panic.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks, unless somebody else has done so.
#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Wakes one task, from anywhere.
pub(crate) struct Alarm {
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            waker: Mutex::new(None),
        }
    }

    /// Names the task. One ring wakes it once, and forgets it.
    pub(crate) fn set(&self, waker: &Waker) {
        let old = {
            let mut current = lock(&self.waker);
            if current.as_ref().is_some_and(|w| w.will_wake(waker)) {
                return;
            }
            current.replace(waker.clone())
        };
        drop(old);
    }

    pub(crate) fn ring(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn clear(&self) {
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

/// Explores all executions of `f` with at most that many preemptions, as the full state spaces are too large.
#[cfg(all(test, tower_loom))]
pub(crate) fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}
