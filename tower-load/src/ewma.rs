//! The moving average of response times behind [`PeakEwma`](crate::peak_ewma::PeakEwma).
//!
//! Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

/// A moving average that is sensitive to peaks.
///
/// A response time above the estimate replaces it at once. One below pulls it down with a weight that
/// grows with the time since the last one: an estimate that is `t` old counts `e^(-t/τ)`. Between
/// responses the estimate as read falls in the same way, so that an endpoint that was slow is tried
/// again some day. The rule is that of Finagle's `PeakEwma` load balancer, but for reading: there a read
/// moves the estimate and its clock, and frequent reads keep later responses from counting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ewma {
    /// The estimate when it was last updated, in nanoseconds.
    estimate: f64,
    updated_at: Instant,
    /// The time constant τ, in nanoseconds.
    decay: f64,
}

/// No estimate is read as less than one nanosecond: an endpoint that idled until its estimate vanished
/// would else look free of cost however many requests are sent to it.
const LEAST: f64 = 1.0;

impl Ewma {
    /// Starts with `estimate`. A time constant that isn't positive forgets at once.
    pub(crate) fn new(estimate: Duration, decay_ns: f64, now: Instant) -> Self {
        Self {
            estimate: nanos(estimate),
            updated_at: now,
            decay: if decay_ns > 0.0 {
                decay_ns
            } else {
                f64::MIN_POSITIVE
            },
        }
    }

    /// Records a response that took `rtt` and came at `now`.
    pub(crate) fn observe(&mut self, rtt: Duration, now: Instant) {
        let rtt = nanos(rtt);
        if rtt > self.estimate {
            self.estimate = rtt;
        } else {
            let weight = self.weight_at(now);
            self.estimate = self.estimate * weight + rtt * (1.0 - weight);
        }
        // Responses may be recorded out of order, by threads that read the clock before they took the
        // lock. Going back would count the same span twice.
        self.updated_at = self.updated_at.max(now);
    }

    /// Projects the estimate to `now`, in nanoseconds, without changing it.
    pub(crate) fn at(&self, now: Instant) -> f64 {
        (self.estimate * self.weight_at(now)).max(LEAST)
    }

    /// How much the estimate still counts at `now`, in `[0, 1]`.
    fn weight_at(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.updated_at);
        (-nanos(age) / self.decay).exp()
    }
}

/// Exact up to 2^53 ns, which is 104 days.
fn nanos(duration: Duration) -> f64 {
    const PER_SECOND: f64 = 1_000_000_000.0;
    duration.as_secs() as f64 * PER_SECOND + f64::from(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const TAU: f64 = 1e9;

    #[test]
    fn a_peak_replaces_the_estimate_at_once() {
        let now = Instant::now();
        let mut ewma = Ewma::new(10 * MS, TAU, now);
        ewma.observe(50 * MS, now);
        assert_eq!(ewma.at(now), 5e7);
    }

    #[test]
    fn a_smaller_observation_counts_by_the_age_of_the_estimate() {
        let now = Instant::now();
        let mut ewma = Ewma::new(10 * MS, TAU, now);
        let later = now + Duration::from_secs(1);
        ewma.observe(2 * MS, later);
        let weight = (-1.0_f64).exp();
        assert!((ewma.at(later) - (1e7 * weight + 2e6 * (1.0 - weight))).abs() < 1.0);
    }

    #[test]
    fn the_estimate_falls_by_e_within_the_time_constant() {
        let now = Instant::now();
        let ewma = Ewma::new(10 * MS, TAU, now);
        assert_eq!(ewma.at(now), 1e7);
        let read = ewma.at(now + Duration::from_secs(1));
        assert!((read - 1e7 / std::f64::consts::E).abs() < 1.0, "{read}");
    }

    #[test]
    fn an_estimate_that_has_vanished_is_still_above_zero() {
        let now = Instant::now();
        let ewma = Ewma::new(10 * MS, TAU, now);
        assert_eq!(ewma.at(now + Duration::from_secs(100_000)), LEAST);
    }

    #[test]
    fn a_time_constant_that_makes_no_sense_forgets_at_once() {
        let now = Instant::now();
        for decay in [0.0, -1.0, f64::NAN] {
            let ewma = Ewma::new(10 * MS, decay, now);
            assert_eq!(ewma.at(now), 1e7);
            assert_eq!(ewma.at(now + MS), LEAST);
        }
    }

    /// What happens to an estimator: an observation, or a reading, some time after the one before.
    #[derive(Clone, Debug)]
    enum Event {
        Observe { after: Duration, rtt: Duration },
        Read { after: Duration },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let millis = |max| (0..max).prop_map(Duration::from_millis);
        let event = prop_oneof![
            (millis(5_000_u64), millis(500_u64))
                .prop_map(|(after, rtt)| Event::Observe { after, rtt }),
            millis(5_000_u64).prop_map(|after| Event::Read { after }),
        ];
        prop::collection::vec(event, 1..100)
    }

    proptest! {
        /// The oracle folds the observations alone, each over the span since the observation before.
        #[test]
        fn readings_change_nothing_and_estimates_follow_the_rule(events in events()) {
            let start = Instant::now();
            let mut ewma = Ewma::new(10 * MS, TAU, start);
            let (mut estimate, mut updated, mut now) = (0.010_f64, 0.0_f64, 0.0_f64);
            for event in events {
                let (Event::Observe { after, .. } | Event::Read { after }) = event;
                now += after.as_secs_f64();
                let at = start + Duration::from_secs_f64(now);
                let weight = (updated - now).exp();
                match event {
                    Event::Observe { rtt, .. } => {
                        let rtt_secs = rtt.as_secs_f64();
                        estimate = if rtt_secs > estimate {
                            rtt_secs
                        } else {
                            estimate * weight + rtt_secs * (1.0 - weight)
                        };
                        updated = now;
                        ewma.observe(rtt, at);
                    }
                    Event::Read { .. } => {
                        let expected = (estimate * weight * 1e9).max(LEAST);
                        let read = ewma.at(at);
                        prop_assert!((read - expected).abs() <= 1e-6 * expected.max(1e3), "{read} {expected}");
                        prop_assert_eq!(read, ewma.at(at));
                    }
                }
            }
        }

        #[test]
        fn an_estimate_stays_within_what_was_observed(events in events()) {
            const ROUNDING: f64 = LEAST;
            let mut now = Instant::now();
            let mut ewma = Ewma::new(10 * MS, TAU, now);
            let mut highest = 10 * MS;
            for event in events {
                match event {
                    Event::Observe { after, rtt } => {
                        now += after;
                        highest = highest.max(rtt);
                        ewma.observe(rtt, now);
                        prop_assert!(ewma.at(now) >= nanos(rtt) - ROUNDING);
                    }
                    Event::Read { after } => now += after,
                }
                prop_assert!(ewma.at(now) <= nanos(highest) + ROUNDING);
            }
        }
    }
}
