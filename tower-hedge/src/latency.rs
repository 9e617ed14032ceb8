//! From the latencies seen to the delay of a hedge.
//!
//! A try that lost the race was cancelled: of its latency only a lower bound is known. If it were left out, the
//! slow tries would be missing, the percentile would sink, more tries would be hedged and fewer slow ones
//! seen, and so on: at the 99th percentile of a bimodal service 1 % of extra load becomes 6 % and more. So lower
//! bounds are recorded as such, and the percentile is that of the product-limit estimator, which takes a
//! bounded one out of the count of those that could still have been slower: Kaplan and Meier,
//! "Nonparametric Estimation from Incomplete Observations" (JASA, 1958).

use std::time::Duration;

use tokio::time::Instant;

use crate::afforded::Afforded;

/// What is known of one try's latency.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Latency {
    Exactly(Duration),
    AtLeast(Duration),
}

/// The latencies of the current period, and what those of the one before make of the delay.
#[derive(Debug)]
pub(crate) struct History {
    /// The share of requests that was asked to be sent again.
    tail: f64,
    afforded: Afforded,
    min_data_points: u64,
    period: Duration,
    /// When the current period began.
    began: Instant,
    seen: Histogram,
    /// Computed once a period: hedge after this. `None` where too little was seen.
    delay: Option<Delay>,
    /// The part of a request that is due early and isn't a whole one yet.
    early: f64,
}

/// When to send again: `early_share` of the requests after `early`, and the others after `late`.
///
/// Where many answers take as long as each other, as those of a timer, no single delay leaves the share that is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Delay {
    early: Duration,
    late: Duration,
    early_share: f64,
}

impl History {
    pub(crate) fn new(
        percentile: f32,
        min_data_points: u64,
        period: Duration,
        now: Instant,
    ) -> Self {
        // What isn't a number hedges the slowest alone.
        let percentile = if percentile.is_nan() { 1.0 } else { percentile };
        let tail = (1.0 - f64::from(percentile)).clamp(0.0, 1.0);
        Self {
            tail,
            afforded: Afforded::new(tail),
            min_data_points,
            period: period.max(Duration::from_nanos(1)),
            began: now,
            seen: Histogram::new(),
            delay: (min_data_points == 0).then_some(Delay::always(Duration::ZERO)),
            early: 0.0,
        }
    }

    /// Sets the delay for the first period, as if `millis` had been seen in one before.
    pub(crate) fn assume(&mut self, millis: &[u64]) {
        if (millis.len() as u64) < self.min_data_points {
            return;
        }
        let mut sorted = millis.to_vec();
        sorted.sort_unstable();
        // As precise as the `f32` that the percentile was given as.
        let rank = ((1.0 - self.tail) * sorted.len() as f64 - 1e-4).ceil() as usize;
        let millis = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1);
        let delay = Duration::from_millis(millis.copied().unwrap_or(0));
        self.delay = Some(Delay::always(delay));
    }

    /// How long after a request that is sent now it is to be sent again.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        self.rotate(now);
        self.afforded.requested();
        let delay = self.delay?;
        self.early += delay.early_share;
        if self.early < 1.0 {
            return Some(delay.late);
        }
        self.early -= 1.0;
        Some(delay.early)
    }

    /// A second try was due for the first time, and the budget has decided.
    pub(crate) fn decided(&mut self, granted: bool) {
        self.afforded.decided(granted);
    }

    pub(crate) fn record(&mut self, latency: Latency, now: Instant) {
        self.rotate(now);
        self.seen.record(latency);
    }

    #[inline]
    fn rotate(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed >= self.period {
            self.next_period(elapsed, now);
        }
    }

    #[cold]
    fn next_period(&mut self, elapsed: Duration, now: Instant) {
        if elapsed.as_nanos() / self.period.as_nanos() > 1 {
            // Nothing was seen in the period before this one.
            self.seen.clear();
        }
        self.afforded.next_period();
        let enough = self.seen.exact >= self.min_data_points;
        self.delay = enough.then(|| {
            let asked = self.seen.delay(self.tail).late;
            if !self.afforded.is_short() {
                return Delay::always(asked);
            }
            let afforded = self.seen.delay(self.afforded.share());
            Delay {
                early: afforded.early.max(asked),
                ..afforded
            }
        });
        self.seen.clear();
        let into = elapsed.as_nanos() % self.period.as_nanos();
        // Less than a period, and so it fits wherever the period does.
        self.began = now - Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
    }
}

