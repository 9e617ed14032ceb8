//! Problem details (RFC 9457): how every error is told to a client.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_core::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::BoxError;
use crate::body::{Body, BodyError};
use crate::respond::IntoResponse;

mod cause;
mod hook;
mod rejection;

pub use cause::AsCause;
pub(crate) use hook::OnProblem;
pub use hook::ProblemFacts;
pub use rejection::Rejection;

/// The member that says what the request is called.
pub(crate) const REQUEST_ID: &str = "request_id";

/// What problems are written as.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong with a request, as `application/problem+json` (RFC 9457).
///
/// The members `type`, `status`, `title` and `detail` are the standard's. `errors` lists the fields of the
/// request that were refused, each with its place; [`with`](Self::with) adds members of your own.
///
/// A handler that returns `Result<_, Problem>` may use `?` on any error: it becomes a 500, whose cause is
/// logged and never sent.
///
/// # Example
///
/// ```
/// use tower_web::problem::Problem;
/// use tower_web::respond::IntoResponse;
/// use tower_web::StatusCode;
///
/// fn balance_of(account: &str) -> Result<u32, Problem> {
///     if account != "alice" {
///         return Err(Problem::new(StatusCode::NOT_FOUND)
///             .with_detail("there is no such account")
///             .with("account", account));
///     }
///     Ok("7".parse()?)
/// }
///
/// let problem = balance_of("bob").unwrap_err();
/// assert_eq!(
///     serde_json::to_value(&problem).unwrap(),
///     serde_json::json!({
///         "status": 404,
///         "title": "Not Found",
///         "detail": "there is no such account",
///         "account": "bob",
///     })
/// );
/// assert_eq!(problem.into_response().headers()["content-type"], "application/problem+json");
/// ```
#[derive(Clone)]
pub struct Problem {
    // In a box, so that a `Result<_, Problem>` is no larger than what is in its `Ok`.
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    kind: Option<Cow<'static, str>>,
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    instance: Option<String>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: HeaderMap,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// Whether its cause was logged.
    is_told: bool,
}

/// Where in a request something stands that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// A capture of the path.
    Path,
    /// A parameter of the query.
    Query,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// The body. The field's name is a JSON pointer (RFC 6901), or the name of a form's field.
    Body,
}

impl Location {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Body => "body",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field of a request that was refused.
///
/// It is written as `{"detail": …, "in": "query", "name": …}`, and in a JSON body as RFC 9457 shows it:
/// `{"detail": …, "pointer": "#/age"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    location: Location,
    name: Cow<'static, str>,
    detail: Cow<'static, str>,
}

impl FieldError {
    /// The field `name` at `location`, and what is wrong with it.
    pub fn new(
        location: Location,
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            location,
            name: name.into(),
            detail: detail.into(),
        }
    }

    /// Which part of the request it is in.
    pub fn location(&self) -> Location {
        self.location
    }

    /// Its name: of a capture, a parameter, a header; in a JSON body a pointer, as `/age`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with it.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl Serialize for FieldError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde_core::ser::SerializeMap as _;

        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("detail", &self.detail)?;
        if self.location == Location::Body && (self.name.is_empty() || self.name.starts_with('/')) {
            map.serialize_entry("pointer", &format!("#{}", self.name))?;
        } else {
            map.serialize_entry("in", self.location.as_str())?;
            if !self.name.is_empty() {
                map.serialize_entry("name", &self.name)?;
            }
        }
        map.end()
    }
}

impl Problem {
    /// A problem with this status, whose title is the status's own.
    pub fn new(status: StatusCode) -> Self {
        Self {
            inner: Box::new(Inner {
                status,
                kind: None,
                title: None,
                detail: None,
                instance: None,
                errors: Vec::new(),
                members: Map::new(),
                headers: HeaderMap::new(),
                source: None,
                is_told: false,
            }),
        }
    }

