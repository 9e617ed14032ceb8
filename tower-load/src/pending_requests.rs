//! The load as the number of requests in flight.

#[cfg(feature = "discover")]
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "discover")]
use futures_core::Stream;
#[cfg(feature = "discover")]
use pin_project_lite::pin_project;
#[cfg(feature = "discover")]
use tower_discover::{Change, Discover};
use tower_service::Service;

use crate::{CompleteOnResponse, Load, TrackCompletion, TrackCompletionFuture};

/// A service whose load is the number of its requests in flight.
///
/// # Readiness, Errors
///
/// As those of the service inside.
///
/// # Cancellation
///
/// A request that is cancelled no longer counts.
///
/// # Example
///
/// ```
/// use std::task::{Context, Waker};
///
/// use tower_load::{CompleteOnResponse, Load, pending_requests::{Count, PendingRequests}};
/// use tower_service::Service;
///
/// let (service, _handle) = tower_test::mock::pair::<(), ()>();
/// let mut service = PendingRequests::new(service, CompleteOnResponse::default());
/// let idle = service.load();
///
/// assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
/// let response = service.call(());
/// assert!(service.load() > idle);
///
/// drop(response);
/// assert_eq!(service.load(), idle);
/// ```
#[derive(Debug)]
pub struct PendingRequests<S, C = CompleteOnResponse> {
    inner: S,
    in_flight: Handle,
    completion: C,
}

#[cfg(feature = "discover")]
pin_project! {
    /// A [`Discover`] whose services measure their load as [`PendingRequests`] does.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_discover::ServiceList;
    /// use tower_load::{CompleteOnResponse, pending_requests::PendingRequestsDiscover};
    /// # let (a, _a) = tower_test::mock::pair::<(), ()>();
    ///
    /// let endpoints = ServiceList::new::<()>(vec![a]);
    /// let measured = PendingRequestsDiscover::new::<()>(endpoints, CompleteOnResponse::default());
    /// # let _ = measured;
    /// ```
    #[derive(Debug)]
    pub struct PendingRequestsDiscover<D, C = CompleteOnResponse> {
        #[pin]
        discover: D,
        completion: C,
    }
}

/// A number of requests in flight.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Count(usize);

/// Keeps a request in flight until it is dropped.
// The owners of the `Arc` other than the service itself are the requests: to count them costs nothing
// beyond what keeps the handles alive.
#[derive(Debug)]
pub struct Handle(#[allow(dead_code, reason = "it is held for its count of owners")] Arc<()>);

impl<S, C> PendingRequests<S, C> {
    /// Counts the requests in flight of `service`; `completion` says when one is complete.
    pub fn new(service: S, completion: C) -> Self {
        Self {
            inner: service,
            in_flight: Handle(Arc::new(())),
            completion,
        }
    }
}

impl<S, C> Load for PendingRequests<S, C> {
    type Metric = Count;

    #[inline]
    fn load(&self) -> Count {
        Count(Arc::strong_count(&self.in_flight.0) - 1)
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        false
    }
}

impl<S, C, Request> Service<Request> for PendingRequests<S, C>
where
    S: Service<Request>,
    C: TrackCompletion<Handle, S::Response>,
{
    type Response = C::Output;
    type Error = S::Error;
    type Future = TrackCompletionFuture<S::Future, C, Handle>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Request) -> Self::Future {
        let handle = Handle(Arc::clone(&self.in_flight.0));
        TrackCompletionFuture::new(self.completion.clone(), handle, self.inner.call(req))
    }
}

#[cfg(feature = "discover")]
impl<D, C> PendingRequestsDiscover<D, C> {
    /// Counts the requests in flight of every service of `discover`; `completion` says when one is
    /// complete.
    pub const fn new<Request>(discover: D, completion: C) -> Self
    where
        D: Discover,
        D::Service: Service<Request>,
        C: TrackCompletion<Handle, <D::Service as Service<Request>>::Response>,
    {
        Self {
            discover,
            completion,
        }
    }
}

#[cfg(feature = "discover")]
impl<D, C> Stream for PendingRequestsDiscover<D, C>
where
    D: Discover,
    C: Clone,
{
    type Item = Result<Change<D::Key, PendingRequests<D::Service, C>>, D::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        this.discover.poll_discover(cx).map(|change| {
            let measure = |service| PendingRequests::new(service, this.completion.clone());
            Some(change?.map(|change| crate::map_service(change, measure)))
        })
    }
}
