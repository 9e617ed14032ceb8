//! Latencies by the number of requests that were in flight when theirs arrived.
//!
//! Pure: it is told the time, since some start.

use std::time::Duration;

/// Up to here each number in flight has a mean of its own; beyond, four share each doubling.
const EXACT: u32 = 32;

/// Enough for numbers up to 8191; greater ones share the last.
const BUCKETS: usize = EXACT as usize + 8 * 4;

/// A mean that nothing was added to for this long yields to one at a less near number in flight.
const FRESH: Duration = Duration::from_secs(10);

/// The time constant by which what was seen loses weight.
///
/// Long, as it is their number that makes a mean of latencies true: where they vary by two thirds of their mean, that of
/// five is off by 30 %, that of forty by a tenth. A slow server is avoided, and so is seen the least. In the laboratory's
/// fleet, at 1.27 of the allocation, 20 s instead of 5 are worth 7 % of the 99.9th percentile. A busy server that has
/// changed is seen to have after some dozens of requests all the same.
const DECAY: Duration = Duration::from_secs(20);

/// The weight of all that was seen together, in latencies, at most: so many requests after a server has changed
/// two thirds of the mean are new.
const MOST: f64 = 64.0;

#[derive(Debug)]
pub(super) struct Estimator {
    means: Box<[Mean; BUCKETS]>,
}

/// A mean of latencies, the later ones weighing more.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    /// In nanoseconds.
    value: f64,
    /// As of `updated_at`, in latencies. None was seen where it is zero.
    weight: f64,
    updated_at: Duration,
}

impl Estimator {
    pub(super) fn new() -> Self {
        Self {
            means: Box::new([Mean::default(); BUCKETS]),
        }
    }

    /// Takes in that a request which found `found` others in flight took `latency`, and ended at `now`.
    pub(super) fn observe(&mut self, found: u32, latency: Duration, now: Duration) {
        self.means[index(found)].add(latency, now);
    }

    /// Says how long a request would take that finds `found` others in flight.
    pub(super) fn estimate(&self, found: u32, now: Duration) -> Option<Duration> {
        let center = index(found);
        let seen = |mean: &&Mean| mean.weight > 0.0;
        let fresh = |mean: &&Mean| seen(mean) && now.saturating_sub(mean.updated_at) <= FRESH;
        let nearest = self
            .nearest(center, fresh)
            .or_else(|| self.nearest(center, seen))?;
        Some(Duration::from_nanos(nearest.value as u64))
    }

    /// Of those that fit, the one next to `center`; of two at the same distance the lower.
    fn nearest(&self, center: usize, fits: impl Fn(&&Mean) -> bool) -> Option<&Mean> {
        (0..BUCKETS).find_map(|distance| {
            let lower = center.checked_sub(distance);
            let upper = center + distance;
            lower
                .and_then(|index| self.means.get(index).filter(&fits))
                .or_else(|| self.means.get(upper).filter(&fits))
        })
    }
}

impl Mean {
    fn add(&mut self, latency: Duration, now: Duration) {
        let age = now.saturating_sub(self.updated_at);
        let kept = (-age.as_secs_f64() / DECAY.as_secs_f64()).exp();
        self.weight = (self.weight * kept).min(MOST - 1.0) + 1.0;
        self.value += (latency.as_nanos() as f64 - self.value) / self.weight;
        self.updated_at = self.updated_at.max(now);
    }
}

