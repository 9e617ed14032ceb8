//! Files: from the disk or from memory, whole or in ranges, and only if the client hasn't got them.
//!
//! [`File`] is a response of a handler, [`Files`] a directory that is mounted into an application.
//!
//! # When not to use it
//!
//! For what is made while it is sent: that is a [`Stream`](crate::streams::Stream).
//!
//! # What it costs
//!
//! Opening a file, and each 128 KiB of it, is the work of a blocking thread. A file in memory is sent as it is, without a
//! copy; its tag is computed when it is made, so make it once and clone it.

use std::borrow::Cow;
use std::fs;
use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, RANGE, VARY,
};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::spawn_blocking;

use self::conditions::{Validators, Verdict, whole_seconds};
use self::pieces::{Piece, Pieces, Source};
use self::ranges::{Ranges, Span};
use crate::body::Body;
use crate::problem::Rejection;
use crate::respond::{Asked, IntoResponse, Response};

mod conditions;
mod directory;
mod encodings;
mod pieces;
mod ranges;

pub use directory::Files;
pub use encodings::Encoding;

/// A file as a response, from the disk or from memory.
///
/// What the client asks for is looked up in its request: ranges (`Range`, `If-Range`; several come as
/// `multipart/byteranges`), and whether it needs the file at all (`If-None-Match`, `If-Modified-Since`, `If-Match`,
/// `If-Unmodified-Since`). A handler that takes the whole [`Request`](crate::Request) takes that knowledge, too: its
/// files are sent whole.
///
/// # Example
///
/// ```
/// use tower_web::files::File;
/// use tower_web::prelude::*;
///
/// struct Site {
///     logo: File,
/// }
///
/// #[resource("/")]
/// impl Site {
///     /// From memory: best `include_bytes!("logo.svg")`.
///     #[get("/logo.svg")]
///     async fn logo(&self) -> File {
///         self.logo.clone()
///     }
///
///     /// From the disk.
///     #[get("/report")]
///     async fn report(&self) -> Result<File, Problem> {
///         Ok(File::open("Cargo.toml").await?.as_download("report.toml"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let logo = File::new("logo.svg", "<svg/>");
/// let client = App::new().resource(Site { logo }).test();
///
/// let response = client.get("/logo.svg").await;
/// response.assert_header("content-type", "image/svg+xml").assert_text("<svg/>");
/// let etag = response.header("etag").unwrap();
/// client.get("/logo.svg").header("if-none-match", etag).await.assert_status(304);
/// client.get("/logo.svg").header("range", "bytes=-2").await.assert_status(206).assert_text("/>");
///
/// let report = client.get("/report").await;
/// report.assert_header("content-disposition", "attachment; filename=\"report.toml\"");
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a response does nothing unless a handler returns it"]
pub struct File {
    whole: Representation,
    variants: Vec<(Encoding, Representation)>,
    modified: Option<SystemTime>,
    headers: HeaderMap,
}

/// The file itself, or one of its encodings.
#[derive(Debug, Clone)]
struct Representation {
    source: Source,
    etag: Option<String>,
}

/// Why there is no file.
#[derive(Debug)]
enum Cause {
    NotFound,
    /// A path that can't be one.
    Malformed,
    Io(io::Error),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound,
            // The name has a NUL.
            io::ErrorKind::InvalidInput => Self::NotFound,
            _ => Self::Io(error),
        }
    }
}

impl Cause {
    fn reject(self) -> Rejection {
        match self {
            Self::NotFound => not_found(),
            Self::Malformed => Rejection::new(StatusCode::BAD_REQUEST, "the path is no file's"),
            Self::Io(error) => Rejection::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file couldn't be read",
            )
            .with_source(error),
        }
    }
}

fn not_found() -> Rejection {
    Rejection::new(StatusCode::NOT_FOUND, "there is no such file")
}

