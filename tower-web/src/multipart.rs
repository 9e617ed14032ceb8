//! Forms with files in them (RFC 7578).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::body::{Body, BodyError};
use crate::extract::{Extract, OptionalExtract, RequestHead, WholeBody, unless_absent};
use crate::problem::{Location, Rejection};
use crate::streams::BodyStream;

/// A form of `multipart/form-data`, field by field, as it arrives: nothing is kept that isn't asked for.
///
/// Three things bound it. All of it has at most as many bytes as the application or the route lets a body have. It has at most
/// [128 fields](Self::with_max_fields). A field that is taken into memory has at most
/// [1 MiB](Self::with_max_field). What is more is refused with a 413 that names the field, and what is malformed with
/// a 400; a body of another type with a 415. `Option<Multipart>` is `None` where there is no body.
///
/// # Example
///
/// ```
/// use tower_web::multipart::Multipart;
/// use tower_web::prelude::*;
///
/// #[post("/photos")]
/// async fn upload(mut form: Multipart) -> Result<String, Problem> {
///     let mut said = String::new();
///     while let Some(mut field) = form.next_field().await? {
///         match (field.name(), field.file_name()) {
///             ("title", _) => said.push_str(&field.text().await?),
///             (_, Some(name)) => {
///                 let name = name.to_owned();
///                 let mut size = 0;
///                 while let Some(chunk) = field.chunk().await? {
///                     size += chunk.len();
///                 }
///                 said.push_str(&format!(": {name} has {size} bytes"));
///             }
///             _ => {}
///         }
///     }
///     Ok(said)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let body = "--x\r\ncontent-disposition: form-data; name=title\r\n\r\nSea\r\n\
///     --x\r\ncontent-disposition: form-data; name=photo; filename=\"a.jpg\"\r\n\r\n12345\r\n--x--\r\n";
/// let client = App::new().route(upload).test();
/// let form = client.post("/photos").header("content-type", "multipart/form-data; boundary=x");
/// form.body(body).await.assert_text("Sea: a.jpg has 5 bytes");
/// # }
/// ```
pub struct Multipart {
    form: multer::Multipart<'static>,
    fields: usize,
    max_fields: usize,
    max_field: Option<usize>,
}

const MAX_FIELDS: usize = 128;
const MAX_IN_MEMORY: usize = 1 << 20;

impl Multipart {
    /// With another bound of how many fields there may be.
    #[must_use]
    pub const fn with_max_fields(mut self, fields: usize) -> Self {
        self.max_fields = fields;
        self
    }

    /// With another bound of a field, in bytes: for those that are taken into memory, and for those that aren't,
    /// which otherwise are bounded by the whole only.
    #[must_use]
    pub const fn with_max_field(mut self, bytes: usize) -> Self {
        self.max_field = Some(bytes);
        self
    }

    /// The next field, or `None` at the end. What wasn't read of the one before is skipped.
    ///
    /// # Errors
    ///
    /// Fails where the form is malformed, breaks off, or has too many fields.
    pub async fn next_field(&mut self) -> Result<Option<Field<'_>>, Rejection> {
        let Some(field) = self
            .form
            .next_field()
            .await
            .map_err(|error| refuse(error, None))?
        else {
            return Ok(None);
        };
        self.fields += 1;
        if self.fields > self.max_fields {
            return Err(Rejection::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the form has more than {} fields", self.max_fields),
            ));
        }
        let Some(name) = field.name().map(str::to_owned) else {
            // RFC 7578, section 4.2: each part must have one.
            return Err(Rejection::new(
                StatusCode::BAD_REQUEST,
                "a field of the form has no name",
            ));
        };
        Ok(Some(Field {
            name,
            field,
            read: 0,
            max: self.max_field,
            form: std::marker::PhantomData,
        }))
    }
}

