//! Waiting: a request in the queue, and a handle that waits for a place in it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_deadline::Deadline;
use tower_rng::SplitMix64;
use tower_service::Service;

use super::Core;
use super::gauge::{Gauge, Member};
use super::shared::{Called, Chooser};
use super::shortage::Reason;
use crate::picker::{Picker, Preparation};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What comes of waiting.
type Outcome<F, S, G> = Result<Called<F, S, G>, BoxError>;

/// A request that waits for an endpoint, or first for what its picker needs.
pub(super) struct Queued<K, S, P, G: Gauge, Req> {
    core: Arc<Core<K, S, G>>,
    chooser: Chooser<P, SplitMix64>,
    /// Taken when it is sent.
    request: Option<Req>,
    patience: Patience,
    place: Place,
}

/// Where a request waits. It goes down the list.
enum Place {
    /// For what its picker needs. In no queue.
    Preparing(Preparation),
    /// For nothing: it is about to be sent.
    Prepared,
    /// For an endpoint.
    Queued { ticket: u64 },
}

/// A handle that waits for a place in the queue. It has reserved nothing.
pub(super) struct Doorstep<K, S, G: Gauge> {
    core: Arc<Core<K, S, G>>,
    ticket: u64,
    patience: Patience,
}

/// How long one waits.
struct Patience {
    since: Instant,
    until: Option<Instant>,
    /// What is said when it is over.
    reason: Reason,
    /// Missing outside of a runtime.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// At most so long, and not past the deadline of the task.
    fn new(most: Duration) -> Self {
        let since = Instant::now();
        let longest = since.checked_add(most);
        let deadline = Deadline::current().map(Deadline::instant);
        let (until, reason) = match (longest, deadline) {
            (longest, Some(deadline)) if longest.is_none_or(|longest| deadline < longest) => {
                (Some(deadline), Reason::DeadlinePassed)
            }
            (longest, _) => (longest, Reason::WaitedTooLong),
        };
        Self {
            since,
            until,
            reason,
            timer: None,
        }
    }

    /// Whether nobody waits for the response any more.
    fn is_past_deadline(&self) -> bool {
        self.reason == Reason::DeadlinePassed
            && self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Ready when the wait is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else {
            return Poll::Pending;
        };
        if self.timer.is_none() {
            if Handle::try_current().is_err() {
                return match until <= Instant::now() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                };
            }
            self.timer = Some(Box::pin(sleep_until(until)));
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<K, S, P, G: Gauge, Req> Queued<K, S, P, G, Req> {
    /// Takes a place, if there is one.
    pub(super) fn new(
        core: &Arc<Core<K, S, G>>,
        chooser: impl FnOnce() -> Chooser<P, SplitMix64>,
        request: Req,
    ) -> Result<Self, BoxError> {
        if let Some(reason) = core.shared.closed() {
            return Err(core.unavailable(reason, Duration::ZERO));
        }
        let Some(ticket) = core.shared.queue() else {
            return Err(core.unavailable(Reason::QueueFull, Duration::ZERO));
        };
        core.shared.metrics.queued();
        Ok(Self {
            core: Arc::clone(core),
            chooser: chooser(),
            request: Some(request),
            patience: Patience::new(core.max_wait),
            place: Place::Queued { ticket },
        })
    }

    /// Has the request wait for its picker. Until that is done it needs no place.
    pub(super) fn preparing(
        core: &Arc<Core<K, S, G>>,
        chooser: Chooser<P, SplitMix64>,
        preparation: Preparation,
        request: Req,
    ) -> Self {
        core.shared.begin_preparing();
        Self {
            core: Arc::clone(core),
            chooser,
            request: Some(request),
            patience: Patience::new(core.max_wait),
            place: Place::Preparing(preparation),
        }
    }

    /// Waits for an endpoint and sends the request.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<S::Future, S, G>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
        P: Picker<Member<G>>,
    {
        // First: what is polled late, by a busy thread, must not be sent because there is an endpoint now.
        if self.patience.is_past_deadline() {
            return Poll::Ready(Err(self.give_up(Reason::DeadlinePassed)));
        }
        let ticket = match &mut self.place {
            // To `Prepared`, when the picker has what it needs or the wait is over.
            Place::Preparing(preparation) => {
                let polled = preparation.as_mut().poll(cx);
                if polled.is_pending() && self.patience.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.place = Place::Prepared;
                return self.poll(cx);
            }
            // To `Queued`, if there is no endpoint.
            Place::Prepared => {
                if let Some(called) = self.dispatch() {
                    return Poll::Ready(Ok(called));
                }
                let Some(ticket) = self.core.shared.queue() else {
                    let reason = self.core.shared.closed();
                    return Poll::Ready(Err(self.give_up(reason.unwrap_or(Reason::QueueFull))));
                };
                self.place = Place::Queued { ticket };
                self.core.shared.end_preparing();
                self.core.shared.metrics.queued();
                ticket
            }
            Place::Queued { ticket } => *ticket,
        };
        // It parks before it tries. What becomes ready later calls it, and what was ready before is tried; an
        // endpoint that turns it away after it has parked calls it as well.
        let parked = self.core.shared.park(ticket, cx.waker());
        if let Some(called) = self.dispatch() {
            return Poll::Ready(Ok(called));
        }
        if let Err(reason) = parked {
            return Poll::Ready(Err(self.give_up(reason)));
        }
        if self.patience.poll(cx).is_ready() {
            return Poll::Ready(Err(self.give_up(self.patience.reason)));
        }
        Poll::Pending
    }

    /// Sends the request, if there is an endpoint.
    fn dispatch(&mut self) -> Option<Called<S::Future, S, G>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
        P: Picker<Member<G>>,
    {
        loop {
            let request = self.request.take()?;
            match self.core.shared.dispatch(request, &mut self.chooser) {
                Ok(called) => return Some(called),
                Err(miss) => {
                    self.request = Some(miss.request);
                    if !miss.is_worth_another_try {
                        return None;
                    }
                }
            }
        }
    }

    fn give_up(&self, reason: Reason) -> BoxError {
        self.core.unavailable(reason, self.patience.since.elapsed())
    }
}

impl<K, S, P, G: Gauge, Req> Drop for Queued<K, S, P, G, Req> {
    fn drop(&mut self) {
        match self.place {
            Place::Preparing(_) | Place::Prepared => self.core.shared.end_preparing(),
            Place::Queued { ticket } => self.core.shared.leave_queue(ticket),
        }
    }
}

impl<K, S, P, G: Gauge, Req> fmt::Debug for Queued<K, S, P, G, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued")
            .field("since", &self.patience.since)
            .finish_non_exhaustive()
    }
}

impl<K, S, G: Gauge> Doorstep<K, S, G> {
    pub(super) fn new(core: &Arc<Core<K, S, G>>) -> Self {
        Self {
            core: Arc::clone(core),
            ticket: core.shared.ticket(),
            patience: Patience::new(core.max_wait),
        }
    }

    /// Ready when there is room, or when waiting for it is of no use: then the call says why.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.core.shared;
        let parked = shared.park_handle(self.ticket, cx.waker());
        if parked.is_err() || shared.has_room() {
            return Poll::Ready(());
        }
        self.patience.poll(cx)
    }
}

impl<K, S, G: Gauge> Drop for Doorstep<K, S, G> {
    fn drop(&mut self) {
        self.core.shared.leave_doorstep(self.ticket);
    }
}
