//! Two tries of one request: when the second is sent, which of them wins, and what that says of latencies.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::latency::Latency;
use crate::{BoxError, Policy, SharedBudget, SharedHistory, lock};

pin_project! {
    /// The race of two tries.
    #[doc(hidden)]
    #[derive(Debug)]
    pub struct Race<S, P, Request>
    where
        S: Service<Request>,
    {
        #[pin]
        first: First<S::Future>,
        #[pin]
        second: Second<S::Future>,
        // What the second try takes, until it is sent.
        spare: Option<Spare<S, P, Request>>,
        clocks: Clocks,
    }
}

pin_project! {
    #[project = FirstProj]
    #[derive(Debug)]
    enum First<F> {
        Running { #[pin] future: F },
        // It failed when the second was sent, which may yet succeed.
        Failed { error: Option<BoxError> },
        // The race is over.
        Done,
    }
}

pin_project! {
    #[project = SecondProj]
    #[derive(Debug)]
    enum Second<F> {
        // None was possible, none is allowed, or it has failed.
        Never,
        // The timer is made when the first try is pending for the first time.
        Due { due: Instant },
        Delayed { #[pin] sleep: Sleep },
        // It is time, and the clone isn't ready yet.
        Readying,
        Sent { #[pin] future: F },
    }
}

pub(crate) struct Spare<S, P, Request> {
    pub(crate) request: Request,
    pub(crate) service: S,
    pub(crate) policy: P,
    pub(crate) budget: Option<SharedBudget>,
    /// The deadline of who asked.
    pub(crate) by: Option<Instant>,
}

/// What those say who have a say in a second try.
enum Decision {
    Sent,
    /// The policy objects.
    Refused,
    /// The budget has nothing left.
    Denied,
}

/// A request that was denied asks again after no less than this.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);

impl<S, P, Request> Spare<S, P, Request>
where
    P: Policy<Request>,
{
    /// Whether nobody waits for the response any more.
    fn is_late(&self) -> bool {
        self.by.is_some_and(|by| by <= Instant::now())
    }

    /// Asks all who have a say, the budget last as its answer is spent.
    fn decide(&self, clocks: &mut Clocks) -> Decision {
        let decision = if !self.policy.can_retry(&self.request) {
            Decision::Refused
        } else if let Some(budget) = &self.budget {
            let granted = budget.withdraw();
            clocks.decided(granted);
            if granted {
                Decision::Sent
            } else {
                Decision::Denied
            }
        } else {
            Decision::Sent
        };
        #[cfg(feature = "metrics")]
        {
            let outcome = if matches!(decision, Decision::Sent) {
                "sent"
            } else {
                "denied"
            };
            metrics::counter!("tower_hedge_second_tries_total", "outcome" => outcome).increment(1);
        }
        decision
    }
}

impl<S: fmt::Debug, P: fmt::Debug, Request: fmt::Debug> fmt::Debug for Spare<S, P, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare")
            .field("request", &self.request)
            .field("service", &self.service)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<S, P, Request> Future for Race<S, P, Request>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
    P: Policy<Request>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        // The first try goes first, also into a tie.
        if let FirstProj::Running { future } = this.first.as_mut().project() {
            match future.poll(cx) {
                Poll::Ready(Ok(response)) => {
                    this.clocks.first_won();
                    self.end();
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(Err(error)) => {
                    this.clocks.first_failed();
                    let error = Some(error.into());
                    this.first.set(First::Failed { error });
                }
                Poll::Pending => {}
            }
        }
        match self.as_mut().poll_second(cx) {
            Poll::Ready(Some(response)) => {
                self.as_mut().project().clocks.second_won();
                self.end();
                Poll::Ready(Ok(response))
            }
            // The first try alone decides.
            Poll::Ready(None) => match self.as_mut().project().first.project() {
                FirstProj::Running { .. } => Poll::Pending,
                FirstProj::Failed { error } => {
                    let error = error.take();
                    self.end();
                    Poll::Ready(Err(error.expect("it is taken once")))
                }
                FirstProj::Done => panic!("polled after completion"),
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S, P, Request> Race<S, P, Request>
where
    S: Service<Request>,
{
    /// Starts with the first try, and with what the second takes and when it is due, if there may be one.
    pub(crate) fn new(
        first: S::Future,
        spare: Option<(Instant, Spare<S, P, Request>)>,
        clocks: Clocks,
    ) -> Self {
        let (second, spare) = match spare {
            Some((due, spare)) => (Second::Due { due }, Some(spare)),
            None => (Second::Never, None),
        };
        Self {
            first: First::Running { future: first },
            second,
            spare,
            clocks,
        }
    }

    /// Drops what is left of the tries, rather than leave them to whoever holds the future.
    fn end(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.first.set(First::Done);
        this.second.set(Second::Never);
        *this.spare = None;
    }
}

impl<S, P, Request> Race<S, P, Request>
where
    S: Service<Request>,
    P: Policy<Request>,
{
    /// Ends with the second try's response, or with `None` if there won't be one.
    fn poll_second(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Response>> {
        let mut this = self.project();
        let first_runs = matches!(*this.first, First::Running { .. });
        loop {
            match this.second.as_mut().project() {
                SecondProj::Never => return Poll::Ready(None),
                SecondProj::Sent { future } => match ready!(future.poll(cx)) {
                    Ok(response) => return Poll::Ready(Some(response)),
                    // To `Never`.
                    Err(_) => {
                        this.clocks.second_failed();
                        this.second.set(Second::Never);
                    }
                },
                // A first try that has failed isn't rescued by one that hasn't been sent.
                _ if !first_runs => this.second.set(Second::Never),
                // To `Delayed`, or `Never` where there are no timers.
                SecondProj::Due { due } => {
                    let due = *due;
                    this.second.set(match Handle::try_current() {
                        Ok(_) => Second::Delayed {
                            sleep: sleep_until(due),
                        },
                        Err(_) => Second::Never,
                    });
                }
                // To `Readying`, `Never` if the policy objects or the deadline has passed, or another `Delayed` if the budget does: who is still
                // there then needs it more than others.
                SecondProj::Delayed { mut sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    let spare = this.spare.as_ref().filter(|spare| !spare.is_late());
                    match spare.map(|spare| (spare.decide(this.clocks), spare.by)) {
                        Some((Decision::Sent, _)) => this.second.set(Second::Readying),
                        Some((Decision::Denied, by)) => match this.clocks.twice(sleep.deadline()) {
                            Some(due) if by.is_none_or(|by| due < by) => sleep.reset(due),
                            _ => this.second.set(Second::Never),
                        },
                        Some((Decision::Refused, _)) | None => this.second.set(Second::Never),
                    }
                }
                // To `Sent`, or `Never` if the clone fails, or is ready too late.
                SecondProj::Readying => {
                    let ready = match &mut *this.spare {
                        Some(spare) => ready!(spare.service.poll_ready(cx)).is_ok(),
                        None => false,
                    };
                    let spare = this.spare.take().filter(|spare| ready && !spare.is_late());
                    this.second.set(match spare {
                        Some(mut spare) => {
                            this.clocks.second_sent();
                            Second::Sent {
                                future: spare.service.call(spare.request),
                            }
                        }
                        None => Second::Never,
                    });
                }
            }
        }
    }
}

/// When each try that is under way began. Tells the history how it ended: a try that isn't answered took
/// at least as long as it lasted.
#[derive(Debug)]
pub(crate) struct Clocks {
    history: SharedHistory,
    first: Option<Instant>,
    second: Option<Instant>,
    /// For a second try.
    has_asked: bool,
}

impl Clocks {
    pub(crate) fn new(history: SharedHistory, first: Instant) -> Self {
        Self {
            history,
            first: Some(first),
            second: None,
            has_asked: false,
        }
    }

    /// Who asks again has been counted.
    fn decided(&mut self, granted: bool) {
        if !mem::replace(&mut self.has_asked, true) {
            lock(&self.history).decided(granted);
        }
    }

    /// When the first try has taken twice as long as at `due`.
    fn twice(&self, due: Instant) -> Option<Instant> {
        let taken = due.saturating_duration_since(self.first?);
        due.checked_add(taken.max(LEAST_PATIENCE))
    }

    fn second_sent(&mut self) {
        self.second = Some(Instant::now());
    }

    fn first_won(&mut self) {
        let (won, lost) = (self.first.take(), self.second.take());
        self.record(won, lost);
    }

    fn second_won(&mut self) {
        let (won, lost) = (self.second.take(), self.first.take());
        self.record(won, lost);
    }

    fn first_failed(&mut self) {
        let failed = self.first.take();
        self.record(None, failed);
    }

    fn second_failed(&mut self) {
        let failed = self.second.take();
        self.record(None, failed);
    }

    fn record(&self, answered: Option<Instant>, cut: Option<Instant>) {
        let now = Instant::now();
        let took = |start| now.saturating_duration_since(start);
        let mut history = lock(&self.history);
        if let Some(start) = answered {
            history.record(Latency::Exactly(took(start)), now);
        }
        if let Some(start) = cut {
            history.record(Latency::AtLeast(took(start)), now);
        }
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        for cut in [mem::take(&mut self.first), mem::take(&mut self.second)] {
            if cut.is_some() {
                self.record(None, cut);
            }
        }
    }
}
