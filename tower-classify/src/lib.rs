//! What a response means to the middleware that breaks circuits, retries and measures load.
//!
//! An `Ok` may be a failure (a 503), and an `Err` may be none (the request was malformed). Which is which
//! only the protocol and the application know; what to do about it only the middleware does. Between the
//! two stands a [`Class`], and a [`Classify`] that gives it.
//!
//! Finagle has the same split, in its `ResponseClass` and `ResponseClassifier`.
//!
//! # What follows from a class
//!
//! | class | of the endpoint | another try |
//! |---|---|---|
//! | [`Success`](Class::Success) | works | – |
//! | [`InvalidRequest`](Class::InvalidRequest) | works | fails again |
//! | [`Failure`](Class::Failure) | at fault | fails again, or does harm |
//! | [`Retryable`](Class::Retryable) | at fault | may succeed, and does no harm |
//! | [`RejectedBeforeWork`](Class::RejectedBeforeWork) | at fault | may succeed elsewhere, does no harm whatever the request |
//! | [`Ignored`](Class::Ignored) | nothing is known | – |
//!
//! # What it costs
//!
//! This crate has no state, depends on nothing and allocates nothing. A classifier runs once per response,
//! so it should look at a status and not at a body.

use std::sync::Arc;
use std::time::Duration;

/// What a result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The request succeeded.
    Success,
    /// The request failed by the fault of whoever made it. The endpoint works.
    InvalidRequest,
    /// The endpoint failed the request, and another try would fail, too, or do harm.
    Failure,
    /// The endpoint failed the request, and another try may succeed and does no harm.
    Retryable {
        /// The time that the endpoint asks to be left alone for (`Retry-After`, gRPC's push-back).
        after: Option<Duration>,
    },
    /// The endpoint refused the request and did nothing for it, so that any request may be tried again: one
    /// with effects, too.
    ///
    /// That is a refused connection, an HTTP/2 stream above the last that a `GOAWAY` names, a shed load.
    RejectedBeforeWork {
        /// The time that the endpoint asks to be left alone for.
        after: Option<Duration>,
    },
    /// The result says nothing about the endpoint: the caller gave up, or its own limit refused the request.
    Ignored,
}

/// Judges results.
///
/// A classifier is pure and quick: it is called for each response, and may be called more than once for one.
///
/// `Req` is what is known of the request when the result is there. That is the request itself in a retry,
/// which has kept it; it is `()` where the request went into the service and is gone, as in a circuit breaker.
/// A classifier that doesn't look at requests should implement the trait for every `Req`, and serves both.
///
/// Closures from `(&Req, &Result<Res, E>)` to a [`Class`] are classifiers, and so is an `Arc` of one. The
/// trait has a `dyn` form.
///
/// # Example
///
/// ```
/// use std::io;
/// use std::sync::Arc;
///
/// use tower_classify::{Class, Classify};
///
/// /// Statuses as HTTP has them.
/// struct ByStatus;
///
/// impl<Req, E> Classify<Req, u16, E> for ByStatus {
///     fn classify(&self, _: &Req, result: &Result<u16, E>) -> Class {
///         match result {
///             Ok(503) => Class::Retryable { after: None },
///             Ok(500..) | Err(_) => Class::Failure,
///             Ok(400..) => Class::InvalidRequest,
///             Ok(_) => Class::Success,
///         }
///     }
/// }
///
/// let classify: Arc<dyn Classify<(), u16, io::Error>> = Arc::new(ByStatus);
/// assert_eq!(classify.classify(&(), &Ok(200)), Class::Success);
/// assert!(classify.classify(&(), &Ok(503)).is_fault());
/// assert!(!classify.classify(&(), &Ok(404)).is_fault());
///
/// // A closure may ask for the request, and then only fits where there is one.
/// let idempotent = |method: &&str, result: &Result<u16, io::Error>| match result {
///     Err(_) if *method == "GET" => Class::Retryable { after: None },
///     Err(_) => Class::Failure,
///     Ok(_) => Class::Success,
/// };
/// assert!(idempotent.classify(&"GET", &Err(io::ErrorKind::TimedOut.into())).is_retryable());
/// assert!(!idempotent.classify(&"POST", &Err(io::ErrorKind::TimedOut.into())).is_retryable());
/// ```
pub trait Classify<Req, Res, E> {
    /// Says what `result` means.
    fn classify(&self, req: &Req, result: &Result<Res, E>) -> Class;
}

