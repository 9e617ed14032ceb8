//! A service whose readiness the test sets from outside.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tower_service::Service;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    Pending,
    Ready,
    Broken,
}

pub(crate) struct Scripted(Arc<Control>);

pub(crate) struct Control {
    state: Mutex<(Status, Option<Waker>)>,
    last_waker: Mutex<Option<Waker>>,
    polls: AtomicUsize,
    calls: AtomicUsize,
    dropped: AtomicBool,
}

pub(crate) fn scripted(status: Status) -> (Scripted, Arc<Control>) {
    let control = Arc::new(Control {
        state: Mutex::new((status, None)),
        last_waker: Mutex::new(None),
        polls: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
        dropped: AtomicBool::new(false),
    });
    (Scripted(Arc::clone(&control)), control)
}

impl Control {
    /// Sets the status, and wakes whoever waits for it.
    pub(crate) fn set(&self, status: Status) {
        let mut state = self.state.lock().unwrap();
        state.0 = status;
        let waker = if status == Status::Pending {
            None
        } else {
            state.1.take()
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes once more whoever polled last, for no reason.
    pub(crate) fn wake_for_nothing(&self) {
        let waker = self.last_waker.lock().unwrap().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.state.lock().unwrap().0
    }

    pub(crate) fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Service<()> for Scripted {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.polls.fetch_add(1, Ordering::Relaxed);
        *self.0.last_waker.lock().unwrap() = Some(cx.waker().clone());
        let mut state = self.0.state.lock().unwrap();
        match state.0 {
            Status::Ready => Poll::Ready(Ok(())),
            Status::Broken => Poll::Ready(Err("broken")),
            Status::Pending => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert_eq!(
            self.0.status(),
            Status::Ready,
            "called a service that isn't ready"
        );
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}
