#![no_std]
//! The [`Service`] trait: an asynchronous function from a request to a response.
//!
//! Clients and servers of every request/response protocol are services, and so is everything that
//! decorates them: timeouts, limits, retries, balancing. Whoever writes a middleware writes it once,
//! against this trait, and it serves every protocol.
//!
//! This crate is that trait and nothing else. It has no dependencies and needs no standard library, so
//! that a library can depend on it for good. Middleware and combinators are in `tower` and in the
//! `tower-*` crates.
//!
//! # A service by hand
//!
//! An HTTP server that greets whoever asks, with all that the trait needs written out:
//!
//! ```
//! use std::convert::Infallible;
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//!
//! use http::{Request, Response, StatusCode};
//! use tower_service::Service;
//!
//! #[derive(Clone)]
//! struct HelloWorld;
//!
//! impl Service<Request<Vec<u8>>> for HelloWorld {
//!     type Response = Response<Vec<u8>>;
//!     type Error = Infallible;
//!     type Future = Ready<Result<Self::Response, Self::Error>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
//!         // It holds nothing that could run out, so it always has capacity.
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
//!         let (status, body) = match request.uri().path() {
//!             "/" => (StatusCode::OK, "hello, world\n"),
//!             _ => (StatusCode::NOT_FOUND, "nobody here\n"),
//!         };
//!         let mut response = Response::new(body.as_bytes().to_vec());
//!         *response.status_mut() = status;
//!         ready(Ok(response))
//!     }
//! }
//!
//! # fn main() {
//! let mut service = HelloWorld;
//! let mut cx = Context::from_waker(std::task::Waker::noop());
//! assert!(service.poll_ready(&mut cx).is_ready());
//!
//! let request = Request::get("/").body(Vec::new()).unwrap();
//! let response = service.call(request).into_inner().unwrap();
//! assert_eq!(response.body(), b"hello, world\n");
//! # }
//! ```
//!
//! # The contract
//!
//! The trait's two methods are easily written; what callers and middleware may expect of them is this
//! page. `tower_test::contract` checks a service or a layer against it.
//!
//! ## Readiness
//!
//! [`poll_ready`](Service::poll_ready) says whether there is capacity for one more request: a free
//! connection, a permit, a place in a queue. A caller polls it until it is ready, then makes one
//! [`call`](Service::call).
//!
//! - `Pending` means *not now*. The service keeps the waker of the last poll, and wakes it when it is
//!   worth polling again. Spurious wakes are allowed; lost ones are not.
//! - `Ready(Ok(()))` means that the next `call` is expected to be accepted. It stays true until that
//!   call: polling again takes nothing more and, unless the service has failed meanwhile, says ready
//!   again.
//! - `Ready(Err(_))` means that the service, or this handle of it, can't take requests any more. It
//!   should be dropped. A service that can recover says so in its documentation.
//!
//! Readiness is **best effort**. Between the poll and the call a connection may close; then `call`
//! returns a future that fails. A caller must be ready for this, whatever `poll_ready` has said.
//!
//! ## Reservation
//!
//! What `poll_ready` takes for the coming request (a permit, a slot) it takes out of a shared supply. The
//! handle that was told *ready* holds it until its next `call`, which passes it on to the response
//! future, or until the handle is dropped, which gives it back. So:
//!
//! - Don't poll a service to readiness and then keep it for later: others may starve meanwhile. Poll it
//!   when there is a request to send, or drop it.
//! - A middleware calls the *same* instance of the inner service that it polled.
//!
//! ## Cloning
//!
//! A clone is another handle of the same service. It **inherits no reservation**: a clone of a ready
//! service isn't ready, it has to be polled. This is why the following, in a middleware whose future
//! needs the inner service, is a mistake:
//!
//! ```
//! # use tower_service::Service;
//! # fn call<S: Service<u8> + Clone>(this: &mut S, request: u8) -> S::Future {
//! let mut inner = this.clone(); // a new handle: nothing was polled ready on it
//! inner.call(request)
//! # }
//! ```
//!
//! The handle that is ready goes into the future, and the clone stays behind to be polled for the next
//! request:
//!
//! ```
//! # use tower_service::Service;
//! # fn call<S: Service<u8> + Clone>(this: &mut S, request: u8) -> S::Future {
//! let clone = this.clone();
//! let mut inner = std::mem::replace(this, clone);
//! inner.call(request)
//! # }
//! ```
//!
//! ## `call` without readiness
//!
//! A caller should not do this, and some will: a wrapper that forgot, a handler that calls a clone. It
//! is answered, never punished with a panic. A service that has capacity takes the request; one at
//! capacity returns a future that waits for it, or that resolves to an error which names the mistake.
//! Limits hold all the same. The few types that must panic (because their future can neither wait nor
//! fail) say so under *Panics*.
//!
//! ## Cancellation
//!
//! Dropping the response future cancels the request. The service stops working on it as far as it can
//! and frees at once what the request held. Dropping a service that is ready frees what it reserved.
//! Response futures don't depend on the service: it may be dropped while they run.
//!
//! ## Off task, off runtime
//!
//! `call` may be made anywhere: outside a task, on another thread than the one that polled. It must not
//! block, nor need the context of a runtime. What needs one (a timer, a spawned task) is made when the
//! response future is first polled.
//!
//! ## Errors
//!
//! `Service::Error` is for failures of the *transport* of the request: no connection, time is up, too
//! many in flight. An answer of the application that reports a failure, an HTTP 404 say, is a response.
//! After a failed `call` the service may be used again; after a failed `poll_ready` it may not, unless it
//! says otherwise.
//!
//! # Back-pressure
//!
//! As every layer forwards the readiness of the one below, a caller at the top of a stack sees the state
//! of its bottom, before it commits a request. A server stops to read from its sockets, a client picks
//! another endpoint, a queue holds back its producers: nothing is piled up where nobody looks.
//!
//! # Features
//!
//! None. The crate is `no_std`; it uses `alloc` for the implementation for `Box`.

