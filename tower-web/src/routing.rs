//! Routes, and how a request finds its own.

use std::fmt;

use crate::shutdown::{Shutdown, ShutdownSource};

/// What is known of a route before any request comes.
pub(crate) struct RouteInfo {
    pattern: String,
    capture_names: Vec<String>,
    shutdown: ShutdownSource,
}

impl RouteInfo {
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    pub(crate) fn capture_names(&self) -> &[String] {
        &self.capture_names
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.shutdown.subscribe()
    }
}

impl fmt::Debug for RouteInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteInfo")
            .field("pattern", &self.pattern)
            .finish_non_exhaustive()
    }
}
