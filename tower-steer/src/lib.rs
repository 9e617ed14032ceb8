//! Routes each request to one of several services.
//!
//! [`Steer`] owns a fixed list of services of one type, and a [`Picker`] that looks at each request and
//! names the service that takes it: a router by path, a shard by key. Closures are pickers.
//!
//! # When not to use it
//!
//! `Steer` is ready only when **all** its services are, as it can't know where the next request will go:
//! one that is stuck holds up the rest, and each reserves capacity that it may not use. Put a queue or a
//! load shedder over each service, so that it is always ready. Where any service can take any request,
//! balance the load instead, which needs only one of them ready.
//!
//! # Cost
//!
//! The picker and an index check. Readiness polls the services that aren't known to be ready, which after
//! a call is one. No allocation, no lock.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

/// Chooses the service that takes a request.
///
/// Implemented for functions `Fn(&Req, &[S]) -> usize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Picker` of a `{S}` for a `{Req}`",
    label = "cannot pick a service for a `{Req}`",
    note = "a picker may be a closure `|request: &{Req}, services: &[{S}]| -> usize`"
)]
pub trait Picker<S, Req> {
    /// The index, in `services`, of the one that takes the request.
    fn pick(&mut self, r: &Req, services: &[S]) -> usize;
}

/// Sends each request to the one of its services that a [`Picker`] chooses.
///
/// **Readiness.** Ready when all services are. Those that aren't are polled together, so whichever becomes
/// ready first wakes the task. A service that was ready isn't polled again until it is called. A clone
/// starts with none of its services ready.
///
/// **`call` without readiness.** The request goes to the chosen service all the same, which deals with it
/// as its own contract says. That service has to become ready before the `Steer` is.
///
/// **Errors.** The services' own. The first that fails to become ready fails the `Steer`.
///
/// # Panics
///
/// [`call`](Service::call) panics where the picker returns an index that is out of range, as any is when
/// there are no services: the response is one of theirs, so there is nobody to answer.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use tower_steer::Steer;
/// use tower_util::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let users = service_fn(|path: &'static str| async move { Ok::<_, Infallible>(format!("user {path}")) });
/// let other = service_fn(|path: &'static str| async move { Ok::<_, Infallible>(format!("no {path}")) });
/// // Services of different types share one when they are boxed.
/// let services = [users.boxed(), other.boxed()];
///
/// let mut router = Steer::new(services, |path: &&'static str, _: &[_]| {
///     if path.starts_with("/users/") { 0 } else { 1 }
/// });
/// assert_eq!((&mut router).oneshot("/users/7").await.unwrap(), "user /users/7");
/// assert_eq!((&mut router).oneshot("/nobody").await.unwrap(), "no /nobody");
/// # }
/// ```
pub struct Steer<S, F, Req> {
    picker: F,
    services: Vec<S>,
    /// The indices of the services that have to be polled before all are ready, each once, in no order.
    not_ready: Vec<usize>,
    _request: PhantomData<Req>,
}

impl<S, F, Req> Steer<S, F, Req> {
    /// Makes a router of the requests to `services`.
    pub fn new(services: impl IntoIterator<Item = S>, router: F) -> Self {
        Self::all_not_ready(services.into_iter().collect(), router)
    }

    fn all_not_ready(services: Vec<S>, picker: F) -> Self {
        Self {
            not_ready: (0..services.len()).collect(),
            services,
            picker,
            _request: PhantomData,
        }
    }
}

impl<S, Req, F> Service<Req> for Steer<S, F, Req>
where
    S: Service<Req>,
    F: Picker<S, Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // All of them, also behind one that is pending: each must know whom to wake.
        let mut i = 0;
        while let Some(&index) = self.not_ready.get(i) {
            match self.services[index].poll_ready(cx)? {
                Poll::Ready(()) => {
                    self.not_ready.swap_remove(i);
                }
                Poll::Pending => i += 1,
            }
        }
        if self.not_ready.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let index = self.picker.pick(&req, &self.services);
        let len = self.services.len();
        let Some(service) = self.services.get_mut(index) else {
            out_of_range(index, len);
        };
        // Called as it should be, with all ready, the list is empty and this looks at nothing.
        if !self.not_ready.contains(&index) {
            self.not_ready.push(index);
        }
        service.call(req)
    }
}

#[cold]
fn out_of_range(index: usize, len: usize) -> ! {
    panic!("the picker of a Steer chose service {index} of {len}");
}

impl<S, F, Req> Clone for Steer<S, F, Req>
where
    S: Clone,
    F: Clone,
{
    /// Clones the services, which as clones are not ready, whatever the originals are.
    fn clone(&self) -> Self {
        Self::all_not_ready(self.services.clone(), self.picker.clone())
    }
}

impl<S, F, Req> fmt::Debug for Steer<S, F, Req>
where
    S: fmt::Debug,
    F: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steer")
            .field("picker", &self.picker)
            .field("services", &self.services)
            .field("not_ready", &self.not_ready)
            .finish()
    }
}

impl<S, F, Req> Picker<S, Req> for F
where
    F: Fn(&Req, &[S]) -> usize,
{
    #[inline]
    fn pick(&mut self, r: &Req, services: &[S]) -> usize {
        self(r, services)
    }
}
