//! What the macros make of handlers.
//!
//! `#[get]` and its like implement [`Handler`] for a free function, `#[resource]` implements [`Resource`] for a type. An
//! application needn't name anything here; who writes a route without the macros may.
//!
//! # Example
//!
//! ```
//! use tower_web::handler::{Handler, Place, Routes, RouteSpec};
//! use tower_web::{App, Method};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     fn register(routes: &mut Routes<()>) {
//!         let place = Place::new("Hello", file!(), line!());
//!         routes.add(RouteSpec::new(Method::GET, "/hello/{name}", place), |_, mut call| async move {
//!             let name: String = match call.capture(0, "name") {
//!                 Ok(name) => name,
//!                 Err(problem) => return call.refuse(problem),
//!             };
//!             call.respond(format!("hello, {name}"))
//!         });
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let client = App::new().route(Hello).test();
//! client.get("/hello/world").await.assert_text("hello, world");
//! # }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::body::Body;
use crate::captures::{self, FromCapture};
use crate::extract::{BodyUse, Extract, RequestHead, Requirements};
use crate::layered::{BoxFuture, ErasedLayer, erase};
use crate::problem::{FieldError, IntoProblem, Problem};
use crate::respond::{Asked, IntoResponse, Response};
use crate::routing::RouteInfo;

mod asking;
mod building;
mod reply;

pub use self::asking::{Ask, AskNothing, beside, extractor};
pub use self::building::{PathBuilder, ToSegment};
use self::reply::Brief;
pub use self::reply::{Reply, reply};

/// A route without a resource. `#[get("/…")]` and its like implement it for the future of a function.
pub trait Handler {
    /// Adds the route.
    fn register(routes: &mut Routes<()>);
}

/// What [`App::route`](crate::App::route) takes: a [`Handler`], or an asynchronous function whose future is one.
///
/// `Shape` tells functions with different numbers of arguments apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't a route",
    label = "not a route",
    note = "write `#[get(\"/path\")]` or its like above the function",
    note = "a value whose `impl` has `#[resource]` is added by `App::resource`"
)]
pub trait IntoHandler<Shape> {
    /// The handler that it is.
    type Handler: Handler;
}

impl<H: Handler> IntoHandler<()> for H {
    type Handler = H;
}

macro_rules! functions {
    ($(($($argument:ident),*))*) => {$(
        impl<F, R, $($argument),*> IntoHandler<fn($($argument),*) -> R> for F
        where
            F: Fn($($argument),*) -> R,
            R: Handler,
        {
            type Handler = R;
        }
    )*};
}

functions! {
    ()
    (A)
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, G)
    (A, B, C, D, E, G, H)
    (A, B, C, D, E, G, H, I)
    (A, B, C, D, E, G, H, I, J)
    (A, B, C, D, E, G, H, I, J, K)
    (A, B, C, D, E, G, H, I, J, K, L)
    (A, B, C, D, E, G, H, I, J, K, L, M)
}

/// A type whose methods are routes. `#[resource("/…")]` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't a resource",
    label = "not a resource",
    note = "write `#[resource(\"/prefix\")]` above its `impl`",
    note = "a function with `#[get(\"/path\")]` or its like is added by `App::route`"
)]
pub trait Resource: Sized + Send + Sync + 'static {
    /// Adds the routes of its methods.
    fn register(routes: &mut Routes<Self>);
}

/// Where a route was written, for whoever has to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    name: &'static str,
    file: &'static str,
    line: u32,
}

impl Place {
    /// A function or method, and where it stands.
    pub const fn new(name: &'static str, file: &'static str, line: u32) -> Self {
        Self { name, file, line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}:{})", self.name, self.file, self.line)
    }
}

/// Which requests a route answers, and how.
#[must_use]
pub struct RouteSpec {
    pub(crate) answers: Answers,
    pub(crate) path: String,
    pub(crate) place: Place,
    pub(crate) body_limit: Option<u64>,
    pub(crate) handler_timeout: Option<Option<Duration>>,
    pub(crate) layers: Vec<ErasedLayer>,
    pub(crate) requirements: Requirements,
    #[cfg(feature = "openapi")]
    pub(crate) description: Option<crate::openapi::Description>,
}

