//! Who is woken, and that nobody is misled by a poll too many.

use std::sync::Arc;
use std::task::Poll;

use super::{Check, Found};
use crate::contract::stage::{Probe, settle};

impl Check<'_> {
    pub(super) fn keeps_waker(&self) -> Result<(), Found> {
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

    pub(super) fn wakes_latest(&self) -> Result<(), Found> {
        self.play(
            "readiness is polled by one task, then another",
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
            "a response is polled by one task, then another",
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

    pub(super) fn spurious_polls(&self) -> Result<(), Found> {
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
}
