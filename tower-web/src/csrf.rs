//! Requests that another site's page makes in a user's name (cross-site request forgery).
//!
//! A browser sends a user's cookies along with whatever a page of any site lets it send. [`Csrf`] is a [layer](crate::App::layer) that refuses
//! such requests where they may change something. It needs no tokens: browsers say where a request comes from.
//!
//! The rules are those that Filippo Valsorda describes in "Cross-Site Request Forgery"
//! (<https://words.filippo.io/csrf/>), as Go's `net/http` has them:
//!
//! 1. `GET`, `HEAD` and `OPTIONS` pass: they shan't change anything.
//! 2. Of a trusted origin, a request passes.
//! 3. Where there is `Sec-Fetch-Site`, which every browser since 2023 sends over HTTPS and to `localhost`, the request passes if
//!    it is `same-origin` or `none`.
//! 4. Else, where there is `Origin`, the request passes if that has the host of the request.
//! 5. Where there is neither, no browser made the request, and it passes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use http::{Method, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::cors::{OriginError, Pattern, is_same_host};
use crate::extract::Request;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests that another site's page makes in a user's name, with a 403.
///
/// **Readiness**, **cancellation** and **errors** are those of what is inside.
///
/// # Example
///
/// ```
/// use tower_web::csrf::Csrf;
/// use tower_web::prelude::*;
///
/// #[post("/transfers")]
/// async fn transfer() -> &'static str {
///     "done"
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().layer(Csrf::new()).route(transfer).test();
/// let evil = client.post("/transfers").header("sec-fetch-site", "cross-site");
/// evil.await.assert_problem(403);
/// let own = client.post("/transfers").header("sec-fetch-site", "same-origin");
/// own.await.assert_status(200);
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Csrf {
    trusted: Arc<[Pattern]>,
}

impl Csrf {
    /// Trusts pages of the application's own origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts pages of these origins, too, written as for [`Cors::origins`](crate::cors::Cors::origins).
    ///
    /// # Errors
    ///
    /// Fails where one isn't an origin.
    pub fn with_trusted_origins<I>(mut self, origins: I) -> Result<Self, OriginError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns: Result<Vec<_>, _> = origins
            .into_iter()
            .map(|origin| Pattern::parse(origin.as_ref()))
            .collect();
        self.trusted = patterns?.into();
        Ok(self)
    }

    fn admits(&self, request: &Request) -> bool {
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
            return true;
        }
        let origin = request.headers().get(ORIGIN);
        if origin.is_some_and(|origin| self.trusts(origin)) {
            return true;
        }
        match (request.headers().get(SEC_FETCH_SITE), origin) {
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => host(request).is_some_and(|host| is_same_host(origin, host)),
            (None, None) => true,
        }
    }

    fn trusts(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str().unwrap_or("");
        self.trusted.iter().any(|pattern| pattern.allows(text))
    }
}

/// The host and the port that a request is for. HTTP/2 has them in the target.
fn host(request: &Request) -> Option<&str> {
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    target.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

impl<S> Layer<S> for Csrf {
    type Service = CsrfService<S>;

    fn layer(&self, inner: S) -> CsrfService<S> {
        CsrfService {
            csrf: self.clone(),
            inner,
        }
    }
}

/// What [`Csrf`] makes of a service.
#[derive(Debug, Clone)]
pub struct CsrfService<S> {
    csrf: Csrf,
    inner: S,
}

impl<S> Service<Request> for CsrfService<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = CsrfFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> CsrfFuture<S::Future> {
        let admitted = match self.csrf.admits(&request) {
            true => Some(self.inner.call(request)),
            false => None,
        };
        CsrfFuture { admitted }
    }
}

pin_project! {
    /// The answer of a [`CsrfService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CsrfFuture<F> {
        // `None` for a request that is refused.
        #[pin]
        admitted: Option<F>,
    }
}

impl<F, E> Future for CsrfFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().admitted.as_pin_mut() {
            Some(future) => future.poll(cx),
            None => {
                tracing::warn!("a page of another site made a request, which is refused");
                let problem = Problem::new(StatusCode::FORBIDDEN)
                    .with_detail("a page of another site may not do this");
                Poll::Ready(Ok(problem.into_response()))
            }
        }
    }
}

impl<F> fmt::Debug for CsrfFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfFuture").finish_non_exhaustive()
    }
}
