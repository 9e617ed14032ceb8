//! A circuit that many share: a lock around it, and a copy of what most requests ask.
//!
//! While the circuit is open every request is admitted, and needs to know nothing but the epoch. So a word
//! beside the lock tells both. It is written under the lock. Who reads an old word is admitted in an epoch
//! that has ended, as if it had asked a moment before; what it reports is ignored.
//!
//! Nor does a success need more than to be counted, as long as nothing but successes comes and the slice of the
//! window goes on that is being filled. It is counted beside the lock, too, and whoever takes the lock first takes in
//! what was counted. A success that is counted at the very moment in which another thread changes the state or
//! begins a slice may count in the new one: both happened at once.

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

use crate::Settings;
use crate::circuit::{Circuit, Outcome, Phase};

#[derive(Debug)]
pub(crate) struct Valve {
    /// Twice the epoch, plus one while all are admitted.
    word: AtomicU64,
    /// Until when a success need only be counted, in nanoseconds since the start.
    quiet_until: AtomicU64,
    /// Successes that the circuit hasn't seen yet.
    successes: AtomicU64,
    start: Instant,
    circuit: Mutex<(Circuit, SplitMix64)>,
}

/// For ever: nothing depends on the time.
const ALWAYS: u64 = u64::MAX;

impl Valve {
    pub(crate) fn new(circuit: Circuit, rng: SplitMix64) -> Self {
        let start = Instant::now();
        let quiet_until = nanos(circuit.quiet_until(start), start);
        Self {
            word: AtomicU64::new(word(&circuit)),
            quiet_until: AtomicU64::new(quiet_until),
            successes: AtomicU64::new(0),
            start,
            circuit: Mutex::new((circuit, rng)),
        }
    }

    /// Starts anew with a circuit that has seen nothing. What was admitted before has no say.
    pub(crate) fn renew(&self, settings: Settings, rng: SplitMix64) {
        let mut guard = self.lock();
        self.successes.store(0, Ordering::Relaxed);
        self.quiet_until.store(0, Ordering::Relaxed);
        let circuit = Circuit::after(settings, guard.0.epoch());
        self.word.store(word(&circuit), Ordering::Relaxed);
        *guard = (circuit, rng);
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
    pub(crate) fn refuses(&self, now: impl FnOnce() -> Instant) -> Option<Option<Duration>> {
        self.lock().0.refuses(now())
    }

    /// Takes the outcome of a request that was admitted in `epoch`. Says whether it has changed the state.
    #[inline]
    pub(crate) fn finish(
        &self,
        epoch: u64,
        outcome: Outcome,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if outcome == Outcome::Working && self.open_epoch() == Some(epoch) {
            let quiet_until = self.quiet_until.load(Ordering::Relaxed);
            if quiet_until == ALWAYS {
                return false;
            }
            let now = now();
            // It begins anew after 584 years of service; what is counted then is in the wrong slice of its window.
            let since = now.saturating_duration_since(self.start).as_nanos() as u64;
            if since < quiet_until {
                self.successes.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            return self.finish_locked(epoch, outcome, now);
        }
        self.finish_locked(epoch, outcome, now())
    }

    #[cold]
    fn finish_locked(&self, epoch: u64, outcome: Outcome, now: Instant) -> bool {
        let finish = |circuit: &mut Circuit, rng: &mut SplitMix64| {
            circuit.finish(epoch, outcome, now, || rng.next_f64());
            self.quiet_until.store(
                nanos(circuit.quiet_until(now), self.start),
                Ordering::Relaxed,
            );
        };
        self.update(finish).1
    }

    /// Does `change`, and says whether it has changed the state.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Circuit, &mut SplitMix64) -> T,
    ) -> (T, bool) {
        self.update(|circuit, rng| {
            // The next success looks for itself.
            self.quiet_until.store(0, Ordering::Relaxed);
            change(circuit, rng)
        })
    }

    fn update<T>(&self, update: impl FnOnce(&mut Circuit, &mut SplitMix64) -> T) -> (T, bool) {
        let mut guard = self.lock();
        let (circuit, rng) = &mut *guard;
        circuit.catch_up(self.successes.swap(0, Ordering::Relaxed));
        let epoch = circuit.epoch();
        let out = update(circuit, rng);
        let is_changed = circuit.epoch() != epoch;
        if is_changed {
            self.word.store(word(circuit), Ordering::Relaxed);
        }
        (out, is_changed)
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Circuit) -> T) -> T {
        look(&self.lock().0)
    }

    /// The epoch, while all are admitted.
    #[inline]
    pub(crate) fn open_epoch(&self) -> Option<u64> {
        // Nothing else is read by it, so it needs no ordering.
        let word = self.word.load(Ordering::Relaxed);
        (word & 1 == 1).then_some(word >> 1)
    }

    fn lock(&self) -> MutexGuard<'_, (Circuit, SplitMix64)> {
        // No code of a user runs under it.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since the start; 584 years reach for ever.
#[inline]
fn nanos(at: Option<Instant>, start: Instant) -> u64 {
    at.map_or(ALWAYS, |at| {
        let since = at.saturating_duration_since(start);
        let secs = since.as_secs().saturating_mul(1_000_000_000);
        secs.saturating_add(u64::from(since.subsec_nanos()))
    })
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
                Ok(epoch) => valve.finish(epoch, Outcome::Fault(None), || now),
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
    fn loom_no_success_is_lost_or_counted_twice() {
        loom::model(|| {
            let now = Instant::now();
            let settings = Settings::default()
                .without_faults_in_a_row()
                .with_success_rate(0.5, Duration::from_secs(10), 100);
            let valve = Arc::new(Valve::new(Circuit::new(settings), SplitMix64::new(1)));
            let epoch = valve.admit(|| now).0.unwrap();
            let work = move |valve: &Valve| valve.finish(epoch, Outcome::Working, || now);
            // The first begins the window.
            work(&valve);
            let other = Arc::clone(&valve);
            let thread = thread::spawn(move || work(&other));
            work(&valve);
            valve.finish(epoch, Outcome::Fault(None), || now);
            thread.join().unwrap();
            let (counted, _) = valve.change(|circuit, _| circuit.counted());
            assert_eq!(counted, (3, 4));
        });
    }

    #[test]
    fn loom_one_trial_is_admitted_and_its_success_opens_it_for_all() {
        loom::model(|| {
            let now = Instant::now();
            let later = now + Duration::from_secs(2);
            let valve = valve(1);
            let epoch = valve.admit(|| now).0.unwrap();
            valve.finish(epoch, Outcome::Fault(None), || now);
            let other = Arc::clone(&valve);
            let thread = thread::spawn(move || other.admit(|| later).0.ok());
            let admitted = [valve.admit(|| later).0.ok(), thread.join().unwrap()];
            let mut admitted = admitted.into_iter().flatten();
            let trial = admitted.next().unwrap();
            assert_eq!(admitted.next(), None);
            assert!(valve.finish(trial, Outcome::Working, || later));
            assert!(valve.admit(|| later).0.is_ok());
        });
    }
}
