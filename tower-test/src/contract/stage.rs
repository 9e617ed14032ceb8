//! Where one scenario is played: a fresh subject over a fresh script, driven as a strict task would.
//!
//! A strict task polls again only when its waker was woken, so a lost waker shows as a wait without
//! an end, whatever else goes on in the runtime.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::inner::Script;

/// How many turns the tasks of a subject get to pass something on. A buffer needs three.
const TURNS: usize = 16;

/// After how many polls without an end a subject is said to spin.
const POLLS: usize = 10_000;

/// How a request ended, or what readiness said: an error is what its `Debug` prints.
pub(super) type Outcome = Result<(), String>;

/// A service under test, whatever its types.
pub(super) trait Subject {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Outcome>;
    fn call(&mut self) -> Pin<Box<dyn Future<Output = Outcome>>>;
    fn is_clone(&self) -> bool;
    fn try_clone(&self) -> Option<Box<dyn Subject>>;
}

/// A service with the maker of its requests, and how to clone it, if that is possible.
pub(super) struct Typed<S, Req> {
    pub(super) service: S,
    pub(super) requests: Rc<dyn Fn() -> Req>,
    pub(super) clone: Option<fn(&S) -> S>,
}

/// One scenario's script, subjects and clock.
pub(super) struct Stage<'a> {
    pub(super) script: Script,
    make: &'a dyn Fn(&Script) -> Box<dyn Subject>,
    patience: Duration,
    started: Instant,
}

/// A handle of the service under test, and the task that polls its readiness.
pub(super) struct Handle {
    name: String,
    clones: Rc<Cell<usize>>,
    subject: Box<dyn Subject>,
    pub(super) task: Arc<Probe>,
    script: Script,
    patience: Duration,
}

/// A response future of the service under test, and the task that polls it.
pub(super) struct Reply {
    name: String,
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    pub(super) task: Arc<Probe>,
    script: Script,
    patience: Duration,
}

/// The waker of a strict task.
#[derive(Debug, Default)]
pub(super) struct Probe {
    woken: AtomicBool,
    /// The task that the checker itself runs on.
    parent: Mutex<Option<Waker>>,
}

/// A way to misbehave that ends a scenario at once.
#[derive(Debug)]
pub(super) struct Fault {
    who: String,
    how: How,
}

#[derive(Debug)]
pub(super) enum How {
    Panicked(String),
    NeverWoken(Duration),
    Spins,
}

impl<S, Req> Subject for Typed<S, Req>
where
    S: Service<Req> + 'static,
    S::Error: fmt::Debug,
    Req: 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.service
            .poll_ready(cx)
            .map_err(|error| format!("{error:?}"))
    }

    fn call(&mut self) -> Pin<Box<dyn Future<Output = Outcome>>> {
        let mut future = Box::pin(self.service.call((self.requests)()));
        // The future is dropped with the box, not when it is done, as most callers do.
        Box::pin(poll_fn(move |cx| {
            let polled = future.as_mut().poll(cx);
            polled.map(|done| done.map(drop).map_err(|error| format!("{error:?}")))
        }))
    }

    fn is_clone(&self) -> bool {
        self.clone.is_some()
    }

    fn try_clone(&self) -> Option<Box<dyn Subject>> {
        let clone = self.clone?;
        Some(Box::new(Self {
            service: clone(&self.service),
            requests: Rc::clone(&self.requests),
            clone: self.clone,
        }))
    }
}

impl<'a> Stage<'a> {
    /// Must be called on the runtime that the scenario is played on.
    pub(super) fn new(make: &'a dyn Fn(&Script) -> Box<dyn Subject>, patience: Duration) -> Self {
        Self {
            script: Script::new(),
            make,
            patience,
            started: Instant::now(),
        }
    }

    /// A new service under test.
    pub(super) fn subject(&self) -> Handle {
        self.script.note("the service is made");
        Handle {
            name: "the service".to_owned(),
            clones: Rc::default(),
            subject: (self.make)(&self.script),
            task: Arc::default(),
            script: self.script.clone(),
            patience: self.patience,
        }
    }

