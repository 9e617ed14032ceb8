//! What became of requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::world::{MILLI, Nanos, SECOND, World};

/// Collects the latencies and failures of the requests that began in a window. Clones collect together.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    from: Nanos,
    until: Nanos,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) began: Nanos,
    pub(crate) took: Nanos,
    pub(crate) succeeded: bool,
}

/// Requests, fastest first.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    sorted: Vec<Nanos>,
    failed: usize,
}

impl Record {
    pub(crate) fn new(from: Nanos, until: Nanos) -> Self {
        Self {
            from,
            until,
            requests: Arc::default(),
        }
    }

    /// Notes that a request ends now.
    pub(crate) fn end(&self, world: &World, began: Nanos, succeeded: bool) {
        world.note(u64::from(succeeded));
        if (self.from..self.until).contains(&began) {
            self.requests().push(Request {
                began,
                took: world.now().saturating_sub(began),
                succeeded,
            });
        }
    }

    /// All of them, in the order in which they ended.
    pub(crate) fn all(&self) -> Vec<Request> {
        self.requests().clone()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies::of(&*self.requests())
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latencies {
    pub(crate) fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Self {
        let (mut sorted, mut failed) = (Vec::new(), 0);
        for request in requests {
            sorted.push(request.took);
            failed += usize::from(!request.succeeded);
        }
        sorted.sort_unstable();
        Self { sorted, failed }
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The latency in milliseconds that a share of the requests doesn't exceed. A request that failed has the
    /// time until then: that is its deadline, where it ran into it.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.sorted.len() as f64 * share).ceil() as usize;
        let nanos = self.sorted.get(rank.max(1) - 1).copied();
        nanos.unwrap_or(0) as f64 / MILLI as f64
    }

    /// The share that failed.
    pub(crate) fn failed(&self) -> f64 {
        self.failed as f64 / self.sorted.len().max(1) as f64
    }

    /// The share that took less than some seconds.
    pub(crate) fn share_under(&self, seconds: f64) -> f64 {
        let bound = (seconds * SECOND as f64) as Nanos;
        let under = self.sorted.partition_point(|&took| took < bound);
        under as f64 / self.sorted.len().max(1) as f64
    }
}

/// The middle one; the mean of the two in the middle of an even number.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let requests: Vec<_> = (1..=1000)
            .rev()
            .map(|ms| Request {
                began: 0,
                took: ms * MILLI,
                succeeded: ms < 991,
            })
            .collect();
        let latencies = Latencies::of(&requests);
        assert_eq!(latencies.quantile_ms(0.5), 500.0);
        assert_eq!(latencies.quantile_ms(0.999), 999.0);
        assert_eq!(latencies.quantile_ms(1.0), 1000.0);
        assert_eq!(latencies.failed(), 0.01);
        assert_eq!(latencies.share_under(0.5), 0.499);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn only_requests_that_began_in_the_window_count() {
        let record = Record::new(10, 20);
        World::run(SECOND, |world| {
            for began in [9, 10, 19, 20] {
                record.end(world, began, true);
            }
        });
        assert_eq!(record.latencies().len(), 2);
    }
}
