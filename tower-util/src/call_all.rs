//! A stream of requests through a service, as a stream of responses.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use pin_project_lite::pin_project;
use tower_service::Service;

pin_project! {
    /// The responses to a stream of requests, in the order of the requests.
    /// [`ServiceExt::call_all`](crate::ServiceExt::call_all) makes it.
    ///
    /// As many requests run at once as the service is ready for. The service is polled for readiness only
    /// when there is a request, so that a slow stream of requests doesn't hold capacity that it can't use.
    /// The stream of responses ends when that of the requests has, and all have been answered.
    ///
    /// **Errors.** That of a response is an item in its place; the stream goes on. One of `poll_ready` is
    /// an item at once, ahead of the responses that are due; no more requests are taken after it.
    ///
    /// **Cancellation.** Dropping it drops all response futures.
    ///
    /// # Panics
    ///
    /// When it is polled to send a request after [`take_service`](Self::take_service).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct CallAll<Svc, S>
    where
        Svc: Service<S::Item>,
        S: Stream,
    {
        #[pin]
        inner: Calls<Svc, S, FuturesOrdered<Svc::Future>>,
    }
}

pin_project! {
    /// The responses to a stream of requests, as they come.
    /// [`CallAll::unordered`] makes it.
    ///
    /// In all else it is a [`CallAll`]. A slow response doesn't hold up those after it.
    ///
    /// # Panics
    ///
    /// When it is polled to send a request after [`take_service`](Self::take_service).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct CallAllUnordered<Svc, S>
    where
        Svc: Service<S::Item>,
        S: Stream,
    {
        #[pin]
        inner: Calls<Svc, S, FuturesUnordered<Svc::Future>>,
    }
}

pin_project! {
    /// What the two have in common; `Q` decides the order of the responses.
    struct Calls<Svc, S: Stream, Q> {
        // Until it is taken.
        service: Option<Svc>,
        #[pin]
        requests: S,
        // Taken from `requests`, and waiting for the service to be ready.
        waiting: Option<S::Item>,
        responses: Q,
        // No more requests will be sent.
        ended: bool,
    }
}

/// Response futures that run together.
trait Responses {
    type Response: Future;

    fn push(&mut self, response: Self::Response);

    /// The next response that is due, or `None` when there is none to wait for.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<<Self::Response as Future>::Output>>;
}

impl<F: Future> Responses for FuturesOrdered<F> {
    type Response = F;

    fn push(&mut self, response: F) {
        self.push_back(response);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        Stream::poll_next(Pin::new(self), cx)
    }
}

impl<F: Future> Responses for FuturesUnordered<F> {
    type Response = F;

    fn push(&mut self, response: F) {
        Self::push(self, response);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        Stream::poll_next(Pin::new(self), cx)
    }
}

impl<Svc, S> CallAll<Svc, S>
where
    Svc: Service<S::Item>,
    S: Stream,
{
    /// Sends the requests of `stream` to `service`.
    pub fn new(service: Svc, stream: S) -> Self {
        Self {
            inner: Calls::new(service, stream, FuturesOrdered::new()),
        }
    }

    /// Takes the service back.
    ///
    /// # Panics
    ///
    /// If it was taken already.
    pub fn into_inner(mut self) -> Svc {
        take(&mut self.inner.service)
    }

    /// Takes the service back, and leaves the responses that are due.
    ///
    /// # Panics
    ///
    /// If it was taken already.
    pub fn take_service(self: Pin<&mut Self>) -> Svc {
        take(self.project().inner.project().service)
    }

    /// Gives the responses as they come, in place of the order of their requests.
    ///
    /// # Panics
    ///
    /// If it was polled already.
    pub fn unordered(self) -> CallAllUnordered<Svc, S> {
        let Calls {
            service,
            requests,
            waiting,
            responses,
            ended,
        } = self.inner;
        assert!(
            waiting.is_none() && responses.is_empty() && !ended,
            "CallAll::unordered was called after requests were taken from the stream"
        );
        let service = service.expect("Service already taken");
        CallAllUnordered::new(service, requests)
    }
}

impl<Svc, S> CallAllUnordered<Svc, S>
where
    Svc: Service<S::Item>,
    S: Stream,
{
    /// Sends the requests of `stream` to `service`.
    pub fn new(service: Svc, stream: S) -> Self {
        Self {
            inner: Calls::new(service, stream, FuturesUnordered::new()),
        }
    }

    /// Takes the service back.
    ///
    /// # Panics
    ///
    /// If it was taken already.
    pub fn into_inner(mut self) -> Svc {
        take(&mut self.inner.service)
    }

    /// Takes the service back, and leaves the responses that are due.
    ///
    /// # Panics
    ///
    /// If it was taken already.
    pub fn take_service(self: Pin<&mut Self>) -> Svc {
        take(self.project().inner.project().service)
    }
}

fn take<Svc>(service: &mut Option<Svc>) -> Svc {
    service.take().expect("Service already taken")
}

impl<Svc, S> Stream for CallAll<Svc, S>
where
    Svc: Service<S::Item>,
    S: Stream,
{
    type Item = Result<Svc::Response, Svc::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().inner.poll_next(cx)
    }
}

impl<Svc, S> Stream for CallAllUnordered<Svc, S>
where
    Svc: Service<S::Item>,
    S: Stream,
{
    type Item = Result<Svc::Response, Svc::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().inner.poll_next(cx)
    }
}

impl<Svc, S: Stream, Q> Calls<Svc, S, Q> {
    fn new(service: Svc, requests: S, responses: Q) -> Self {
        Self {
            service: Some(service),
            requests,
            waiting: None,
            responses,
            ended: false,
        }
    }
}

impl<Svc, S, Q> Calls<Svc, S, Q>
where
    Svc: Service<S::Item>,
    S: Stream,
    Q: Responses<Response = Svc::Future>,
{
    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Svc::Response, Svc::Error>>> {
        let mut this = self.project();
        loop {
            // Responses go first: one taken may be what the service needs to be ready again. A request that
            // was just sent starts here, too.
            match this.responses.poll_next(cx) {
                Poll::Ready(Some(result)) => return Poll::Ready(Some(result)),
                Poll::Ready(None) if *this.ended => return Poll::Ready(None),
                Poll::Pending if *this.ended => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => {}
            }

            if this.waiting.is_none() {
                match this.requests.as_mut().poll_next(cx) {
                    Poll::Ready(Some(req)) => *this.waiting = Some(req),
                    Poll::Ready(None) => {
                        *this.ended = true;
                        continue;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }

            let service = this
                .service
                .as_mut()
                .expect("Using CallAll after extracting inner Service");
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    let req = this.waiting.take().expect("there is one from here on");
                    this.responses.push(service.call(req));
                }
                Poll::Ready(Err(error)) => {
                    *this.waiting = None;
                    *this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<Svc, S, Q> fmt::Debug for Calls<Svc, S, Q>
where
    Svc: fmt::Debug,
    S: Stream + fmt::Debug,
    Q: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("service", &self.service)
            .field("requests", &self.requests)
            .field("responses", &self.responses)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