/// Every error is a [`Class::Failure`], every response a success.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryErrorFails;

/// Every error is [`Class::Retryable`], every response a success.
///
/// For requests that do no harm if they are done twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryErrorIsRetryable;

impl Class {
    /// Whether the endpoint works, as far as the result says.
    #[inline]
    pub const fn is_working(self) -> bool {
        matches!(self, Self::Success | Self::InvalidRequest)
    }

    /// Whether the result counts against the endpoint.
    #[inline]
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Failure | Self::Retryable { .. } | Self::RejectedBeforeWork { .. }
        )
    }

    /// Whether another try may succeed, and does no harm.
    #[inline]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Retryable { .. } | Self::RejectedBeforeWork { .. }
        )
    }

    /// The time that the endpoint asks to be left alone for, if it does.
    #[inline]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Retryable { after } | Self::RejectedBeforeWork { after } => after,
            _ => None,
        }
    }
}

impl<F, Req, Res, E> Classify<Req, Res, E> for F
where
    F: Fn(&Req, &Result<Res, E>) -> Class,
{
    #[inline]
    fn classify(&self, req: &Req, result: &Result<Res, E>) -> Class {
        self(req, result)
    }
}

impl<C, Req, Res, E> Classify<Req, Res, E> for Arc<C>
where
    C: Classify<Req, Res, E> + ?Sized,
{
    #[inline]
    fn classify(&self, req: &Req, result: &Result<Res, E>) -> Class {
        (**self).classify(req, result)
    }
}

impl<Req, Res, E> Classify<Req, Res, E> for EveryErrorFails {
    #[inline]
    fn classify(&self, _: &Req, result: &Result<Res, E>) -> Class {
        match result {
            Ok(_) => Class::Success,
            Err(_) => Class::Failure,
        }
    }
}

impl<Req, Res, E> Classify<Req, Res, E> for EveryErrorIsRetryable {
    #[inline]
    fn classify(&self, _: &Req, result: &Result<Res, E>) -> Class {
        match result {
            Ok(_) => Class::Success,
            Err(_) => Class::Retryable { after: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn a_class_is_working_or_a_fault_or_ignored() {
        let faults = [
            Class::Failure,
            Class::Retryable { after: None },
            Class::RejectedBeforeWork { after: None },
        ];
        for class in faults {
            assert!(class.is_fault() && !class.is_working(), "{class:?}");
        }
        for class in [Class::Success, Class::InvalidRequest] {
            assert!(class.is_working() && !class.is_fault(), "{class:?}");
            assert!(!class.is_retryable(), "{class:?}");
        }
        assert!(!Class::Ignored.is_working() && !Class::Ignored.is_fault());
        assert!(!Class::Failure.is_retryable());
    }

    #[test]
    fn only_what_may_be_tried_again_says_when() {
        assert_eq!(Class::Retryable { after: SECOND }.retry_after(), SECOND);
        let rejected = Class::RejectedBeforeWork { after: SECOND };
        assert!(rejected.is_retryable());
        assert_eq!(rejected.retry_after(), SECOND);
        assert_eq!(Class::Failure.retry_after(), None);
    }

    #[test]
    fn errors_are_failures_or_retryable_as_the_name_says() {
        let (ok, err) = (Ok::<(), ()>(()), Err::<(), ()>(()));
        assert_eq!(EveryErrorFails.classify(&(), &ok), Class::Success);
        assert_eq!(EveryErrorFails.classify(&(), &err), Class::Failure);
        assert_eq!(EveryErrorIsRetryable.classify(&"any", &ok), Class::Success);
        assert!(EveryErrorIsRetryable.classify(&"any", &err).is_retryable());
    }
}
