//! What handlers answer with.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};

use crate::body::Body;
use crate::extract::RequestHead;
use crate::problem::Problem;
use crate::shutdown::Shutdown;

/// What a handler may return.
///
/// Text, bytes, [`Json`](crate::json::Json), [`Html`], [`Created`], [`NoContent`], [`Redirect`], a whole
/// [`Response`], a [`Problem`]; any of them after a status, headers, or both, in a tuple; `Option`, whose `None` is a 404;
/// `Result` of two of them. Implement it for your own.
///
/// # Example
///
/// ```
/// use tower_web::StatusCode;
/// use tower_web::respond::{IntoResponse, Response};
///
/// struct Teapot;
///
/// impl IntoResponse for Teapot {
///     fn into_response(self) -> Response {
///         (StatusCode::IM_A_TEAPOT, [("x-tea", "oolong")], "short and stout").into_response()
///     }
/// }
///
/// let response = Teapot.into_response();
/// assert_eq!(response.status(), 418);
/// assert_eq!(response.headers()["x-tea"], "oolong");
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "not a response",
    note = "return text, `Json<_>`, `Html<_>`, a status, a `Response`, or a tuple of status, headers and one of these",
    note = "a `Result<T, E>` is a response where both `T` and `E` are; for any error at all, return `Result<T, Problem>` and use `?`",
    note = "or implement `tower_web::IntoResponse` for your type"
)]
pub trait IntoResponse: Sized {
    /// The response that it is.
    fn into_response(self) -> Response;

    /// The same response, for the router: `headers` is an empty map whose memory may be used for it, and
    /// dropping it costs no more than that memory.
    ///
    /// There is no need to implement it; wrappers may pass the map on.
    fn into_response_in(self, headers: HeaderMap) -> Response {
        drop(headers);
        self.into_response()
    }

    /// Whether it must know the request: the router calls [`into_response_to`](Self::into_response_to) then.
    ///
    /// A file needs the ranges and conditions that were asked for, a stream of events the application's end. A type
    /// that wraps such a one passes on both.
    const NEEDS_REQUEST: bool = false;

    /// The response that it is to this request. By default, the same to each.
    fn into_response_to(self, request: &Asked) -> Response {
        let _ = request;
        self.into_response()
    }
}

/// What a response may know of the request that it answers.
#[derive(Debug, Clone)]
pub struct Asked {
    method: Method,
    headers: HeaderMap,
    shutdown: Option<Shutdown>,
}

