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
/// At the deadline all that are left are told at once, and have no time; so none is left open. Dropping the future
/// has those that it hasn't come to close at once, by the same deadline: spawn it where the order matters even then.
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
        let mut left = Left {
            members: self.members.clone().into_iter(),
            by,
        };
        // The first is told by the call itself.
        let first = left.next();
        Closing::new(async move {
            let mut end = match first {
                Some(first) => first.await,
                None => Ok(()),
            };
            while let Some(closing) = left.next() {
                end = both(end, closing.await);
            }
            end
        })
    }
}

/// Those whose turn hasn't come. They are told when this is dropped, as nobody else would.
struct Left {
    members: std::vec::IntoIter<Arc<dyn Close + Send + Sync>>,
    by: Deadline,
}

impl Left {
    fn next(&mut self) -> Option<Closing> {
        self.members.next().map(|member| member.close(self.by))
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        while let Some(closing) = self.next() {
            drop(closing);
        }
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
