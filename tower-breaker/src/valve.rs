//! A circuit that many share: a lock around it, and a copy of what most requests ask.
//!
//! While the circuit is open every request is admitted, and needs to know nothing but the epoch. So a word
//! beside the lock tells both. It is written under the lock. Who reads an old word is admitted in an epoch
//! that has ended, as if it had asked a moment before; what it reports is ignored.

#[cfg(tower_loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
use std::sync::PoisonError;
#[cfg(not(tower_loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use tokio::time::Instant;
use tower_rng::{Rng, SplitMix64};

use crate::circuit::{Circuit, Outcome, Phase};

#[derive(Debug)]
pub(crate) struct Valve {
    /// Twice the epoch, plus one while all are admitted.
    word: AtomicU64,
    circuit: Mutex<(Circuit, SplitMix64)>,
}

impl Valve {
    pub(crate) fn new(circuit: Circuit, rng: SplitMix64) -> Self {
        Self {
            word: AtomicU64::new(word(&circuit)),
            circuit: Mutex::new((circuit, rng)),
        }
    }

    /// Admits a request in the epoch that it returns, or says when to ask again. Also says whether this has
    /// changed the state.
    #[inline]
    pub(crate) fn admit(
        &self,
        now: impl FnOnce() -> Instant,
    ) -> (Result<u64, Option<Duration>>, bool) {
        match self.open_epoch() {
            Some(epoch) => (Ok(epoch), false),
            None => self.change(|circuit, _| circuit.admit(now())),
        }
    }

    /// Whether a request would be refused, whatever the service's readiness.
    #[inline]
    pub(crate) fn refuses(&self, now: impl FnOnce() -> Instant) -> Option<Option<Duration>> {
        match self.open_epoch() {
            Some(_) => None,
            None => self.lock().0.refuses(now()),
        }
    }

    pub(crate) fn finish(&self, epoch: u64, outcome: Outcome, now: Instant) -> bool {
        let finish = |circuit: &mut Circuit, rng: &mut SplitMix64| {
            circuit.finish(epoch, outcome, now, || rng.next_f64());
        };
        self.change(finish).1
    }

    /// Does `change`, and says whether it has changed the state.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Circuit, &mut SplitMix64) -> T,
    ) -> (T, bool) {
        let mut guard = self.lock();
        let (circuit, rng) = &mut *guard;
        let epoch = circuit.epoch();
        let out = change(circuit, rng);
        let is_changed = circuit.epoch() != epoch;
        if is_changed {
            self.word.store(word(circuit), Ordering::Relaxed);
        }
        (out, is_changed)
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Circuit) -> T) -> T {
        look(&self.lock().0)
    }

    #[inline]
    fn open_epoch(&self) -> Option<u64> {
        // Nothing else is read by it, so it needs no ordering.
        let word = self.word.load(Ordering::Relaxed);
        (word & 1 == 1).then_some(word >> 1)
    }

    fn lock(&self) -> MutexGuard<'_, (Circuit, SplitMix64)> {
        // No code of a user runs under it.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(circuit: &Circuit) -> u64 {
    let is_open = matches!(circuit.phase(), Phase::Open(_) | Phase::HeldOpen);
    circuit.epoch() << 1 | u64::from(is_open)
}

#[cfg(all(test, tower_loom))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::Settings;

    fn valve(trials: u32) -> Arc<Valve> {
        let settings = Settings::default()
            .with_faults_in_a_row(1)
            .with_trials(trials)
            .with_backoff(Duration::from_secs(1), Duration::from_secs(1));
        Arc::new(Valve::new(Circuit::new(settings), SplitMix64::new(1)))
    }

    #[test]
    fn loom_faults_at_once_shut_it_once_and_all_are_refused_after() {
        loom::model(|| {
            let now = Instant::now();
            let valve = valve(1);
            let fail = move |valve: &Valve| match valve.admit(|| now).0 {
                Ok(epoch) => valve.finish(epoch, Outcome::Fault(None), now),
                Err(_) => false,
            };
            let other = Arc::clone(&valve);
            let thread = thread::spawn(move || fail(&other));
            let changed = fail(&valve);
            assert!(changed ^ thread.join().unwrap());
            assert!(valve.admit(|| now).0.is_err());
            assert!(valve.look(|circuit| circuit.epoch() == 1));
        });
    }

    #[test]
    fn loom_one_trial_is_admitted_and_its_success_opens_it_for_all() {
        loom::model(|| {
            let now = Instant::now();
            let later = now + Duration::from_secs(2);
            let valve = valve(1);
            let epoch = valve.admit(|| now).0.unwrap();
            valve.finish(epoch, Outcome::Fault(None), now);
            let other = Arc::clone(&valve);
            let thread = thread::spawn(move || other.admit(|| later).0.ok());
            let admitted = [valve.admit(|| later).0.ok(), thread.join().unwrap()];
            let mut admitted = admitted.into_iter().flatten();
            let trial = admitted.next().unwrap();
            assert_eq!(admitted.next(), None);
            assert!(valve.finish(trial, Outcome::Working, later));
            assert!(valve.admit(|| later).0.is_ok());
        });
    }
}