impl File {
    /// A file in memory: its name, which tells its type, and what is in it.
    ///
    /// Its tag is computed from all of its bytes: make it once, and clone it.
    pub fn new(name: impl AsRef<Path>, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self {
            whole: Representation::of_bytes(content),
            variants: Vec::new(),
            modified: None,
            headers: typed(name.as_ref()),
        }
    }

    /// A file on the disk. What changes about it later changes nothing about this one but its bytes.
    ///
    /// The path is taken as it is: one that comes from a request belongs to [`Files::open`].
    ///
    /// # Errors
    ///
    /// A 404 where there is no file, a 500 where it can't be read.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, Rejection> {
        Self::open_by(path.as_ref(), Self::read_head).await
    }

    /// The same, with the encodings that are kept ready beside it: where `app.js.br` or `app.js.gz` stands beside
    /// `app.js` and isn't older, it is sent to clients that take it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) does.
    pub async fn open_precompressed(path: impl AsRef<Path>) -> Result<Self, Rejection> {
        let open = |path: &Path| {
            let mut file = Self::read_head(path)?;
            file.find_variants(path, |_| true);
            Ok(file)
        };
        Self::open_by(path.as_ref(), open).await
    }

    async fn open_by(
        path: &Path,
        open: impl FnOnce(&Path) -> Result<Self, Cause> + Send + 'static,
    ) -> Result<Self, Rejection> {
        let path = path.to_owned();
        match spawn_blocking(move || open(&path)).await {
            Ok(opened) => opened.map_err(Cause::reject),
            Err(error) => Err(Cause::Io(io::Error::other(error)).reject()),
        }
    }

    /// Opens a file, and reads what is known of it.
    fn read_head(path: &Path) -> Result<Self, Cause> {
        let (whole, modified) = Representation::of_file(path, "")?;
        Ok(Self {
            whole,
            variants: Vec::new(),
            modified,
            headers: typed(path),
        })
    }

    /// Opens the encodings that stand beside the file, unless they are older than it is.
    fn find_variants(&mut self, path: &Path, allowed: impl Fn(&Path) -> bool) {
        for encoding in Encoding::ALL {
            let mut variant = path.as_os_str().to_owned();
            variant.push(".");
            variant.push(encoding.extension());
            let variant = Path::new(&variant);
            if !variant.exists() || !allowed(variant) {
                continue;
            }
            match Representation::of_file(variant, encoding.extension()) {
                Ok((representation, modified)) if modified >= self.modified => {
                    self.variants.push((encoding, representation));
                }
                _ => {}
            }
        }
    }

    /// With the same file in an encoding, which is sent to clients that take it.
    pub fn with_encoded(mut self, encoding: Encoding, content: impl Into<Bytes>) -> Self {
        let variant = Representation::of_bytes(content.into());
        self.variants.push((encoding, variant));
        self
    }

    /// With another type than its name tells.
    pub fn with_content_type(mut self, content_type: &'static str) -> Self {
        self.set_header(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self
    }

    /// With how long a client may keep it: `max-age=3600`, `no-store`.
    pub fn with_cache_control(mut self, value: &'static str) -> Self {
        self.set_header(http::header::CACHE_CONTROL, HeaderValue::from_static(value));
        self
    }

    /// With when it was changed, for a file in memory.
    pub fn with_modified(mut self, modified: SystemTime) -> Self {
        self.modified = Some(modified);
        self
    }

    /// To be saved by a browser under this name, and not to be shown.
    pub fn as_download(mut self, name: &str) -> Self {
        self.set_header(CONTENT_DISPOSITION, attachment(name));
        self
    }

    /// How many bytes it has.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a file without bytes is nothing special"
    )]
    pub fn len(&self) -> u64 {
        self.whole.source.len()
    }

    fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// The response to a request with this method and these headers.
    fn respond(mut self, method: &Method, asked: &HeaderMap) -> Response {
        let mut headers = std::mem::take(&mut self.headers);
        let mut chosen = &self.whole;
        if !self.variants.is_empty() {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            let find = |encoding| self.variants.iter().find(|(own, _)| *own == encoding);
            let encoding = encodings::choose(asked, |encoding| find(encoding).is_some());
            if let Some((encoding, variant)) = encoding.and_then(find) {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
                chosen = variant;
            }
        }
        let validators = Validators {
            etag: chosen.etag.as_deref(),
            modified: self.modified,
        };
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(Ok(etag)) = validators.etag.map(HeaderValue::from_str) {
            headers.insert(ETAG, etag);
        }
        if let Some(modified) = self.modified {
            let date = httpdate::fmt_http_date(whole_seconds(modified));
            if let Ok(date) = HeaderValue::try_from(date) {
                headers.insert(LAST_MODIFIED, date);
            }
        }
        if *method != Method::GET && *method != Method::HEAD {
            return chosen.send(headers, Ranges::All);
        }
        match validators.judge(asked) {
            Verdict::Send => {}
            Verdict::NotModified => return not_modified(headers),
            Verdict::Failed => {
                return Rejection::new(
                    StatusCode::PRECONDITION_FAILED,
                    "the file isn't what the client takes it for",
                )
                .into_response();
            }
        }
        // RFC 9110, section 14.2: only of a GET.
        let range = asked
            .get(RANGE)
            .filter(|_| *method == Method::GET && validators.ranges_apply(asked));
        let ranges = match range.map(HeaderValue::to_str) {
            Some(Ok(range)) => Ranges::parse(range, chosen.source.len()),
            _ => Ranges::All,
        };
        chosen.send(headers, ranges)
    }
}

