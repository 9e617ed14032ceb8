//! Which endpoints do so much worse than the others that they are left out for a while: gRFC A50.
//!
//! Pure: it is given counts, the time and random numbers.
//! <https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md> has the algorithm, Envoy's
//! outlier detection the same.

use std::time::Duration;

use tokio::time::Instant;

/// When an endpoint is ejected, and for how long. The defaults are those of gRFC A50.
///
/// Every [interval](Self::with_interval) the requests of the last one are looked at:
///
/// - **Success rate**: endpoints whose share of successes is below the mean of all less 1.9 standard
///   deviations, provided that at least 5 had at least 100 requests.
/// - **Failure percentage**: those of which at least 85 % of the requests failed, provided that at least 5 had at
///   least 50 requests.
///
/// and between them
///
/// - **Failures in a row**: an endpoint that fails 5 requests in a row, as Finagle's failure accrual and
///   Envoy's `consecutive_5xx`. gRFC A50 leaves this out; it is what catches an endpoint that has just died.
///
/// A request that is **given up** before its response came, as its future is dropped, is a failure
///
/// - when its [`Deadline`](tower_deadline::Deadline) has passed: a deadline that is exceeded fails a request for
///   gRPC as for Envoy, and an endpoint that has stopped answering is known by nothing else;
/// - or when it has waited for a second, as a timeout that sets no deadline gives up
///   ([`with_given_up_after`](Self::with_given_up_after)).
///
/// Given up earlier it says nothing. It was the caller who went, whose own client may have gone, or the other one of
/// two hedged requests was faster; Envoy doesn't count a request that its client resets, either. Were they counted,
/// an impatient caller could eject endpoints that do well.
///
/// An endpoint is ejected for 30 s times the number of its ejections, at most 300 s; each interval in which
/// it isn't forgives one. At most 10 % are ejected at once, but always one may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    interval: Duration,
    base_time: Duration,
    max_time: Duration,
    max_share: f64,
    success_rate: Option<SuccessRate>,
    failure_share: Option<FailureShare>,
    faults_in_a_row: Option<u32>,
    given_up_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct SuccessRate {
    deviations: f64,
    min_endpoints: usize,
    min_requests: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct FailureShare {
    threshold: f64,
    min_endpoints: usize,
    min_requests: u32,
}

/// What came of the requests to one endpoint in the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

/// What is remembered of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Record {
    /// When it was ejected, while it is.
    pub(super) ejected_at: Option<Instant>,
    /// How often it was, less what was forgiven.
    pub(super) multiplier: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
            max_share: 0.1,
            success_rate: Some(SuccessRate {
                deviations: 1.9,
                min_endpoints: 5,
                min_requests: 100,
            }),
            failure_share: Some(FailureShare {
                threshold: 0.85,
                min_endpoints: 5,
                min_requests: 50,
            }),
            faults_in_a_row: Some(5),
            given_up_after: Some(Duration::from_secs(1)),
        }
    }
}

impl Ejection {
    /// Looks at all endpoints this often. At least a millisecond.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Ejects for `base` times the number of ejections, at most for `max`.
    #[must_use]
    pub fn with_time(mut self, base: Duration, max: Duration) -> Self {
        self.base_time = base;
        self.max_time = max.max(base);
        self
    }

