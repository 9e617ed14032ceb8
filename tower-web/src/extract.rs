//! How handlers get their arguments.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::body::{Body, BodyError};
use crate::captures::Captures;
use crate::problem::{IntoProblem, Problem, Rejection};
use crate::routing::RouteInfo;
use crate::shutdown::Shutdown;

/// An argument of a handler: made from a request.
///
/// Arguments may stand in any order. Those that take the body are made last, so that a request is refused for
/// its credentials before its body is read.
///
/// # Implementing
///
/// [`Body`](Self::Body) says whether it takes the body, and thereby what `extract` is given: nothing with
/// [`NoBody`], the body with [`WholeBody`]. Two arguments that take it don't compile.
///
/// An extractor that is made of others calls theirs, and passes on what they [require](Self::require). With the feature `validate`,
/// `Json::<NewUser>::extract` checks the rules of `NewUser`. With the feature `openapi`, the document tells of it what it says in its
/// `Describe`, and the problems of a [`Rejection`](Self::Rejection) with `#[derive(Problem)]`.
///
/// **Cancellation.** The future is dropped when the client goes away.
///
/// # Example
///
/// ```
/// use tower_web::StatusCode;
/// use tower_web::extract::{Extract, NoBody, RequestHead};
/// use tower_web::problem::{Location, Rejection};
///
/// struct Tenant(String);
///
/// impl Extract for Tenant {
///     type Body = NoBody;
///     type Rejection = Rejection;
///
///     async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Rejection> {
///         match head.headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok()) {
///             Some(tenant) => Ok(Self(tenant.to_owned())),
///             None => Err(Rejection::new(StatusCode::BAD_REQUEST, "is missing").at(Location::Header, "x-tenant")),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut head, _) = RequestHead::new(http::Request::get("/").header("x-tenant", "acme").body(()).unwrap());
/// let tenant = Tenant::extract(&mut head, ()).await.unwrap();
/// assert_eq!(tenant.0, "acme");
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler can't take `{Self}` from a request",
    label = "not an extractor",
    note = "a capture is bound by its name: an argument `id` takes `{{id}}` of the path",
    note = "everything else is bound by its type: `Json<_>`, `Query<_>`, `HeaderMap`, `Bytes`, …",
    note = "or implement `tower_web::Extract` for your type"
)]
pub trait Extract: Sized + Send {
    /// [`NoBody`] or [`WholeBody`]: whether it takes the body.
    type Body: BodyUse;

    /// What it refuses requests with.
    type Rejection: IntoProblem + Send;

    /// Makes it from the request. `body` is `()` or the [`Body`], as [`Body`](Self::Body) says.
    fn extract(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;

    /// Says what the application must provide for it. It is asked when the application is built.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

/// What [`Extract::extract`] is given of the body: `()` or all of it.
pub type Given<E> = <<E as Extract>::Body as BodyUse>::Given;

/// An extractor for which absence isn't an error: `Option` of it is an argument, too.
///
/// `None` means that the thing is absent. One that is there and is malformed is refused.
#[diagnostic::on_unimplemented(
    message = "a handler can't take `Option<{Self}>` from a request",
    label = "is never absent, or doesn't say when it is",
    note = "implement `tower_web::extract::OptionalExtract` for it, or take it without `Option`"
)]
pub trait OptionalExtract: Extract {
    /// Makes it from the request, or `None` where it is absent.
    fn extract_optional(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Option<Self>, Self::Rejection>> + Send;
}

impl<T: OptionalExtract> Extract for Option<T> {
    type Body = T::Body;
    type Rejection = T::Rejection;

    fn extract(
        head: &mut RequestHead,
        body: Given<Self>,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send {
        T::extract_optional(head, body)
    }
}

/// The handler gets the refusal, and may answer as it likes.
impl<T> Extract for Result<T, T::Rejection>
where
    T: Extract,
    T::Rejection: Send,
    Given<T>: Send,
{
    type Body = T::Body;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, body: Given<Self>) -> Result<Self, Self::Rejection> {
        Ok(T::extract(head, body).await)
    }

    fn require(requirements: &mut Requirements) {
        T::require(requirements);
    }
}

/// Whether an extractor takes the body: [`NoBody`] or [`WholeBody`].
pub trait BodyUse: Beside<NoBody> + sealed::Sealed + Send + 'static {
    /// What the extractor is given.
    type Given: Send;