impl IntoResponse for File {
    const NEEDS_REQUEST: bool = true;

    /// All of it.
    fn into_response(self) -> Response {
        self.respond(&Method::GET, &HeaderMap::new())
    }

    fn into_response_to(self, request: &Asked) -> Response {
        self.respond(request.method(), request.headers())
    }
}

impl Representation {
    fn of_bytes(content: Bytes) -> Self {
        // Its keys are fixed: all replicas of one program give one tag.
        let mut hasher = DefaultHasher::new();
        hasher.write(&content);
        let etag = format!("\"{:x}-{:x}\"", hasher.finish(), content.len());
        Self {
            source: Source::Memory(content),
            etag: Some(etag),
        }
    }

    fn of_file(path: &Path, suffix: &str) -> Result<(Self, Option<SystemTime>), Cause> {
        // What isn't a file isn't opened: that of a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(Cause::NotFound);
        }
        let file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        let len = metadata.len();
        let modified = metadata.modified().ok();
        let etag = modified.and_then(|modified| {
            let age = modified.duration_since(UNIX_EPOCH).ok()?;
            Some(format!("\"{:x}-{len:x}{suffix}\"", age.as_nanos()))
        });
        let source = Source::Disk {
            file: Arc::new(file),
            len,
        };
        Ok((Self { source, etag }, modified))
    }

    fn send(&self, headers: HeaderMap, ranges: Ranges) -> Response {
        match ranges {
            Ranges::All => self.send_span(
                headers,
                Span {
                    start: 0,
                    end: self.source.len(),
                },
            ),
            Ranges::Some(spans) => match *spans {
                [span] => {
                    let mut response = self.send_span(headers, span);
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    let range = self.content_range(span);
                    if let Ok(range) = HeaderValue::try_from(range) {
                        response.headers_mut().insert(CONTENT_RANGE, range);
                    }
                    response
                }
                _ => self.send_spans(headers, &spans),
            },
            Ranges::Unsatisfiable => {
                let rejection = Rejection::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "the file ends before the range",
                );
                match HeaderValue::try_from(format!("bytes */{}", self.source.len())) {
                    Ok(range) => rejection.with_header(CONTENT_RANGE, range).into_response(),
                    Err(_) => rejection.into_response(),
                }
            }
        }
    }

    fn send_span(&self, headers: HeaderMap, span: Span) -> Response {
        self.send_pieces(headers, vec![Piece::Span(span)])
    }

    /// RFC 9110, section 14.6: each span is a part with headers of its own.
    fn send_spans(&self, mut headers: HeaderMap, spans: &[Span]) -> Response {
        let random = || RandomState::new().build_hasher().finish();
        let boundary = format!("{:016x}{:016x}", random(), random());
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/octet-stream");
        let mut pieces = Vec::with_capacity(2 * spans.len() + 1);
        for (at, &span) in spans.iter().enumerate() {
            let line = if at == 0 { "" } else { "\r\n" };
            let range = self.content_range(span);
            let head = format!(
                "{line}--{boundary}\r\ncontent-type: {content_type}\r\ncontent-range: {range}\r\n\r\n"
            );
            pieces.push(Piece::Text(head.into()));
            pieces.push(Piece::Span(span));
        }
        pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
        if let Ok(value) =
            HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"))
        {
            headers.insert(CONTENT_TYPE, value);
        }
        let mut response = self.send_pieces(headers, pieces);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response
    }

    fn send_pieces(&self, mut headers: HeaderMap, pieces: Vec<Piece>) -> Response {
        let pieces = Pieces::new(self.source.clone(), pieces);
        if let Some(len) = http_body::Body::size_hint(&pieces).exact() {
            headers.insert(CONTENT_LENGTH, len.into());
        }
        let mut response = Response::new(Body::new(pieces));
        *response.headers_mut() = headers;
        response
    }

    fn content_range(&self, span: Span) -> String {
        format!(
            "bytes {}-{}/{}",
            span.start,
            span.end - 1,
            self.source.len()
        )
    }
}

