//! Which pages may call (Cross-Origin Resource Sharing, as the Fetch standard has it).

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxError, GrpcBody};

/// Wraps servers in [`Cors`].
///
/// No origin is allowed at first.
#[derive(Clone, Debug)]
pub struct CorsLayer {
    rules: Arc<Rules>,
}

#[derive(Clone, Debug)]
struct Rules {
    any_origin: bool,
    origins: BTreeSet<String>,
    exposed: BTreeSet<String>,
    credentials: bool,
    max_age: Duration,
}

/// Tells browsers which pages may call a server, and what of the answers they may see.
///
/// A question whether a page may call (a preflight request) is answered here. Other requests go on, and their
/// responses say who may read them. Without an `Origin` a request isn't from a page, and passes.
///
/// **Readiness.** The inner service's.
///
/// **Errors.** The inner service's.
#[derive(Clone, Debug)]
pub struct Cors<S> {
    inner: S,
    rules: Arc<Rules>,
}

/// This isn't the origin of a page: `https://host`, perhaps with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin {
    origin: String,
}

impl CorsLayer {
    /// Allows no origin yet. The answers' statuses may be seen, and a browser asks again after two hours.
    pub fn new() -> Self {
        let exposed = ["grpc-message", "grpc-status", "grpc-status-details-bin"];
        Self {
            rules: Arc::new(Rules {
                any_origin: false,
                origins: BTreeSet::new(),
                exposed: exposed.into_iter().map(str::to_owned).collect(),
                credentials: false,
                max_age: Duration::from_secs(7200),
            }),
        }
    }

    /// Allows the pages of an origin: `https://shop.example`.
    ///
    /// # Errors
    ///
    /// [`InvalidOrigin`], where it isn't one; a path, `*` or a slash at the end among that.
    pub fn with_origin(mut self, origin: &str) -> Result<Self, InvalidOrigin> {
        let uri: Option<http::Uri> = origin.parse().ok();
        let is_origin = uri.is_some_and(|uri| {
            let (scheme, authority) = (uri.scheme_str(), uri.authority());
            scheme
                .zip(authority)
                .is_some_and(|(scheme, authority)| format!("{scheme}://{authority}") == origin)
        });
        if !is_origin {
            return Err(InvalidOrigin {
                origin: origin.to_owned(),
            });
        }
        let rules = Arc::make_mut(&mut self.rules);
        rules.origins.insert(origin.to_ascii_lowercase());
        Ok(self)
    }

    /// Allows all pages, unless [credentials](Self::with_credentials) are allowed, which only named origins get.
    #[must_use]
    pub fn with_any_origin(mut self) -> Self {
        Arc::make_mut(&mut self.rules).any_origin = true;
        self
    }

    /// Allows pages to call with cookies and the like.
    #[must_use]
    pub fn with_credentials(mut self) -> Self {
        Arc::make_mut(&mut self.rules).credentials = true;
        self
    }

    /// Lets pages see metadata of the answers under this name.
    #[must_use]
    pub fn with_exposed(mut self, name: &str) -> Self {
        let rules = Arc::make_mut(&mut self.rules);
        rules.exposed.insert(name.to_ascii_lowercase());
        self
    }

    /// How long a browser needn't ask again.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        Arc::make_mut(&mut self.rules).max_age = age;
        self
    }
}

impl Default for CorsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors {
            inner,
            rules: Arc::clone(&self.rules),
        }
    }
}

impl Rules {
    /// What the answer says of who may read it.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let text = origin.to_str().ok()?;
        if self.origins.contains(&text.to_ascii_lowercase()) {
            return Some(origin.clone());
        }
        (self.any_origin && !self.credentials).then(|| HeaderValue::from_static("*"))
    }

    fn mark(&self, headers: &mut HeaderMap, origin: &HeaderValue) -> bool {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(allowed) = self.allow(origin) else {
            return false;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        true
    }

    fn preflight<B>(&self, request: &Request<B>, origin: &HeaderValue) -> Response<GrpcBody> {
        let mut response = Response::new(GrpcBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if !self.mark(headers, origin) {
            return response;
        }
        let post = HeaderValue::from_static("POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, post);
        // Metadata may have any name.
        if let Some(asked) = request
            .headers()
            .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        let max_age = HeaderValue::from(self.max_age.as_secs());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
        response
    }

    fn exposed(&self) -> Option<HeaderValue> {
        let names: Vec<&str> = self.exposed.iter().map(String::as_str).collect();
        HeaderValue::try_from(names.join(",")).ok()
    }
}

impl<S, B, ResBody> Service<Request<B>> for Cors<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<GrpcBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN).cloned();
        let asks = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let state = match origin {
            Some(origin) if asks => State::Answered {
                response: Some(self.rules.preflight(&request, &origin)),
            },
            origin => State::Called {
                response: self.inner.call(request),
                mark: origin.map(|origin| (origin, Arc::clone(&self.rules))),
            },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response of a [`Cors`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Called {
            #[pin]
            response: F,
            mark: Option<(HeaderValue, Arc<Rules>)>,
        },
        Answered { response: Option<Response<GrpcBody>> },
    }
}

impl<F, ResBody, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<GrpcBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { response, mark } => {
                let mut response = ready!(response.poll(cx))?;
                if let Some((origin, rules)) = mark.take() {
                    let headers = response.headers_mut();
                    if rules.mark(headers, &origin) {
                        if let Some(exposed) = rules.exposed() {
                            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
                        }
                    }
                }
                Poll::Ready(Ok(response.map(GrpcBody::new)))
            }
            StateProj::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no origin: it is a scheme, a host and perhaps a port, as https://shop.example",
            self.origin
        )
    }
}

impl std::error::Error for InvalidOrigin {}
