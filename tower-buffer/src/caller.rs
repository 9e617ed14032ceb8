//! One caller of the queue: what it reserves, what it queues, and what it takes back when it goes.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use tokio::task;

use crate::fifo::Key;
use crate::queue::{Failure, Queue, Served};
use crate::slots::Reservation;
use crate::{AtCapacity, BoxError, Closed};

/// A handle of the queue: the core of a `Buffer`.
pub(crate) struct Caller<Req, F> {
    queue: Arc<Queue<Req, F>>,
    reservation: Reservation,
    /// A task that is known to run on the worker's runtime.
    home: Option<task::Id>,
}

/// What became of a call.
pub(crate) enum Submitted<F> {
    Called(F),
    Queued(Ticket<F>),
    Failed(BoxError),
}

/// A place in the queue. Dropping it takes the request back.
pub(crate) struct Ticket<F> {
    queue: Arc<dyn Answers<F>>,
    /// None after the answer.
    key: Option<Key>,
    // As if the answer were received from here, which is what the auto traits of a response future say.
    _answer: PhantomData<Mutex<F>>,
}

/// The right to be in flight, where that is limited.
pub(crate) struct Permit<F>(Arc<dyn Answers<F>>);

/// The queue as a response future sees it, which doesn't know the type of the request.
trait Answers<F>: Send + Sync {
    fn poll_answer(&self, key: Key, waker: &Waker) -> Poll<Result<F, Failure>>;
    fn cancel(&self, key: Key);
    fn end_flight(&self);
}

impl<Req, F> Caller<Req, F> {
    pub(crate) fn new(queue: Arc<Queue<Req, F>>) -> Self {
        queue.arrive();
        Self {
            queue,
            reservation: Reservation::None,
            home: None,
        }
    }

    pub(crate) fn queue(&self) -> &Queue<Req, F> {
        &self.queue
    }

    /// Reserves a slot, or waits in line for one.
    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.queue.is_shut() {
            let slots = self.queue.slots();
            ready!(slots.poll_reserve(&mut self.reservation, cx.waker()));
            if matches!(self.reservation, Reservation::Held) {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Err(self.queue.failure()))
    }
}

impl<Req, F> Caller<Req, F>
where
    Req: Send + 'static,
    F: Send + 'static,
{
    /// Has the request served here and now, or queues it.
    #[inline]
    pub(crate) fn call(&mut self, req: Req) -> (Submitted<F>, Option<Permit<F>>) {
        if !self.queue.slots().take(&mut self.reservation) {
            return (Submitted::Failed(self.turned_away()), None);
        }
        let permit = if self.queue.slots().limits_flight() {
            Some(Permit(Arc::clone(&self.queue) as _))
        } else {
            None
        };
        let submitted = match self.queue.serve_here(req, &mut self.home) {
            Ok(Served::Called(future)) => {
                self.queue.after_serving();
                Submitted::Called(future)
            }
            Ok(Served::Refused(error) | Served::Broken(error)) => {
                self.queue.after_serving();
                Submitted::Failed(error.into())
            }
            Ok(Served::Pending(req)) => self.enqueue(req, true),
            Err(req) => self.enqueue(req, false),
        };
        (submitted, permit)
    }

    #[cold]
    fn enqueue(&self, req: Req, polled: bool) -> Submitted<F> {
        match self.queue.enqueue(req, polled) {
            Ok(key) => Submitted::Queued(Ticket {
                queue: Arc::clone(&self.queue) as _,
                key: Some(key),
                _answer: PhantomData,
            }),
            Err(failure) => Submitted::Failed(failure.into()),
        }
    }

    #[cold]
    fn turned_away(&self) -> BoxError {
        if self.queue.is_shut() {
            return self.queue.failure().into();
        }
        AtCapacity.into()
    }
}

impl<Req, F> Clone for Caller<Req, F> {
    fn clone(&self) -> Self {
        let mut clone = Self::new(Arc::clone(&self.queue));
        // Most clones are made where they are used.
        clone.home = self.home;
        clone
    }
}

impl<Req, F> Drop for Caller<Req, F> {
    fn drop(&mut self) {
        self.queue.slots().give_back(&mut self.reservation);
        self.queue.leave();
    }
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
        self.slots().end_flight();
    }
}

impl<F> Ticket<F> {
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<F, BoxError>> {
        let Some(key) = self.key else {
            return Poll::Ready(Err(Closed.into()));
        };
        let answer = ready!(self.queue.poll_answer(key, cx.waker()));
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

impl<F> Drop for Permit<F> {
    fn drop(&mut self) {
        self.0.end_flight();
    }
}
