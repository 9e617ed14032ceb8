//! What all experiments have in common: cases that run for a seed, and a report of what came out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::record::median;

/// One experiment: a row of the laboratory's table.
pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    /// What is done, in a sentence.
    pub(crate) what: &'static str,
    pub(crate) cases: Vec<Case>,
    /// Makes sense of the outcomes.
    pub(crate) report: fn(&Results) -> Report,
}

/// What is run once for each seed.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) run: Box<dyn Fn(u64) -> Outcome + Send + Sync>,
}

/// What came out of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) values: BTreeMap<&'static str, f64>,
    /// Curves to plot, by name.
    pub(crate) curves: BTreeMap<String, Vec<(f64, f64)>>,
    pub(crate) trace: u64,
}

/// The outcomes of all cases: by case, then by seed.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cases: Vec<(String, Vec<Outcome>)>,
}

/// What is written of an experiment.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) plots: Vec<Plot>,
}

/// What was to be reached, and what was.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) reached: f64,
    pub(crate) bound: Bound,
    /// What nobody could have bettered, and why.
    pub(crate) floor: Option<(f64, &'static str)>,
    pub(crate) parts: Option<Parts>,
}

/// Of what a figure is the ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parts {
    /// What is judged, in milliseconds.
    pub(crate) judged: f64,
    /// What it is compared with.
    pub(crate) compared: f64,
    /// The part of all processors that the requests need.
    pub(crate) busy: f64,
}

/// How a figure is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Holds,
    /// What was to be reached can't be; what can, was, but for a twentieth.
    AtTheFloor,
    Fails,
}

/// How much worse than the floor is as good as the floor.
const SLACK: f64 = 1.05;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) log_y: bool,
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

impl Experiment {
    /// Runs every case with every seed, on as many threads as there are processors.
    pub(crate) fn run(&self, seeds: &[u64]) -> Results {
        let runs: Vec<_> = (0..self.cases.len())
            .flat_map(|case| seeds.iter().map(move |&seed| (case, seed)))
            .collect();
        let outcomes: Vec<_> = runs.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(&(case, seed)) = runs.get(next.fetch_add(1, Relaxed)) {
                        let outcome = (self.cases[case].run)(seed);
                        let index =
                            case * seeds.len() + seeds.iter().position(|&s| s == seed).unwrap_or(0);
                        *outcomes[index]
                            .lock()
                            .expect("a run doesn't panic with the lock") = Some(outcome);
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_iter().map(|outcome| {
            let outcome = outcome.into_inner().expect("no run has panicked");
            outcome.expect("every run has an outcome")
        });
        let cases = self.cases.iter();
        Results {
            cases: cases
                .map(|case| {
                    (
                        case.name.clone(),
                        outcomes.by_ref().take(seeds.len()).collect(),
                    )
                })
                .collect(),
        }
    }
}

impl Results {
    /// The names of the cases, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().map(|(name, _)| name.as_str())
    }

    /// The median over the seeds of a value of a case.
    pub(crate) fn median(&self, case: &str, value: &str) -> f64 {
        median(
            self.of(case)
                .filter_map(|outcome| outcome.values.get(value).copied()),
        )
    }

    /// The greatest value of any seed.
    pub(crate) fn max(&self, case: &str, value: &str) -> f64 {
        self.of(case)
            .filter_map(|outcome| outcome.values.get(value).copied())
            .fold(f64::NAN, f64::max)
    }

    /// The curves of the first seed.
    pub(crate) fn curves(&self, case: &str) -> impl Iterator<Item = (&String, &Vec<(f64, f64)>)> {
        self.of(case).take(1).flat_map(|outcome| &outcome.curves)
    }

    /// One number for all that happened in all runs.
    pub(crate) fn trace(&self) -> u64 {
        let outcomes = self.cases.iter().flat_map(|(_, outcomes)| outcomes);
        outcomes.fold(0, |hash: u64, outcome| hash.rotate_left(5) ^ outcome.trace)
    }