impl Asked {
    /// Keeps what a response may want to know of this request.
    pub fn new(head: &RequestHead) -> Self {
        Self {
            method: head.method.clone(),
            headers: head.headers.clone(),
            shutdown: head.shutdown(),
        }
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Tells when the application shuts down. `None` if the request came by no application.
    pub fn shutdown(&self) -> Option<Shutdown> {
        self.shutdown.clone()
    }
}

/// An HTTP response, by default with [our body](Body).
pub type Response<B = Body> = http::Response<B>;

/// A response with this body and content type, in this map.
pub(crate) fn typed(
    body: impl Into<Body>,
    content_type: &'static str,
    mut headers: HeaderMap,
) -> Response {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    untyped(body.into(), headers)
}

fn untyped(body: Body, headers: HeaderMap) -> Response {
    let mut response = Response::new(body);
    // The map in its place is empty and owns nothing, so there is nothing to drop.
    std::mem::forget(std::mem::replace(response.headers_mut(), headers));
    response
}

/// Implements the trait for types whose responses are made in a map of headers.
macro_rules! responses {
    ($($(#[$meta:meta])* [$($generics:tt)*] $type:ty => |$this:ident, $headers:ident| $response:expr;)*) => {$(
        $(#[$meta])*
        impl<$($generics)*> IntoResponse for $type {
            fn into_response(self) -> Response {
                self.into_response_in(HeaderMap::new())
            }

            fn into_response_in(self, $headers: HeaderMap) -> Response {
                let $this = self;
                $response
            }
        }
    )*};
}

pub(crate) use responses;

/// How a wrapper has to answer, and so what it wraps.
enum How<'a> {
    In(HeaderMap),
    To(&'a Asked),
}

impl How<'_> {
    #[inline]
    fn answer(self, inner: impl IntoResponse) -> Response {
        match self {
            Self::In(headers) => inner.into_response_in(headers),
            Self::To(request) => inner.into_response_to(request),
        }
    }
}

/// Implements the trait for types that wrap others.
macro_rules! wrappers {
    ($($(#[$meta:meta])* [$($generics:tt)*] $type:ty, $needs:expr => |$this:ident, $how:ident| $response:expr;)*) => {$(
        $(#[$meta])*
        impl<$($generics)*> IntoResponse for $type {
            const NEEDS_REQUEST: bool = $needs;

            fn into_response(self) -> Response {
                self.into_response_in(HeaderMap::new())
            }

            fn into_response_in(self, headers: HeaderMap) -> Response {
                let ($this, $how) = (self, How::In(headers));
                $response
            }

            fn into_response_to(self, request: &Asked) -> Response {
                let ($this, $how) = (self, How::To(request));
                $response
            }
        }
    )*};
}

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

responses! {
    /// A 200 without a body.
    [] () => |_this, headers| untyped(Body::empty(), headers);
    [] &'static str => |text, headers| typed(text, TEXT, headers);
    [] String => |text, headers| typed(text, TEXT, headers);
    [] Box<str> => |text, headers| typed(String::from(text), TEXT, headers);
    [] Cow<'static, str> => |text, headers| match text {
        Cow::Borrowed(text) => typed(text, TEXT, headers),
        Cow::Owned(text) => typed(text, TEXT, headers),
    };
    [] &'static [u8] => |bytes, headers| typed(bytes, BYTES, headers);
    [] Vec<u8> => |bytes, headers| typed(bytes, BYTES, headers);
    [] Bytes => |bytes, headers| typed(bytes, BYTES, headers);
    [const N: usize] &'static [u8; N] => |bytes, headers| typed(&bytes[..], BYTES, headers);
    /// The body alone, of no type that is told.
    [] Body => |body, headers| untyped(body, headers);
    /// The status alone. One that says that the request has failed, 400 and above, is a [`Problem`].
    [] StatusCode => |status, headers| {
        if status.is_client_error() || status.is_server_error() {
            return Problem::new(status).into_response();
        }
        let mut response = untyped(Body::empty(), headers);
        *response.status_mut() = status;
        response
    };
}

wrappers! {
    [R: IntoResponse] (StatusCode, R), R::NEEDS_REQUEST => |this, how| {
        let mut response = how.answer(this.1);
        *response.status_mut() = this.0;
        response
    };
    [H: IntoHeaders, R: IntoResponse] (H, R), R::NEEDS_REQUEST => |this, how| {
        let mut response = how.answer(this.1);
        this.0.put(response.headers_mut());
        response
    };
    [H: IntoHeaders, R: IntoResponse] (StatusCode, H, R), R::NEEDS_REQUEST => |this, how| {
        let mut response = how.answer(this.2);
        *response.status_mut() = this.0;
        this.1.put(response.headers_mut());
        response
    };
    [T: IntoResponse, E: IntoResponse] Result<T, E>, T::NEEDS_REQUEST || E::NEEDS_REQUEST => |result, how| match result {
        Ok(value) => how.answer(value),
        Err(error) => how.answer(error),
    };
    /// `None` is a 404.
    [T: IntoResponse] Option<T>, T::NEEDS_REQUEST => |option, how| match option {
        Some(value) => how.answer(value),
        None => Problem::new(StatusCode::NOT_FOUND).into_response(),
    };
    [T: IntoResponse] Box<T>, T::NEEDS_REQUEST => |this, how| how.answer(*this);
    [T: IntoResponse] Created<T>, T::NEEDS_REQUEST => |created, how| {
        let mut response = how.answer(created.body);
        *response.status_mut() = StatusCode::CREATED;
        if let Some(location) = created.location {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    };
}

impl IntoResponse for Infallible {
    fn into_response(self) -> Response {
        match self {}
    }
}

impl<B> IntoResponse for http::Response<B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<crate::BoxError>,
{
    fn into_response(self) -> Response {
        self.map(Body::new)
    }
}

/// Headers that a handler returns in a tuple before its body. They replace those that the body brings.
///
/// [`HeaderMap`], an array or a vector of pairs of name and value. A value that isn't one (it has a line break, say)
/// is left out, and logged.
pub trait IntoHeaders {
    /// Puts them into the map.
    fn put(self, headers: &mut HeaderMap);
}

impl IntoHeaders for HeaderMap {
    fn put(self, headers: &mut HeaderMap) {
        let mut last = None;
        for (name, value) in self {
            // A name comes with the first of its values only.
            match (name, &last) {
                (Some(name), _) => {
                    headers.insert(name.clone(), value);
                    last = Some(name);
                }
                (None, Some(name)) => {
                    headers.append(name.clone(), value);
                }
                (None, None) => {}
            }
        }
    }
}

impl<K, V> IntoHeaders for Vec<(K, V)>
where
    K: TryInto<HeaderName>,
    V: TryInto<HeaderValue>,
{
    fn put(self, headers: &mut HeaderMap) {
        put_all(self, headers);
    }
}

impl<K, V, const N: usize> IntoHeaders for [(K, V); N]
where
    K: TryInto<HeaderName>,
    V: TryInto<HeaderValue>,
{
    fn put(self, headers: &mut HeaderMap) {
        put_all(self, headers);
    }
}

/// The first of a name replaces what the body brought, and the others stand beside it.
fn put_all<K, V>(pairs: impl IntoIterator<Item = (K, V)>, headers: &mut HeaderMap)
where
    K: TryInto<HeaderName>,
    V: TryInto<HeaderValue>,
{
    let mut seen: Vec<HeaderName> = Vec::new();
    for (name, value) in pairs {
        let (Ok(name), Ok(value)) = (name.try_into(), value.try_into()) else {
            tracing::warn!("a response header with an invalid name or value is left out");
            continue;
        };
        if seen.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(name.clone(), value);
            seen.push(name);
        }
    }
}

/// A page: `text/html; charset=utf-8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Html<T>(pub T);

responses! {
    [T: Into<Body>] Html<T> => |html, headers| typed(html.0, "text/html; charset=utf-8", headers);
    [] NoContent => |_this, headers| {
        let mut response = untyped(Body::empty(), headers);
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    };
    [] Redirect => |redirect, headers| {
        let mut response = untyped(Body::empty(), headers);
        *response.status_mut() = redirect.status;
        response.headers_mut().insert(LOCATION, redirect.location);
        response
    };
}

/// A 204: it is done, and there is nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoContent;

/// A 201 with what was created, and where.
///
/// # Example
///
/// ```
/// use tower_web::respond::{Created, IntoResponse};
///
/// let response = Created::new("seven").at("/users/7").into_response();
/// assert_eq!(response.status(), 201);
/// assert_eq!(response.headers()["location"], "/users/7");
/// ```
#[derive(Debug, Clone)]
pub struct Created<T> {
    body: T,
    location: Option<HeaderValue>,
}

impl<T> Created<T> {
    /// What was created.
    pub fn new(body: T) -> Self {
        Self {
            body,
            location: None,
        }
    }

    /// With where it is now, best from a route's path builder.
    #[must_use]
    pub fn at(mut self, location: impl AsRef<str>) -> Self {
        self.location = Some(header_of_uri(location.as_ref()));
        self
    }

    /// What was created, for a unit test of the handler.
    pub fn into_inner(self) -> T {
        self.body
    }
}

/// Sends the client elsewhere.
///
/// A location that comes from a request makes an open redirect of a handler: check it first.
#[derive(Debug, Clone)]
pub struct Redirect {
    status: StatusCode,
    location: HeaderValue,
}

impl Redirect {
    /// 303: what was asked for is done, its result is seen there. The client comes with a GET.
    pub fn to(location: impl AsRef<str>) -> Self {
        Self::with_status(StatusCode::SEE_OTHER, location)
    }

    /// 307: this time it is there. The client repeats the method and the body.
    pub fn temporary(location: impl AsRef<str>) -> Self {
        Self::with_status(StatusCode::TEMPORARY_REDIRECT, location)
    }

    /// 308: it is there for good. The client repeats the method and the body.
    pub fn permanent(location: impl AsRef<str>) -> Self {
        Self::with_status(StatusCode::PERMANENT_REDIRECT, location)
    }

    fn with_status(status: StatusCode, location: impl AsRef<str>) -> Self {
        Self {
            status,
            location: header_of_uri(location.as_ref()),
        }
    }
}

/// A URI as the value of a header. What mustn't stand in one (line breaks, spaces, beyond ASCII) is
/// percent-encoded, so nothing can be smuggled in by it.
fn header_of_uri(uri: &str) -> HeaderValue {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

    const NOT_IN_URIS: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    let encoded = utf8_percent_encode(uri, NOT_IN_URIS).to_string();
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("/"))
}
