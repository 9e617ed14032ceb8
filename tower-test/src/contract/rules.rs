//! The scenarios by which each rule is checked.
//!
//! A scenario drives a service under test by the contract, except for the one thing that it is
//! about, and gives in words what it saw where a rule was broken.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::inner::{Breach, Deed, Script};
use super::stage::{Fault, Probe, Stage, Subject, caught, settle};
use super::{Declared, Rule, Violation};

mod ends;
mod reservations;
mod wakes;

/// How many times a scenario repeats what could lose a unit of capacity: more than most limits.
const MANY: usize = 70;

/// What a scenario observed where the rule is broken.
type Verdict = Result<(), String>;

/// A scenario that broke a rule.
pub(super) struct Found {
    case: String,
    observed: String,
    trace: Vec<String>,
}

/// The check of one subject.
pub(super) struct Check<'a> {
    make: &'a dyn Fn(&Script) -> Box<dyn Subject>,
    declared: &'a Declared,
    /// What an ordinary request takes, by which later scenarios are measured.
    control: Cell<Control>,
    /// The ordinary request whose task nothing woke: its waker was lost.
    never_woken: RefCell<Option<Found>>,
    /// The first poll of an inner future that was done, which any scenario may come upon.
    polled_after_done: RefCell<Option<Found>>,
}

#[derive(Clone, Copy, Default)]
struct Control {
    elapsed: Duration,
    /// How often the inner service is called.
    calls: usize,
    /// How many places of the inner service are taken at once.
    places: usize,
}

/// Whether a scenario itself breaks the contract, so that the subject may pass this on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnreadyCalls {
    Forbidden,
    Forgiven,
}

impl Rule {
    /// The rules without which this one can't be judged: its scenarios would fail for the same
    /// reason.
    pub(super) fn rests_on(self) -> &'static [Self] {
        match self {
            Self::OrdinaryRequest => &[],
            Self::CallsWhatIsReady => &[Self::OrdinaryRequest],
            Self::KeepsWaker => &[Self::OrdinaryRequest, Self::CallsWhatIsReady],
            Self::ClonesNeverStarve => &[Self::KeepsWaker, Self::ReadyThenDrop],
            Self::InnerPanic => &[Self::KeepsWaker, Self::Cancellation],
            _ => &[Self::KeepsWaker],
        }
    }

    fn check(self, check: &Check<'_>) -> Result<(), Found> {
        match self {
            Self::OrdinaryRequest => check.ordinary_request(),
            Self::CallsWhatIsReady => check.calls_what_is_ready(),
            Self::KeepsWaker => match check.never_woken.take() {
                Some(found) => Err(found),
                None => check.keeps_waker(),
            },
            Self::WakesLatest => check.wakes_latest(),
            Self::SpuriousPolls => check.spurious_polls(),
            Self::CallWithoutReady => check.call_without_ready(),
            Self::ReadyThenDrop => check.ready_then_drop(),
            Self::ReadyTwice => check.ready_twice(),
            Self::CloneInheritsNothing => check.clone_inherits_nothing(),
            Self::ClonesNeverStarve => check.clones_never_starve(),
            Self::Cancellation => check.cancellation(),
            Self::ReadinessError => check.readiness_error(),
            Self::ResponseError => check.response_error(),
            Self::InnerPanic => check.inner_panic(),
            Self::OffTask => check.off_task(),
            Self::DropOrder => check.drop_order(),
            Self::Leak => check.leak(),
            Self::PolledAfterDone => match check.polled_after_done.take() {
                Some(found) => Err(found),
                None => Ok(()),
            },
        }
    }
}

impl<'a> Check<'a> {
    pub(super) fn new(
        make: &'a dyn Fn(&Script) -> Box<dyn Subject>,
        declared: &'a Declared,
    ) -> Self {
        Self {
            make,
            declared,
            control: Cell::default(),
            never_woken: RefCell::default(),
            polled_after_done: RefCell::default(),
        }
    }

    pub(super) fn rule(&self, rule: Rule) -> Result<(), Violation> {
        rule.check(self).map_err(|found| Violation {
            rule,
            case: found.case,
            observed: found.observed,
            trace: found.trace,
        })
    }