    /// What it is given before the body is touched, or `None` if it has to wait for its turn.
    #[doc(hidden)]
    fn early() -> Option<Self::Given>;

    /// What it is given in its turn.
    #[doc(hidden)]
    fn late(body: &mut Body) -> Self::Given;
}

/// Of an extractor that leaves the body alone.
#[derive(Debug, Clone, Copy)]
pub enum NoBody {}

/// Of an extractor that takes the body. A handler has one at most.
#[derive(Debug, Clone, Copy)]
pub enum WholeBody {}

impl BodyUse for NoBody {
    type Given = ();

    fn early() -> Option<()> {
        Some(())
    }

    fn late(_: &mut Body) {}
}

impl BodyUse for WholeBody {
    type Given = Body;

    fn early() -> Option<Body> {
        None
    }

    fn late(body: &mut Body) -> Body {
        std::mem::take(body)
    }
}

/// Says that two arguments of a handler can stand beside each other: not both take the body.
#[diagnostic::on_unimplemented(
    message = "two arguments take the request's body",
    label = "the body is taken by another argument already",
    note = "a body can be read once: take it as `Bytes` and parse it in the handler, or put both into one type"
)]
pub trait Beside<Other> {}

impl<Other: BodyUse> Beside<Other> for NoBody {}
impl Beside<NoBody> for WholeBody {}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "whoever can't name it can't implement `BodyUse`"
    )]
    pub trait Sealed {}
    impl Sealed for super::NoBody {}
    impl Sealed for super::WholeBody {}
}

/// What the application must provide for its handlers' arguments.
#[derive(Debug, Default)]
pub struct Requirements {
    extensions: Vec<(TypeId, &'static str)>,
    connect_info: bool,
}

impl Requirements {
    /// A layer must put a `T` into the extensions of each request, and [`App::provide`](crate::App::provide) must say so.
    pub fn extension<T: 'static>(&mut self) {
        let needed = (TypeId::of::<T>(), std::any::type_name::<T>());
        if !self.extensions.contains(&needed) {
            self.extensions.push(needed);
        }
    }

    /// The server must put its facts about the connection into the extensions of each request for this route, as
    /// `ConnectInfo`.
    pub fn connect_info(&mut self) {
        self.connect_info = true;
    }

    #[cfg(feature = "server")]
    pub(crate) fn wants_connect_info(&self) -> bool {
        self.connect_info
    }

    pub(crate) fn extensions(&self) -> &[(TypeId, &'static str)] {
        &self.extensions
    }
}

/// A request without its body: the [`Parts`], to which it dereferences, and what the router knows.
pub struct RequestHead {
    pub(crate) parts: Parts,
    pub(crate) route: Route,
}

/// What the router knows of a request.
#[derive(Clone, Default)]
pub(crate) struct Route {
    pub(crate) info: Option<Arc<RouteInfo>>,
    pub(crate) captures: Captures,
}

impl RequestHead {
    /// A request that no router has seen, for tests of an extractor.
    pub fn new<B>(request: http::Request<B>) -> (Self, B) {
        let (parts, body) = request.into_parts();
        let route = Route::default();
        (Self { parts, route }, body)
    }

    /// The path of the route, as `/users/{id}`.
    pub fn route(&self) -> Option<&str> {
        self.route.info.as_ref().map(|info| info.pattern())
    }

    /// What a capture of the route has caught, as it stands in the path: percent-encoded.
    pub fn capture(&self, name: &str) -> Option<&str> {
        let position = self
            .route
            .info
            .as_ref()?
            .capture_names()
            .iter()
            .position(|own| own == name)?;
        self.capture_at(position)
    }

    /// The same by position.
    pub(crate) fn capture_at(&self, position: usize) -> Option<&str> {
        self.parts
            .uri
            .path()
            .get(self.route.captures.range(position)?)
    }

    /// Tells when the application shuts down.
    pub fn shutdown(&self) -> Option<Shutdown> {
        self.route.info.as_ref().map(|info| info.shutdown())
    }
}

impl Deref for RequestHead {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl DerefMut for RequestHead {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.parts
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.parts.method)
            .field("uri", &self.parts.uri)
            .field("route", &self.route())
            .finish_non_exhaustive()
    }
}

/// The whole request, by default with [our body](Body).
pub type Request<B = Body> = http::Request<B>;