    fn of(&self, case: &str) -> impl Iterator<Item = &Outcome> {
        let case = self.cases.iter().find(|(name, _)| name == case);
        case.into_iter().flat_map(|(_, outcomes)| outcomes)
    }
}

impl Verdict {
    pub(crate) fn at_most(what: impl Into<String>, reached: f64, bound: f64) -> Self {
        Self {
            what: what.into(),
            reached,
            bound: Bound::AtMost(bound),
            floor: None,
            parts: None,
        }
    }

    pub(crate) fn at_least(what: impl Into<String>, reached: f64, bound: f64) -> Self {
        Self {
            what: what.into(),
            reached,
            bound: Bound::AtLeast(bound),
            floor: None,
            parts: None,
        }
    }

    /// Adds what could be reached at best. It counts only where it is beyond the bound.
    #[must_use]
    pub(crate) fn with_floor(mut self, floor: f64, why: &'static str) -> Self {
        self.floor = Some((floor, why));
        self
    }

    /// Judges `parts.judged / parts.compared`.
    pub(crate) fn ratio_at_most(what: impl Into<String>, parts: Parts, bound: f64) -> Self {
        Self {
            parts: Some(parts),
            ..Self::at_most(what, parts.judged / parts.compared, bound)
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.judgement() != Judgement::Fails
    }

    pub(crate) fn judgement(&self) -> Judgement {
        let floor = self.floor.map(|(floor, _)| floor);
        let (holds, at_floor) = match self.bound {
            Bound::AtMost(bound) => (
                self.reached <= bound,
                floor.is_some_and(|floor| floor > bound && self.reached <= floor * SLACK),
            ),
            Bound::AtLeast(bound) => (
                self.reached >= bound,
                floor.is_some_and(|floor| floor < bound && self.reached * SLACK >= floor),
            ),
        };
        match (holds, at_floor) {
            (true, _) => Judgement::Holds,
            (false, true) => Judgement::AtTheFloor,
            (false, false) => Judgement::Fails,
        }
    }

    /// More is worse; comparable for the same figure.
    pub(crate) fn badness(&self) -> f64 {
        match self.bound {
            Bound::AtMost(bound) => self.reached - bound,
            Bound::AtLeast(bound) => bound - self.reached,
        }
    }

    /// What is to be reached.
    pub(crate) fn goal(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("≤ {bound}"),
            Bound::AtLeast(bound) => format!("≥ {bound}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.judgement() {
            Judgement::Holds => "holds",
            Judgement::AtTheFloor => "at the floor",
            Judgement::Fails => "FAILS",
        };
        let goal = self.goal();
        write!(f, "{word}: {}: {:.4} ({goal}", self.what, self.reached)?;
        if let Some((floor, why)) = self.floor {
            write!(f, "; {why}: {floor:.4}")?;
        }
        if let Some(parts) = self.parts {
            write!(f, "; {parts}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            judged,
            compared,
            busy,
        } = self;
        let busy = 100.0 * busy;
        write!(f, "{judged:.0} to {compared:.0} ms, {busy:.0} % busy")
    }
}

impl fmt::Debug for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_excuses_only_what_is_close_to_it_and_only_beyond_the_bound() {
        let judged = |reached, floor| {
            let verdict = Verdict::at_most("it", reached, 1.2).with_floor(floor, "at best");
            verdict.judgement()
        };
        assert_eq!(judged(1.2, 2.0), Judgement::Holds);
        assert_eq!(judged(2.05, 2.0), Judgement::AtTheFloor);
        assert_eq!(judged(2.2, 2.0), Judgement::Fails);
        assert_eq!(judged(1.21, 1.19), Judgement::Fails);
        let least = Verdict::at_least("it", 90.0, 97.0);
        assert_eq!(least.judgement(), Judgement::Fails);
        let least = least.with_floor(91.0, "at best");
        assert_eq!(least.judgement(), Judgement::AtTheFloor);
        assert!(least.to_string().contains("(≥ 97; at best: 91.0000)"));
    }
}
