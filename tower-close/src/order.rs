//! Several things closed as one: at once, or in turn.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tower_deadline::Deadline;

use crate::{Close, Closing, NotClosed};

type Member = Box<dyn Close + Send + Sync>;

/// Closes its members at once.
///
/// **Errors.** Those of all members together: the requests and tasks that were cut off are added up, and a panic
/// goes before them.
#[derive(Default)]
pub struct AtOnce {
    members: Vec<Member>,
}

/// Closes its members one after the other, each when the one before has ended.
///
/// At the deadline all that are left are told at once, and have no time; so none is left open.
/// Dropping the future leaves those that it hasn't come to open: spawn it where that can happen.
///
/// **Errors.** As [`AtOnce`].
#[derive(Default)]
pub struct InTurn {
    members: Vec<Arc<dyn Close + Send + Sync>>,
}

impl AtOnce {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member.
    #[must_use]
    pub fn and<C>(mut self, member: C) -> Self
    where
        C: Close + Send + Sync + 'static,
    {
        self.members.push(Box::new(member));
        self
    }
}

impl InTurn {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member, to be closed after those before.
    #[must_use]
    pub fn then<C>(mut self, member: C) -> Self
    where
        C: Close + Send + Sync + 'static,
    {
        self.members.push(Arc::new(member));
        self
    }
}

impl Close for AtOnce {
    fn close(&self, by: Deadline) -> Closing {
        // All are told before any is waited for.
        let closing: Vec<_> = self.members.iter().map(|member| member.close(by)).collect();
        Closing::new(async move {
            let ends = join_all(closing).await;
            ends.into_iter().fold(Ok(()), both)
        })
    }
}

impl Close for InTurn {
    fn close(&self, by: Deadline) -> Closing {
        let mut members = self.members.clone().into_iter();
        // The first is told by the call itself.
        let first = members.next().map(|member| member.close(by));
        Closing::new(async move {
            let mut end = match first {
                Some(first) => first.await,
                None => Ok(()),
            };
            for member in members {
                end = both(end, member.close(by).await);
            }
            end
        })
    }
}

fn both(a: Result<(), NotClosed>, b: Result<(), NotClosed>) -> Result<(), NotClosed> {
    match (a, b) {
        (Err(a), Err(b)) => Err(a.and(b)),
        (a, b) => a.and(b),
    }
}

impl fmt::Debug for AtOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtOnce")
            .field("members", &self.members.len())
            .finish()
    }
}

impl fmt::Debug for InTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTurn")
            .field("members", &self.members.len())
            .finish()
    }
}