    fn ordinary_request(&self) -> Result<(), Found> {
        // Whether the inner service was ready is the next rule's business.
        let forgiven = UnreadyCalls::Forgiven;
        let never_woken = Cell::new(false);
        let mut first = None;
        let played = self.play_as(forgiven, "three requests in a row", async |stage| {
            let mut service = stage.subject();
            for _ in 0..3 {
                let served = service.serve().await;
                never_woken.set(served.as_ref().is_err_and(Fault::is_never_woken));
                served?.map_err(|error| format!("a request failed with {error}"))?;
                first.get_or_insert(Control {
                    elapsed: stage.elapsed(),
                    calls: stage.script.calls(),
                    places: stage.script.most_places(),
                });
            }
            Ok(())
        });
        self.control.set(first.unwrap_or_default());
        match played {
            // That is the business of the rule of wakers, which says how it is mended.
            Err(found) if never_woken.get() => {
                self.never_woken.replace(Some(found));
                Ok(())
            }
            played => played,
        }
    }

    /// A capacity for one request at a time: none, where a request takes several places at once, and
    /// two that each have a part of what they need would wait for each other.
    fn scarce(&self) -> usize {
        if self.control.get().places > 1 {
            usize::MAX
        } else {
            1
        }
    }

    /// Waits for a wake, without the clock moving if an ordinary request takes no time either.
    async fn woken(&self, task: &Probe) -> Verdict {
        settle().await;
        if task.is_woken() {
            return Ok(());
        }
        if self.control.get().elapsed.is_zero() {
            return Err(
                "the inner service woke whom it knew, and the waiting task wasn't woken".into(),
            );
        }
        Ok(task
            .wait(self.declared.patience, "what waited for the inner service")
            .await?)
    }

    /// The scenario took no more time than an ordinary request.
    fn on_time(&self, stage: &Stage<'_>) -> Verdict {
        let (control, elapsed) = (self.control.get().elapsed, stage.elapsed());
        if elapsed > control {
            return Err(format!(
                "it went on after {elapsed:?} only, woken by a timer and not by the inner service \
                 (an ordinary request takes {control:?})"
            ));
        }
        Ok(())
    }

    /// The inner service was called as often as by an ordinary request.
    fn as_many_calls(&self, stage: &Stage<'_>) -> Verdict {
        let (control, calls) = (self.control.get().calls, stage.script.calls());
        if calls != control {
            return Err(format!(
                "the inner service was called {calls} times, and by an ordinary request {control} \
                 times"
            ));
        }
        Ok(())
    }

    /// Plays a scenario in which nobody but the subject breaks the contract.
    fn play(
        &self,
        case: &str,
        scenario: impl AsyncFnOnce(&Stage<'_>) -> Verdict,
    ) -> Result<(), Found> {
        self.play_as(UnreadyCalls::Forbidden, case, scenario)
    }

    fn play_as(
        &self,
        unready_calls: UnreadyCalls,
        case: &str,
        scenario: impl AsyncFnOnce(&Stage<'_>) -> Verdict,
    ) -> Result<(), Found> {
        self.play_on(unready_calls, case, |stage, runtime| {
            runtime.block_on(scenario(stage))
        })
    }

    fn play_on(
        &self,
        unready_calls: UnreadyCalls,
        case: &str,
        scenario: impl FnOnce(&Stage<'_>, &Runtime) -> Verdict,
    ) -> Result<(), Found> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing that could be missing");
        let stage = {
            let _context = runtime.enter();
            Stage::new(self.make, self.declared.patience)
        };
        let verdict = caught(|| scenario(&stage, &runtime))
            .unwrap_or_else(|message| Err(format!("something panicked: {message}")));
        let found = |observed, lines| {
            let mut trace = stage.script.trace();
            trace.truncate(lines);
            Found {
                case: case.to_owned(),
                observed,
                trace,
            }
        };
        // What came after a breach isn't shown: a trace ends with what is said to have been seen.
        let breached = |breach: Breach| found(breach.deed.to_string(), breach.lines);
        let (mut unready, mut after_done) = (None, None);
        for breach in stage.script.breaches() {
            match breach.deed {
                Deed::CalledUnready { .. } => unready = unready.or(Some(breach)),
                Deed::PolledAfterDone { .. } => after_done = after_done.or(Some(breach)),
            }
        }
        if let Some(breach) = after_done {
            let mut first = self.polled_after_done.borrow_mut();
            first.get_or_insert_with(|| breached(breach));
        }
        match unready {
            Some(breach) if unready_calls == UnreadyCalls::Forbidden => Err(breached(breach)),
            _ => verdict.map_err(|observed| found(observed, usize::MAX)),
        }
    }
}