    /// Ejects at most this share of the endpoints at once, but always one. Between 0 and 1.
    #[must_use]
    pub fn with_max_share(mut self, share: f64) -> Self {
        self.max_share = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        };
        self
    }

    /// Ejects those whose success rate is so many standard deviations below the mean, of endpoints with at least
    /// `min_requests` in an interval, if there are at least `min_endpoints` of these.
    #[must_use]
    pub fn with_success_rate(
        mut self,
        deviations: f64,
        min_endpoints: usize,
        min_requests: u32,
    ) -> Self {
        self.success_rate = Some(SuccessRate {
            deviations,
            min_endpoints,
            min_requests: min_requests.max(1),
        });
        self
    }

    /// Doesn't compare success rates.
    #[must_use]
    pub fn without_success_rate(mut self) -> Self {
        self.success_rate = None;
        self
    }

    /// Ejects those of which at least a `threshold` share of the requests failed, of endpoints with at least
    /// `min_requests` in an interval, if there are at least `min_endpoints` of these.
    #[must_use]
    pub fn with_failure_share(
        mut self,
        threshold: f64,
        min_endpoints: usize,
        min_requests: u32,
    ) -> Self {
        self.failure_share = Some(FailureShare {
            threshold,
            min_endpoints,
            min_requests: min_requests.max(1),
        });
        self
    }

    /// Doesn't look at the share of failures.
    #[must_use]
    pub fn without_failure_share(mut self) -> Self {
        self.failure_share = None;
        self
    }

    /// Ejects, between intervals, an endpoint with so many faults in a row. Zero stands for one.
    #[must_use]
    pub fn with_faults_in_a_row(mut self, faults: u32) -> Self {
        self.faults_in_a_row = Some(faults.max(1));
        self
    }

    /// Doesn't count faults in a row.
    #[must_use]
    pub fn without_faults_in_a_row(mut self) -> Self {
        self.faults_in_a_row = None;
        self
    }

    /// Counts a request that is given up as failed if it has waited for so long: a second by default.
    ///
    /// Raise it where responses take longer than that, as with long polls that callers often leave. A request that
    /// has passed its deadline counts however short it has waited.
    #[must_use]
    pub fn with_given_up_after(mut self, wait: Duration) -> Self {
        self.given_up_after = Some(wait);
        self
    }

    /// Doesn't count requests that are given up, whatever their deadline.
    #[must_use]
    pub fn without_given_up(mut self) -> Self {
        self.given_up_after = None;
        self
    }

    pub(super) fn given_up_after(&self) -> Option<Duration> {
        self.given_up_after
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn faults_in_a_row(&self) -> Option<u32> {
        self.faults_in_a_row
    }

    /// How many of `known` endpoints may be ejected.
    pub(super) fn most(&self, known: usize) -> usize {
        ((known as f64 * self.max_share) as usize).max(1)
    }

    /// Ejects one, if fewer than the most are. Says whether it did.
    pub(super) fn eject(
        &self,
        record: &mut Record,
        ejected: usize,
        known: usize,
        now: Instant,
    ) -> bool {
        if record.ejected_at.is_some() || ejected >= self.most(known) {
            return false;
        }
        record.ejected_at = Some(now);
        record.multiplier = record.multiplier.saturating_add(1);
        true
    }

    /// Whether the time of an ejected one is over.
    fn is_over(&self, record: &Record, now: Instant) -> bool {
        let time = self.base_time.saturating_mul(record.multiplier);
        let time = time.min(self.max_time.max(self.base_time));
        record
            .ejected_at
            .is_some_and(|at| now.saturating_duration_since(at) >= time)
    }

    /// Does what is due at the end of an interval, to all endpoints together.
    pub(super) fn sweep(&self, endpoints: &mut [(Record, Tally)], now: Instant) {
        let known = endpoints.len();
        let mut ejected = endpoints
            .iter()
            .filter(|(r, _)| r.ejected_at.is_some())
            .count();
        let below = self.success_rate.and_then(|by| by.bound(endpoints));
        let by_success = self.success_rate.zip(below).map(|(by, bound)| {
            move |tally: Tally| tally.all() >= by.min_requests && tally.success_rate() < bound
        });
        let by_failure = self
            .failure_share
            .filter(|by| count(endpoints, by.min_requests) >= by.min_endpoints)
            .map(|by| {
                move |tally: Tally| {
                    tally.all() >= by.min_requests && 1.0 - tally.success_rate() >= by.threshold
                }
            });
        let was_ejected: Vec<bool> = endpoints
            .iter()
            .map(|(r, _)| r.ejected_at.is_some())
            .collect();
        for (record, tally) in endpoints.iter_mut() {
            let is_outlier = by_success.as_ref().is_some_and(|by| by(*tally))
                || by_failure.as_ref().is_some_and(|by| by(*tally));
            if is_outlier && self.eject(record, ejected, known, now) {
                ejected += 1;
            }
        }
        for ((record, _), was_ejected) in endpoints.iter_mut().zip(was_ejected) {
            if record.ejected_at.is_none() {
                record.multiplier = record.multiplier.saturating_sub(1);
            } else if was_ejected && self.is_over(record, now) {
                record.ejected_at = None;
            }
        }
    }
}

