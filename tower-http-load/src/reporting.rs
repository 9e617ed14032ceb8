//! The server's side: what it says of its load, in each response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::Report;
use crate::orca::METRICS;

/// Says in each response how loaded the server is, in the header `endpoint-load-metrics`.
///
/// What is to be said is asked for once a response, when its head is there, so it should cost little: as a number that something else
/// measures now and then.
///
/// **Readiness**, **cancellation** and **errors** are those of what is inside.
///
/// # Example
///
/// ```
/// use tower_http_load::{Report, ReportLayer};
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let (app, mut handle) = tower_test::mock::pair::<(), http::Response<()>>();
/// let mut app = ReportLayer::new(|| Report::new().with_cpu_utilization(0.5)).layer(app);
/// # std::future::poll_fn(|cx| app.poll_ready(cx)).await.unwrap();
/// let response = app.call(());
/// # handle.next_request().await.unwrap().1.send_response(http::Response::new(()));
/// let response = response.await.unwrap();
/// assert_eq!(response.headers()["endpoint-load-metrics"], "TEXT cpu_utilization=0.5");
/// # }
/// ```
#[derive(Clone)]
pub struct ReportLayer<R> {
    report: R,
}

impl<R: Fn() -> Report> ReportLayer<R> {
    /// Says what `report` makes.
    pub const fn new(report: R) -> Self {
        Self { report }
    }
}

impl<R> fmt::Debug for ReportLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLayer").finish_non_exhaustive()
    }
}

impl<S, R: Clone> Layer<S> for ReportLayer<R> {
    type Service = ReportService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        ReportService {
            inner,
            report: self.report.clone(),
        }
    }
}

/// What [`ReportLayer`] makes of a service.
#[derive(Clone)]
pub struct ReportService<S, R> {
    inner: S,
    report: R,
}

impl<S, R, Req, B> Service<Req> for ReportService<S, R>
where
    S: Service<Req, Response = http::Response<B>>,
    R: Fn() -> Report + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ReportFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        ReportFuture {
            inner: self.inner.call(req),
            report: self.report.clone(),
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for ReportService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a [`ReportService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ReportFuture<F, R> {
        #[pin]
        inner: F,
        report: R,
    }
}

impl<F, R, B, E> Future for ReportFuture<F, R>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    R: Fn() -> Report,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(report) = (this.report)().to_header_value() {
            response.headers_mut().insert(METRICS, report);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, R> fmt::Debug for ReportFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportFuture").finish_non_exhaustive()
    }
}
