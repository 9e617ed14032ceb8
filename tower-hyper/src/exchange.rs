//! From a request to its response: asks for readiness, vets, calls, and answers for a service that fails.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use pin_project_lite::pin_project;
#[cfg(feature = "http2")]
use tower_h2::RecvBody;
use tower_service::Service;

use crate::Incoming;
#[cfg(feature = "http2")]
use crate::date;
use crate::leftover::Leftover;
use crate::link::Link;
use crate::outgoing::{Outgoing, Over};
#[cfg(feature = "http2")]
use crate::vetting::vet_http2;
use crate::vetting::{KnownHost, Refusal, vet};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service as both protocols call it, on one connection.
pub(crate) struct Requests<S> {
    /// HTTP/1.1 calls it by a shared reference, though from one task.
    service: RefCell<S>,
    link: Arc<Link>,
    vets: bool,
    known_host: RefCell<KnownHost>,
    attaches_info: bool,
}

impl<S> Requests<S> {
    pub(crate) fn new(service: S, link: Arc<Link>, vets: bool, attaches_info: bool) -> Self {
        Self {
            service: RefCell::new(service),
            link,
            vets,
            known_host: RefCell::default(),
            attaches_info,
        }
    }

    #[inline]
    fn vet(&self, request: &mut Request<Incoming>) -> Result<(), Refusal> {
        if self.link.is_doubtful() {
            return Err(Refusal::Ambiguous);
        }
        vet(request, &mut self.known_host.borrow_mut())
    }

    #[inline]
    fn attach_info(&self, request: &mut Request<Incoming>) {
        if self.attaches_info {
            let info = self.link.info.clone();
            request.extensions_mut().insert(info);
        }
    }
}

pin_project! {
    /// One request under way. It always ends with a response.
    pub(crate) struct Exchange<S>
    where
        S: Service<Request<Incoming>>,
    {
        #[pin]
        state: State<S, S::Future>,
        over: Option<Over>,
        protocol: Protocol,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    #[cfg(feature = "http2")]
    Http2,
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        /// The service wasn't ready at once.
        Waiting { waiting: Box<Waiting<S>> },
        Calling { #[pin] call: F },
        /// The service wasn't called.
        Refused { status: StatusCode },
    }
}

struct Waiting<S> {
    service: S,
    request: Option<Request<Incoming>>,
}

impl<S, B> hyper::service::Service<Request<hyper::body::Incoming>> for Requests<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Response = Response<Outgoing<B>>;
    type Error = S::Error;
    type Future = Exchange<S>;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Exchange<S> {
        self.link.begin();
        // Each time that a request is moved costs, and with the larger body it costs more.
        let (head, body) = request.into_parts();
        if !body.is_end_stream() {
            expect_rest(&head, &self.link.leftover);
        }
        let body = Incoming::http1(body, Arc::clone(&self.link));
        let mut request = Some(Request::from_parts(head, body));
        let vetted = match &mut request {
            Some(request) if self.vets => self.vet(request),
            _ => Ok(()),
        };
        let state = match vetted {
            Ok(()) => self.begin(&mut request),
            Err(refusal) => {
                // It may be on its way still.
                self.link.leftover.refuse_next();
                drop(request);
                State::Refused {
                    status: refused(refusal),
                }
            }
        };
        Exchange {
            state,
            over: Some(Over::new(Arc::clone(&self.link))),
            protocol: Protocol::Http1,
        }
    }
}

impl<S> Requests<S>
where
    S: Service<Request<Incoming>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Calls the service, if it is ready now.
    #[inline]
    fn begin(&self, request: &mut Option<Request<Incoming>>) -> State<S, S::Future> {
        if let Some(request) = request {
            self.attach_info(request);
        }
        let mut service = self.service.borrow_mut();
        // The exchange is polled right after this, and then waits with a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        match poll_ready(&mut *service, &mut cx) {
            Poll::Ready(Ok(())) => call(&mut *service, request),
            Poll::Ready(Err(status)) => State::Refused { status },
            Poll::Pending => {
                // The one that has begun to wait goes on with it; a clone waits for the next request.
                let next = service.clone();
                State::Waiting {
                    waiting: Box::new(Waiting {
                        service: std::mem::replace(&mut *service, next),
                        request: request.take(),
                    }),
                }
            }
        }
    }
}

#[cfg(feature = "http2")]
impl<S, B> Service<Request<RecvBody>> for Requests<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Response = Response<Outgoing<B>>;
    type Error = S::Error;
    type Future = Exchange<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.get_mut().poll_ready(cx)
    }

    fn call(&mut self, request: Request<RecvBody>) -> Exchange<S> {
        self.link.begin();
        let mut request = request.map(|body| Incoming::http2(body, Arc::clone(&self.link)));
        let vetted = if self.vets {
            vet_http2(&request, self.known_host.get_mut())
        } else {
            Ok(())
        };
        let state = match vetted {
            Ok(()) => {
                self.attach_info(&mut request);
                call(self.service.get_mut(), &mut Some(request))
            }
            Err(refusal) => State::Refused {
                status: refused(refusal),
            },
        };
        Exchange {
            state,
            over: Some(Over::new(Arc::clone(&self.link))),
            protocol: Protocol::Http2,
        }
    }
}