impl Delay {
    const fn always(delay: Duration) -> Self {
        Self {
            early: delay,
            late: delay,
            early_share: 0.0,
        }
    }
}

/// Counts of latencies in microseconds, in buckets that are at most 1/128 of their value wide.
///
/// 24 KB, up to 17 minutes; what is slower counts as that.
#[derive(Debug)]
struct Histogram {
    buckets: Box<[Bucket]>,
    /// The number of exact latencies, which are the requests that succeeded.
    exact: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    exact: u32,
    at_least: u32,
}

/// A value keeps its highest eight bits. Values below 256 have a bucket each, and every doubling above has
/// 128 of them.
const KEPT: u32 = 8;
const MAX_BITS: u32 = 30;
const BUCKETS: usize = bucket((1 << MAX_BITS) - 1) + 1;

const fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    let shift = bits.saturating_sub(KEPT);
    ((shift as u64) << (KEPT - 1)) as usize + (micros >> shift) as usize
}

/// The highest value in a bucket.
const fn upper(bucket: usize) -> u64 {
    let shift = (bucket >> (KEPT - 1)).saturating_sub(1);
    let kept = bucket - (shift << (KEPT - 1));
    ((kept as u64 + 1) << shift) - 1
}

impl Histogram {
    fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            exact: 0,
        }
    }

    fn record(&mut self, latency: Latency) {
        let (Latency::Exactly(duration) | Latency::AtLeast(duration)) = latency;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[bucket(micros.min((1 << MAX_BITS) - 1))];
        match latency {
            Latency::Exactly(_) => {
                bucket.exact = bucket.exact.saturating_add(1);
                self.exact += 1;
            }
            Latency::AtLeast(_) => bucket.at_least = bucket.at_least.saturating_add(1),
        }
    }

    fn clear(&mut self) {
        self.buckets.fill(Bucket::default());
        self.exact = 0;
    }

    /// After which delays a share `tail` of the tries is still under way, by the product-limit estimator. The late one is
    /// the quantile.
    ///
    /// Rounded up to the end of its bucket: services whose latency is constant would otherwise be hedged
    /// just before each answer. And counting the try to come among those seen: of `n`, the one at rank
    /// `q × n` is exceeded by a share of `1 − q × n/(n + 1)`, a tenth too many at 0.99 and a thousand.
    fn delay(&self, tail: f64) -> Delay {
        let total: u64 = self.buckets.iter().map(Bucket::total).sum();
        let mut at_risk = total as f64 + 1.0;
        let mut slower = 1.0;
        let mut last = None;
        for (index, bucket) in self.buckets.iter().enumerate() {
            if bucket.total() == 0 {
                continue;
            }
            let before = slower;
            slower *= 1.0 - f64::from(bucket.exact) / at_risk;
            // The percentile was given as an `f32`, of which this is the precision.
            if slower <= tail + 1e-7 {
                return Delay {
                    early: Duration::from_micros(last.map_or(0, upper)),
                    late: Duration::from_micros(upper(index)),
                    early_share: ((tail - slower) / (before - slower)).clamp(0.0, 1.0),
                };
            }
            last = Some(index);
            at_risk -= bucket.total() as f64;
        }
        // Slower than anything that was seen. If the slowest try was cut off, look further the next time:
        // staying at its bound would cut off the same again. (Simulated with a hundred tries a period, the
        // extra load at 0.99 is then 0.9 to 1.1 of the nominal share, and otherwise 1.2 to 1.9.)
        let Some(index) = last else {
            return Delay::always(Duration::ZERO);
        };
        let looks = 1 + u32::from(self.buckets[index].at_least > 0);
        Delay::always(Duration::from_micros(upper(index)) * looks)
    }
}