/// RFC 9110, section 15.4.5: what describes the content is left out, as there is none.
fn not_modified(mut headers: HeaderMap) -> Response {
    for name in [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_DISPOSITION,
        ACCEPT_RANGES,
    ] {
        headers.remove(name);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = headers;
    response
}

/// The type that a name tells.
fn typed(name: &Path) -> HeaderMap {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    // All that is written today is UTF-8, and without being told browsers take it for something else.
    let charset = guess.type_() == mime_guess::mime::TEXT && guess.get_param("charset").is_none();
    let value = if charset {
        Cow::Owned(format!("{guess}; charset=utf-8"))
    } else {
        Cow::Borrowed(guess.as_ref())
    };
    let value = HeaderValue::from_str(&value)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    HeaderMap::from_iter([(CONTENT_TYPE, value)])
}

/// RFC 6266: the name in ASCII for old clients, and as it is for all others.
fn attachment(name: &str) -> HeaderValue {
    const NOT_IN_VALUES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
    let ascii: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '/' => '_',
            c if c.is_ascii_graphic() || c == ' ' => c,
            _ => '_',
        })
        .collect();
    let mut value = format!("attachment; filename=\"{ascii}\"");
    if ascii != name {
        let encoded = utf8_percent_encode(name, NOT_IN_VALUES);
        value.push_str(&format!("; filename*=UTF-8''{encoded}"));
    }
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_type() {
        let tell = |name: &str| {
            typed(Path::new(name))[CONTENT_TYPE]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(tell("a/page.html"), "text/html; charset=utf-8");
        assert_eq!(tell("app.js"), "text/javascript; charset=utf-8");
        assert_eq!(tell("photo.JPG"), "image/jpeg");
        assert_eq!(tell("unknown"), "application/octet-stream");
    }

    #[test]
    fn a_download_s_name_is_told_whatever_is_in_it() {
        assert_eq!(attachment("a b.txt"), "attachment; filename=\"a b.txt\"");
        assert_eq!(
            attachment("é\"\r\n.txt"),
            "attachment; filename=\"____.txt\"; filename*=UTF-8''%C3%A9%22%0D%0A.txt"
        );
    }
}
