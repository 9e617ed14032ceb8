//! A future that ends with its deadline.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Deadline, Entered, Expired};

pin_project! {
    /// A future that knows of a deadline and fails with [`Expired`] when it has passed.
    ///
    /// The future inside is polled first: an output that is there is delivered, however late. One whose
    /// deadline has passed before it was polled for the first time is polled once, too: whoever must not begin
    /// asks [`Deadline::has_passed_at`] before.
    ///
    /// **Cancellation.** When the time is up the future stays where it is until this one is dropped, as
    /// any future that has completed.
    ///
    /// **Panics.** In a runtime whose time driver isn't enabled, at the first poll that finds nothing. Outside
    /// of a runtime there is no timer, and it fails at the first poll after the deadline.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Within<F> {
        deadline: Option<Deadline>,
        #[pin]
        future: F,
        // Made at the first poll that finds nothing. Most never need it.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F> Within<F> {
    pub(crate) const fn new(deadline: Option<Deadline>, future: F) -> Self {
        Self {
            deadline,
            future,
            timer: None,
        }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Expired>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = Entered::shrink(*this.deadline);
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        drop(entered);
        match this.deadline {
            Some(deadline) => poll_until(this.timer, *deadline, cx),
            None => Poll::Pending,
        }
    }
}

/// Waits for the deadline, at which it fails.
fn poll_until<T>(
    mut timer: Pin<&mut Option<Sleep>>,
    deadline: Deadline,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Expired>> {
    if timer.is_none() {
        if Handle::try_current().is_err() {
            return match deadline.has_passed_at(Instant::now()) {
                true => Poll::Ready(Err(Expired::during_work())),
                false => Poll::Pending,
            };
        }
        timer.set(Some(sleep_until(deadline.instant())));
    }
    let Some(timer) = timer.as_pin_mut() else {
        return Poll::Pending;
    };
    // A future that has used up the task's budget would otherwise keep the timer from being looked at.
    pin!(unconstrained(timer))
        .poll(cx)
        .map(|()| Err(Expired::during_work()))
}
