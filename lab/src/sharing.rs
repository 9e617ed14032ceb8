//! Processor sharing: the jobs of a server progress together, at a speed that their number sets.
//!
//! Pure: it is told the time.

use std::collections::BTreeSet;

use crate::world::Nanos;

/// A server's processors and its jobs.
///
/// A job uses one processor at most; where there are more jobs than processors, all share them alike. The
/// state is the service that each job has had since the server began, were it there since: it is the same for
/// all, so that a job needs to be touched only when it comes and when it ends (the virtual time of fair
/// queueing).
#[derive(Debug)]
pub(crate) struct Sharing {
    /// In processors.
    capacity: f64,
    /// What a job that was there from the beginning would have had, in nanoseconds.
    attained: f64,
    updated_at: Nanos,
    /// By what `attained` will be at their ends.
    jobs: BTreeSet<Job>,
    next: u64,
}

/// A job: where it ends, as the bits of a float that isn't negative, which are in its order; and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    ends_at: u64,
    number: u64,
}

impl Sharing {
    pub(crate) fn new(capacity: f64) -> Self {
        Self {
            capacity,
            attained: 0.0,
            updated_at: 0,
            jobs: BTreeSet::new(),
            next: 0,
        }
    }

    /// How many jobs each processor would have with one more.
    pub(crate) fn crowding(&self) -> f64 {
        (self.jobs.len() + 1) as f64 / self.capacity
    }

    /// The number of jobs.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Adds a job that takes `work` nanoseconds of a processor.
    pub(crate) fn add(&mut self, work: f64, now: Nanos) -> Job {
        self.update(now);
        let job = Job {
            ends_at: (self.attained + work).to_bits(),
            number: self.next,
        };
        self.next += 1;
        self.jobs.insert(job);
        job
    }

    /// Takes a job away that hasn't ended.
    pub(crate) fn remove(&mut self, job: Job, now: Nanos) {
        self.update(now);
        self.jobs.remove(&job);
    }

    /// Takes the next job that has ended by `now`.
    pub(crate) fn take_ended(&mut self, now: Nanos) -> Option<Job> {
        // A float has 53 bits: after a day of service it is still good to a hundredth of a nanosecond.
        const ROUNDING: f64 = 0.5;
        self.update(now);
        let first = *self.jobs.first()?;
        let has_ended = f64::from_bits(first.ends_at) <= self.attained + ROUNDING;
        has_ended.then(|| self.jobs.pop_first()).flatten()
    }

    /// Says when the next job ends, if nothing changes; none if that is never.
    pub(crate) fn next_end(&self) -> Option<Nanos> {
        let first = self.jobs.first()?;
        let left = (f64::from_bits(first.ends_at) - self.attained).max(0.0);
        let speed = self.speed();
        (speed > 0.0).then(|| self.updated_at + (left / speed).ceil() as Nanos)
    }

    fn update(&mut self, now: Nanos) {
        let passed = now.saturating_sub(self.updated_at);
        self.attained += passed as f64 * self.speed();
        self.updated_at = self.updated_at.max(now);
    }

    /// What each job gets, in processors.
    fn speed(&self) -> f64 {
        match self.jobs.len() {
            0 => 0.0,
            jobs => (self.capacity / jobs as f64).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(sharing: &mut Sharing) -> Vec<Nanos> {
        let mut ends = Vec::new();
        while let Some(at) = sharing.next_end() {
            while sharing.take_ended(at).is_some() {
                ends.push(at);
            }
        }
        ends
    }

    #[test]
    fn a_job_alone_uses_one_processor() {
        for (capacity, expected) in [(0.5, 200), (1.0, 100), (4.0, 100)] {
            let mut sharing = Sharing::new(capacity);
            sharing.add(100.0, 0);
            assert_eq!(ends(&mut sharing), [expected]);
        }
    }

    #[test]
    fn jobs_share_what_there_is() {
        let mut sharing = Sharing::new(1.0);
        sharing.add(100.0, 0);
        sharing.add(100.0, 0);
        sharing.add(300.0, 50);
        // Each has had 25 at 50; the two end 75 × 3 later, when the third has had 75, and 225 are left.
        assert_eq!(ends(&mut sharing), [275, 275, 500]);
    }

    #[test]
    fn a_job_that_is_taken_away_leaves_its_share() {
        let mut sharing = Sharing::new(1.0);
        sharing.add(100.0, 0);
        let other = sharing.add(100.0, 0);
        sharing.remove(other, 100);
        assert_eq!(ends(&mut sharing), [150]);
    }

    #[test]
    fn a_server_without_capacity_ends_nothing() {
        let mut sharing = Sharing::new(0.0);
        sharing.add(100.0, 0);
        assert_eq!(sharing.next_end(), None);
        assert_eq!(sharing.take_ended(1_000_000), None);
    }

    proptest! {
        /// The oracle takes small steps and gives each job its share of each.
        #[test]
        fn jobs_end_when_small_steps_say_so(
            arrivals in prop::collection::vec((0..200_u64, 1..300_u32), 1..12),
            capacity in 1..5_u32,
        ) {
            let capacity = f64::from(capacity) * 0.5;
            let mut arrivals: Vec<_> = arrivals;
            arrivals.sort_unstable();
            let mut sharing = Sharing::new(capacity);
            let (mut actual, mut waiting) = (Vec::new(), arrivals.iter().peekable());
            loop {
                let next = sharing.next_end();
                match waiting.peek() {
                    Some(&&(at, work)) if next.is_none_or(|end| at < end) => {
                        sharing.add(f64::from(work), at);
                        waiting.next();
                    }
                    _ => match next {
                        Some(end) => while sharing.take_ended(end).is_some() {
                            actual.push(end as f64);
                        },
                        None => break,
                    },
                }
            }
            const STEPS: u64 = 50;
            let mut jobs: Vec<(u64, f64)> = arrivals.iter().map(|&(at, work)| (at, f64::from(work))).collect();
            let (mut expected, mut step) = (Vec::new(), 0_u64);
            while !jobs.is_empty() {
                let now = step / STEPS;
                let active = jobs.iter().filter(|job| job.0 <= now).count();
                let share = (capacity / active.max(1) as f64).min(1.0) / STEPS as f64;
                for job in jobs.iter_mut().filter(|job| job.0 <= now) {
                    job.1 -= share;
                }
                step += 1;
                let before = jobs.len();
                jobs.retain(|job| job.1 > 1e-6);
                expected.extend(std::iter::repeat_n(step as f64 / STEPS as f64, before - jobs.len()));
            }
            prop_assert_eq!(actual.len(), expected.len());
            for (actual, expected) in actual.iter().zip(&expected) {
                // Each end is rounded up, which may delay those after it.
                prop_assert!((actual - expected).abs() < 13.0, "{actual} {expected}");
            }
        }
    }
}
