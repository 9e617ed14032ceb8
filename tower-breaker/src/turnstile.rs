//! Waiting until a breaker admits a request, instead of being refused.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime;
use tokio::time::sleep;

use crate::Handle;
use crate::pass::Pass;

/// One handle's turn: it has been let through, or waits.
#[derive(Default)]
pub(crate) struct Turnstile {
    pass: Option<Pass>,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Turnstile {
    /// Waits for a pass, which is kept for the next call. Ready with an error where nothing could end the wait.
    pub(crate) fn poll(&mut self, handle: &Handle, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        loop {
            if self.pass.as_ref().is_some_and(|pass| pass.is_current()) {
                return Poll::Ready(Ok(()));
            }
            self.pass = None;
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            // Before it asks, so that no change is missed between the answer and the wait.
            let mut freed = Box::pin(handle.freed());
            freed.as_mut().enable();
            match handle.admit() {
                Ok(pass) => self.pass = Some(pass),
                Err(None) => self.wait = Some(freed),
                Err(Some(_)) if runtime::Handle::try_current().is_err() => {
                    return Poll::Ready(Err(()));
                }
                Err(Some(retry_after)) => {
                    self.wait = Some(Box::pin(async move {
                        tokio::select! {
                            biased;
                            () = freed => {}
                            () = sleep(retry_after) => {}
                        }
                    }));
                }
            }
        }
    }

    /// The pass, if it is still worth something.
    pub(crate) fn take(&mut self) -> Option<Pass> {
        self.pass.take().filter(Pass::is_current)
    }
}

impl fmt::Debug for Turnstile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turnstile")
            .field("pass", &self.pass)
            .field("is_waiting", &self.wait.is_some())
            .finish()
    }
}
