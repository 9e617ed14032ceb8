//! The scenarios by which each rule is checked.
//!
//! A scenario drives a service under test by the contract, except for the one thing that it is
//! about, and gives in words what it saw where a rule was broken.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::inner::{Breach, Fate, Script};
use super::stage::{Fault, Handle, Outcome, Probe, Stage, Subject, caught, settle};
use super::{Declared, Rule, Violation};

/// How many times a scenario repeats what could lose a unit of capacity: more than most limits.
const MANY: usize = 70;

/// How many polls a response future may need to be cancelled at each of them.
const AWAIT_POINTS: usize = 24;

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
    pub(super) make: &'a dyn Fn(&Script) -> Box<dyn Subject>,
    pub(super) declared: &'a Declared,
    /// What an ordinary request takes, by which later scenarios are measured.
    control: Cell<Control>,
    /// The first poll of an inner future that was done, which any scenario may come upon.
    polled_after_done: RefCell<Option<Found>>,
}

#[derive(Clone, Copy, Default)]
struct Control {
    elapsed: Duration,
    calls: usize,
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
            Self::KeepsWaker => check.keeps_waker(),
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
        self.play_as(
            forgiven,
            "three requests, one after another",
            async |stage| {
                let mut service = stage.subject();
                service.must_serve().await?;
                self.control.set(Control {
                    elapsed: stage.elapsed(),
                    calls: stage.script.calls(),
                });
                service.must_serve().await?;
                service.must_serve().await
            },
        )
    }

    fn calls_what_is_ready(&self) -> Result<(), Found> {
        // Only the breach counts here: what else may go wrong is judged by other rules.
        self.play(
            "the inner service is ready at the second poll",
            async |stage| {
                stage.script.ready_in_two(true);
                let mut service = stage.subject();
                for _ in 0..3 {
                    let _ = service.serve().await;
                }
                Ok(())
            },
        )?;
        self.play("the inner service's first response fails", async |stage| {
            stage.script.next_answer(Fate::Fails);
            stage.script.ready_in_two(true);
            let _ = stage.subject().serve().await;
            Ok(())
        })?;
        self.play("the inner service has no capacity", async |stage| {
            stage.script.capacity(0);
            let mut service = stage.subject();
            if let Ok(Poll::Ready(Ok(()))) = service.poll_ready() {
                let mut reply = service.call()?;
                if reply.poll()?.is_pending() {
                    stage.script.capacity(usize::MAX);
                    let _ = reply.answer().await;
                }
            }
            Ok(())
        })
    }

    fn keeps_waker(&self) -> Result<(), Found> {
        self.play("the inner service is pending, then ready", async |stage| {
            stage.script.capacity(0);
            let mut service = stage.subject();
            match service.poll_ready()? {
                Poll::Pending => {
                    settle().await;
                    stage.script.capacity(usize::MAX);
                    self.woken(&service.task).await?;
                    service.must_be_ready().await?;
                }
                Poll::Ready(Ok(())) => {
                    let mut reply = service.call()?;
                    if reply.poll()?.is_pending() {
                        settle().await;
                        stage.script.capacity(usize::MAX);
                        self.woken(&reply.task).await?;
                        let _ = reply.answer().await?;
                    }
                }
                // It answers for itself where the inner service is busy.
                Poll::Ready(Err(_)) => {}
            }
            self.on_time(stage)
        })?;
        self.play("the inner response is pending, then done", async |stage| {
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut reply = service.call()?;
            if reply.poll()?.is_pending() {
                settle().await;
                stage.script.release();
                self.woken(&reply.task).await?;
                reply.must_be_answered().await?;
            }
            self.on_time(stage)
        })
    }

    fn wakes_latest(&self) -> Result<(), Found> {
        self.play(
            "readiness is polled by one task, then by another",
            async |stage| {
                let (first, second) = (Arc::<Probe>::default(), Arc::<Probe>::default());
                stage.script.capacity(0);
                let mut service = stage.subject();
                if service.poll_ready_on(&first)?.is_ready() {
                    return Ok(());
                }
                settle().await;
                if service.poll_ready_on(&second)?.is_ready() {
                    return Ok(());
                }
                settle().await;
                stage.script.capacity(usize::MAX);
                self.woken(&second).await?;
                service.must_be_ready().await?;
                self.on_time(stage)
            },
        )?;
        self.play(
            "the response is polled by one task, then by another",
            async |stage| {
                let (first, second) = (Arc::<Probe>::default(), Arc::<Probe>::default());
                stage.script.hold();
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let mut reply = service.call()?;
                if reply.poll_on(&first)?.is_ready() {
                    return Ok(());
                }
                settle().await;
                if reply.poll_on(&second)?.is_ready() {
                    return Ok(());
                }
                settle().await;
                stage.script.release();
                self.woken(&second).await?;
                reply.must_be_answered().await?;
                self.on_time(stage)
            },
        )
    }

    fn spurious_polls(&self) -> Result<(), Found> {
        self.play("readiness is polled ten times too often", async |stage| {
            stage.script.capacity(0);
            let mut service = stage.subject();
            if service.poll_ready()?.is_ready() {
                return Ok(());
            }
            for _ in 0..10 {
                settle().await;
                if let Poll::Ready(outcome) = service.poll_ready()? {
                    return Err(format!(
                        "poll_ready went from pending to {outcome:?} though the inner service \
                         went on pending"
                    ));
                }
            }
            stage.script.capacity(usize::MAX);
            service.must_serve().await?;
            self.as_many_calls(stage)
        })?;
        self.play("the response is polled ten times too often", async |stage| {
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut reply = service.call()?;
            if reply.poll()?.is_ready() {
                return Ok(());
            }
            for _ in 0..10 {
                settle().await;
                if let Poll::Ready(outcome) = reply.poll()? {
                    return Err(format!(
                        "the response went from pending to {outcome:?} though the inner response \
                         went on pending"
                    ));
                }
            }
            stage.script.release();
            reply.must_be_answered().await?;
            self.as_many_calls(stage)
        })
    }

    fn call_without_ready(&self) -> Result<(), Found> {
        if self.declared.panics_when_not_ready {
            return Ok(());
        }
        let forgiven = UnreadyCalls::Forgiven;
        self.play_as(forgiven, "nothing else goes on", async |stage| {
            let mut service = stage.subject();
            let _ = service.call()?.answer().await?;
            service.must_serve().await
        })?;
        self.play_as(
            forgiven,
            "the inner service has no capacity",
            async |stage| {
                stage.script.capacity(0);
                let mut service = stage.subject();
                let mut reply = service.call()?;
                if reply.poll()?.is_pending() {
                    settle().await;
                    stage.script.capacity(usize::MAX);
                    let _ = reply.answer().await?;
                }
                drop(reply);
                stage.script.capacity(usize::MAX);
                service.must_serve().await
            },
        )?;
        self.play_as(forgiven, "another request is in flight", async |stage| {
            stage.script.capacity(1);
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut first = service.call()?;
            let first_is_done = first.poll()?.is_ready();
            let mut second = service.call()?;
            let second_is_done = second.poll()?.is_ready();
            settle().await;
            stage.script.release();
            if !first_is_done {
                first.must_be_answered().await?;
            }
            drop(first);
            if !second_is_done {
                let _ = second.answer().await?;
            }
            drop(second);
            service.must_serve().await
        })
    }

    fn ready_then_drop(&self) -> Result<(), Found> {
        self.play("nobody else is there", async |stage| {
            stage.script.capacity(1);
            let mut service = stage.subject();
            service.must_be_ready().await?;
            drop(service);
            settle().await;
            match stage.script.reserved() {
                0 => Ok(()),
                _ => Err("the service was dropped, and the inner service is reserved still".into()),
            }
        })?;
        self.play("a clone waits for the inner service", async |stage| {
            stage.script.capacity(1);
            let mut service = stage.subject();
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            service.must_be_ready().await?;
            let waits = clone.poll_ready()?.is_pending();
            drop(service);
            clone.must_serve_once_woken(waits).await
        })?;
        self.play("as many clones as can be are ready", async |stage| {
            let mut service = stage.subject();
            let (mut ready, waiting) = fill(&service, 1).await?;
            if let (Some(mut waiting), Some(one)) = (waiting, ready.pop()) {
                drop(one);
                waiting.must_serve_once_woken(true).await?;
            }
            drop(ready);
            service.must_serve().await
        })
    }

    fn ready_twice(&self) -> Result<(), Found> {
        self.play("one handle is polled again and again", async |stage| {
            let mut service = stage.subject();
            service.must_be_ready().await?;
            settle().await;
            let reserved = stage.script.reserved();
            for _ in 0..10 {
                match service.poll_ready()? {
                    Poll::Ready(Ok(())) => settle().await,
                    other => return Err(format!("poll_ready went from ready to {other:?}")),
                }
            }
            let now = stage.script.reserved();
            if now > reserved {
                return Err(format!(
                    "the inner service was reserved {reserved} times after the first poll_ready, \
                     and {now} times after ten more"
                ));
            }
            service.must_answer().await
        })?;
        let once = Cell::new(0);
        self.play("clones are polled once each", async |stage| {
            let service = stage.subject();
            once.set(fill(&service, 1).await?.0.len());
            Ok(())
        })?;
        self.play("clones are polled thrice each", async |stage| {
            let service = stage.subject();
            let (once, thrice) = (once.get(), fill(&service, 3).await?.0.len());
            if thrice < once {
                return Err(format!(
                    "polled once each, {once} clones were ready; polled thrice each, only {thrice}"
                ));
            }
            Ok(())
        })
    }

    fn clone_inherits_nothing(&self) -> Result<(), Found> {
        self.play(
            "a clone of a ready service is polled and called",
            async |stage| {
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let Some(mut clone) = service.try_clone() else {
                    return Ok(());
                };
                clone.must_serve().await?;
                service.must_answer().await
            },
        )?;
        self.play(
            "the ready service has the inner one's only place",
            async |stage| {
                stage.script.capacity(1);
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let Some(mut clone) = service.try_clone() else {
                    return Ok(());
                };
                let second = match clone.poll_ready()? {
                    Poll::Ready(Ok(())) => Some(clone.call()?),
                    _ => None,
                };
                service.must_answer().await?;
                match second {
                    Some(mut second) => second.answer().await.map(drop)?,
                    None => clone.must_serve().await?,
                }
                Ok(())
            },
        )?;
        self.play(
            "the service is cloned while its request is in flight",
            async |stage| {
                stage.script.hold();
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let mut first = service.call()?;
                let in_flight = first.poll()?.is_pending();
                let Some(mut clone) = service.try_clone() else {
                    return Ok(());
                };
                stage.script.release();
                if in_flight {
                    first.must_be_answered().await?;
                }
                drop(first);
                clone.must_serve().await
            },
        )?;
        let cold = self.unready_call_of_a_clone("a clone of a service that isn't ready", false)?;
        let warm = self.unready_call_of_a_clone("a clone of a ready service", true)?;
        match (cold, warm) {
            (Some(cold), Some(warm)) if cold.0 != warm.0 => Err(Found {
                case: "a clone is called without poll_ready".to_owned(),
                observed: format!(
                    "of a service that isn't ready, the clone {}; of a ready one, it {}",
                    cold.0, warm.0
                ),
                trace: warm.1,
            }),
            _ => Ok(()),
        }
    }

    /// How the call of a clone ends that was never polled ready, and the trace.
    fn unready_call_of_a_clone(
        &self,
        case: &str,
        ready: bool,
    ) -> Result<Option<(String, Vec<String>)>, Found> {
        let seen = Cell::new(None);
        self.play_as(UnreadyCalls::Forgiven, case, async |stage| {
            let mut service = stage.subject();
            if ready {
                service.must_be_ready().await?;
            }
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            // What the service reserved is free again, so that there's room for the clone.
            drop(service);
            settle().await;
            let ends = match clone.call() {
                Err(_) => "panics",
                Ok(mut reply) => match reply.answer().await {
                    Ok(Ok(())) => "is answered",
                    Ok(Err(_)) => "is refused",
                    Err(fault) if fault.is_panic() => "panics",
                    Err(_) => "waits for ever",
                },
            };
            let calls = stage.script.calls();
            let ends = format!("{ends} (calls of the inner service: {calls})");
            seen.set(Some((ends, stage.script.trace())));
            Ok(())
        })?;
        Ok(seen.into_inner())
    }

    fn clones_never_starve(&self) -> Result<(), Found> {
        self.play("the clone that waited first goes away", async |stage| {
            stage.script.capacity(0);
            let mut service = stage.subject();
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            let _ = service.poll_ready()?;
            let waits = clone.poll_ready()?.is_pending();
            settle().await;
            drop(service);
            settle().await;
            stage.script.capacity(1);
            clone.must_serve_once_woken(waits).await
        })?;
        self.play(
            "three clones want the inner service's only place",
            async |stage| {
                stage.script.capacity(0);
                let mut first = stage.subject();
                let (Some(mut second), Some(mut third)) = (first.try_clone(), first.try_clone())
                else {
                    return Ok(());
                };
                let mut waits = [false; 3];
                for (service, waits) in [&mut first, &mut second, &mut third]
                    .into_iter()
                    .zip(&mut waits)
                {
                    *waits = service.poll_ready()?.is_pending();
                }
                settle().await;
                stage.script.capacity(1);
                serve_all([first, second, third], waits).await
            },
        )?;
        self.play("a clone waits for a request in flight", async |stage| {
            stage.script.capacity(1);
            stage.script.hold();
            let mut service = stage.subject();
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            service.must_be_ready().await?;
            let mut first = service.call()?;
            let in_flight = first.poll()?.is_pending();
            let waits = clone.poll_ready()?.is_pending();
            settle().await;
            stage.script.release();
            if in_flight {
                first.must_be_answered().await?;
            }
            drop(first);
            clone.must_serve_once_woken(waits).await
        })?;
        self.play(
            "one of two that wait for a place goes away",
            async |stage| {
                let service = stage.subject();
                let (mut ready, Some(first)) = fill(&service, 1).await? else {
                    return Ok(());
                };
                let Some(mut second) = service.try_clone() else {
                    return Ok(());
                };
                if second.is_ready_soon().await? {
                    return Ok(());
                }
                drop(ready.pop());
                // The first was given the place by now, or is about to take it.
                drop(first);
                second.must_serve_once_woken(true).await
            },
        )?;
        self.play("three wait for the service's own places", async |stage| {
            let service = stage.subject();
            let (mut ready, Some(first)) = fill(&service, 1).await? else {
                return Ok(());
            };
            let (Some(mut second), Some(mut third)) = (service.try_clone(), service.try_clone())
            else {
                return Ok(());
            };
            if second.is_ready_soon().await? || third.is_ready_soon().await? {
                return Ok(());
            }
            drop(ready.pop());
            serve_all([first, second, third], [true; 3]).await
        })
    }

    fn cancellation(&self) -> Result<(), Found> {
        for polls in 0..AWAIT_POINTS {
            let case = format!("the response is dropped after {polls} polls");
            if self.cancelled_after(polls, &case, |_| {})? {
                break;
            }
        }
        for polls in 0..AWAIT_POINTS {
            let case = format!(
                "the response is dropped after {polls} polls, and the first inner one failed"
            );
            if self.cancelled_after(polls, &case, |script| script.next_answer(Fate::Fails))? {
                break;
            }
        }
        self.play("the inner response is pending", async |stage| {
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut reply = service.call()?;
            let _ = reply.poll()?;
            settle().await;
            drop(reply);
            self.nothing_in_flight(stage).await
        })?;
        self.play(
            "requests are dropped while the inner service has no capacity",
            async |stage| {
                stage.script.capacity(0);
                let mut service = stage.subject();
                if service.poll_ready()? != Poll::Ready(Ok(())) {
                    return Ok(());
                }
                for round in 0..MANY {
                    service.must_be_ready().await.map_err(|observed| {
                        format!("after {round} requests that were dropped again, {observed}")
                    })?;
                    let mut reply = service.call()?;
                    let _ = reply.poll()?;
                    drop(reply);
                    settle().await;
                }
                stage.script.capacity(usize::MAX);
                service.must_serve().await
            },
        )
    }

    /// Drops many responses after so many polls each, and says whether all were done before.
    fn cancelled_after(
        &self,
        polls: usize,
        case: &str,
        prepare: impl Fn(&Script),
    ) -> Result<bool, Found> {
        let cut_short = Cell::new(false);
        self.play(case, async |stage| {
            stage.script.capacity(1);
            stage.script.ready_in_two(true);
            stage.script.answer_delay(2);
            let mut service = stage.subject();
            for round in 0..MANY {
                let _ = stage.script.forgive();
                prepare(&stage.script);
                let after = |what| format!("after {round} requests that were dropped, {what}");
                service.must_be_ready().await.map_err(after)?;
                let mut reply = service.call()?;
                if !reply.is_done_after(polls).await? {
                    cut_short.set(true);
                }
                drop(reply);
                self.nothing_in_flight(stage).await?;
            }
            let _ = stage.script.forgive();
            // One that sheds must see that there's capacity.
            stage.script.ready_in_two(false);
            let after = |what| format!("after {MANY} requests that were dropped, {what}");
            service.must_serve().await.map_err(after)
        })?;
        Ok(!cut_short.get())
    }

    fn readiness_error(&self) -> Result<(), Found> {
        self.play("the inner service fails when first polled", async |stage| {
            stage.script.next_ready(Fate::Fails);
            let outcome = stage.subject().serve().await?;
            self.surfaced(stage, &outcome)
        })?;
        self.play("the inner service is pending, then fails", async |stage| {
            stage.script.capacity(0);
            let mut service = stage.subject();
            let polled = service.poll_ready()?;
            let mut reply = match polled {
                Poll::Ready(Ok(())) => Some(service.call()?),
                Poll::Ready(Err(_)) => return Ok(()),
                Poll::Pending => None,
            };
            let answered = match &mut reply {
                Some(reply) => reply.poll()?.is_ready(),
                None => false,
            };
            settle().await;
            if answered {
                return Ok(());
            }
            stage.script.next_ready(Fate::Fails);
            settle().await;
            stage.script.capacity(usize::MAX);
            let outcome = match &mut reply {
                Some(reply) => reply.answer().await?,
                None => service.serve().await?,
            };
            self.surfaced(stage, &outcome)
        })
    }

    fn response_error(&self) -> Result<(), Found> {
        self.play("the inner response fails", async |stage| {
            stage.script.next_answer(Fate::Fails);
            let mut service = stage.subject();
            let outcome = service.serve().await?;
            self.surfaced(stage, &outcome)?;
            service
                .serve()
                .await
                .map(drop)
                .map_err(|fault| format!("of the request after the one that failed, {fault}"))
        })
    }

    fn inner_panic(&self) -> Result<(), Found> {
        let strike_ready: fn(&Script) = |script| script.next_ready(Fate::Panics);
        let strike_call: fn(&Script) = Script::next_call_panics;
        let strike_answer: fn(&Script) = |script| script.next_answer(Fate::Panics);
        for (case, strike) in [
            ("the inner service's poll_ready panics", strike_ready),
            ("the inner service's call panics", strike_call),
            ("the inner response panics", strike_answer),
        ] {
            self.play(case, async |stage| {
                stage.script.capacity(1);
                let mut service = stage.subject();
                let mut clone = service.try_clone();
                for _ in 0..MANY {
                    strike(&stage.script);
                    // The panic may come through: it is the inner service's own.
                    match service.serve().await {
                        Err(fault) if !fault.is_panic() => return Err(fault.into()),
                        _ => {}
                    }
                    settle().await;
                    let _ = stage.script.forgive();
                    after_panic(service.serve().await)?;
                    if let Some(clone) = &mut clone {
                        after_panic(clone.serve().await)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn off_task(&self) -> Result<(), Found> {
        let forbidden = UnreadyCalls::Forbidden;
        self.play_on(
            forbidden,
            "call is made outside of the runtime",
            |stage, runtime| {
                let mut service = runtime.block_on(async {
                    let mut service = stage.subject();
                    service.must_be_ready().await.map(|()| service)
                })?;
                let mut reply = service.call()?;
                runtime.block_on(reply.must_be_answered())
            },
        )?;
        self.play_on(
            forbidden,
            "call is made outside of the runtime, and everything dropped there",
            |stage, runtime| {
                let (mut service, clone) = runtime.block_on(async {
                    let mut service = stage.subject();
                    let clone = service.try_clone();
                    service.must_be_ready().await.map(|()| (service, clone))
                })?;
                drop(service.call()?);
                drop(service);
                match clone {
                    Some(mut clone) => runtime.block_on(clone.must_serve()),
                    None => Ok(()),
                }
            },
        )
    }

    fn drop_order(&self) -> Result<(), Found> {
        self.play(
            "the service is dropped while its request is in flight",
            async |stage| {
                stage.script.hold();
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let mut reply = service.call()?;
                let in_flight = reply.poll()?.is_pending();
                drop(service);
                settle().await;
                stage.script.release();
                if in_flight {
                    reply.must_be_answered().await?;
                }
                self.on_time(stage)
            },
        )?;
        self.play(
            "the service is dropped before the response is first polled",
            async |stage| {
                let mut service = stage.subject();
                service.must_be_ready().await?;
                let mut reply = service.call()?;
                drop(service);
                settle().await;
                reply.must_be_answered().await
            },
        )
    }

    fn leak(&self) -> Result<(), Found> {
        self.play("the response is dropped, then the service", async |stage| {
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut reply = service.call()?;
            let _ = reply.poll()?;
            settle().await;
            drop(reply);
            drop(service);
            self.nothing_left(stage).await
        })?;
        self.play("the service is dropped, then the response", async |stage| {
            stage.script.hold();
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let mut reply = service.call()?;
            let _ = reply.poll()?;
            settle().await;
            drop(service);
            drop(reply);
            self.nothing_left(stage).await
        })?;
        self.play(
            "the service is dropped while it waits to be ready",
            async |stage| {
                stage.script.capacity(0);
                let mut service = stage.subject();
                let _ = service.poll_ready()?;
                settle().await;
                drop(service);
                self.nothing_left(stage).await
            },
        )?;
        self.play("the service is dropped after its response", async |stage| {
            let mut service = stage.subject();
            service.must_serve().await?;
            drop(service);
            self.nothing_left(stage).await
        })
    }

    /// The inner response is gone with the response.
    async fn nothing_in_flight(&self, stage: &Stage<'_>) -> Verdict {
        settle().await;
        if stage.script.futures() > 0 && !self.declared.finishes_cancelled {
            return Err("the response was dropped, and the inner response lives on".into());
        }
        Ok(())
    }

    /// The inner service is gone; a task that ends by a timer is given the time.
    async fn nothing_left(&self, stage: &Stage<'_>) -> Verdict {
        settle().await;
        // What runs on though its response was dropped is judged by the rule of cancellation.
        stage.script.release();
        settle().await;
        if stage.script.handles() + stage.script.futures() > 0 {
            sleep(self.declared.patience).await;
        }
        match (stage.script.handles(), stage.script.futures()) {
            (0, 0) => Ok(()),
            (handles, futures) => Err(format!(
                "everything was dropped, and there are still {handles} handles of the inner \
                 service and {futures} of its response futures"
            )),
        }
    }

    /// An error is due, unless it didn't strike, or the subject is known to mask it.
    fn surfaced(&self, stage: &Stage<'_>, outcome: &Outcome) -> Verdict {
        let struck = !stage.script.forgive();
        if outcome.is_ok() && struck && !self.declared.masks_errors {
            return Err(
                "the inner service failed, and the request was answered all the same".into(),
            );
        }
        Ok(())
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
        let found = |observed| Found {
            case: case.to_owned(),
            observed,
            trace: stage.script.trace(),
        };
        let (mut unready, mut after_done) = (None, None);
        for breach in stage.script.breaches() {
            match breach {
                Breach::CalledUnready { .. } => unready = unready.or(Some(breach)),
                Breach::PolledAfterDone { .. } => after_done = after_done.or(Some(breach)),
            }
        }
        if let Some(breach) = after_done {
            let mut first = self.polled_after_done.borrow_mut();
            first.get_or_insert_with(|| found(breach.to_string()));
        }
        match unready {
            Some(breach) if unready_calls == UnreadyCalls::Forbidden => {
                Err(found(breach.to_string()))
            }
            _ => verdict.map_err(found),
        }
    }
}

/// After a panic has gone by, requests are answered or fail.
fn after_panic(served: Result<Outcome, Fault>) -> Verdict {
    match served {
        Ok(_) => Ok(()),
        Err(fault) => Err(format!("of a request after the panic, {fault}")),
    }
}

/// Makes clones, polls each so often, and gives those that are ready and the first that isn't.
async fn fill(service: &Handle, polls: usize) -> Result<(Vec<Handle>, Option<Handle>), Fault> {
    let mut ready = Vec::new();
    while ready.len() < MANY {
        let Some(mut clone) = service.try_clone() else {
            break;
        };
        for _ in 0..polls {
            if !clone.is_ready_soon().await? {
                return Ok((ready, Some(clone)));
            }
        }
        ready.push(clone);
    }
    Ok((ready, None))
}

/// Lets each make a request and go away, all at once; some wait to be ready already.
async fn serve_all(services: [Handle; 3], waits: [bool; 3]) -> Verdict {
    let mut each: Vec<Pin<Box<dyn Future<Output = Verdict>>>> = Vec::new();
    for (mut service, waits) in services.into_iter().zip(waits) {
        each.push(Box::pin(async move {
            service.must_serve_once_woken(waits).await
        }));
    }
    poll_fn(|cx| {
        let mut failed = Ok(());
        each.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(verdict) => {
                failed = mem::replace(&mut failed, Ok(())).and(verdict);
                false
            }
        });
        match failed {
            Ok(()) if !each.is_empty() => Poll::Pending,
            verdict => Poll::Ready(verdict),
        }
    })
    .await
}
