//! The messages in the line, and how far each has come. It is all under one lock, and runs no foreign code.

use std::task::Waker;

use tokio::time::Instant;
use tower_deadline::{Deadline, Expired};
use tracing::Span;

use crate::fifo::{Fifo, Key};
use crate::{BoxError, Closed, NoRuntime, ServiceError};

pub(super) struct State<Req, F> {
    /// Why the queue is closed, if it is.
    pub(super) failure: Option<Failure>,
    pub(super) messages: Fifo<Message<Req, F>>,
}

pub(super) struct Message<Req, F> {
    pub(super) stage: Stage<Req, F>,
    /// The task that waits for the answer.
    pub(super) waker: Option<Waker>,
}

pub(super) enum Stage<Req, F> {
    Queued(Req, Origin),
    /// First in the line, its request in the worker's hands.
    Serving,
    /// The same, but the caller has left.
    Abandoned,
    /// Out of the line.
    Answered(Result<F, Failure>),
}

/// What a request was called in, and is served in.
pub(super) struct Origin {
    pub(super) span: Span,
    pub(super) deadline: Option<Deadline>,
}

impl Origin {
    pub(super) fn current() -> Self {
        Self {
            span: Span::current(),
            deadline: Deadline::current(),
        }
    }

    pub(super) fn has_expired(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline.has_passed_at(Instant::now()))
    }
}

impl<Req, F> State<Req, F> {
    /// Takes the request out of the first message, which stays in the line.
    pub(super) fn take_front(&mut self) -> Option<(Key, Req, Origin)> {
        let key = self.messages.front()?;
        let stage = &mut self.messages.get_mut(key)?.stage;
        match std::mem::replace(stage, Stage::Serving) {
            Stage::Queued(req, origin) => Some((key, req, origin)),
            other => {
                *stage = other;
                None
            }
        }
    }
}

/// Why a queue takes no more messages.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Service(ServiceError),
    Closed,
    NoRuntime,
    Expired,
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Service(error) => error.into(),
            Failure::Closed => Closed.into(),
            Failure::NoRuntime => NoRuntime.into(),
            Failure::Expired => Expired::before_work().into(),
        }
    }
}