/// Which methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answers {
    One(Method),
    Any,
    /// Whatever no route answers below its path.
    Fallback,
}

impl RouteSpec {
    /// Requests with this method.
    pub fn new(method: Method, path: &str, place: Place) -> Self {
        Self::with_answers(Answers::One(method), path, place)
    }

    /// Requests with any method that no other route of this path answers.
    pub fn any(path: &str, place: Place) -> Self {
        Self::with_answers(Answers::Any, path, place)
    }

    /// Requests below this path that no route answers.
    pub fn fallback(path: &str, place: Place) -> Self {
        Self::with_answers(Answers::Fallback, path, place)
    }

    fn with_answers(answers: Answers, path: &str, place: Place) -> Self {
        Self {
            answers,
            path: path.to_owned(),
            place,
            body_limit: None,
            handler_timeout: None,
            layers: Vec::new(),
            requirements: Requirements::default(),
            #[cfg(feature = "openapi")]
            description: None,
        }
    }

    /// With what the document of the API says of it.
    #[cfg(feature = "openapi")]
    pub fn describe(
        mut self,
        about: crate::openapi::About,
        describe: fn(&mut crate::openapi::Operation<'_>),
    ) -> Self {
        self.description = Some(crate::openapi::Description { about, describe });
        self
    }

    /// With another limit of the request's body than the application's, in bytes.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = Some(bytes);
        self
    }

    /// With another time for its handler than the application's, or with none.
    ///
    /// In an application with layers the handler's deadline may be the longest of all routes' until the layers have let the
    /// request through.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = Some(timeout.into());
        self
    }

    /// With a layer, inside those that it has.
    pub fn layer<L, S, B>(mut self, layer: L) -> Self
    where
        L: tower_layer::Layer<crate::Next, Service = S> + Send + 'static,
        S: tower_service::Service<crate::Request, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<crate::BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<crate::BoxError>,
    {
        self.layers.push(erase(layer));
        self
    }

    /// With what its arguments require of the application.
    pub fn ask(mut self, ask: impl FnOnce(&mut Requirements)) -> Self {
        ask(&mut self.requirements);
        self
    }
}

impl fmt::Debug for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteSpec")
            .field("answers", &self.answers)
            .field("path", &self.path)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Collects the routes of a resource, or of a free function.
pub struct Routes<T> {
    resource: Arc<T>,
    pub(crate) layers: Vec<ErasedLayer>,
    pub(crate) routes: Vec<(RouteSpec, Arc<dyn Endpoint>)>,
}

impl<T: Send + Sync + 'static> Routes<T> {
    pub(crate) fn new(resource: T) -> Self {
        Self {
            resource: Arc::new(resource),
            layers: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Adds a route, answered by `run`.
    pub fn add<F, Fut>(&mut self, spec: RouteSpec, run: F)
    where
        F: Fn(Arc<T>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send + 'static,
    {
        let resource = Arc::clone(&self.resource);
        self.routes.push((spec, Arc::new(Bound { resource, run })));
    }

    /// The same, where `run` takes of a request what it needs before it makes its future, which is cheaper to move then.
    pub fn add_brief<F, Fut>(&mut self, spec: RouteSpec, run: F)
    where
        F: Fn(Arc<T>, &mut Option<Call>) -> Option<Fut> + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send + 'static,
    {
        let resource = Arc::clone(&self.resource);
        self.routes.push((spec, Arc::new(Brief { resource, run })));
    }

    /// Puts one layer around all routes of this resource, inside those that it has.
    pub fn layer<L, S, B>(&mut self, layer: L)
    where
        L: tower_layer::Layer<crate::Next, Service = S> + Send + 'static,
        S: tower_service::Service<crate::Request, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<crate::BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<crate::BoxError>,
    {
        self.layers.push(erase(layer));
    }
}

impl<T> fmt::Debug for Routes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.routes.iter().map(|(spec, _)| spec))
            .finish()
    }
}

/// A handler whose type is erased. The future is the one allocation that a request costs.
pub(crate) trait Endpoint: Send + Sync {
    /// Takes the call out of its place, as moving it is what costs most on its way.
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response>;

