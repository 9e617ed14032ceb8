//! Where the answers to probes go, and who waits for them.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_load::meter::LoadReport;

use super::lock;
use super::probes::Probes;
use crate::picker::EndpointId;

/// Where the answer to a probe goes.
///
/// An answer that comes later than the time for probes is not heard, and one that never comes has no effect.
pub struct Reply {
    pub(super) id: EndpointId,
    /// How often the answer may be used.
    pub(super) uses: u32,
    pub(super) sent_at: Instant,
    pub(super) timeout: Duration,
    pub(super) probes: Arc<Mutex<Probes>>,
    /// Of the request that waits for it.
    pub(super) round: Option<Arc<Round>>,
}

/// The probes that are sent for a request that waits for their answers.
#[derive(Debug, Default)]
pub(super) struct Round {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: usize,
    answered: usize,
    /// That neither have answered nor ended without.
    out: usize,
    waker: Option<Waker>,
}

/// Waits until all but one have answered, or all have ended, or it is too late.
pub(super) struct Answers {
    pub(super) round: Arc<Round>,
    pub(super) sent_at: Instant,
    pub(super) timeout: Duration,
    pub(super) probes: Arc<Mutex<Probes>>,
    /// Missing outside of a runtime, where nothing is waited for.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
}

impl Reply {
    /// For how long since the probe was sent an answer counts.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives the answer.
    pub fn send(mut self, report: LoadReport) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.sent_at);
        if took > self.timeout {
            return;
        }
        {
            let mut probes = lock(&self.probes);
            probes.add(self.id, report, self.uses, now);
            probes.took(took);
        }
        if let Some(round) = self.round.take() {
            round.end_one(true);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(round) = self.round.take() {
            round.end_one(false);
        }
    }
}

impl Round {
    pub(super) fn ask(&self) {
        let mut state = self.state();
        state.asked += 1;
        state.out += 1;
    }

    fn end_one(&self, has_answered: bool) {
        let waker = {
            let mut state = self.state();
            state.out -= 1;
            state.answered += usize::from(has_answered);
            match state.is_over() {
                true => state.waker.take(),
                false => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready, with how many have answered, when no more need to.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let (outcome, _replaced) = {
            let mut state = self.state();
            if state.is_over() {
                (Poll::Ready(state.answered), None)
            } else {
                let waker = Some(cx.waker().clone());
                (Poll::Pending, mem::replace(&mut state.waker, waker))
            }
        };
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One may be slow, as the paper has it.
    fn is_over(&self) -> bool {
        self.out == 0 || self.answered >= self.asked.saturating_sub(1).max(1)
    }
}

impl Future for Answers {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(answered) = self.round.poll(cx) {
            if answered == 0 {
                lock(&self.probes).waited_in_vain();
            }
            return Poll::Ready(());
        }
        if self.timer.is_none() && Handle::try_current().is_ok() {
            // Past the end of time there is nothing to wake for.
            let Some(until) = self.sent_at.checked_add(self.timeout) else {
                return Poll::Pending;
            };
            self.timer = Some(Box::pin(sleep_until(until)));
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        let mut probes = lock(&self.probes);
        probes.took(self.timeout);
        if self.round.state().answered == 0 {
            probes.waited_in_vain();
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .field("sent_at", &self.sent_at)
            .finish_non_exhaustive()
    }
}
