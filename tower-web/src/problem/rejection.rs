//! What extractors refuse requests with.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::{FieldError, IntoProblem, Location, Problem};
use crate::BoxError;
use crate::body::Body;
use crate::respond::IntoResponse;

/// A request that an extractor refuses: which status, why, and which field it is about.
///
/// All of this crate's extractors refuse with it.
///
/// # Example
///
/// ```
/// use tower_web::StatusCode;
/// use tower_web::problem::{Location, Rejection};
///
/// let rejection = Rejection::new(StatusCode::BAD_REQUEST, "not a number").at(Location::Query, "page");
/// assert_eq!(rejection.to_string(), "query `page`: not a number");
/// ```
#[derive(Debug)]
pub struct Rejection {
    inner: Box<RejectionInner>,
}

#[derive(Debug)]
struct RejectionInner {
    status: StatusCode,
    detail: Cow<'static, str>,
    field: Option<(Location, Cow<'static, str>)>,
    /// What else is wrong.
    others: Vec<FieldError>,
    headers: HeaderMap,
    source: Option<BoxError>,
}

impl Rejection {
    /// A refusal with this status, and what is wrong, in words for the client.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Box::new(RejectionInner {
                status,
                detail: detail.into(),
                field: None,
                others: Vec::new(),
                headers: HeaderMap::new(),
                source: None,
            }),
        }
    }

    /// With another field that is wrong, too, and what is wrong with it.
    #[must_use]
    pub fn and(
        mut self,
        location: Location,
        name: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.inner
            .others
            .push(FieldError::new(location, name, detail));
        self
    }

    /// About this field.
    #[must_use]
    pub fn at(mut self, location: Location, name: impl Into<Cow<'static, str>>) -> Self {
        self.inner.field = Some((location, name.into()));
        self
    }

    /// With a header of the response: `WWW-Authenticate`, `Retry-After`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.inner.headers.append(name, value);
        self
    }

    /// With its cause, which is logged and never sent.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.inner.status
    }

    /// What is wrong, in words for the client.
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// The field that it is about, if it is about one.
    pub fn field(&self) -> Option<(Location, &str)> {
        self.inner
            .field
            .as_ref()
            .map(|(location, name)| (*location, &**name))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field() {
            Some((location, "")) => write!(f, "{location}: {}", self.inner.detail),
            Some((location, name)) => write!(f, "{location} `{name}`: {}", self.inner.detail),
            None => f.write_str(&self.inner.detail),
        }
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.inner.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

impl IntoProblem for Rejection {
    fn into_problem(self) -> Problem {
        let told = self.to_string();
        let inner = *self.inner;
        let mut problem = Problem::new(inner.status).with_detail(told);
        problem.inner.headers = inner.headers;
        problem.inner.source = inner.source.map(Arc::from);
        if let Some((location, name)) = inner.field {
            problem = problem.with_error(FieldError::new(location, name, inner.detail));
        }
        problem.inner.errors.extend(inner.others);
        problem
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response<Body> {
        self.into_problem().into_response()
    }
}