    /// A 500 whose cause is logged and never sent.
    ///
    /// ```
    /// use tower_web::prelude::*;
    /// use tower_web::BoxError;
    ///
    /// fn load() -> Result<String, BoxError> {
    ///     Err("the disk is full".into())
    /// }
    ///
    /// #[get("/")]
    /// async fn index() -> Result<String, Problem> {
    ///     Ok(load().map_err(Problem::internal)?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let response = App::new().route(index).test().get("/").await;
    /// assert!(!response.text().contains("disk"));
    /// response.assert_problem(500);
    /// # }
    /// ```
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(source)
    }

    /// With another title: what kind of problem it is, the same for each of its kind.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.inner.title = Some(title.into());
        self
    }

    /// With what went wrong this time. It is sent, so it mustn't tell what clients shan't know.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.inner.detail = Some(detail.into());
        self
    }

    /// With a URI that names this kind of problem, and best leads to its documentation.
    #[must_use]
    pub fn with_type(mut self, uri: impl Into<Cow<'static, str>>) -> Self {
        self.inner.kind = Some(uri.into());
        self
    }

    /// With a URI that names this one occurrence.
    #[must_use]
    pub fn with_instance(mut self, uri: impl Into<String>) -> Self {
        self.inner.instance = Some(uri.into());
        self
    }

    /// With a field of the request that was refused. There may be many.
    #[must_use]
    pub fn with_error(mut self, error: FieldError) -> Self {
        self.inner.errors.push(error);
        self
    }

    /// With a member of your own. The standard's names can't be replaced by it, and a value that can't be
    /// written as JSON is left out.
    #[must_use]
    pub fn with(mut self, member: impl Into<String>, value: impl Serialize) -> Self {
        let member = member.into();
        let reserved = ["type", "title", "status", "detail", "instance", "errors"];
        if let (false, Ok(value)) = (reserved.contains(&&*member), serde_json::to_value(value)) {
            self.inner.members.insert(member, value);
        }
        self
    }

    /// With what the request is called, unless it has a member of this name already.
    pub(crate) fn with_request_id(mut self, id: String) -> Self {
        let members = &mut self.inner.members;
        members.entry(REQUEST_ID).or_insert(Value::String(id));
        self
    }

    /// Whose cause is logged already.
    pub(crate) fn told(mut self) -> Self {
        self.inner.is_told = true;
        self
    }

    /// Whether it is for the caller to log its cause: it is so once.
    pub(crate) fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.inner.is_told, true)
    }

    /// With a header of the response, beside those that it has: `Retry-After`, `WWW-Authenticate`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.inner.headers.append(name, value);
        self
    }

    /// With its cause, which is logged and never sent.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.inner.status
    }

    /// What kind of problem it is.
    pub fn title(&self) -> &str {
        match &self.inner.title {
            Some(title) => title,
            None => self.inner.status.canonical_reason().unwrap_or("Unknown"),
        }
    }

    /// What went wrong this time.
    pub fn detail(&self) -> Option<&str> {
        self.inner.detail.as_deref()
    }

    /// The fields that were refused.
    pub fn errors(&self) -> &[FieldError] {
        &self.inner.errors
    }

    /// The cause, which isn't sent.
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.inner.source.as_deref()
    }
}

/// The cause isn't among the members, so it is nowhere that a client sees.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde_core::ser::SerializeMap as _;

        let inner = &*self.inner;
        let mut map = serializer.serialize_map(None)?;
        // Absent, it is `about:blank`: the title is the status's own.
        if let Some(kind) = &inner.kind {
            map.serialize_entry("type", kind)?;
        }
        map.serialize_entry("status", &inner.status.as_u16())?;
        map.serialize_entry("title", self.title())?;
        if let Some(detail) = &inner.detail {
            map.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = &inner.instance {
            map.serialize_entry("instance", instance)?;
        }
        if !inner.errors.is_empty() {
            map.serialize_entry("errors", &inner.errors)?;
        }
        for (member, value) in &inner.members {
            map.serialize_entry(member, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.inner.status)
            .field("title", &self.title())
            .field("detail", &self.inner.detail)
            .field("errors", &self.inner.errors)
            .field("source", &self.inner.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.inner.detail, self.inner.errors.first()) {
            (Some(detail), _) => write!(f, "{}: {detail}", self.title()),
            (None, Some(error)) => write!(f, "{}: {}", self.title(), error.detail),
            (None, None) => f.write_str(self.title()),
        }
    }
}

