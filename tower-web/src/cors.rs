//! Cross-origin requests (CORS): which other sites' pages may ask, and read the answer.
//!
//! A browser lets a page ask any server, but lets it read only what the server says it may. [`Cors`] is a [layer](crate::App::layer) that
//! says so, and answers the questions that browsers ask before ("preflight"). Put it outermost, so that errors of other layers may be
//! read, too. Around a resource or a route it answers the questions about their methods, and whatever they answer; a 404 or a 405 is
//! none of theirs.
//!
//! It keeps nobody from *sending* a request: for that, see [`csrf`](crate::csrf).
//!
//! The protocol is the Fetch standard's, section 3.3 (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::uri::{Authority, Scheme};
use http::{Method, StatusCode, Uri};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::extract::Request;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};

/// Says which origins' pages may read the answers of what is inside.
///
/// By default a page may send any header, and use `GET`, `HEAD`, `POST`, `PUT`, `PATCH` and `DELETE`; browsers ask again after an hour.
///
/// **Readiness** and **errors** are those of what is inside. A preflight of an origin that isn't allowed is refused with a 403 that says
/// so; any other request is answered as ever, and the browser keeps the answer from the page.
///
/// # Example
///
/// ```
/// use tower_web::cors::Cors;
/// use tower_web::prelude::*;
///
/// #[get("/")]
/// async fn index() -> &'static str {
///     "hello"
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_web::Result {
/// let cors = Cors::origins(["https://example.com", "https://*.example.org"])?;
/// let client = App::new().layer(cors).route(index).test();
///
/// let answer = client.get("/").header("origin", "https://www.example.org").await;
/// answer.assert_header("access-control-allow-origin", "https://www.example.org");
///
/// let answer = client.get("/").header("origin", "https://example.net").await;
/// assert_eq!(answer.header("access-control-allow-origin"), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cors<O = Listed> {
    rules: Rules,
    origins: O,
}

/// Only the origins of a list are allowed. See [`Cors::origins`].
#[derive(Debug, Clone)]
pub struct Listed {
    patterns: Vec<Pattern>,
}

/// Every origin is allowed, without credentials. See [`Cors::any_origin`].
#[derive(Debug, Clone, Copy)]
pub struct Any;

#[derive(Debug, Clone)]
struct Rules {
    methods: HeaderValue,
    /// `None` for whatever is asked for.
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
}

/// What isn't an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginError {
    text: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(
            f,
            "`{text}` isn't an origin: write a scheme, a host, and no more, as `https://example.com` or `https://*.example.com`"
        )
    }
}

impl Error for OriginError {}

impl Cors {
    /// Allows pages of these origins, as `https://example.com`, `http://localhost:3000`, or, for all hosts below
    /// one, `https://*.example.com`.
    ///
    /// # Errors
    ///
    /// Fails where one isn't an origin: it has a path, for example, if only a slash.
    pub fn origins<I>(origins: I) -> Result<Self, OriginError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns = origins
            .into_iter()
            .map(|origin| Pattern::parse(origin.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            rules: Rules::new(),
            origins: Listed { patterns },
        })
    }

    /// Lets pages send cookies and other credentials along, and read answers to them.
    #[must_use]
    pub fn with_credentials(mut self) -> Self {
        self.rules.credentials = true;
        self
    }
}

impl Cors<Any> {
    /// Allows pages of every origin. Browsers send no credentials then.
    #[must_use]
    pub fn any_origin() -> Self {
        Self {
            rules: Rules::new(),
            origins: Any,
        }
    }
}

impl<O> Cors<O> {
    /// Allows these methods instead of the usual ones.
    #[must_use]
    pub fn with_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        let names = methods.into_iter().map(|method| method.to_string());
        self.rules.methods = list(names);
        self
    }

    /// Lets pages send these headers, instead of any.
    #[must_use]
    pub fn with_headers(mut self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.rules.headers = Some(list(headers.into_iter().map(|name| name.to_string())));
        self
    }

    /// Lets pages read these headers of answers, besides those that they always may.
    #[must_use]
    pub fn with_exposed_headers(mut self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.rules.exposed = Some(list(headers.into_iter().map(|name| name.to_string())));
        self
    }

    /// How long a browser needn't ask again, in whole seconds. Browsers have bounds of their own, of two hours or a day.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.rules.max_age = HeaderValue::from(age.as_secs());
        self
    }
}