/// Says which mean a number in flight belongs to.
fn index(found: u32) -> usize {
    if found < EXACT {
        return found as usize;
    }
    let log2 = found.ilog2();
    let quarter = (found >> (log2 - 2)) & 3;
    let index = EXACT + (log2 - EXACT.ilog2()) * 4 + quarter;
    (index as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_estimated_of_nothing() {
        assert_eq!(Estimator::new().estimate(3, ms(0)), None);
    }

    #[test]
    fn the_estimate_is_the_mean_at_the_same_number_in_flight() {
        let mut estimator = Estimator::new();
        for latency in [10, 90, 20] {
            estimator.observe(4, ms(latency), ms(100));
        }
        estimator.observe(5, ms(500), ms(100));
        assert_eq!(estimator.estimate(4, ms(100)), Some(ms(40)));
        assert_eq!(estimator.estimate(5, ms(100)), Some(ms(500)));
    }

    #[test]
    fn the_nearest_number_stands_in_and_the_lower_of_two() {
        let mut estimator = Estimator::new();
        estimator.observe(2, ms(20), ms(0));
        estimator.observe(8, ms(80), ms(0));
        for (found, expected) in [(0, 20), (4, 20), (5, 20), (6, 80), (1_000_000, 80)] {
            assert_eq!(
                estimator.estimate(found, ms(0)),
                Some(ms(expected)),
                "{found}"
            );
        }
    }

    #[test]
    fn what_is_stale_counts_only_where_nothing_is_fresh() {
        let mut estimator = Estimator::new();
        estimator.observe(2, ms(20), ms(0));
        assert_eq!(estimator.estimate(2, ms(60_000)), Some(ms(20)));
        estimator.observe(30, ms(300), ms(60_000));
        assert_eq!(estimator.estimate(2, ms(60_000)), Some(ms(300)));
    }

    #[test]
    fn a_server_that_has_changed_is_seen_to_within_some_dozens_of_requests() {
        let mut estimator = Estimator::new();
        for _ in 0..10_000 {
            estimator.observe(1, ms(100), ms(0));
        }
        for _ in 0..128 {
            estimator.observe(1, ms(1), ms(1));
        }
        assert!(estimator.estimate(1, ms(1)) < Some(ms(15)));
    }

    #[test]
    fn a_server_that_is_rarely_asked_is_estimated_from_a_dozen_requests() {
        let mut estimator = Estimator::new();
        // One in 2 s, by turns 30 ms and 90 ms: the last weighs least where it is one of many.
        for second in 0..60 {
            let latency = if second % 2 == 0 { 30 } else { 90 };
            estimator.observe(1, ms(latency), ms(2_000 * second));
        }
        let estimate = estimator.estimate(1, ms(120_000));
        assert!(
            (Some(ms(57))..Some(ms(63))).contains(&estimate),
            "{estimate:?}"
        );
    }

    #[test]
    fn what_was_seen_long_ago_hardly_counts() {
        let mut estimator = Estimator::new();
        for _ in 0..50 {
            estimator.observe(1, ms(100), ms(0));
        }
        estimator.observe(1, ms(1), ms(240_000));
        assert!(estimator.estimate(1, ms(240_000)) < Some(ms(2)));
    }

    proptest! {
        #[test]
        fn means_are_in_order_and_in_range(a: u32, b: u32) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(index(low) <= index(high));
            prop_assert!(index(high) < BUCKETS);
        }

        /// The oracle looks through all that was observed: few enough that no weight reaches its bound.
        #[test]
        fn the_estimate_is_the_oracles(
            observed in prop::collection::vec((0..40_u32, 1..1000_u64, 0..4_000_u64), 1..60),
            found in 0..50_u32,
        ) {
            let mut estimator = Estimator::new();
            let (mut now, mut all) = (0, Vec::new());
            for (number, latency, later) in observed {
                now += later;
                estimator.observe(number, ms(latency), ms(now));
                all.push((index(number), latency, now));
            }
            // Something was observed last, and is fresh.
            let nearest = all
                .iter()
                .filter(|&&(bucket, ..)| all.iter().any(|&(b, _, at)| b == bucket && now - at <= 10_000))
                .map(|&(bucket, ..)| bucket)
                .min_by_key(|&bucket| (bucket.abs_diff(index(found)), bucket));
            let of_nearest = all.iter().filter(|&&(bucket, ..)| Some(bucket) == nearest);
            let weighted = of_nearest.map(|&(_, latency, at)| {
                let weight = (-((now - at) as f64) / 20_000.0).exp();
                (weight, weight * latency as f64)
            });
            let (weight, sum) = weighted.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            let estimate = estimator.estimate(found, ms(now)).map(|latency| latency.as_secs_f64() * 1e3);
            let estimate = estimate.unwrap_or_default();
            prop_assert!((estimate - sum / weight).abs() < 0.001, "{estimate} {}", sum / weight);
        }
    }
}