    /// How much of the paused time has gone.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Handle {
    /// Another handle, if the service can be cloned.
    pub(super) fn try_clone(&self) -> Option<Self> {
        if !self.subject.is_clone() {
            return None;
        }
        let number = self.clones.get() + 1;
        self.clones.set(number);
        self.script
            .note(format!("clone {number} of {} is made", self.name));
        let subject = self.subject.try_clone()?;
        Some(Self {
            name: format!("clone {number}"),
            clones: Rc::clone(&self.clones),
            subject,
            task: Arc::default(),
            script: self.script.clone(),
            patience: self.patience,
        })
    }

    /// One poll for readiness, on the handle's own task.
    pub(super) fn poll_ready(&mut self) -> Result<Poll<Outcome>, Fault> {
        let task = Arc::clone(&self.task);
        self.poll_ready_on(&task)
    }

    /// One poll for readiness, on `task`.
    pub(super) fn poll_ready_on(&mut self, task: &Arc<Probe>) -> Result<Poll<Outcome>, Fault> {
        let who = format!("poll_ready of {}", self.name);
        let subject = &mut self.subject;
        poll_caught(&self.script, who, task, |cx| subject.poll_ready(cx))
    }

    /// Polls for readiness until there is an answer.
    pub(super) async fn ready(&mut self) -> Result<Outcome, Fault> {
        let task = Arc::clone(&self.task);
        let who = format!("poll_ready of {}", self.name);
        let patience = self.patience;
        drive(&task, patience, who, || self.poll_ready()).await
    }

    /// Makes a request, once it is woken from the wait that it is in, if it is in one.
    pub(super) async fn must_serve_once_woken(&mut self, waits: bool) -> Result<(), String> {
        if waits {
            let who = format!("poll_ready of {}", self.name);
            self.task.wait(self.patience, &who).await?;
        }
        self.must_serve().await
    }

    /// Whether it is ready without the clock moving.
    pub(super) async fn is_ready_soon(&mut self) -> Result<bool, Fault> {
        loop {
            match self.poll_ready()? {
                Poll::Ready(outcome) => return Ok(outcome.is_ok()),
                Poll::Pending => settle().await,
            }
            if !self.task.is_woken() {
                return Ok(false);
            }
        }
    }

    /// Polls until it is ready.
    pub(super) async fn must_be_ready(&mut self) -> Result<(), String> {
        match self.ready().await? {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("poll_ready of {} failed with {error}", self.name)),
        }
    }

    pub(super) fn call(&mut self) -> Result<Reply, Fault> {
        self.script.note(format!("call of {}", self.name));
        let subject = &mut self.subject;
        let future = caught(|| subject.call()).map_err(|message| Fault {
            who: format!("call of {}", self.name),
            how: How::Panicked(message),
        })?;
        Ok(Reply {
            name: format!("the response of {}", self.name),
            future,
            task: Arc::default(),
            script: self.script.clone(),
            patience: self.patience,
        })
    }

    /// Makes a request as one should.
    pub(super) async fn serve(&mut self) -> Result<Outcome, Fault> {
        if let Err(error) = self.ready().await? {
            return Ok(Err(error));
        }
        self.call()?.answer().await
    }

    /// Makes a request as one should, and it is answered.
    pub(super) async fn must_serve(&mut self) -> Result<(), String> {
        self.must_be_ready().await?;
        self.must_answer().await
    }

    /// Makes a request, being ready, and it is answered.
    pub(super) async fn must_answer(&mut self) -> Result<(), String> {
        self.call()?.must_be_answered().await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.script.note(format!("{} is dropped", self.name));
    }
}

impl Reply {
    /// One poll, on the response's own task.
    pub(super) fn poll(&mut self) -> Result<Poll<Outcome>, Fault> {
        let task = Arc::clone(&self.task);
        self.poll_on(&task)
    }

    /// One poll, on `task`.
    pub(super) fn poll_on(&mut self, task: &Arc<Probe>) -> Result<Poll<Outcome>, Fault> {
        let future = &mut self.future;
        poll_caught(&self.script, self.name.clone(), task, |cx| {
            future.as_mut().poll(cx)
        })
    }