impl Extract for Multipart {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let boundary = multer::parse_boundary(content_type).map_err(|error| match error {
            multer::Error::NoBoundary => {
                Rejection::new(StatusCode::BAD_REQUEST, "the form's boundary is missing")
                    .at(Location::Header, "content-type")
            }
            _ => Rejection::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be a form, with `content-type: multipart/form-data`",
            ),
        })?;
        Ok(Self {
            form: multer::Multipart::new(BodyStream::new(body), boundary),
            fields: 0,
            max_fields: MAX_FIELDS,
            max_field: None,
        })
    }
}

impl OptionalExtract for Multipart {
    async fn extract_optional(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        unless_absent(head, body).await
    }
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multipart")
            .field("fields", &self.fields)
            .field("max_fields", &self.max_fields)
            .field("max_field", &self.max_field)
            .finish_non_exhaustive()
    }
}

/// A field of a [`Multipart`] form: a stream of its bytes, of which the rest is skipped when it is dropped.
pub struct Field<'form> {
    name: String,
    field: multer::Field<'static>,
    read: usize,
    max: Option<usize>,
    // One field is read at a time, as they stand one behind the other.
    form: std::marker::PhantomData<&'form mut Multipart>,
}

impl Field<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the file, if it is one, as the client has it: without directories, and never `.` or `..`.
    ///
    /// It is the client's word all the same. A file is best kept under a name of your own.
    pub fn file_name(&self) -> Option<&str> {
        let name = self.field.file_name()?;
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        (!matches!(name, "" | "." | "..") && !name.contains('\0')).then_some(name)
    }

    /// The type that the client says it is of.
    pub fn content_type(&self) -> Option<&str> {
        self.field.content_type().map(|own| own.as_ref())
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    ///
    /// Fails where the form is malformed or breaks off, or the field is too large.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Rejection> {
        std::future::poll_fn(|cx| self.poll_chunk(cx))
            .await
            .transpose()
    }

    /// All of its bytes.
    ///
    /// # Errors
    ///
    /// Fails where the form is malformed or breaks off, or the field is too large.
    pub async fn bytes(mut self) -> Result<Bytes, Rejection> {
        self.max = Some(self.max.unwrap_or(MAX_IN_MEMORY));
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(&*first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// All of it as text.
    ///
    /// # Errors
    ///
    /// Fails where the form is malformed or breaks off, or the field is too large, or isn't UTF-8.
    pub async fn text(self) -> Result<String, Rejection> {
        let name = self.name.clone();
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|_| {
            Rejection::new(StatusCode::BAD_REQUEST, "isn't UTF-8").at(Location::Body, name)
        })
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Rejection>>> {
        let chunk = match ready!(Pin::new(&mut self.field).poll_next(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Poll::Ready(Some(Err(refuse(error, Some(&self.name))))),
        };
        self.read = self.read.saturating_add(chunk.len());
        Poll::Ready(Some(match self.max {
            Some(max) if self.read > max => Err(Rejection::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("is larger than {max} bytes"),
            )
            .at(Location::Body, self.name.clone())),
            _ => Ok(chunk),
        }))
    }
}

impl Stream for Field<'_> {
    type Item = Result<Bytes, Rejection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx)
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("name", &self.name)
            .field("file_name", &self.file_name())
            .field("content_type", &self.content_type())
            .finish_non_exhaustive()
    }
}

/// What a form is refused for: the body's own failure, or its syntax.
fn refuse(error: multer::Error, field: Option<&str>) -> Rejection {
    let rejection = match error {
        multer::Error::StreamReadFailed(error) => match error.downcast::<BodyError>() {
            Ok(error) => Rejection::from(*error),
            Err(error) => Rejection::new(
                StatusCode::BAD_REQUEST,
                "the form couldn't be read to its end",
            )
            .with_source(error),
        },
        multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteStream => {
            Rejection::new(StatusCode::BAD_REQUEST, "the form breaks off")
        }
        error => {
            Rejection::new(StatusCode::BAD_REQUEST, "the form is malformed").with_source(error)
        }
    };
    match field {
        Some(field) => rejection.at(Location::Body, field.to_owned()),
        None => rejection,
    }
}