impl SuccessRate {
    /// Below which rate an endpoint is an outlier. None if there are too few to say.
    fn bound(&self, endpoints: &[(Record, Tally)]) -> Option<f64> {
        let rates = endpoints
            .iter()
            .filter(|(_, tally)| tally.all() >= self.min_requests)
            .map(|(_, tally)| tally.success_rate());
        let len = rates.clone().count();
        if len < self.min_endpoints || len == 0 {
            return None;
        }
        let mean = rates.clone().sum::<f64>() / len as f64;
        let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / len as f64;
        Some(mean - variance.sqrt() * self.deviations)
    }
}

fn count(endpoints: &[(Record, Tally)], min_requests: u32) -> usize {
    let enough = |(_, tally): &&(Record, Tally)| tally.all() >= min_requests;
    endpoints.iter().filter(enough).count()
}

impl Tally {
    fn all(self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    fn success_rate(self) -> f64 {
        match self.all() {
            0 => 1.0,
            all => f64::from(self.succeeded) / f64::from(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tally(succeeded: u32, failed: u32) -> (Record, Tally) {
        (Record::default(), Tally { succeeded, failed })
    }

    fn ejected(endpoints: &[(Record, Tally)]) -> Vec<usize> {
        let is_ejected = |&i: &usize| endpoints[i].0.ejected_at.is_some();
        (0..endpoints.len()).filter(is_ejected).collect()
    }

    #[test]
    fn one_that_fails_more_than_the_others_is_ejected_by_its_success_rate() {
        let now = Instant::now();
        let settings = Ejection::default().without_failure_share();
        let mut endpoints = vec![tally(99, 1); 9];
        endpoints.push(tally(60, 40));
        settings.sweep(&mut endpoints, now);
        assert_eq!(ejected(&endpoints), [9]);

        // Where all do alike nobody is an outlier, however bad.
        let mut alike = vec![tally(10, 90); 10];
        settings.sweep(&mut alike, now);
        assert_eq!(ejected(&alike), []);
    }

    #[test]
    fn few_endpoints_or_requests_say_nothing() {
        let now = Instant::now();
        let settings = Ejection::default();
        let mut four = vec![tally(100, 0), tally(100, 0), tally(100, 0), tally(0, 100)];
        settings.sweep(&mut four, now);
        assert_eq!(ejected(&four), []);
        let mut idle = vec![tally(49, 0); 9];
        idle.push(tally(0, 49));
        settings.sweep(&mut idle, now);
        assert_eq!(ejected(&idle), []);
    }

    #[test]
    fn the_share_of_failures_counts_from_85_percent() {
        let settings = Ejection::default().without_success_rate();
        let mut endpoints = vec![tally(50, 0); 8];
        endpoints.extend([tally(8, 42), tally(7, 43)]);
        settings.sweep(&mut endpoints, Instant::now());
        assert_eq!(ejected(&endpoints), [9]);
    }

    #[test]
    fn ejections_grow_longer_up_to_the_longest_and_are_forgiven() {
        let mut now = Instant::now();
        let settings = Ejection::default();
        let mut lengths = Vec::new();
        let mut endpoints = vec![tally(0, 0)];
        for _ in 0..12 {
            assert!(settings.eject(&mut endpoints[0].0, 0, 1, now));
            let start = now;
            while endpoints[0].0.ejected_at.is_some() {
                now += 10 * SECOND;
                settings.sweep(&mut endpoints, now);
            }
            lengths.push((now - start).as_secs());
        }
        assert_eq!(
            lengths,
            [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
        );
        for _ in 0..12 {
            settings.sweep(&mut endpoints, now);
        }
        assert_eq!(endpoints[0].0.multiplier, 0);
    }

    /// gRFC A50 read literally, but for the bound on the share.
    fn naive(settings: &Ejection, endpoints: &mut [(Record, Tally)], now: Instant) {
        let known = endpoints.len();
        let most = ((known as f64 * settings.max_share).floor() as usize).max(1);
        let before: Vec<Record> = endpoints.iter().map(|(record, _)| *record).collect();
        let rate =
            |tally: Tally| f64::from(tally.succeeded) / f64::from(tally.succeeded + tally.failed);
        let volume = |tally: Tally| tally.succeeded + tally.failed;
        let mut outlier = vec![false; known];
        if let Some(by) = settings.success_rate {
            let rates: Vec<f64> = endpoints
                .iter()
                .filter(|(_, tally)| volume(*tally) >= by.min_requests)
                .map(|(_, tally)| rate(*tally))
                .collect();
            if rates.len() >= by.min_endpoints {
                let mean = rates.iter().sum::<f64>() / rates.len() as f64;
                let squares = rates.iter().map(|rate| (rate - mean) * (rate - mean));
                let deviation = (squares.sum::<f64>() / rates.len() as f64).sqrt();
                for (i, (_, tally)) in endpoints.iter().enumerate() {
                    outlier[i] |= volume(*tally) >= by.min_requests
                        && rate(*tally) < mean - deviation * by.deviations;
                }
            }
        }
        if let Some(by) = settings.failure_share {
            let enough = |tally: Tally| volume(tally) >= by.min_requests;
            if endpoints.iter().filter(|(_, tally)| enough(*tally)).count() >= by.min_endpoints {
                for (i, (_, tally)) in endpoints.iter().enumerate() {
                    outlier[i] |= enough(*tally) && 1.0 - rate(*tally) >= by.threshold;
                }
            }
        }
        for i in 0..known {
            let count = endpoints
                .iter()
                .filter(|(r, _)| r.ejected_at.is_some())
                .count();
            if outlier[i] && endpoints[i].0.ejected_at.is_none() && count < most {
                endpoints[i].0.ejected_at = Some(now);
                endpoints[i].0.multiplier += 1;
            }
        }
        for i in 0..known {
            let record = &mut endpoints[i].0;
            match before[i].ejected_at {
                None if record.ejected_at.is_none() && record.multiplier > 0 => {
                    record.multiplier -= 1
                }
                Some(at) => {
                    let longest = settings.base_time.max(settings.max_time);
                    if at + (settings.base_time * record.multiplier).min(longest) <= now {
                        record.ejected_at = None;
                    }
                }
                None => {}
            }
        }
    }

    proptest! {
        #[test]
        fn sweeps_agree_with_the_proposal_read_literally(
            intervals in prop::collection::vec(
                prop::collection::vec((0..200_u32, 0..200_u32), 12), 1..20),
            share in 0.0..1.0_f64,
            known in 1..12_usize,
        ) {
            let settings = Ejection::default()
                .with_max_share(share)
                .with_success_rate(1.0, 3, 50)
                .with_failure_share(0.6, 3, 50);
            let mut now = Instant::now();
            let (mut ours, mut oracle) = (vec![tally(0, 0); known], vec![tally(0, 0); known]);
            for interval in intervals {
                now += 10 * SECOND;
                for (i, &(succeeded, failed)) in interval.iter().take(known).enumerate() {
                    ours[i].1 = Tally { succeeded, failed };
                    oracle[i].1 = Tally { succeeded, failed };
                }
                settings.sweep(&mut ours, now);
                naive(&settings, &mut oracle, now);
                prop_assert_eq!(&ours, &oracle);
                prop_assert!(ejected(&ours).len() <= settings.most(known));
            }
        }
    }
}
