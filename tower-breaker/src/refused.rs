//! Why a request was not sent.

use std::fmt;
use std::time::Duration;

/// The breaker didn't send the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The service has failed too often, or was shut from outside.
    Shut {
        /// When it may pay to ask again. `None` where nobody knows: the breaker is held, or shut for ever.
        retry_after: Option<Duration>,
    },
    /// The service wasn't ready for longer than the longest wait.
    Overdue,
    /// The breaker wasn't polled ready before the call.
    NotReady,
    /// The service isn't ready, and to bound the wait takes a tokio runtime.
    NoRuntime,
}

impl Refused {
    /// When it may pay to ask again, if that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Shut { retry_after } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(feature = "metrics")]
impl Refused {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Shut { .. } => "shut",
            Self::Overdue => "overdue",
            Self::NotReady => "not_ready",
            Self::NoRuntime => "no_runtime",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shut { .. } => "circuit breaker is shut",
            Self::Overdue => "service has not been ready for too long",
            Self::NotReady => "circuit breaker called without readiness",
            Self::NoRuntime => "no tokio runtime to bound the wait for the service",
        })
    }
}

impl std::error::Error for Refused {}