/// Any error, as a 500 whose cause is logged and never sent. A [`Rejection`] keeps its status, and a
/// [`BodyError`] has that of the rejection that it is.
///
/// A box of any error (also that of `anyhow`) isn't one itself: `.map_err(Problem::internal)?`.
///
/// This is why a problem is no [`Error`] itself: it would be its own cause.
impl<E: Error + Send + Sync + 'static> From<E> for Problem {
    fn from(error: E) -> Self {
        let mut error = Some(error);
        if let Some(rejection) = (&mut error as &mut dyn Any).downcast_mut::<Option<Rejection>>() {
            if let Some(rejection) = rejection.take() {
                return rejection.into_problem();
            }
        }
        if let Some(broken) = (&mut error as &mut dyn Any).downcast_mut::<Option<BodyError>>() {
            if let Some(broken) = broken.take() {
                return Rejection::from(broken).into_problem();
            }
        }
        match error {
            Some(error) => Self::internal(error),
            None => Self::new(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// An error that knows which problem it is.
///
/// It is the bound of what an [extractor](crate::extract::Extract) refuses requests with.
///
/// `#[derive(Problem)]` implements it for an enum of what may go wrong, or for a struct, along with
/// [`IntoResponse`], [`Display`](std::fmt::Display) and [`Error`]. Above each variant, `#[problem(…)]` says which
/// `status` it has, its `title` (else the first line of its documentation, or its name in words), a `detail`
/// (a format string over the fields) and a `type`. Fields that have names are members of the problem, but for those with
/// `#[problem(skip)]`, and all of them where the variant says `hide`. A field that is called `source`, or has
/// `#[source]` or `#[from]`, is the cause: it is logged and never sent. `#[from]` implements [`From`], too. The cause is an error, or [leads to
/// one](AsCause), as a box does.
///
/// ```
/// use tower_web::prelude::*;
///
/// #[derive(Debug, Problem)]
/// enum Error {
///     #[problem(status = 404, detail = "there is nobody with the number {id}")]
///     NoSuchUser { id: u64 },
///     #[problem(status = 500, title = "out of order", hide)]
///     Db(#[from] std::io::Error),
/// }
///
/// #[get("/users/{id}")]
/// async fn user(id: u64) -> Result<String, Error> {
///     Err(Error::NoSuchUser { id })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let response = App::new().route(user).test().get("/users/7").await;
/// response.assert_status(404);
/// response.assert_json(&serde_json::json!({
///     "status": 404,
///     "title": "no such user",
///     "detail": "there is nobody with the number 7",
///     "id": 7,
/// }));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be told to a client as a problem",
    label = "not a problem",
    note = "use `tower_web::Problem` or `tower_web::Rejection`, or write `#[derive(Problem)]` above it"
)]
pub trait IntoProblem {
    /// The problem that it is.
    fn into_problem(self) -> Problem;
}

impl IntoProblem for Problem {
    fn into_problem(self) -> Problem {
        self
    }
}

impl IntoProblem for StatusCode {
    fn into_problem(self) -> Problem {
        Problem::new(self)
    }
}

impl IntoProblem for std::convert::Infallible {
    fn into_problem(self) -> Problem {
        match self {}
    }
}

impl IntoResponse for Problem {
    /// The problem itself goes along as an extension, for whoever wants to write it otherwise.
    fn into_response(self) -> Response<Body> {
        // Maps with string keys are all that it writes, so it can't fail.
        let json = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.inner.status;
        *response.headers_mut() = self.inner.headers.clone();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.extensions_mut().insert(self);
        response
    }
}
