//! The end of a call's time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_deadline::Deadline;

use crate::Status;

/// A deadline, with the timer that is made when it is first waited for.
#[derive(Debug)]
pub(crate) struct Expiry {
    deadline: Option<Deadline>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Expiry {
    pub(crate) fn new(deadline: Option<Deadline>) -> Self {
        Self {
            deadline,
            timer: None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Ready where the time is up.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.deadline {
            None => Poll::Pending,
            Some(deadline) => self.poll_until(deadline, cx),
        }
    }

    fn poll_until(&mut self, deadline: Deadline, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.timer {
            return timer.as_mut().poll(cx);
        }
        if deadline.has_passed_at(Instant::now()) {
            return Poll::Ready(());
        }
        if Handle::try_current().is_err() {
            // No timer outside of a runtime: the deadline is noticed at the next poll.
            return Poll::Pending;
        }
        let timer = self.timer.insert(Box::pin(sleep_until(deadline.instant())));
        timer.as_mut().poll(cx)
    }
}

pub(crate) fn expired() -> Status {
    Status::deadline_exceeded("the deadline has passed before the call has ended")
}