    /// Polls so often, each time that its task is woken, and says whether there was an answer.
    pub(super) async fn is_done_after(&mut self, polls: usize) -> Result<bool, Fault> {
        for _ in 0..polls {
            if self.poll()?.is_ready() {
                return Ok(true);
            }
            if self.task.wait(self.patience, &self.name).await.is_err() {
                break;
            }
        }
        Ok(false)
    }

    /// Polls until there is an answer.
    pub(super) async fn answer(&mut self) -> Result<Outcome, Fault> {
        let task = Arc::clone(&self.task);
        let (who, patience) = (self.name.clone(), self.patience);
        drive(&task, patience, who, || self.poll()).await
    }

    /// Polls until there is an answer, and it isn't an error.
    pub(super) async fn must_be_answered(&mut self) -> Result<(), String> {
        match self.answer().await? {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{} failed with {error}", self.name)),
        }
    }

    /// Polls until there is an answer or an error, and goes away.
    pub(super) async fn must_end(mut self) -> Result<(), String> {
        let _ = self.answer().await?;
        Ok(())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.script.note(format!("{} is dropped", self.name));
    }
}

impl Probe {
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Waits until it is woken, and takes note.
    pub(super) async fn wait(&self, patience: Duration, who: &str) -> Result<(), Fault> {
        let woken = poll_fn(|cx| {
            let mut parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner);
            *parent = Some(cx.waker().clone());
            drop(parent);
            if self.woken.swap(false, Ordering::AcqRel) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        timeout(patience, woken).await.map_err(|_| Fault {
            who: who.to_owned(),
            how: How::NeverWoken(patience),
        })
    }
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let parent = {
            let mut parent = self.parent.lock().unwrap_or_else(PoisonError::into_inner);
            parent.take()
        };
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = &self.who;
        match &self.how {
            How::Panicked(message) => write!(f, "{who} panicked: {message}"),
            How::NeverWoken(patience) => write!(
                f,
                "{who} was pending, and in {patience:?} of paused time nothing woke its task"
            ),
            How::Spins => write!(
                f,
                "{who} was pending {POLLS} times, waking its own task each time"
            ),
        }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

impl Fault {
    pub(super) fn is_panic(&self) -> bool {
        matches!(self.how, How::Panicked(_))
    }

    pub(super) fn is_never_woken(&self) -> bool {
        matches!(self.how, How::NeverWoken(_))
    }
}

/// Lets the tasks of the subject run, while the clock stands still.
pub(super) async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// Polls as often as the task is woken, until there is an answer.
async fn drive(
    task: &Probe,
    patience: Duration,
    who: String,
    mut poll: impl FnMut() -> Result<Poll<Outcome>, Fault>,
) -> Result<Outcome, Fault> {
    for _ in 0..POLLS {
        if let Poll::Ready(outcome) = poll()? {
            return Ok(outcome);
        }
        // The subject's own tasks have their turn even where it wakes itself.
        yield_now().await;
        task.wait(patience, &who).await?;
    }
    Err(Fault {
        who,
        how: How::Spins,
    })
}

/// One poll, whose panic is caught and whose result is noted.
fn poll_caught(
    script: &Script,
    who: String,
    task: &Arc<Probe>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<Outcome>,
) -> Result<Poll<Outcome>, Fault> {
    let waker = Waker::from(Arc::clone(task));
    script.note(format!("{who} is polled"));
    // As an executor does: what woke the task before this poll is dealt with by it.
    task.woken.store(false, Ordering::Release);
    match caught(|| poll(&mut Context::from_waker(&waker))) {
        Ok(polled) => {
            script.note(match &polled {
                Poll::Pending => "  -> pending".to_owned(),
                Poll::Ready(Ok(())) => "  -> ok".to_owned(),
                Poll::Ready(Err(error)) => format!("  -> error: {error}"),
            });
            Ok(polled)
        }
        Err(message) => {
            script.note(format!("  -> panic: {message}"));
            Err(Fault {
                who,
                how: How::Panicked(message),
            })
        }
    }
}

/// Runs `f`, and gives the message of its panic.
pub(super) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    // What the panic left half done is what the checker wants to see.
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| message(&*payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else {
        "(a panic without a message)".to_owned()
    }
}
