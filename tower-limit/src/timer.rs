//! A timer that may outlive the runtime that it waited in.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for one deadline after the other.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

/// There is no runtime to wait in.
#[derive(Debug)]
pub(crate) struct NoRuntime;

impl Timer {
    /// Waits for `deadline`.
    ///
    /// Each poll makes a new `Sleep`, in the place of the old one: a service may outlive a runtime, and
    /// the `Sleep` of a runtime that is gone panics when it is polled.
    pub(crate) fn poll(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NoRuntime>> {
        if Handle::try_current().is_err() {
            return Poll::Ready(Err(NoRuntime));
        }
        let sleep = sleep_until(deadline);
        let sleep = match &mut self.sleep {
            Some(old) => {
                old.set(sleep);
                old
            }
            old => old.insert(Box::pin(sleep)),
        };
        sleep.as_mut().poll(cx).map(Ok)
    }
}
