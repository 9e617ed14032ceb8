//! The moving average of response times behind [`PeakEwma`](crate::peak_ewma::PeakEwma).
//!
//! Pure: it is told the time. Times are nanoseconds, those of the clock since some start; as `f64` they
//! are exact for 104 days and to some nanoseconds for centuries.

use std::time::Duration;

/// How estimates follow observations.
///
/// A response time above the estimate replaces it at once. One below pulls it down with a weight that
/// grows with the time since the last one: an estimate that is `t` old counts `e^(-t/τ)`. Between
/// responses the estimate as read falls in the same way, so that an endpoint that was slow is tried
/// again some day. The rule is that of Finagle's `PeakEwma` load balancer, but for reading: there a read
/// moves the estimate and its clock, and frequent reads keep later responses from counting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ewma {
    /// `1/τ`.
    rate: f64,
}

/// What is known: the estimate at the time of the last observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) updated_at: f64,
}

/// No estimate is read as less than one nanosecond: an endpoint that idled until its estimate vanished
/// would else look free of cost however many requests are sent to it.
const LEAST: f64 = 1.0;

impl Ewma {
    /// Estimates with this time constant. One that isn't positive forgets at once.
    pub(crate) fn new(decay: f64) -> Self {
        let rate = if decay > 0.0 { decay.recip() } else { f64::MAX };
        Self { rate }
    }

    /// Takes in a response that took `rtt` and came at `now`.
    #[inline]
    pub(crate) fn observe(self, old: Estimate, rtt: f64, now: f64) -> Estimate {
        let value = if rtt > old.value {
            rtt
        } else {
            let weight = self.weight(old, now);
            old.value * weight + rtt * (1.0 - weight)
        };
        // Threads read the clock before they take their turn, and so may come out of order. Going back
        // would count the same span twice.
        let updated_at = if now > old.updated_at {
            now
        } else {
            old.updated_at
        };
        Estimate { value, updated_at }
    }

    /// Projects an estimate to `now`.
    #[inline]
    pub(crate) fn project(self, estimate: Estimate, now: f64) -> f64 {
        (estimate.value * self.weight(estimate, now)).max(LEAST)
    }

    /// How much an estimate still counts at `now`, in `[0, 1]`.
    #[inline]
    fn weight(self, estimate: Estimate, now: f64) -> f64 {
        let age = (now - estimate.updated_at).max(0.0);
        exp_of_minus(age * self.rate)
    }
}

/// Computes `e^(-x)` for `x >= 0`. Four terms of the series suffice for a small `x`, and endpoints in
/// use are young: that is 1 ns instead of 13.
#[inline]
fn exp_of_minus(x: f64) -> f64 {
    if x < 1e-3 {
        // The first term left out is `x^4 / 24`, which is below 5e-14.
        const SIXTH: f64 = 1.0 / 6.0;
        1.0 - x * (1.0 - x * (0.5 - x * SIXTH))
    } else {
        (-x).exp()
    }
}

