//! How long a balancer waits for an endpoint.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long `poll_ready` waits for an endpoint, and since when it does.
#[derive(Debug)]
pub(crate) struct Patience(Kind);

#[derive(Debug)]
enum Kind {
    Endless,
    Bounded { most: Duration, wait: Wait },
}

#[derive(Debug)]
enum Wait {
    /// Nobody waits.
    Idle,
    Until(Deadline),
    /// The wait was in vain. The next call says so.
    Over,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    /// None outside of a runtime, where there are no timers, and before the first poll.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) fn endless() -> Self {
        Self(Kind::Endless)
    }

    pub(crate) fn at_most(most: Duration) -> Self {
        Self(Kind::Bounded {
            most,
            wait: Wait::Idle,
        })
    }

    /// Ends a wait, because there is an endpoint or because its outcome was told.
    #[inline]
    pub(crate) fn reset(&mut self) {
        if let Kind::Bounded { wait, .. } = &mut self.0 {
            *wait = Wait::Idle;
        }
    }

    /// Waits until the wait is over, if ever.
    ///
    /// - idle → until, on the first poll without an endpoint.
    /// - until → over, when the time has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Kind::Bounded { most, wait } = &mut self.0 else {
            return Poll::Pending;
        };
        loop {
            match wait {
                Wait::Idle => match Deadline::after(*most) {
                    Some(deadline) => *wait = Wait::Until(deadline),
                    None => return Poll::Pending,
                },
                Wait::Until(deadline) => {
                    ready!(deadline.poll(cx));
                    *wait = Wait::Over;
                }
                Wait::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Deadline {
    /// None if it is further than the clock reaches.
    fn after(most: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(most)?;
        Some(Self { at, sleep: None })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if runtime::Handle::try_current().is_err() {
            self.sleep = None;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Each poll makes a new timer, in the place of the old one: a balancer may outlive a runtime, and the
        // timer of a runtime that is gone panics.
        let sleep = sleep_until(self.at);
        let sleep = match &mut self.sleep {
            Some(old) => {
                old.set(sleep);
                old
            }
            old => old.insert(Box::pin(sleep)),
        };
        sleep.as_mut().poll(cx)
    }
}
