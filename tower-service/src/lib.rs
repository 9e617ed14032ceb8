#![no_std]
//! The `Service` trait.

extern crate alloc;

use alloc::boxed::Box;
use core::future::Future;
use core::task::{Context, Poll};

/// An asynchronous function from a `Request` to a response.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Service` of `{Request}`",
    label = "not a `Service<{Request}>`",
    note = "a closure becomes a service with `tower::service_fn(|request| async move {{ Ok::<_, Error>(response) }})`",
    note = "a middleware is a `Service<{Request}>` only where the service inside it is one and its other bounds hold: \
            check the layers from the innermost outwards with `ServiceBuilder::check_service`"
)]
pub trait Service<Request> {
    /// What the service answers.
    type Response;

    /// How the service fails.
    type Error;

    /// The future of the response.
    type Future: Future<Output = Result<Self::Response, Self::Error>>;

    /// Says whether the service has capacity for a request, and reserves it.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Starts to process `req`.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    fn call(&mut self, req: Request) -> Self::Future;
}

impl<'a, S, Request> Service<Request> for &'a mut S
where
    S: Service<Request> + ?Sized + 'a,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        (**self).poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> S::Future {
        (**self).call(req)
    }
}

impl<S, Request> Service<Request> for Box<S>
where
    S: Service<Request> + ?Sized,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        (**self).poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> S::Future {
        (**self).call(req)
    }
}
