//! How requests end: cancelled, failed, after a panic, outside of a task, and when all is dropped.

use std::cell::Cell;
use std::task::Poll;

use tokio::time::sleep;

use super::{Check, Found, MANY, UnreadyCalls, Verdict};
use crate::contract::inner::{Fate, Script};
use crate::contract::stage::{Fault, Outcome, Stage, settle};

/// How many polls a response future may need to be cancelled at each of them.
const AWAIT_POINTS: usize = 24;

impl Check<'_> {
    pub(super) fn cancellation(&self) -> Result<(), Found> {
        for polls in 0..AWAIT_POINTS {
            let case = format!("the response is dropped after {polls} polls");
            if self.cancelled_after(polls, &case, |_| {})? {
                break;
            }
        }
        for polls in 0..AWAIT_POINTS {
            let case = format!(
                "the response is dropped after {polls} polls, the first attempt having failed"
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
            "requests are dropped before they are begun",
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
            stage.script.capacity(self.scarce());
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

    pub(super) fn readiness_error(&self) -> Result<(), Found> {
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

    pub(super) fn response_error(&self) -> Result<(), Found> {
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

    pub(super) fn inner_panic(&self) -> Result<(), Found> {
        let strike_ready: fn(&Script) = |script| script.next_ready(Fate::Panics);
        let strike_call: fn(&Script) = Script::next_call_panics;
        let strike_answer: fn(&Script) = |script| script.next_answer(Fate::Panics);
        for (case, strike) in [
            ("the inner service's poll_ready panics", strike_ready),
            ("the inner service's call panics", strike_call),
            ("the inner response panics", strike_answer),
        ] {
            self.play(case, async |stage| {
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

    pub(super) fn off_task(&self) -> Result<(), Found> {
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
            "all is dropped outside of the runtime",
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

    pub(super) fn drop_order(&self) -> Result<(), Found> {
        self.play(
            "the service is dropped, a request in flight",
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
            "the service is dropped before the first poll",
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

    pub(super) fn leak(&self) -> Result<(), Found> {
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
            "the service is dropped while it is pending",
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
}

/// After a panic has gone by, requests are answered or fail.
fn after_panic(served: Result<Outcome, Fault>) -> Verdict {
    match served {
        Ok(_) => Ok(()),
        Err(fault) => Err(format!("of a request after the panic, {fault}")),
    }
}