    /// The layers that it has, around what stands in its place.
    fn around(&self, inside: Arc<dyn Endpoint>) -> Arc<dyn Endpoint> {
        inside
    }
}

/// What is left where a call was taken already: nothing, for ever. It doesn't happen.
pub(crate) fn taken() -> BoxFuture<Response> {
    Box::pin(pending())
}

struct Bound<T, F> {
    resource: Arc<T>,
    run: F,
}

impl<T, F, Fut> Endpoint for Bound<T, F>
where
    T: Send + Sync,
    F: Fn(Arc<T>, Call) -> Fut + Send + Sync,
    Fut: Future<Output = Response> + Send + 'static,
{
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(call) = call.take() else {
            return taken();
        };
        Box::pin((self.run)(Arc::clone(&self.resource), call))
    }
}

/// A request on its way into a handler: its arguments are taken out of it one by one.
pub struct Call {
    pub(crate) head: RequestHead,
    pub(crate) body: Body,
}

impl Call {
    /// The request without its body.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// The capture at this position of the path.
    ///
    /// # Errors
    ///
    /// What doesn't parse is a 400 that names the capture.
    pub fn capture<T: FromCapture>(
        &self,
        position: usize,
        name: &'static str,
    ) -> Result<T, Problem> {
        captures::capture(&self.head, position, name).map_err(IntoProblem::into_problem)
    }

    /// The text of the capture at this position of the path, decoded.
    ///
    /// # Errors
    ///
    /// What isn't UTF-8 is a 400 that names the capture.
    pub fn text(&self, position: usize, name: &'static str) -> Result<Cow<'_, str>, Problem> {
        captures::decode(&self.head, position, name).map_err(IntoProblem::into_problem)
    }

    /// A handler's only argument by type.
    ///
    /// # Errors
    ///
    /// Where the extractor refuses the request.
    pub async fn argument<T: Extract>(&mut self) -> Result<T, Problem> {
        let body = T::Body::late(&mut self.body);
        T::extract(&mut self.head, body)
            .await
            .map_err(IntoProblem::into_problem)
    }

    /// The response to a request that an argument refuses. It is logged, with the route and the field.
    #[cold]
    pub fn refuse(&mut self, problem: Problem) -> Response {
        let field = problem.errors().first();
        tracing::warn!(
            route = self.head.route().unwrap_or_default(),
            status = problem.status().as_u16(),
            location = field.map(|field| field.location().to_string()),
            field = field.map(FieldError::name),
            detail = problem.detail(),
            cause = problem.source().map(tracing::field::display),
            "request refused"
        );
        problem.told().into_response()
    }

    /// The response that a handler has returned. A failure's cause is logged, as it isn't sent.
    #[inline]
    pub fn respond<R: IntoResponse>(&mut self, returned: R) -> Response {
        let mut response = if R::NEEDS_REQUEST {
            returned.into_response_to(&Asked::new(&self.head))
        } else {
            // The memory of the request's headers serves the response's: most have no others.
            let mut headers = std::mem::take(&mut self.head.parts.headers);
            headers.clear();
            returned.into_response_in(headers)
        };
        if !response.extensions().is_empty() {
            log_cause(self.head.route.info.as_deref(), &mut response);
        }
        response
    }
}

/// Logs the cause of the problem that a response is, unless that was done further inside.
#[cold]
pub(crate) fn log_cause(route: Option<&RouteInfo>, response: &mut Response) {
    let Some(problem) = response.extensions_mut().get_mut::<Problem>() else {
        return;
    };
    if !problem.tell() {
        return;
    }
    let Some(cause) = problem.source() else {
        return;
    };
    let route = route.map(RouteInfo::pattern);
    let status = problem.status().as_u16();
    // What the client has done wrong isn't a failure of the service, and as often as the client likes.
    if problem.status().is_server_error() {
        tracing::error!(route, status, cause = %Chain(cause), "a handler failed");
    } else {
        tracing::warn!(route, status, cause = %Chain(cause), "a handler refused");
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("head", &self.head)
            .field("body", &self.body)
            .finish()
    }
}

/// An error and its sources, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
