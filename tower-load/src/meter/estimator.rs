//! Latencies by the number of requests that were in flight when theirs arrived.
//!
//! Pure: it is told the time, since some start.

use std::time::Duration;

/// How many latencies are kept of requests that found the same number in flight.
const KEPT: usize = 8;

/// Up to here each number in flight has a bucket of its own; beyond, four share each doubling.
const EXACT: u32 = 32;

/// Enough for numbers up to 8191; greater ones share the last.
const BUCKETS: usize = EXACT as usize + 8 * 4;

/// For how long a latency is preferred to one that was seen at a nearer number in flight.
const FRESH: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Estimator {
    buckets: Box<[Bucket; BUCKETS]>,
}

/// The last latencies, oldest overwritten first.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    samples: [Sample; KEPT],
    /// How many were ever written.
    written: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    latency: Duration,
    at: Duration,
}

impl Estimator {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::new([Bucket::default(); BUCKETS]),
        }
    }

    /// Takes in that a request which found `found` others in flight took `latency`, and ended at `now`.
    pub(super) fn observe(&mut self, found: u32, latency: Duration, now: Duration) {
        let bucket = &mut self.buckets[index(found)];
        bucket.samples[bucket.written % KEPT] = Sample { latency, at: now };
        bucket.written += 1;
    }

    /// Says how long a request would take that finds `found` others in flight.
    pub(super) fn estimate(&self, found: u32, now: Duration) -> Option<Duration> {
        let center = index(found);
        let fresh = |bucket: &&Bucket| bucket.is_fresh(now);
        self.nearest(center, fresh)
            .or_else(|| self.nearest(center, |bucket| bucket.written > 0))?
            .median(now)
    }

    /// Of the buckets that fit, the one next to `center`; of two at the same distance the lower.
    fn nearest(&self, center: usize, fits: impl Fn(&&Bucket) -> bool) -> Option<&Bucket> {
        (0..BUCKETS).find_map(|distance| {
            let lower = center.checked_sub(distance);
            let upper = center + distance;
            lower
                .and_then(|index| self.buckets.get(index).filter(&fits))
                .or_else(|| self.buckets.get(upper).filter(&fits))
        })
    }
}

impl Bucket {
    fn is_fresh(&self, now: Duration) -> bool {
        // The last one written is the youngest.
        self.written > 0 && self.samples[(self.written - 1) % KEPT].is_fresh(now)
    }

    /// The median of the fresh ones, or of all if none is fresh. The upper one of an even number.
    fn median(&self, now: Duration) -> Option<Duration> {
        let samples = &self.samples[..self.written.min(KEPT)];
        let any_fresh = self.is_fresh(now);
        let mut latencies = [Duration::ZERO; KEPT];
        let mut len = 0;
        for sample in samples {
            if sample.is_fresh(now) || !any_fresh {
                latencies[len] = sample.latency;
                len += 1;
            }
        }
        let latencies = &mut latencies[..len];
        latencies.sort_unstable();
        latencies.get(len / 2).copied()
    }
}

impl Sample {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) <= FRESH
    }
}

/// Says which bucket a number in flight belongs to.
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
    fn the_estimate_is_the_median_at_the_same_number_in_flight() {
        let mut estimator = Estimator::new();
        for latency in [10, 90, 20] {
            estimator.observe(4, ms(latency), ms(100));
        }
        estimator.observe(5, ms(500), ms(100));
        assert_eq!(estimator.estimate(4, ms(100)), Some(ms(20)));
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
        // In one bucket, too.
        estimator.observe(2, ms(40), ms(60_000));
        assert_eq!(estimator.estimate(2, ms(60_000)), Some(ms(40)));
    }

    #[test]
    fn only_the_last_eight_count() {
        let mut estimator = Estimator::new();
        for _ in 0..20 {
            estimator.observe(1, ms(1000), ms(0));
        }
        for _ in 0..8 {
            estimator.observe(1, ms(1), ms(1));
        }
        assert_eq!(estimator.estimate(1, ms(1)), Some(ms(1)));
    }

    proptest! {
        #[test]
        fn buckets_are_in_order_and_in_range(a: u32, b: u32) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(index(low) <= index(high));
            prop_assert!(index(high) < BUCKETS);
        }

        /// The oracle looks through all that was observed.
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
                all.push((number, latency, now));
            }
            let fresh = |at: u64| ms(now - at) <= FRESH;
            // The last eight of each bucket, those that are fresh.
            let of_bucket = |bucket: usize| -> Vec<u64> {
                let last = all.iter().rev().filter(|(number, ..)| index(*number) == bucket).take(KEPT);
                let mut latencies: Vec<_> =
                    last.filter(|(_, _, at)| fresh(*at)).map(|&(_, latency, _)| latency).collect();
                latencies.sort_unstable();
                latencies
            };
            let nearest = (0..BUCKETS)
                .filter(|&bucket| !of_bucket(bucket).is_empty())
                .min_by_key(|&bucket| (bucket.abs_diff(index(found)), bucket))
                .map(of_bucket);
            let expected = nearest.map(|latencies| ms(latencies[latencies.len() / 2]));
            prop_assert_eq!(estimator.estimate(found, ms(now)), expected);
        }
    }
}
