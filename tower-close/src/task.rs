//! A background task that ends with its owner, and with grace where it is asked to.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tower_deadline::Deadline;

use crate::{Close, Closer, Closing, NotClosed, Signal, closer};

/// The owner of a background task: the task ends with it.
///
/// [Closing](Close) tells the task by its [`Signal`], waits for it to end, and drops its future at the deadline,
/// whether or not somebody still waits.
///
/// **Cancellation.** Dropping the owner drops the task's future at its next `await`, unless it is closing: then it has until
/// the deadline.
///
/// **Errors.** Closing gives [`NotClosed::CutOff`] if the task had to be dropped, and [`NotClosed::Panicked`]
/// if it panicked, however long ago.
#[derive(Debug)]
pub struct Task {
    closer: Closer,
    abort: AbortHandle,
    end: Arc<OnceLock<End>>,
}

/// How the task has ended.
#[derive(Debug)]
enum End {
    Finished,
    CutOff,
    Panicked(String),
}

/// There is no Tokio runtime here that could run a task.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoRuntime;

impl Task {
    /// Spawns what `run` makes, on the runtime that this is called in.
    ///
    /// The task should end soon after its signal says that it is [closing](Signal::closing); one that
    /// doesn't is dropped at the deadline.
    ///
    /// # Errors
    ///
    /// [`NoRuntime`] outside of a runtime. Then `run` isn't called.
    pub fn spawn<F>(run: impl FnOnce(Signal) -> F) -> Result<Self, NoRuntime>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
        let (closer, signal) = closer();
        let end = Arc::new(OnceLock::new());
        let work = run(signal.clone());
        let task = runtime.spawn(supervise(signal, work, Arc::clone(&end)));
        Ok(Self {
            closer,
            abort: task.abort_handle(),
            end,
        })
    }

    /// Whether the task has ended, in whichever way.
    pub fn is_done(&self) -> bool {
        self.abort.is_finished()
    }

    /// What the task said when it panicked, if it did.
    pub fn panic_message(&self) -> Option<&str> {
        match self.end.get() {
            Some(End::Panicked(message)) => Some(message),
            _ => None,
        }
    }
}

/// Runs `work` until it ends or is cut off, and notes which. The signal is dropped last: it tells that all is done.
async fn supervise<F>(mut signal: Signal, work: F, end: Arc<OnceLock<End>>)
where
    F: Future<Output = ()>,
{
    let mut work = pin!(work);
    let ended = {
        let mut cut_off = pin!(signal.cut_off());
        poll_fn(|cx| {
            // The future is dropped after a panic, and never polled again.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Ready(())) => return Poll::Ready(End::Finished),
                Ok(Poll::Pending) => {}
                Err(panic) => {
                    let message = panic_message(&*panic).unwrap_or("(no message)");
                    return Poll::Ready(End::Panicked(message.to_owned()));
                }
            }
            cut_off.as_mut().poll(cx).map(|()| End::CutOff)
        })
        .await
    };
    // Before the work is dropped, so that whoever hears of that finds the cause. Nobody else sets it.
    let _ = end.set(ended);
}

/// What a panic said, if that is text.
///
/// `payload` is what [`catch_unwind`] and tokio's `JoinError` give.
pub fn panic_message(payload: &(dyn Any + Send)) -> Option<&str> {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

impl Close for Task {
    fn close(&self, by: Deadline) -> Closing {
        self.closer.ask(by);
        let asked = Arc::clone(&self.closer.asked);
        let end = Arc::clone(&self.end);
        Closing::new(async move {
            // It is the task that goes by the deadline, so that it does even if nobody waits.
            asked.by.closed().await;
            match end.get() {
                Some(End::Finished) => Ok(()),
                Some(End::Panicked(message)) => Err(NotClosed::Panicked {
                    message: message.clone(),
                }),
                // None: it was aborted, by its owner or its runtime.
                Some(End::CutOff) | None => Err(NotClosed::CutOff { unfinished: 1 }),
            }
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // One that is closing has been given time, by whoever asked.
        if self.closer.asked().is_none() {
            self.abort.abort();
        }
    }
}

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a background task needs a Tokio runtime to run in")
    }
}

impl std::error::Error for NoRuntime {}
