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
use super::probes::{Probes, enough};
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
    pub(super) was_heard: bool,
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

/// Waits until enough have answered, or all have ended, or it is too late.
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
        self.was_heard = true;
        if let Some(round) = self.round.take() {
            round.end_one(true);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        {
            let outcome = if self.was_heard { "answered" } else { "lost" };
            metrics::counter!("tower_prequal_probes_total", "outcome" => outcome).increment(1);
        }
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

    /// Ready when no more need to answer.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (outcome, _replaced) = {
            let mut state = self.state();
            if state.is_over() {
                (Poll::Ready(()), None)
            } else {
                let waker = Some(cx.waker().clone());
                (Poll::Pending, mem::replace(&mut state.waker, waker))
            }
        };
        outcome
    }

    /// How many have answered, of how many.
    fn heard(&self) -> (usize, usize) {
        let state = self.state();
        (state.answered, state.asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.out == 0 || self.answered >= enough(self.asked)
    }
}

impl Future for Answers {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.round.poll(cx).is_ready() {
            self.end_round(&mut lock(&self.probes));
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
        self.end_round(&mut probes);
        Poll::Ready(())
    }
}

impl Answers {
    fn end_round(&self, probes: &mut Probes) {
        let (answered, asked) = self.round.heard();
        probes.end_round(answered, asked);
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