/// Converts a span to nanoseconds.
#[inline]
pub(crate) fn nanos(duration: Duration) -> f64 {
    const PER_SECOND: f64 = 1_000_000_000.0;
    // Signed integers convert in one instruction, unsigned ones in ten.
    let seconds = duration.as_secs().min(i64::MAX as u64) as i64;
    seconds as f64 * PER_SECOND + f64::from(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: f64 = 1e6;
    const SECOND: f64 = 1e9;
    const TAU: f64 = SECOND;

    fn ewma() -> Ewma {
        Ewma::new(TAU)
    }

    /// Ten milliseconds, as of time 0.
    const TEN_MS: Estimate = Estimate {
        value: 10.0 * MS,
        updated_at: 0.0,
    };

    #[test]
    fn a_peak_replaces_the_estimate_at_once() {
        let peak = ewma().observe(TEN_MS, 50.0 * MS, 5.0);
        assert_eq!(ewma().project(peak, 5.0), 50.0 * MS);
    }

    #[test]
    fn a_smaller_observation_counts_by_the_age_of_the_estimate() {
        let after = ewma().observe(TEN_MS, 2.0 * MS, SECOND);
        let weight = (-1.0_f64).exp();
        let expected = 10.0 * MS * weight + 2.0 * MS * (1.0 - weight);
        assert!((ewma().project(after, SECOND) - expected).abs() < 1.0);
    }

    #[test]
    fn the_estimate_falls_by_e_within_the_time_constant() {
        assert_eq!(ewma().project(TEN_MS, 0.0), 10.0 * MS);
        let read = ewma().project(TEN_MS, SECOND);
        assert!(
            (read - 10.0 * MS / std::f64::consts::E).abs() < 1.0,
            "{read}"
        );
    }

    #[test]
    fn an_observation_that_comes_late_does_not_turn_the_clock_back() {
        let newer = ewma().observe(TEN_MS, 20.0 * MS, SECOND);
        let older = ewma().observe(newer, 15.0 * MS, SECOND / 2.0);
        assert_eq!(older, newer);
    }

    #[test]
    fn an_estimate_that_has_vanished_is_still_above_zero() {
        assert_eq!(ewma().project(TEN_MS, 100_000.0 * SECOND), LEAST);
    }

    #[test]
    fn a_time_constant_that_makes_no_sense_forgets_at_once() {
        for decay in [0.0, -1.0, f64::NAN] {
            let ewma = Ewma::new(decay);
            assert_eq!(ewma.project(TEN_MS, 0.0), 10.0 * MS);
            assert_eq!(ewma.project(TEN_MS, 1.0), LEAST);
        }
    }

    /// What happens to an estimator: an observation, or a reading, some time after the one before.
    #[derive(Clone, Debug)]
    enum Event {
        Observe { after: f64, rtt: f64 },
        Read { after: f64 },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        // Now and then a span that is short enough for the series.
        let after = || {
            prop_oneof![
                (0..5_000_u32).prop_map(|ms| f64::from(ms) * MS),
                (0..2_000_000_u32).prop_map(f64::from)
            ]
        };
        let event = prop_oneof![
            (after(), 0..500_u32).prop_map(|(after, ms)| Event::Observe {
                after,
                rtt: f64::from(ms) * MS
            }),
            after().prop_map(|after| Event::Read { after }),
        ];
        prop::collection::vec(event, 1..100)
    }

    proptest! {
        #[test]
        fn the_series_meets_the_exponential(x in 0.0..0.002_f64) {
            prop_assert!((exp_of_minus(x) - (-x).exp()).abs() < 1e-13);
        }

        /// The oracle folds the observations alone, in seconds, each over the span since the one before.
        #[test]
        fn readings_change_nothing_and_estimates_follow_the_rule(events in events()) {
            let mut ewma_state = TEN_MS;
            let (mut estimate, mut updated, mut now) = (0.010_f64, 0.0_f64, 0.0_f64);
            for event in events {
                let (Event::Observe { after, .. } | Event::Read { after }) = event;
                now += after;
                let weight = (updated / SECOND - now / SECOND).exp();
                match event {
                    Event::Observe { rtt, .. } => {
                        let rtt_secs = rtt / SECOND;
                        estimate = if rtt_secs > estimate {
                            rtt_secs
                        } else {
                            estimate * weight + rtt_secs * (1.0 - weight)
                        };
                        updated = now;
                        ewma_state = ewma().observe(ewma_state, rtt, now);
                    }
                    Event::Read { .. } => {
                        let expected = (estimate * weight * SECOND).max(LEAST);
                        let read = ewma().project(ewma_state, now);
                        prop_assert!((read - expected).abs() <= 1e-6 * expected.max(1e3), "{read} {expected}");
                    }
                }
            }
        }

        #[test]
        fn an_estimate_stays_within_what_was_observed(events in events()) {
            const ROUNDING: f64 = LEAST;
            let (mut now, mut highest, mut state) = (0.0, 10.0 * MS, TEN_MS);
            for event in events {
                match event {
                    Event::Observe { after, rtt } => {
                        now += after;
                        highest = rtt.max(highest);
                        state = ewma().observe(state, rtt, now);
                        prop_assert!(ewma().project(state, now) >= rtt - ROUNDING);
                    }
                    Event::Read { after } => now += after,
                }
                prop_assert!(ewma().project(state, now) <= highest + ROUNDING);
            }
        }
    }
}
