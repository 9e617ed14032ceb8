//! An endpoint whose readiness and load the test sets from outside.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_discover::Change;
use tower_load::Load;
use tower_service::Service;

pub(crate) type Item = Result<Change<usize, Endpoint>, &'static str>;
pub(crate) type Changes = UnboundedReceiverStream<Item>;
pub(crate) type Sender = mpsc::UnboundedSender<Item>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    Pending,
    Ready,
    Broken,
}

pub(crate) struct Endpoint(Arc<Control>);

#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<(Status, Option<Waker>)>,
    load: AtomicU32,
    calls: AtomicUsize,
    dropped: AtomicBool,
}

pub(crate) fn changes() -> (Sender, Changes) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, UnboundedReceiverStream::new(receive))
}

pub(crate) fn endpoint(status: Status, load: u32) -> (Endpoint, Arc<Control>) {
    let control = Arc::new(Control {
        state: Mutex::new((status, None)),
        load: load.into(),
        calls: AtomicUsize::new(0),
        dropped: AtomicBool::new(false),
    });
    (Endpoint(Arc::clone(&control)), control)
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

    pub(crate) fn status(&self) -> Status {
        self.state.lock().unwrap().0
    }

    pub(crate) fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    pub(crate) fn set_load(&self, load: u32) {
        self.load.store(load, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Load for Endpoint {
    type Metric = u32;

    fn load(&self) -> u32 {
        self.0.load()
    }

    fn depends_on_time(&self) -> bool {
        false
    }
}

impl Service<()> for Endpoint {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
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
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}