impl Bucket {
    fn total(&self) -> u64 {
        u64::from(self.exact) + u64::from(self.at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    const MS: Duration = Duration::from_millis(1);

    fn history(percentile: f32, min: u64) -> (History, Instant) {
        let now = Instant::now();
        (History::new(percentile, min, 1000 * MS, now), now)
    }

    #[test]
    fn the_delay_is_that_of_the_period_before() {
        let (mut history, start) = history(0.5, 3);
        for ms in [10, 20, 30] {
            assert_eq!(history.delay(start + ms * MS), None);
            history.record(Latency::Exactly(ms * MS), start + ms * MS);
        }
        let delay = history.delay(start + 1000 * MS).unwrap();
        assert!((20 * MS..20 * MS + 160 * MS / 1000).contains(&delay));
        history.record(Latency::Exactly(90 * MS), start + 1500 * MS);
        assert_eq!(history.delay(start + 1999 * MS), Some(delay));
        // One is too little.
        assert_eq!(history.delay(start + 2000 * MS), None);
    }

    #[test]
    fn what_a_short_budget_grants_goes_to_the_slowest() {
        // Of a hundred, 60 take 1 ms, 38 take 2 ms and two take 200 ms. Half is wanted, and a tenth is granted.
        let (mut history, start) = history(0.5, 1);
        let (mut deposits, mut sent, mut slowest_sent) = (0.0, 0, 0);
        for second in 0..40_u32 {
            if second == 20 {
                (sent, slowest_sent) = (0, 0);
            }
            for n in 0..1000_u32 {
                let now = start + second * 1000 * MS + n * MS;
                // In no order that a stride could follow.
                let took = match n * 37 % 100 {
                    0..60 => MS,
                    60..98 => 2 * MS,
                    _ => 200 * MS,
                };
                deposits += 0.1;
                let due = history.delay(now).is_some_and(|delay| delay < took);
                if due {
                    let granted = deposits >= 1.0;
                    history.decided(granted);
                    deposits -= f64::from(u8::from(granted));
                    sent += u32::from(granted);
                    slowest_sent += u32::from(granted && took == 200 * MS);
                }
                history.record(Latency::Exactly(took), now);
            }
        }
        assert!((1800..=2050).contains(&sent), "{sent}");
        assert!(slowest_sent >= 350, "{slowest_sent}");
    }

    #[test]
    fn after_an_idle_period_nothing_is_known() {
        let (mut history, start) = history(0.5, 1);
        history.record(Latency::Exactly(10 * MS), start);
        assert_eq!(history.delay(start + 2000 * MS), None);
        history.record(Latency::Exactly(10 * MS), start + 2500 * MS);
        assert!(history.delay(start + 3999 * MS).is_some());
        assert_eq!(history.delay(start + 1_000_000 * MS), None);
    }

    #[test]
    fn assumed_latencies_hold_for_a_period_exactly() {
        for (percentile, expected) in [(0.9, 10), (0.75, 1), (0.0, 1), (1.0, 10), (7.0, 10)] {
            let (mut history, now) = history(percentile, 10);
            history.assume(&[10, 1, 1, 1, 1, 1, 1, 1, 1, 10]);
            assert_eq!(history.delay(now), Some(expected * MS), "{percentile}");
            assert_eq!(history.delay(now + 1000 * MS), None);
        }
        let (mut few, now) = history(0.9, 11);
        few.assume(&[1; 10]);
        assert_eq!(few.delay(now), None);
        let (mut none, now) = history(0.9, 0);
        none.assume(&[]);
        assert_eq!(none.delay(now), Some(Duration::ZERO));
    }

    #[test]
    fn odd_settings_do_no_harm() {
        let start = Instant::now();
        for percentile in [-1.0, f32::NAN, 2.0, f32::INFINITY] {
            for period in [Duration::ZERO, Duration::MAX] {
                let mut history = History::new(percentile, 0, period, start);
                history.assume(&[1, 2, 3]);
                for ms in 0..10 {
                    history.delay(start + ms * MS);
                    history.record(Latency::Exactly(Duration::MAX), start + ms * MS);
                    history.record(Latency::AtLeast(Duration::ZERO), start + ms * MS);
                }
            }
        }
    }

    #[test]
    fn lower_bounds_stand_for_the_slower_half_that_they_hide() {
        let mut histogram = Histogram::new();
        // 1 to 100 µs, of which those above 50 were all cut off at 50, but for each fifth.
        for micros in 1..=100 {
            let latency = Duration::from_micros(micros);
            histogram.record(if micros <= 50 || micros % 5 == 0 {
                Latency::Exactly(latency)
            } else {
                Latency::AtLeast(Duration::from_micros(50))
            });
        }
        assert_eq!(histogram.delay(0.1).late, Duration::from_micros(95));
        assert_eq!(histogram.delay(0.75).late, Duration::from_micros(26));
    }

    #[test]
    fn a_slowest_try_that_was_cut_off_has_the_next_period_look_further() {
        let mut histogram = Histogram::new();
        histogram.record(Latency::Exactly(Duration::from_micros(100)));
        assert_eq!(histogram.delay(0.1).late, Duration::from_micros(100));
        histogram.record(Latency::AtLeast(Duration::from_micros(150)));
        assert_eq!(histogram.delay(0.1).late, Duration::from_micros(300));
    }

    /// The estimator on a list of the tries, each with its own factor.
    fn oracle(tries: &[(u64, bool)], quantile: f64) -> u64 {
        let mut tries: Vec<_> = tries
            .iter()
            .map(|(v, cut)| (upper(bucket(*v)), *cut))
            .collect();
        tries.sort_unstable();
        let mut slower = 1.0;
        for (index, (value, cut)) in tries.iter().enumerate() {
            let at_risk = (tries.len() + 1 - index) as f64;
            if !cut {
                slower *= 1.0 - 1.0 / at_risk;
            }
            if slower <= 1.0 - quantile + 1e-7 {
                return *value;
            }
        }
        tries
            .last()
            .map_or(0, |(value, cut)| value * (1 + u64::from(*cut)))
    }

    proptest! {
        #[test]
        fn the_quantile_agrees_with_a_list_of_all_tries(
            tries in prop::collection::vec((0..100_000_u64, any::<bool>()), 0..200),
            percent in 0..100_u32,
        ) {
            let quantile = f64::from(percent) / 100.0;
            let mut histogram = Histogram::new();
            for &(micros, cut) in &tries {
                let duration = Duration::from_micros(micros);
                let kind = if cut { Latency::AtLeast } else { Latency::Exactly };
                histogram.record(kind(duration));
            }
            let expected = Duration::from_micros(oracle(&tries, quantile));
            prop_assert_eq!(histogram.delay(1.0 - quantile).late, expected);
        }

        #[test]
        fn the_two_delays_together_leave_the_share_that_was_asked_for(
            tries in prop::collection::vec(1..30_u64, 1..200),
            percent in 0..=100_u32,
        ) {
            let tail = f64::from(percent) / 100.0;
            let mut histogram = Histogram::new();
            for &micros in &tries {
                histogram.record(Latency::Exactly(Duration::from_micros(micros)));
            }
            let Delay { early, late, early_share } = histogram.delay(tail);
            // The try to come counts as the slowest.
            let slower = |delay: Duration| {
                let slower = tries.iter().filter(|&&micros| Duration::from_micros(micros) > delay);
                (slower.count() + 1) as f64 / (tries.len() + 1) as f64
            };
            let left = early_share * slower(early) + (1.0 - early_share) * slower(late);
            let least = 1.0 / (tries.len() + 1) as f64;
            prop_assert!((left - tail.max(least)).abs() < 1e-6, "{left} for {tail}");
        }

        #[test]
        fn buckets_hold_their_values_and_are_narrow(micros in 0..1_u64 << MAX_BITS) {
            let index = bucket(micros);
            let end = upper(index);
            prop_assert!(index < BUCKETS && micros <= end && end - micros <= micros / 128);
            prop_assert_eq!(bucket(end), index);
            prop_assert!(index + 1 == BUCKETS || bucket(end + 1) == index + 1);
        }
    }
}
