//! The client's side: load as servers report it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_load::Load;
use tower_load::reported::{Flight, Reported as Told, Reports};
use tower_service::Service;

use crate::Report;

/// A service whose load is what its server says in its responses, times the requests in flight from here and one.
///
/// A [`Report`] is read from each response's headers, and from its trailers, where gRPC has it. It is believed for three minutes, as gRFC A58
/// does. While there is none, the server is supposed to be half busy, so that it is tried.
///
/// The requests in flight count because a report is old: without them, all that come between two reports would go to the server that
/// seemed best in the last. A request is in flight until its response's body has ended.
///
/// **Readiness, Errors.** As those of the service inside.
///
/// **Cancellation.** A request that is cancelled no longer counts.
///
/// # Example
///
/// ```
/// use http_body_util::Empty;
/// use tower_http_load::Reported;
/// use tower_load::Load;
/// use tower_service::Service;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # type Response = http::Response<Empty<bytes::Bytes>>;
/// # let (client, mut server) = tower_test::mock::pair::<(), Response>();
/// let mut client = Reported::new(client);
/// assert_eq!(client.load(), 0.5);
///
/// std::future::poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
/// let response = client.call(());
/// # let answer = http::Response::builder().header("endpoint-load-metrics", "TEXT cpu_utilization=0.125");
/// # server.next_request().await.unwrap().1.send_response(answer.body(Empty::new()).unwrap());
/// // `endpoint-load-metrics: TEXT cpu_utilization=0.125`
/// response.await.unwrap();
/// assert_eq!(client.load(), 0.125);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reported<S> {
    inner: S,
    told: Told,
}

/// What a server is supposed to be while nothing is known.
const UNKNOWN: f64 = 0.5;

/// A server with nothing to do isn't infinitely better than one with little.
const LEAST: f64 = 0.01;

/// Takes in what a response says.
fn hear(flight: &Flight, report: &Report) {
    if let Some(utilization) = report.utilization() {
        flight.report(utilization.max(LEAST));
    }
}

impl<S> Reported<S> {
    /// Reads the reports in the responses of `inner`. Its clones share what was told.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            told: Told::new().with_default(UNKNOWN),
        }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S> Reports for Reported<S> {
    /// Forgets what was told; what isn't known is what `told` says.
    fn report_to(&mut self, told: Told) {
        self.told = told;
    }
}

impl<S> Load for Reported<S> {
    type Metric = f64;

    fn load(&self) -> f64 {
        self.load_at(Instant::now())
    }

    fn load_at(&self, now: Instant) -> f64 {
        self.told.cost_at(self.told.in_flight(), now)
    }
}

impl<S, Req, B> Service<Req> for Reported<S>
where
    S: Service<Req, Response = http::Response<B>>,
    B: Body,
{
    type Response = http::Response<ReportedBody<B>>;
    type Error = S::Error;
    type Future = ReportedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        let flight = Some(self.told.start());
        let inner = self.inner.call(req);
        ReportedFuture { inner, flight }
    }
}

pin_project! {
    /// The response of a [`Reported`].
    ///
    /// # Panics
    ///
    /// If polled after it has resolved.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReportedFuture<F> {
        #[pin]
        inner: F,
        flight: Option<Flight>,
    }
}

impl<F, B, E> Future for ReportedFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    B: Body,
{
    type Output = Result<http::Response<ReportedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let flight = this.flight.take();
        Poll::Ready(result.map(|response| {
            if let (Some(flight), Some(report)) = (&flight, Report::in_headers(response.headers()))
            {
                hear(flight, &report);
            }
            response.map(|inner| {
                let flight = flight.filter(|_| !inner.is_end_stream());
                ReportedBody { inner, flight }
            })
        }))
    }
}

impl<F> fmt::Debug for ReportedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportedFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a [`Reported`]'s response: it keeps the request in flight until it has ended, and reads the report in its trailers.
    pub struct ReportedBody<B> {
        #[pin]
        inner: B,
        // `None` once it has ended.
        flight: Option<Flight>,
    }
}

impl<B: Body> Body for ReportedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let trailers = match &frame {
            Some(Ok(frame)) => frame.trailers_ref(),
            _ => None,
        };
        let report = trailers.and_then(Report::in_headers);
        if let (Some(flight), Some(report)) = (&this.flight, report) {
            hear(flight, &report);
        }
        let is_last =
            !matches!(frame, Some(Ok(_))) || trailers.is_some() || this.inner.is_end_stream();
        if is_last {
            *this.flight = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: fmt::Debug> fmt::Debug for ReportedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportedBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
