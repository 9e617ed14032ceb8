//! What a cache fails with.

use std::error::Error;
use std::fmt;

use crate::BoxError;

/// A service of a [`ReadyCache`](crate::ReadyCache) failed to become ready, and has left the cache.
pub struct Failed<K>(
    /// The key of the service.
    pub K,
    /// How it failed.
    pub BoxError,
);

/// There is no ready service where a [`ReadyCache`](crate::ReadyCache) was asked to make a call. Gives back the request.
pub struct NotReady<Req>(
    /// The request that was not sent.
    pub Req,
);

impl<K: fmt::Debug> fmt::Debug for Failed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failed")
            .field(&self.0)
            .field(&self.1)
            .finish()
    }
}

impl<K> fmt::Display for Failed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.fmt(f)
    }
}

impl<K: fmt::Debug> Error for Failed<K> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.1)
    }
}

impl<Req> fmt::Debug for NotReady<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotReady").finish_non_exhaustive()
    }
}

impl<Req> fmt::Display for NotReady<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no ready service to call")
    }
}

impl<Req> Error for NotReady<Req> {}
