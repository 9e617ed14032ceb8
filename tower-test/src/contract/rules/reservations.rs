//! Who holds which place: what is ready, what was dropped, and what clones may and may not have.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::{Check, Found, MANY, UnreadyCalls, Verdict};
use crate::contract::inner::Fate;
use crate::contract::stage::{Fault, Handle, Reply, settle};

impl Check<'_> {
    pub(super) fn calls_what_is_ready(&self) -> Result<(), Found> {
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

    pub(super) fn call_without_ready(&self) -> Result<(), Found> {
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
            stage.script.capacity(self.scarce());
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

    pub(super) fn ready_then_drop(&self) -> Result<(), Found> {
        self.play("nobody else is there", async |stage| {
            stage.script.capacity(self.scarce());
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
            stage.script.capacity(self.scarce());
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

    pub(super) fn ready_twice(&self) -> Result<(), Found> {
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

    pub(super) fn clone_inherits_nothing(&self) -> Result<(), Found> {
        self.play("a clone of a ready service is called", async |stage| {
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            if clone.is_ready_soon().await? {
                clone.must_answer().await?;
                return service.must_answer().await;
            }
            service.must_answer().await?;
            drop(service);
            clone.must_serve().await
        })?;
        self.play("the ready service has the only place", async |stage| {
            stage.script.capacity(self.scarce());
            let mut service = stage.subject();
            service.must_be_ready().await?;
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            if clone.poll_ready()? == Poll::Ready(Ok(())) {
                let (first, second) = (service.call()?, clone.call()?);
                return all([first, second].map(Reply::must_end)).await;
            }
            service.must_answer().await?;
            drop(service);
            clone.must_serve().await
        })?;
        self.play(
            "a service with a request in flight is cloned",
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

    pub(super) fn clones_never_starve(&self) -> Result<(), Found> {
        self.clones_get_places_of_the_inner_service()?;
        self.clones_get_places_of_a_limit()
    }

    fn clones_get_places_of_the_inner_service(&self) -> Result<(), Found> {
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
            stage.script.capacity(self.scarce());
            clone.must_serve_once_woken(waits).await
        })?;
        self.play("three clones want the only place", async |stage| {
            stage.script.capacity(0);
            let mut first = stage.subject();
            let (Some(mut second), Some(mut third)) = (first.try_clone(), first.try_clone()) else {
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
            stage.script.capacity(self.scarce());
            serve_all([first, second, third], waits).await
        })?;
        self.play("a clone waits for a request in flight", async |stage| {
            stage.script.capacity(self.scarce());
            stage.script.hold();
            let mut service = stage.subject();
            let Some(mut clone) = service.try_clone() else {
                return Ok(());
            };
            service.must_be_ready().await?;
            let mut first = service.call()?;
            let in_flight = first.poll()?.is_pending();
            let waits = clone.poll_ready()?.is_pending();
            drop(service);
            settle().await;
            stage.script.release();
            if in_flight {
                first.must_be_answered().await?;
            }
            drop(first);
            clone.must_serve_once_woken(waits).await
        })
    }

    fn clones_get_places_of_a_limit(&self) -> Result<(), Found> {
        self.play("one of two that wait goes away", async |stage| {
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
        })?;
        self.play("three wait for the service's own limit", async |stage| {
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
    let mut waits = waits.into_iter();
    let each = services.map(|mut service| {
        let waits = waits.next().unwrap_or_default();
        async move { service.must_serve_once_woken(waits).await }
    });
    all(each).await
}

/// Waits for all of them at once; each is dropped when it is done.
async fn all<F, const N: usize>(each: [F; N]) -> Verdict
where
    F: Future<Output = Verdict>,
{
    let mut each: Vec<Pin<Box<F>>> = each.into_iter().map(Box::pin).collect();
    poll_fn(|cx| {
        let mut verdict = Ok(());
        each.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(observed) => {
                verdict = observed;
                false
            }
        });
        match verdict {
            Ok(()) if !each.is_empty() => Poll::Pending,
            verdict => Poll::Ready(verdict),
        }
    })
    .await
}
