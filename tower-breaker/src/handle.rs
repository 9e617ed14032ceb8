//! What a breaker is seen and driven by from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tower_rng::SplitMix64;

use crate::Settings;
use crate::circuit::{Circuit, Phase};
use crate::lent::Lent;
use crate::pass::Pass;

/// What a breaker does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// All pass.
    Open,
    /// A few pass.
    Limited,
    /// None passes. If the breaker shut by itself it stays so until the first call after the wait.
    Shut,
}

/// The state of a breaker, to watch and to drive; clones share it.
///
/// Made by itself, and given to [`BreakerLayer::with_handle`](crate::BreakerLayer::with_handle), it makes breakers that shut and open together.
///
/// While it is *held*, results count for nothing. [`release`](Self::release) goes back to automatic, open.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    /// The same as in there, and nearer.
    pub(crate) lent: &'static Lent,
}

#[derive(Debug)]
pub(crate) struct Shared {
    lent: &'static Lent,
    /// The last state; whoever changes the state brings it up to date afterwards.
    states: watch::Sender<State>,
    /// Told when a request may be admitted that wasn't before.
    freed: Arc<Notify>,
}

impl Handle {
    /// Makes an open state.
    pub fn new(settings: Settings) -> Self {
        Self::with_rng(settings, SplitMix64::from_entropy())
    }

    /// As [`new`](Self::new), with jitter from `rng`: a seeded one replays.
    pub fn with_rng(settings: Settings, rng: SplitMix64) -> Self {
        let shared = Arc::new(Shared {
            lent: Lent::borrow(settings, rng),
            states: watch::Sender::new(State::Open),
            freed: Arc::default(),
        });
        shared.lent.set_owner(&shared);
        Self::of(shared)
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self {
            lent: shared.lent,
            shared,
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.lent.valve.look(State::of)
    }

    /// Watches the state. Who is slow sees the latest, and may miss what was between.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.states.subscribe()
    }

    /// Lets everything through until released.
    pub fn hold_open(&self) {
        self.hold(Phase::HeldOpen);
    }

    /// Lets at most `max` requests be in flight until released. Those that are in flight already aren't counted.
    pub fn hold_limited(&self, max: u32) {
        self.hold(Phase::HeldLimited { max, in_flight: 0 });
    }

    /// Lets nothing through until released.
    pub fn hold_shut(&self) {
        self.hold(Phase::HeldShut);
    }

    /// Opens it, forgets what was before, and goes by the results again.
    pub fn release(&self) {
        self.change(|circuit, _| circuit.release());
    }

    fn hold(&self, phase: Phase) {
        self.change(|circuit, _| circuit.hold(phase));
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Circuit, &mut SplitMix64)) {
        if self.lent.valve.change(change).1 {
            self.announce();
        }
    }

    pub(crate) fn admit(&self) -> Result<Pass, Option<Duration>> {
        let (admitted, is_changed) = self.lent.valve.admit(Instant::now);
        // First, so that it is given back should a watcher's waker panic.
        let pass = admitted.map(|epoch| Pass {
            lent: self.lent,
            epoch: Some(epoch),
        });
        if is_changed {
            self.announce();
        }
        pass
    }

    /// Ends when a request may be admitted that wasn't before.
    pub(crate) fn freed(&self) -> OwnedNotified {
        Arc::clone(&self.shared.freed).notified_owned()
    }

    #[cold]
    pub(crate) fn announce(&self) {
        self.shared.freed.notify_waiters();
        let mut announced = None;
        // Two that come at once both tell the latest, so that it is the latest that stays.
        self.shared.states.send_if_modified(|last| {
            let state = self.state();
            let is_new = *last != state;
            if is_new {
                announced = Some((*last, state));
            }
            *last = state;
            is_new
        });
        if let Some((from, to)) = announced {
            tracing::debug!(?from, ?to, "breaker changed its state");
            #[cfg(feature = "metrics")]
            metrics::counter!("tower_breaker_changes_total", "to" => to.name()).increment(1);
        }
    }
}

impl State {
    #[cfg(feature = "metrics")]
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Limited => "limited",
            Self::Shut => "shut",
        }
    }

    fn of(circuit: &Circuit) -> Self {
        match circuit.phase() {
            Phase::Open(_) | Phase::HeldOpen => Self::Open,
            Phase::Trial { .. } | Phase::HeldLimited { .. } => Self::Limited,
            Phase::Shut { .. } | Phase::HeldShut => Self::Shut,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.lent.give_back();
    }
}
