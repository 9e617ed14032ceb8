//! What a buffer fails with.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::BoxError;

/// The service behind a buffer failed.
///
/// Its [source](Error::source) is the error of the service's readiness, or a [`Panicked`]. It is shared by all
/// callers, which each get a copy.
#[derive(Clone, Debug)]
pub struct ServiceError {
    inner: Arc<BoxError>,
}

/// A buffer was closed, or its worker was dropped, before the request was served.
#[derive(Debug)]
#[non_exhaustive]
pub struct Closed;

/// A request was made without readiness, and no slot was free.
#[derive(Debug)]
#[non_exhaustive]
pub struct AtCapacity;

/// A buffer was made where there is no tokio runtime to run its worker on.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoRuntime;

/// The service behind a buffer panicked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Panicked {
    message: Option<String>,
}

impl ServiceError {
    pub(crate) fn new(inner: BoxError) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        Self::new(Panicked::new(payload).into())
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffered service failed: {}", self.inner)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.inner)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("buffer's worker closed unexpectedly")
    }
}

impl Error for Closed {}

impl fmt::Display for AtCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("buffer is at capacity, and was called without readiness")
    }
}

impl Error for AtCapacity {}

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("buffer was made outside of a tokio runtime")
    }
}

impl Error for NoRuntime {}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let message = tower_close::panic_message(payload).map(ToOwned::to_owned);
        Self { message }
    }

    /// What the panic said, if that is text.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "service panicked: {message}"),
            None => f.write_str("service panicked"),
        }
    }
}

impl Error for Panicked {}
