//! The states of a pool's endpoints, as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;

use super::endpoint::Wakes;

/// How many changes are kept for an observer that is slow.
const KEPT: usize = 256;

/// What an endpoint of a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It is being connected to, or waits for its turn, or has yet to become ready for the first time.
    Connecting,
    /// It takes requests, when it isn't busy.
    Ready,
    /// It couldn't be connected to, or lost its connection, and is tried again after a backoff.
    Failing,
    /// It is connected and left out for a while, as it does worse than the others.
    Ejected,
    /// Its connection was closed as nobody needed it.
    Idle,
    /// It was removed or replaced, and finishes what it has.
    Draining,
}

/// What an observer of a pool sees.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observed<K> {
    /// All endpoints that there are. It comes first, and again where an observer was too slow for every change.
    All(Vec<(K, State)>),
    /// One endpoint came (from none), changed, or went (to none).
    ///
    /// While an endpoint is replaced there are two under its key: the old one drains.
    Changed {
        /// Which.
        key: K,
        /// The state that it had.
        from: Option<State>,
        /// The state that it has.
        to: Option<State>,
    },
}

/// The states of a pool's endpoints; see [`Pool::states`](super::Pool::states).
///
/// It ends with the pool.
#[derive(Debug)]
pub struct States<K> {
    changes: mpsc::Receiver<Observed<K>>,
    missed: Arc<AtomicBool>,
    wakes: Arc<Wakes>,
}

/// Where new observers wait for the pool's task.
#[derive(Debug)]
pub(super) struct Newcomers<K> {
    waiting: Mutex<Vec<Observer<K>>>,
    wakes: Arc<Wakes>,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Observer<K> {
    changes: mpsc::Sender<Observed<K>>,
    missed: Arc<AtomicBool>,
}

impl<K> Newcomers<K> {
    pub(super) fn new(wakes: Arc<Wakes>) -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            wakes,
        }
    }

    pub(super) fn add(&self) -> States<K> {
        let (sender, changes) = mpsc::channel(KEPT);
        // It has seen nothing yet, which is to have missed all.
        let missed = Arc::new(AtomicBool::new(true));
        let observer = Observer {
            changes: sender,
            missed: Arc::clone(&missed),
        };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(observer);
        self.wakes.wake();
        States {
            changes,
            missed,
            wakes: Arc::clone(&self.wakes),
        }
    }

    pub(super) fn take(&self) -> Vec<Observer<K>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Clone> Observer<K> {
    /// Tells a change. False if nobody listens any more.
    pub(super) fn tell(&self, key: &K, from: Option<State>, to: Option<State>) -> bool {
        if self.missed.load(Ordering::Acquire) {
            return !self.changes.is_closed();
        }
        let key = key.clone();
        match self.changes.try_send(Observed::Changed { key, from, to }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Tells all to one that has missed something and has read what it had. False if nobody listens any more.
    pub(super) fn catch_up(&self, all: impl FnOnce() -> Vec<(K, State)>) -> bool {
        if self.missed.load(Ordering::Acquire) && self.changes.capacity() == KEPT {
            self.missed.store(false, Ordering::Release);
            return self.changes.try_send(Observed::All(all())).is_ok();
        }
        !self.changes.is_closed()
    }
}

impl<K> Stream for States<K> {
    type Item = Observed<K>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Observed<K>>> {
        let polled = self.changes.poll_recv(cx);
        if polled.is_pending() && self.missed.load(Ordering::Acquire) {
            // All that was kept is read: now the task can tell the rest.
            self.wakes.wake();
        }
        Poll::Ready(ready!(polled))
    }
}