extern crate alloc;

use alloc::boxed::Box;
use core::future::Future;
use core::task::{Context, Poll};

/// An asynchronous function from a `Request` to a response.
///
/// The [crate page](crate) is the contract between those who implement the trait and those who call it.
///
/// # Example
///
/// A middleware that counts the requests that it lets through. It forwards readiness, calls the instance
/// that was polled, and returns the inner service's own future, so that it costs an addition:
///
/// ```
/// use std::task::{Context, Poll};
/// use tower_service::Service;
///
/// struct Count<S> {
///     inner: S,
///     calls: u64,
/// }
///
/// impl<S, Req> Service<Req> for Count<S>
/// where
///     S: Service<Req>,
/// {
///     type Response = S::Response;
///     type Error = S::Error;
///     type Future = S::Future;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         self.inner.poll_ready(cx)
///     }
///
///     fn call(&mut self, req: Req) -> Self::Future {
///         self.calls += 1;
///         self.inner.call(req)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Service` of `{Request}`",
    label = "not a `Service<{Request}>`",
    note = "a closure becomes a service with `tower::service_fn(|request| async move {{ Ok::<_, Error>(response) }})`",
    note = "a middleware is a `Service<{Request}>` only where the service inside it is one and its other bounds hold: \
            check the layers from the innermost outwards with `ServiceBuilder::check_service`"
)]
pub trait Service<Request> {
    /// What the service answers with.
    type Response;

    /// How the service fails.
    type Error;

    /// The future of the response.
    type Future: Future<Output = Result<Self::Response, Self::Error>>;

    /// Says whether there is capacity for one request, and reserves it.
    ///
    /// Ready stays ready until the next [`call`](Self::call), which uses the reservation up. `Pending`
    /// wakes the task of the last poll when it is worth polling again.
    ///
    /// # Errors
    ///
    /// An error means that the service can take no more requests and should be dropped.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost by not polling again after `Pending`. Dropping a ready service gives its
    /// reservation back.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Starts to process `req`, and returns the future of its response.
    ///
    /// May be called off task. Before it, [`poll_ready`](Self::poll_ready) of the same instance must have
    /// returned `Ready(Ok(()))`, once per call.
    ///
    /// # Errors
    ///
    /// The future fails where the request was not answered, even if the service was ready.
    ///
    /// # Panics
    ///
    /// Implementations should not panic when they weren't ready: their future should wait for capacity
    /// or fail. Those that do panic document it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use core::task::Waker;

    struct Echo {
        ready: bool,
    }

    impl Service<u8> for Echo {
        type Response = u8;
        type Error = ();
        type Future = core::future::Ready<Result<u8, ()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, req: u8) -> Self::Future {
            core::future::ready(if self.ready { Ok(req) } else { Err(()) })
        }
    }

    fn drive<S>(mut service: S) -> Result<u8, ()>
    where
        S: Service<u8, Response = u8, Error = (), Future = core::future::Ready<Result<u8, ()>>>,
    {
        let _ = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        service.call(7).into_inner()
    }

    #[test]
    fn references_and_boxes_forward_both_methods_to_unsized_services_too() {
        type Dyn = dyn Service<u8, Response = u8, Error = (), Future = core::future::Ready<Result<u8, ()>>>;
        let mut echo = Echo { ready: false };
        assert_eq!(drive(&mut echo), Ok(7));

        let mut boxed: Box<Dyn> = Box::new(Echo { ready: false });
        assert_eq!(drive(&mut *boxed), Ok(7));
        assert_eq!(drive(boxed), Ok(7));
    }
}
