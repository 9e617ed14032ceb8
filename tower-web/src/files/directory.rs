//! A directory of files.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ALLOW, CACHE_CONTROL, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::task::spawn_blocking;
use tower_service::Service;

use super::{Cause, File};
use crate::extract::{Request, RequestHead};
use crate::problem::Rejection;
use crate::respond::{Asked, IntoResponse, Response};

/// The files below a directory, for `App::mount`, or for a handler that [opens](Self::open) them.
///
/// Nothing outside of the directory is ever sent: a path with `..`, a NUL, a backslash or an empty part is no file's, and
/// neither is one that leads outside by a symbolic link. Names that begin with a dot are hidden, all but `.well-known`.
/// Directories aren't listed.
///
/// A file is sent with all that [`File`] does.
///
/// **Readiness.** Always. **Errors.** None: all of them are responses.
///
/// # Example
///
/// ```
/// use tower_web::App;
/// use tower_web::files::Files;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().mount("/source", Files::new("src")).test();
/// client.get("/source/lib.rs").await.assert_status(200);
/// client.get("/source/lib.rs").header("range", "bytes=0-2").await.assert_status(206).assert_text("//!");
/// client.get("/source/../Cargo.toml").await.assert_status(404);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Files {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Shared {
    root: PathBuf,
    index: Option<String>,
    fallback: Option<String>,
    hidden: bool,
    precompressed: bool,
    cache_control: Option<HeaderValue>,
}

/// What a path leads to.
enum Found {
    File(File),
    /// A directory with an index, whose path must end in a slash for the index's own links to be right.
    Directory,
}

impl Files {
    /// The files below this directory. An `index.html` stands for the directory that it is in.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                root: root.into(),
                index: Some("index.html".to_owned()),
                fallback: None,
                hidden: false,
                precompressed: false,
                cache_control: None,
            }),
        }
    }

    /// With another file that stands for its directory.
    #[must_use]
    pub fn with_index(self, name: impl Into<String>) -> Self {
        self.with(|shared| shared.index = Some(name.into()))
    }

    /// Without files that stand for their directories.
    #[must_use]
    pub fn without_index(self) -> Self {
        self.with(|shared| shared.index = None)
    }

    /// With a file, below the directory, that is sent where there is none: for a page that routes by itself.
    #[must_use]
    pub fn with_fallback(self, path: impl Into<String>) -> Self {
        self.with(|shared| shared.fallback = Some(path.into()))
    }

    /// With the files whose names begin with a dot.
    #[must_use]
    pub fn with_hidden(self) -> Self {
        self.with(|shared| shared.hidden = true)
    }

    /// With encodings that are kept ready: where `app.js.br` or `app.js.gz` stands beside `app.js` and isn't older, it is
    /// sent to clients that take it.
    ///
    /// Not for a directory that others put files into: one of them would speak for another.
    #[must_use]
    pub fn with_precompressed(self) -> Self {
        self.with(|shared| shared.precompressed = true)
    }

    /// With how long clients may keep them: `max-age=3600`, or `immutable, max-age=31536000` for names that change with
    /// what is in the files. Otherwise a client keeps them as it likes, and asks whether they have changed.
    #[must_use]
    pub fn with_cache_control(self, value: &'static str) -> Self {
        self.with(|shared| shared.cache_control = Some(HeaderValue::from_static(value)))
    }

    fn with(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// The file at a path below the directory, as a request has it: decoded, with slashes.
    ///
    /// # Errors
    ///
    /// A 404 where there is none, or none that may be sent; a 400 where a path has a NUL; a 500 where it can't be read.
    pub async fn open(&self, path: &str) -> Result<File, Rejection> {
        match self.find(path).await? {
            Found::File(file) => Ok(file),
            Found::Directory => Err(super::not_found()),
        }
    }

    async fn find(&self, path: &str) -> Result<Found, Rejection> {
        let shared = Arc::clone(&self.shared);
        let path = path.to_owned();
        match spawn_blocking(move || shared.find(&path)).await {
            Ok(found) => found.map_err(Cause::reject),
            Err(error) => Err(Cause::Io(io::Error::other(error)).reject()),
        }
    }

    async fn answer(self, request: Request) -> Response {
        let method = request.method();
        if method == Method::OPTIONS {
            return (StatusCode::NO_CONTENT, [(ALLOW, ALLOWED)], ()).into_response();
        }
        if method != Method::GET && method != Method::HEAD {
            return Rejection::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "files can only be fetched here",
            )
            .with_header(ALLOW, HeaderValue::from_static(ALLOWED))
            .into_response();
        }
        let (head, _) = RequestHead::new(request);
        let found = match percent_decode_str(head.uri.path()).decode_utf8() {
            Ok(path) => self.find(path.strip_prefix('/').unwrap_or(&path)).await,
            Err(_) => Err(Cause::Malformed.reject()),
        };
        match found {
            Ok(Found::File(file)) => file.into_response_to(&Asked::new(&head)),
            Ok(Found::Directory) => with_slash(head.uri.path()),
            Err(rejection) => rejection.into_response(),
        }
    }
}