/// Names and methods are header values, and so is what is between them.
fn list(names: impl Iterator<Item = String>) -> HeaderValue {
    let text = names.collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Rules {
    fn new() -> Self {
        Self {
            methods: HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
            headers: None,
            exposed: None,
            max_age: HeaderValue::from_static("3600"),
            credentials: false,
        }
    }
}

/// An origin, or all below a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exactly(String),
    /// `https://` and `.example.com`.
    Below(String, String),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, OriginError> {
        let refused = || OriginError {
            text: text.to_owned(),
        };
        let origin = text.to_ascii_lowercase();
        let (scheme, authority) = origin.split_once("://").ok_or_else(refused)?;
        let (host, is_below) = match authority.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (authority, false),
        };
        let is_scheme = Scheme::try_from(scheme).is_ok();
        let is_host = Authority::try_from(host).is_ok_and(|parsed| {
            !parsed.host().is_empty() && !host.contains(['@', '*']) && parsed.as_str() == host
        });
        match is_scheme && is_host {
            false => Err(refused()),
            true if is_below => Ok(Self::Below(format!("{scheme}://"), format!(".{host}"))),
            true => Ok(Self::Exactly(origin)),
        }
    }

    pub(crate) fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Exactly(own) => own.eq_ignore_ascii_case(origin),
            Self::Below(scheme, suffix) => {
                let host = strip_prefix(origin, scheme).and_then(|rest| {
                    let at = rest.len().checked_sub(suffix.len())?;
                    let (host, end) = (rest.get(..at)?, rest.get(at..)?);
                    end.eq_ignore_ascii_case(suffix).then_some(host)
                });
                host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', ':']))
            }
        }
    }
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start
        .eq_ignore_ascii_case(prefix)
        .then(|| &text[prefix.len()..])
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "whoever can't name it can't implement `Origins`"
    )]
    pub trait Sealed {
        /// What `access-control-allow-origin` is for this origin.
        fn allow(&self, origin: &http::HeaderValue) -> Option<http::HeaderValue>;

        /// Whether the answer is another for each origin.
        const VARIES: bool;
    }
}

/// Which origins a [`Cors`] allows: [`Listed`] or [`Any`].
pub trait Origins: sealed::Sealed + Send + Sync + 'static {}

impl Origins for Listed {}
impl Origins for Any {}

impl sealed::Sealed for Listed {
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let text = origin.to_str().ok()?;
        let is_allowed = self.patterns.iter().any(|pattern| pattern.allows(text));
        is_allowed.then(|| origin.clone())
    }

    const VARIES: bool = true;
}

impl sealed::Sealed for Any {
    fn allow(&self, _: &HeaderValue) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("*"))
    }

    const VARIES: bool = false;
}