impl<S, B> Future for Exchange<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Outgoing<B>>, S::Error>;

    // Waiting -> Calling, Refused.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut answered = None;
        let status = loop {
            match this.state.as_mut().project() {
                StateProj::Waiting { waiting } => {
                    let state = ready!(waiting.poll(cx));
                    this.state.set(state);
                }
                StateProj::Calling { call } => break ready!(poll_call(call, &mut answered, cx)),
                StateProj::Refused { status } => break *status,
            }
        };
        // Without it, it has been answered.
        let Some(over) = this.over.take() else {
            return Poll::Pending;
        };
        let mut response = match answered {
            Some(response) => {
                let (head, body) = response.into_parts();
                Response::from_parts(head, Outgoing::new(Some(body), over))
            }
            None => substitute(status, *this.protocol, over),
        };
        if response.body().leftover().is_any() {
            settle(&mut response);
        }
        #[cfg(feature = "http2")]
        if *this.protocol == Protocol::Http2 {
            date::stamp(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}

/// Polls a service's future within a net. Ready with the status of what it has `answered`, or of what stands for that if it
/// has failed.
#[inline]
fn poll_call<F, B, E>(
    call: Pin<&mut F>,
    answered: &mut Option<Response<B>>,
    cx: &mut Context<'_>,
) -> Poll<StatusCode>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    // A response is large: it isn't passed on by `catch_unwind`.
    let caught = catch_unwind(AssertUnwindSafe(|| match ready!(call.poll(cx)) {
        Ok(response) => {
            let status = response.status();
            *answered = Some(response);
            Poll::Ready(status)
        }
        Err(error) => Poll::Ready(failed(error)),
    }));
    caught.unwrap_or_else(|panic| Poll::Ready(panicked(&*panic)))
}

impl<S> Waiting<S>
where
    S: Service<Request<Incoming>>,
    S::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<State<S, S::Future>> {
        let state = match ready!(poll_ready(&mut self.service, cx)) {
            Ok(()) => call(&mut self.service, &mut self.request),
            Err(status) => State::Refused { status },
        };
        Poll::Ready(state)
    }
}

#[inline]
fn poll_ready<S>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>>
where
    S: Service<Request<Incoming>>,
    S::Error: Into<BoxError>,
{
    match catch_unwind(AssertUnwindSafe(|| service.poll_ready(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
        Ok(Poll::Ready(Err(error))) => {
            failed(error);
            Poll::Ready(Err(StatusCode::SERVICE_UNAVAILABLE))
        }
        Err(panic) => Poll::Ready(Err(panicked(&*panic))),
    }
}

#[inline]
fn call<S>(service: &mut S, request: &mut Option<Request<Incoming>>) -> State<S, S::Future>
where
    S: Service<Request<Incoming>>,
{
    let calling = || request.take().map(|request| service.call(request));
    match catch_unwind(AssertUnwindSafe(calling)) {
        Ok(Some(call)) => State::Calling { call },
        // It was called already, which doesn't happen.
        Ok(None) => State::Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
        },
        Err(panic) => State::Refused {
            status: panicked(&*panic),
        },
    }
}

/// What is to happen with what the service won't read of a body.
fn expect_rest(head: &Parts, leftover: &Leftover) {
    // The rest is of use only where the client may send another request after it.
    if head.version == Version::HTTP_11 && !says_close(&head.headers) {
        leftover.keep_next();
    } else {
        leftover.refuse_next();
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION) && lists_close(headers)
}

#[cold]
fn lists_close(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// Where not all of the request was read: what is left over goes with a connection that ends, and a connection that has to end
/// says so (RFC 9112, section 9.6).
#[cold]
fn settle<B: Body>(response: &mut Response<Outgoing<B>>) {
    if says_close(response.headers()) {
        response.body().leftover().give_up();
    } else if response.body().leftover().is_refused() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

#[cold]
fn refused(refusal: Refusal) -> StatusCode {
    tracing::debug!(reason = refusal.reason(), "request refused");
    refusal.status()
}

#[cold]
fn failed(error: impl Into<BoxError>) -> StatusCode {
    let error = error.into();
    tracing::error!(error = &*error as &dyn std::error::Error, "service failed");
    StatusCode::INTERNAL_SERVER_ERROR
}

#[cold]
fn panicked(panic: &(dyn Any + Send)) -> StatusCode {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that isn't text");
    tracing::error!(panic = message, "service panicked");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// A response of the server's own, after which an HTTP/1.1 connection is closed.
#[cold]
fn substitute<B: Body>(
    status: StatusCode,
    protocol: Protocol,
    over: Over,
) -> Response<Outgoing<B>> {
    let mut response = Response::new(Outgoing::new(None, over));
    *response.status_mut() = status;
    if protocol == Protocol::Http1 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}