const ALLOWED: &str = "GET, HEAD, OPTIONS";

/// Sends a client to the same path with a slash behind it. Relative, as we don't know where we are mounted.
fn with_slash(path: &str) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default();
    // The `./` keeps a name with a colon from being a scheme. It is as it was in the request's path.
    match HeaderValue::try_from(format!("./{name}/")) {
        Ok(location) => {
            (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)], ()).into_response()
        }
        Err(_) => super::not_found().into_response(),
    }
}

impl Shared {
    fn find(&self, path: &str) -> Result<Found, Cause> {
        match self.find_exactly(path) {
            Err(Cause::NotFound) => match &self.fallback {
                Some(fallback) if self.is_clean(path) => self.find_exactly(fallback),
                _ => Err(Cause::NotFound),
            },
            found => found,
        }
    }

    fn find_exactly(&self, path: &str) -> Result<Found, Cause> {
        if path.contains('\0') {
            return Err(Cause::Malformed);
        }
        if !self.is_clean(path) {
            return Err(Cause::NotFound);
        }
        let root = self.root.canonicalize()?;
        let file = within(&root, Path::new(path))?;
        if !fs::metadata(&file)?.is_dir() {
            // A slash stands behind directories only.
            return if path.ends_with('/') {
                Err(Cause::NotFound)
            } else {
                self.open(&root, &file)
            };
        }
        let index = self.index.as_deref().ok_or(Cause::NotFound)?;
        let index = within(&root, &file.join(index))?;
        if path.is_empty() || path.ends_with('/') {
            self.open(&root, &index)
        } else {
            Ok(Found::Directory)
        }
    }

    /// Whether each part of the path is the name of something that may be sent. The last may be empty.
    fn is_clean(&self, path: &str) -> bool {
        let path = path.strip_suffix('/').unwrap_or(path);
        path.is_empty() || path.split('/').all(|part| self.is_name(part))
    }

    fn is_name(&self, part: &str) -> bool {
        let hidden = part.starts_with('.') && part != ".well-known";
        // No file system has longer names, and a colon would name a drive or a stream of Windows.
        (1..=255).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.contains(['\\', '\0'])
            && (cfg!(not(windows)) || !part.contains(':'))
            && (self.hidden || !hidden)
    }

    fn open(&self, root: &Path, path: &Path) -> Result<Found, Cause> {
        let mut file = File::read_head(path)?;
        if self.precompressed {
            file.find_variants(path, |variant| within(root, variant).is_ok());
        }
        if let Some(value) = &self.cache_control {
            file.set_header(CACHE_CONTROL, value.clone());
        }
        Ok(Found::File(file))
    }
}

/// The real path of a file below the root, whatever links it has been reached by.
fn within(root: &Path, path: &Path) -> Result<PathBuf, Cause> {
    let real = root.join(path).canonicalize()?;
    if real.starts_with(root) {
        Ok(real)
    } else {
        Err(Cause::NotFound)
    }
}

impl Service<Request> for Files {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let files = self.clone();
        Box::pin(async move { Ok(files.answer(request).await) })
    }
}
