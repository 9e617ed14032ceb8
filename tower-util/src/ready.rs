//! Waiting until a service is ready, and sending it one request then.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

/// Waits until a borrowed service is ready. [`ServiceExt::ready`](crate::ServiceExt::ready) makes it.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Ready<'a, T, Request>(ReadyOneshot<&'a mut T, Request>);

/// Waits until a service is ready, and gives it back.
/// [`ServiceExt::ready_oneshot`](crate::ServiceExt::ready_oneshot) makes it.
///
/// **Cancellation.** Dropping it drops the service.
///
/// # Panics
///
/// When polled after it has resolved.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ReadyOneshot<T, Request> {
    service: Option<T>,
    _request: PhantomData<fn() -> Request>,
}

pin_project! {
    /// Waits until a service is ready and sends it one request.
    /// [`ServiceExt::oneshot`](crate::ServiceExt::oneshot) makes it.
    ///
    /// The service is dropped when it was called.
    ///
    /// **Cancellation.** Dropping it drops the service and the request, or the response future.
    ///
    /// # Panics
    ///
    /// When polled after it has resolved.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Oneshot<S: Service<Req>, Req> {
        #[pin]
        state: State<S, S::Future, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, Req> {
        // `req` is only ever taken by the transition out of this state.
        NotReady { service: S, req: Option<Req> },
        Called { #[pin] response: F },
        Done,
    }
}

impl<'a, T, Request> Ready<'a, T, Request>
where
    T: Service<Request>,
{
    /// Waits until `service` is ready.
    pub fn new(service: &'a mut T) -> Self {
        Self(ReadyOneshot::new(service))
    }
}

// No field is ever pinned.
impl<T, Request> Unpin for Ready<'_, T, Request> {}

impl<'a, T, Request> Future for Ready<'a, T, Request>
where
    T: Service<Request>,
{
    type Output = Result<&'a mut T, T::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T, Request> fmt::Debug for Ready<'_, T, Request>
where
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ready").field(&self.0).finish()
    }
}

impl<T, Request> ReadyOneshot<T, Request>
where
    T: Service<Request>,
{
    /// Waits until `service` is ready.
    pub const fn new(service: T) -> Self {
        Self {
            service: Some(service),
            _request: PhantomData,
        }
    }
}

// No field is ever pinned.
impl<T, Request> Unpin for ReadyOneshot<T, Request> {}

impl<T, Request> Future for ReadyOneshot<T, Request>
where
    T: Service<Request>,
{
    type Output = Result<T, T::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let service = self.service.as_mut().expect("polled after complete");
        task::ready!(service.poll_ready(cx))?;
        Poll::Ready(Ok(self.service.take().expect("it was just polled")))
    }
}

impl<T, Request> fmt::Debug for ReadyOneshot<T, Request>
where
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyOneshot")
            .field("service", &self.service)
            .finish()
    }
}

impl<S, Req> Oneshot<S, Req>
where
    S: Service<Req>,
{
    /// Sends `req` to `service` once it is ready.
    pub const fn new(service: S, req: Req) -> Self {
        Self {
            state: State::NotReady {
                service,
                req: Some(req),
            },
        }
    }
}

impl<S, Req> Future for Oneshot<S, Req>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                // -> Called, when the service is ready.
                // -> Done, when it fails to become so.
                StateProj::NotReady { service, req } => {
                    match task::ready!(service.poll_ready(cx)) {
                        Ok(()) => {
                            let req = req
                                .take()
                                .expect("it is taken only here, as the state ends");
                            let response = service.call(req);
                            state.set(State::Called { response });
                        }
                        Err(error) => {
                            state.set(State::Done);
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                // -> Done, with the response.
                StateProj::Called { response } => {
                    let result = task::ready!(response.poll(cx));
                    state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProj::Done => panic!("polled after complete"),
            }
        }
    }
}

impl<S, Req> fmt::Debug for Oneshot<S, Req>
where
    S: Service<Req> + fmt::Debug,
    Req: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::NotReady { service, req } => f
                .debug_struct("Oneshot::NotReady")
                .field("service", service)
                .field("req", req)
                .finish(),
            State::Called { .. } => f.debug_struct("Oneshot::Called").finish_non_exhaustive(),
            State::Done => f.write_str("Oneshot::Done"),
        }
    }
}
