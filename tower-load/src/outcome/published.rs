//! What a balancer reads of the outcomes, without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Failures, State};
use crate::ewma::Estimate;

/// What readers see of the state: bits of floats, each published by itself. A reading that comes between two writes
/// mixes values that were true a moment apart, which is as good as either for a balancer, and no lock.
#[derive(Debug)]
pub(super) struct Published {
    latency: AtomicU64,
    latency_at: AtomicU64,
    failures: AtomicU64,
    failures_at: AtomicU64,
    /// When the oldest in flight began; infinite if there is none.
    oldest: AtomicU64,
    until: AtomicU64,
    pub(super) in_flight: AtomicU32,
    /// How many failed in a row.
    run: AtomicU32,
}

/// A copy of what is published.
pub(super) struct Seen {
    pub(super) latency: Estimate,
    pub(super) failures: Failures,
    pub(super) oldest: f64,
    pub(super) until: f64,
}

impl Published {
    pub(super) fn new(state: &State) -> Self {
        let published = Self {
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failures_at: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            until: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            run: AtomicU32::new(0),
        };
        published.publish(state);
        published
    }

    /// Called with the state's lock held, which orders the writers.
    pub(super) fn publish(&self, state: &State) {
        let oldest = state.flights.oldest().unwrap_or(f64::INFINITY);
        let words = [
            (&self.latency, state.latency.value),
            (&self.latency_at, state.latency.updated_at),
            (&self.failures, state.failures.share),
            (&self.failures_at, state.failures.updated_at),
            (&self.oldest, oldest),
            (&self.until, state.until),
        ];
        for (word, value) in words {
            word.store(value.to_bits(), Ordering::Relaxed);
        }
        let in_flight = u32::try_from(state.flights.len()).unwrap_or(u32::MAX);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.run.store(state.failures.run, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Seen {
        let read = |word: &AtomicU64| f64::from_bits(word.load(Ordering::Relaxed));
        Seen {
            latency: Estimate {
                value: read(&self.latency),
                updated_at: read(&self.latency_at),
            },
            failures: Failures {
                share: read(&self.failures),
                updated_at: read(&self.failures_at),
                run: self.run.load(Ordering::Relaxed),
            },
            oldest: read(&self.oldest),
            until: read(&self.until),
        }
    }
}