impl Extract for Request {
    type Body = WholeBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Self::Rejection> {
        // It comes last, as all that take the body: nobody misses what is taken here.
        let mut parts = Request::new(()).into_parts().0;
        std::mem::swap(&mut parts, &mut head.parts);
        Ok(Self::from_parts(parts, body))
    }
}

impl Extract for Body {
    type Body = WholeBody;
    type Rejection = std::convert::Infallible;

    async fn extract(_: &mut RequestHead, body: Self) -> Result<Self, Self::Rejection> {
        Ok(body)
    }
}

impl Extract for Bytes {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(_: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        Ok(body.bytes().await?)
    }
}

impl Extract for Vec<u8> {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(_: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        Ok(body.bytes().await?.into())
    }
}

impl Extract for String {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(_: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let bytes = body.bytes().await?;
        Self::from_utf8(bytes.into())
            .map_err(|_| Rejection::new(StatusCode::BAD_REQUEST, "the body isn't UTF-8"))
    }
}

/// What a body is read into, or `None` where there is none: it is empty, and nothing says what it would be.
pub(crate) async fn unless_absent<T>(
    head: &mut RequestHead,
    body: Body,
) -> Result<Option<T>, T::Rejection>
where
    T: Extract<Body = WholeBody>,
{
    if !head.headers.contains_key(CONTENT_TYPE) && http_body::Body::is_end_stream(&body) {
        return Ok(None);
    }
    T::extract(head, body).await.map(Some)
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        let too_large = |detail| Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
        match error {
            BodyError::TooLarge { .. } => too_large(error.to_string()),
            BodyError::Broken(_) if is_limit_of_a_layer(&error) => {
                too_large("the body is larger than may be".to_owned())
            }
            BodyError::Broken(_) if is_late(&error) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "the body didn't come in time")
                    .with_source(error)
            }
            BodyError::Broken(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "the body couldn't be read to its end",
            )
            .with_source(error),
        }
    }
}

/// Whether the server has given up waiting for the body.
#[cfg(feature = "server")]
fn is_late(error: &BodyError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(current) = source {
        if let Some(error) = current.downcast_ref::<tower_hyper::Error>() {
            return error.is_timeout();
        }
        source = current.source();
    }
    false
}

#[cfg(not(feature = "server"))]
fn is_late(_: &BodyError) -> bool {
    false
}

/// Whether a layer has limited the body, as that of tower-http does.
fn is_limit_of_a_layer(error: &BodyError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(current) = source {
        if current.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = current.source();
    }
    false
}

impl Extract for Method {
    type Body = NoBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Self::Rejection> {
        Ok(head.method.clone())
    }
}

impl Extract for Uri {
    type Body = NoBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Self::Rejection> {
        Ok(head.uri.clone())
    }
}

impl Extract for Version {
    type Body = NoBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Self::Rejection> {
        Ok(head.version)
    }
}

impl Extract for HeaderMap {
    type Body = NoBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Self::Rejection> {
        Ok(head.headers.clone())
    }
}

impl Extract for Shutdown {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        head.shutdown()
            .ok_or_else(|| Problem::internal("the request came by no route of an application"))
    }
}

/// The path of the route, as `/users/{id}`: what to name a request by in logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRoute(pub String);

impl Extract for MatchedRoute {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        match head.route() {
            Some(route) => Ok(Self(route.to_owned())),
            None => Err(Problem::internal(
                "the request came by no route of an application",
            )),
        }
    }
}

/// A value that a layer put into the request's extensions.
///
/// [`App::provide`](crate::App::provide) declares that one does, and the application isn't built without. Where a request
/// may come without it, take `Option<Extension<T>>`, which needs no declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<T>(pub T);

impl<T: Clone + Send + Sync + 'static> Extract for Extension<T> {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        match head.extensions.get::<T>() {
            Some(value) => Ok(Self(value.clone())),
            None => Err(Problem::internal(format!(
                "`provide` declares an extension of type `{}`, and no layer put one into this request",
                std::any::type_name::<T>()
            ))),
        }
    }

    fn require(requirements: &mut Requirements) {
        requirements.extension::<T>();
    }
}

impl<T: Clone + Send + Sync + 'static> OptionalExtract for Extension<T> {
    async fn extract_optional(head: &mut RequestHead, _: ()) -> Result<Option<Self>, Problem> {
        Ok(head.extensions.get::<T>().cloned().map(Self))
    }
}

impl<T> Deref for Extension<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
