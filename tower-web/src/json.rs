//! JSON in and out.

use std::ops::{Deref, DerefMut};

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use serde_core::Serialize;
use serde_core::de::DeserializeOwned;

use crate::body::Body;
use crate::extract::{Extract, OptionalExtract, RequestHead, WholeBody, unless_absent};
use crate::problem::{Location, Problem, Rejection};
use crate::respond::{IntoResponse, Response, responses, typed};
use crate::sheet;

mod sought;

/// A JSON body, of a request or of a response.
///
/// As an argument: the body must say that it is JSON (`application/json` or `…+json`), or it is refused with a 415;
/// what isn't JSON is refused with a 400, and what doesn't fit `T` with a 422 that points to the field.
/// `Option<Json<T>>` is `None` where there is no body at all.
///
/// # Example
///
/// ```
/// use serde::Deserialize;
/// use tower_web::extract::{Extract, RequestHead};
/// use tower_web::json::Json;
///
/// #[derive(Debug, Deserialize)]
/// struct User {
///     name: String,
///     age: u8,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = |json: &'static str| {
///     http::Request::post("/").header("content-type", "application/json").body(json.into()).unwrap()
/// };
/// let (mut head, body) = RequestHead::new(request(r#"{"name": "Ann", "age": 36}"#));
/// let Json(user) = Json::<User>::extract(&mut head, body).await.unwrap();
/// assert_eq!((&*user.name, user.age), ("Ann", 36));
///
/// let (mut head, body) = RequestHead::new(request(r#"{"name": "Ann", "age": 3600}"#));
/// let rejection = Json::<User>::extract(&mut head, body).await.unwrap_err();
/// assert_eq!(rejection.status(), 422);
/// assert_eq!(rejection.field().unwrap().1, "/age");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send> Extract for Json<T> {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        check_type(&head.headers)?;
        let bytes = body.bytes().await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Send> OptionalExtract for Json<T> {
    async fn extract_optional(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        unless_absent(head, body).await
    }
}

/// Refuses a body that doesn't say that it is JSON.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Rejection::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body must be JSON, with `content-type: application/json`",
    ))
}

/// Whether the content type is `application/json` or one that ends in `+json`, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let content_type = content_type.as_bytes();
    // The common case, without a walk.
    if content_type == b"application/json" {
        return true;
    }
    let end = content_type
        .iter()
        .position(|&b| b == b';')
        .unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    let ends_with = |suffix: &[u8]| {
        essence.len() > suffix.len()
            && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    essence.eq_ignore_ascii_case(b"application/json")
        || (ends_with(b"+json") && essence.contains(&b'/'))
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) => Err(refuse::<T>(bytes, &error)),
    }
}

/// Says what was wrong, and where: the document is read once more, by a reader that remembers its way.
#[cold]
fn refuse<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Rejection {
    use serde_json::error::Category;

    match error.classify() {
        Category::Data => {
            let mut reader = serde_json::Deserializer::from_slice(bytes);
            let pointer = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
                Ok(_) => String::new(),
                Err(error) => pointer(error.path()),
            };
            let detail = error.to_string();
            let pointer = match pointer.is_empty() {
                true => sought::pointer(bytes, &detail).unwrap_or_default(),
                false => pointer,
            };
            Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, detail).at(Location::Body, pointer)
        }
        Category::Eof if bytes.is_empty() => {
            Rejection::new(StatusCode::BAD_REQUEST, "the body is empty")
        }
        Category::Syntax | Category::Eof | Category::Io => Rejection::new(
            StatusCode::BAD_REQUEST,
            format!("the body isn't JSON: {error}"),
        ),
    }
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    use std::fmt::Write as _;

    let mut pointer = String::new();
    for segment in path {
        // Writing to a string can't fail.
        let _ = match segment {
            Segment::Seq { index } => write!(pointer, "/{index}"),
            Segment::Map { key } => {
                write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            // A variant isn't a place in the document, or its key has been a segment already.
            Segment::Enum { .. } | Segment::Unknown => Ok(()),
        };
    }
    pointer
}

responses! {
    [T: Serialize] Json<T> => |json, headers| {
        match sheet::written(|writer| serde_json::to_writer(writer, &json.0)) {
            Ok(bytes) => typed(bytes, "application/json", headers),
            Err(error) => Problem::internal(error).into_response(),
        }
    };
}

impl<T> Json<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
