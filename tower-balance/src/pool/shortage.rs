//! Why no endpoint took a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request found no endpoint, and this is why. Nothing was done for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unavailable {
    /// Why it was given up.
    pub reason: Reason,
    /// What the endpoints were doing at the time.
    pub census: Census,
    /// The latest failure of an endpoint or of discovery, if there was one.
    pub last_failure: Option<Arc<str>>,
    /// How long the request has waited.
    pub waited: Duration,
}

/// Why a request was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It waited for the longest that it may.
    WaitedTooLong,
    /// The deadline of its task came first.
    DeadlinePassed,
    /// It would have had to wait, and as many wait as may.
    QueueFull,
    /// Discovery has finished, and there is no endpoint.
    NoneLeft,
    /// The pool is closed, or the runtime of its task is gone.
    Closed,
    /// The task of the pool has panicked; `last_failure` has the message.
    Panicked,
}

/// What the endpoints of a pool are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Those that are being connected to.
    pub connecting: usize,
    /// Those that are connected and not ejected. They may be too busy to take a request.
    pub ready: usize,
    /// Those that couldn't be connected to, and wait before the next try.
    pub failing: usize,
    /// Those that are connected and left out, as they do worse than the others.
    pub ejected: usize,
    /// Those whose connections were closed as nobody needed them.
    pub idle: usize,
    /// Those that were removed and finish what they have.
    pub draining: usize,
}

impl Census {
    /// How many endpoints are known: those that discovery hasn't removed.
    pub const fn known(&self) -> usize {
        self.connecting + self.ready + self.failing + self.ejected + self.idle
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WaitedTooLong => "waited too long",
            Self::DeadlinePassed => "deadline passed",
            Self::QueueFull => "too many wait",
            Self::NoneLeft => "discovery has finished without endpoints",
            Self::Closed => "pool is closed",
            Self::Panicked => "pool's task panicked",
        })
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        if known == 0 {
            return f.write_str("no endpoint is known");
        }
        write!(f, "of {known} endpoints")?;
        let mut separator = " ";
        for (count, what) in [
            (self.connecting, "connecting"),
            (self.ready, "busy"),
            (self.failing, "failing"),
            (self.ejected, "ejected"),
            (self.idle, "idle"),
        ] {
            if count > 0 {
                write!(f, "{separator}{count} {what}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no endpoint took the request: {}", self.reason)?;
        if !matches!(self.reason, Reason::Closed | Reason::Panicked) {
            write!(f, "; {}", self.census)?;
        }
        match &self.last_failure {
            Some(failure) => write!(f, "; last failure: {failure}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Unavailable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_what_the_endpoints_were_doing() {
        let error = Unavailable {
            reason: Reason::WaitedTooLong,
            census: Census {
                connecting: 1,
                failing: 2,
                ..Census::default()
            },
            last_failure: Some("connection refused".into()),
            waited: Duration::from_secs(3),
        };
        assert_eq!(
            error.to_string(),
            "no endpoint took the request: waited too long; of 3 endpoints 1 connecting, 2 failing; \
             last failure: connection refused"
        );
    }
}