impl<O: Origins> Cors<O> {
    fn is_preflight(request: &Request) -> bool {
        *request.method() == Method::OPTIONS
            && request.headers().contains_key(ORIGIN)
            && request
                .headers()
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Answers whether the request that comes next is allowed.
    fn preflight(&self, asked: &HeaderMap) -> Response {
        let allowed = asked
            .get(ORIGIN)
            .and_then(|origin| self.origins.allow(origin));
        let mut response = match &allowed {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => Problem::new(StatusCode::FORBIDDEN)
                .with_detail("pages of this origin may not ask here")
                .into_response(),
        };
        let headers = response.headers_mut();
        headers.append(
            VARY,
            HeaderValue::from_static(
                "origin, access-control-request-method, access-control-request-headers",
            ),
        );
        let Some(origin) = allowed else {
            return response;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.rules.methods.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.rules.max_age.clone());
        let asked_for = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(names) = self.rules.headers.as_ref().or(asked_for) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        self.add_credentials(headers);
        response
    }

    /// Says who may read the answer.
    fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if O::VARIES {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = origin.and_then(|origin| self.origins.allow(origin)) else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if let Some(names) = &self.rules.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
        self.add_credentials(headers);
    }

    fn add_credentials(&self, headers: &mut HeaderMap) {
        if self.rules.credentials {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

impl<S, O: Clone> Layer<S> for Cors<O> {
    type Service = CorsService<S, O>;

    fn layer(&self, inner: S) -> Self::Service {
        CorsService {
            cors: Arc::new(self.clone()),
            inner,
        }
    }
}

/// What [`Cors`] makes of a service.
#[derive(Debug)]
pub struct CorsService<S, O = Listed> {
    cors: Arc<Cors<O>>,
    inner: S,
}

impl<S: Clone, O> Clone for CorsService<S, O> {
    fn clone(&self) -> Self {
        Self {
            cors: Arc::clone(&self.cors),
            inner: self.inner.clone(),
        }
    }
}

impl<S, O> Service<Request> for CorsService<S, O>
where
    S: Service<Request, Response = Response>,
    O: Origins,
{
    type Response = Response;
    type Error = S::Error;
    type Future = CorsFuture<S::Future, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let state = match Cors::<O>::is_preflight(&request) {
            true => State::Preflight {
                answer: Some(self.cors.preflight(request.headers())),
            },
            false => State::Asked {
                origin: request.headers().get(ORIGIN).cloned(),
                cors: Arc::clone(&self.cors),
                future: self.inner.call(request),
            },
        };
        CorsFuture { state }
    }
}

pin_project! {
    /// The answer of a [`CorsService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CorsFuture<F, O = Listed> {
        #[pin]
        state: State<F, O>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, O> {
        Preflight { answer: Option<Response> },
        Asked {
            origin: Option<HeaderValue>,
            cors: Arc<Cors<O>>,
            #[pin]
            future: F,
        },
    }
}

impl<F, E, O> Future for CorsFuture<F, O>
where
    F: Future<Output = Result<Response, E>>,
    O: Origins,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Preflight { answer } => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                // Polled after its end.
                None => Poll::Pending,
            },
            StateProj::Asked {
                origin,
                cors,
                future,
            } => {
                let mut response = ready!(future.poll(cx))?;
                cors.mark(origin.as_ref(), response.headers_mut());
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl<F, O> fmt::Debug for CorsFuture<F, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorsFuture").finish_non_exhaustive()
    }
}

/// Whether an `Origin` is of the site that a request is for: of its host and port.
pub(crate) fn is_same_host(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.parse::<Uri>().ok());
    let authority = origin.as_ref().and_then(Uri::authority);
    authority.is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_allows_what_it_names_and_nothing_near() {
        let one = Pattern::parse("https://Example.com:8443").unwrap();
        assert!(one.allows("https://example.com:8443"));
        for other in [
            "https://example.com",
            "http://example.com:8443",
            "https://example.com:84430",
            "null",
        ] {
            assert!(!one.allows(other), "{other}");
        }
        let below = Pattern::parse("https://*.example.com").unwrap();
        for own in ["https://a.example.com", "https://a.b.EXAMPLE.com"] {
            assert!(below.allows(own), "{own}");
        }
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.net",
            "https://evil.net/.example.com",
            "https://evil.net:1.example.com",
            "http://a.example.com",
            "https://a.example.com:1",
            "é",
        ] {
            assert!(!below.allows(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_origin_is_told_with_what_one_looks_like() {
        for text in [
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/x",
            "https://*",
            "https://a.*.com",
            "https://user@example.com",
            "*",
            "null",
            "",
        ] {
            let error = Cors::origins([text]).unwrap_err();
            assert!(
                error.to_string().contains("https://*.example.com"),
                "{text}"
            );
        }
    }
}
