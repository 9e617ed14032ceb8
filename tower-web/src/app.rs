//! The application.

use std::any::TypeId;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::request::Parts;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::defaults::Defaults;
use crate::defaults::current::AppId;
use crate::defaults::shell::Shared;
use crate::extract::{Request, Requirements};
use crate::handler::{Answers, Endpoint, Handler, IntoHandler, Resource, Routes};
use crate::health::{Check, Health};
use crate::layered::{BoxFuture, Erased, ErasedLayer, Next, erase, wrap};
use crate::pattern::Pattern;
use crate::problem::{OnProblem, Problem, ProblemFacts};
use crate::respond::IntoResponse;
use crate::routing::{
    Around, Draft, Inside, Mounted, Router, Settings, TrailingSlash, Where, check_requirements,
};
use crate::shutdown::ShutdownSource;

mod answering;
#[cfg(feature = "openapi")]
mod described;

pub use self::answering::{AppFuture, AppService};
use self::answering::{Built, Core, Hooks};

/// How large a request's body may be, unless the application or the route says otherwise: 2 MB.
pub const DEFAULT_BODY_LIMIT: u64 = 2 * 1024 * 1024;

/// An application: its routes, the layers around them, and how it begins and ends.
///
/// The order in which routes and layers are added to each other doesn't matter. Layers stand in one list, the outermost first,
/// around everything: each route, mounted service and fallback, and what is answered without any.
///
/// # Answers without a route
///
/// `HEAD` is answered by the route for `GET`, without its body; `OPTIONS` by the list of the methods that there are. A path that
/// no route has is a 404, a method that a path doesn't have a 405 with `Allow`, a handler that panics a 500, a body that is too large a 413: all
/// of them [problems](struct@crate::Problem).
///
/// # Example
///
/// ```
/// use tower_web::prelude::*;
///
/// #[get("/hello/{name}")]
/// async fn hello(name: String) -> String {
///     format!("hello, {name}")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().route(hello).test();
/// client.get("/hello/world").await.assert_text("hello, world");
/// client.get("/nowhere").await.assert_status(404);
/// client.post("/hello/world").await.assert_status(405).assert_header("allow", "GET, HEAD, OPTIONS");
/// # }
/// ```
#[must_use = "an application does nothing until it is served"]
pub struct App {
    drafts: Vec<Draft>,
    layers: Vec<ErasedLayer>,
    rewrites: Vec<Rewrite>,
    provided: Vec<TypeId>,
    faults: Vec<String>,
    defaults: Defaults,
    /// Where the application itself, and not a default, says so.
    body_limit: Option<u64>,
    on_problem: Option<OnProblem>,
    ready_checks: Vec<(String, Check)>,
    trailing_slash: TrailingSlash,
    on_start: Vec<Hook>,
    on_shutdown: Vec<Hook>,
    #[cfg(feature = "openapi")]
    docs: crate::openapi::Docs,
}

type Rewrite = Box<dyn Fn(&mut Parts) + Send + Sync>;
type Hook = Box<dyn FnOnce() -> BoxFuture<Result<(), BoxError>> + Send>;

impl App {
    /// An application without routes: every path is a 404.
    pub fn new() -> Self {
        Self {
            drafts: Vec::new(),
            layers: Vec::new(),
            rewrites: Vec::new(),
            provided: Vec::new(),
            faults: Vec::new(),
            defaults: Defaults::new(),
            body_limit: None,
            on_problem: None,
            ready_checks: Vec::new(),
            trailing_slash: TrailingSlash::default(),
            on_start: Vec::new(),
            on_shutdown: Vec::new(),
            #[cfg(feature = "openapi")]
            docs: crate::openapi::Docs::default(),
        }
    }

    /// An application with [none](Defaults::none) of the [defaults](crate::defaults): for measuring what they cost, or for
    /// what stands behind a server that has them.
    pub fn bare() -> Self {
        Self::new().defaults(|_| Defaults::none())
    }

    /// Changes what is on without being asked for: see [`defaults`](crate::defaults) for what that is.
    pub fn defaults(mut self, change: impl FnOnce(Defaults) -> Defaults) -> Self {
        self.defaults = change(self.defaults);
        self
    }

    /// The [defaults](crate::defaults) as they have been changed so far.
    pub fn current_defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Writes all problems: those of handlers and extractors, 404 and 405, timeouts and limits, panics, and the errors of
    /// layers.
    ///
    /// The hook is given the problem, with the request's id in it, and some facts about the request. It
    /// stands outside of all layers. A response of a layer that isn't a problem any more doesn't come here. Its headers
    /// replace those of the response of the same name; others stay.
    ///
    /// ```
    /// use tower_web::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let app = App::new().on_problem(|problem, request| match request.accepts("text/html") {
    ///     true => (problem.status(), Html(format!("<h1>{}</h1>", problem.title()))).into_response(),
    ///     false => problem.clone().into_response(),
    /// });
    /// let client = app.test();
    /// client.get("/nowhere").await.assert_problem(404);
    /// let page = client.get("/nowhere").header("accept", "text/html,*/*;q=0.8").await;
    /// page.assert_status(404).assert_text("<h1>Not Found</h1>");
    /// # }
    /// ```
    pub fn on_problem<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(&Problem, &ProblemFacts<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.on_problem = Some(Box::new(move |problem, facts| {
            hook(problem, facts).into_response()
        }));
        self
    }

    /// Makes `/readyz` ask this, too: while it fails, an orchestrator sends no requests here.
    ///
    /// All checks run at once, for at most 5 seconds, and at most once a second, however often it is asked. Which have failed is
    /// told by name, and why is logged.
    ///
    /// ```
    /// use tower_web::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let client = App::new().ready_check("db", || async { Err("no route to host".into()) }).test();
    /// client.get("/livez").await.assert_status(200);
    /// let problem = client.get("/readyz").await.assert_problem(503);
    /// assert_eq!(problem["failed"][0], "db");
    /// # }
    /// ```
    pub fn ready_check<F, Fut>(mut self, name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let check: Check = Box::new(move || Box::pin(check()));
        self.ready_checks.push((name.into(), check));
        self
    }

    /// Adds a free function with `#[get("/…")]` or its like.
    pub fn route<H, Shape>(mut self, handler: H) -> Self
    where
        H: IntoHandler<Shape>,
    {
        // The type says it all.
        drop(handler);
        let mut routes = Routes::new(());
        H::Handler::register(&mut routes);
        self.add(routes);
        self
    }

    /// Adds a value whose type has an `impl` with `#[resource("/…")]`.
    pub fn resource<R: Resource>(mut self, resource: R) -> Self {
        let mut routes = Routes::new(resource);
        R::register(&mut routes);
        self.add(routes);
        self
    }

    fn add<T>(&mut self, routes: Routes<T>) {
        let Routes { layers, routes, .. } = routes;
        let shared = (!layers.is_empty()).then(|| wrap(layers, Next::new(Inside)));
        for (spec, mut endpoint) in routes {
            if !spec.layers.is_empty() {
                endpoint = Arc::new(Around {
                    layers: wrap(spec.layers, Next::new(Inside)),
                    endpoint,
                });
            }
            self.drafts.push(Draft {
                answers: spec.answers,
                path: spec.path,
                place: Where::Handler(spec.place),
                body_limit: spec.body_limit,
                handler_timeout: spec.handler_timeout,
                requirements: spec.requirements,
                #[cfg(feature = "openapi")]
                description: spec.description,
                endpoint: around(shared.as_ref(), endpoint),
            });
        }
    }

    /// Adds any Tower service, for all requests whose path begins with `prefix`, which the service doesn't see. The longest prefix
    /// wins, and a route wins over a prefix.
    ///
    /// Its errors become problems. Each request takes a clone of it.
    #[track_caller]
    pub fn mount<S, B>(mut self, prefix: &str, service: S) -> Self
    where
        S: Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let place = Where::Call("the service mounted", std::panic::Location::caller());
        let prefix = prefix.trim_end_matches('/');
        let endpoint: Arc<dyn Endpoint> = Arc::new(Mounted {
            service: Next::new(Erased(service)),
            segments: prefix.matches('/').count(),
        });
        let paths = [
            prefix.to_owned(),
            format!("{prefix}/"),
            format!("{prefix}/{{*mounted}}"),
        ];
        for path in paths.into_iter().filter(|path| !path.is_empty()) {
            self.drafts.push(Draft {
                answers: Answers::Any,
                path,
                place: place.clone(),
                body_limit: None,
                handler_timeout: None,
                requirements: Requirements::default(),
                #[cfg(feature = "openapi")]
                description: None,
                endpoint: Arc::clone(&endpoint),
            });
        }
        self
    }

    /// Adds all routes of another application below `prefix`, with its layers around them and its fallback for the paths
    /// below the prefix that none of them has. `/` in it is the prefix itself.
    ///
    /// What the other has set (rewriting, the policy of slashes, defaults, the hook for problems) doesn't come along; this
    /// application's holds. Its hooks of start and shutdown do, its checks of readiness, and its body limit for its own routes.
    ///
    /// Paths that are built (`Users::fetch_path(7)`) don't know of the prefix.
    #[track_caller]
    pub fn nest(mut self, prefix: &str, inner: Self) -> Self {
        let place = Where::Call("the application nested", std::panic::Location::caller());
        let prefix = prefix.trim_end_matches('/');
        if let Err(error) = Pattern::parse(if prefix.is_empty() { "/" } else { prefix }) {
            self.faults
                .push(format!("{place}: the prefix `{prefix}`: {error}"));
        }
        if !inner.rewrites.is_empty() {
            self.faults.push(format!(
                "{place} rewrites requests, and it is too late for that when they get there: let this application do it"
            ));
        }
        #[cfg(feature = "openapi")]
        self.take_docs(prefix, &inner.drafts, inner.docs);
        let shared = (!inner.layers.is_empty()).then(|| wrap(inner.layers, Next::new(Inside)));
        for draft in inner.drafts {
            let path = match &*draft.path {
                "/" if !prefix.is_empty() => prefix.to_owned(),
                path => format!("{prefix}{path}"),
            };
            self.drafts.push(Draft {
                path,
                body_limit: draft.body_limit.or(inner.body_limit),
                endpoint: around(shared.as_ref(), draft.endpoint),
                ..draft
            });
        }
        self.provided.extend(inner.provided);
        self.ready_checks.extend(inner.ready_checks);
        self.faults.extend(inner.faults);
        self.on_start.extend(inner.on_start);
        self.on_shutdown.extend(inner.on_shutdown);
        self
    }

    /// Answers what no route does. In a [nested](Self::nest) application, what none does below its prefix.
    ///
    /// `#[fallback]` above a free function makes a handler of it.
    pub fn fallback<H, Shape>(self, handler: H) -> Self
    where
        H: IntoHandler<Shape>,
    {
        self.route(handler)
    }

    /// Puts a layer around everything, inside those that were added before it.
    ///
    /// Any Tower layer will do, over any request body, whose service answers with any [`http_body::Body`] and fails with any error: an
    /// error becomes a problem as soon as it leaves the layer. Where one layer shall see the errors of another (a retry around a
    /// timeout), give both as one: `.layer((retry, timeout))`.
    ///
    /// **Cost.** A clone of the layer's service and a boxed future for each request.
    pub fn layer<L, S, B>(mut self, layer: L) -> Self
    where
        L: Layer<Next, Service = S> + Send + 'static,
        S: Service<Request, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.layers.push(erase(layer));
        self
    }

    /// Changes each request before a route is sought, inside all layers: another path, another method.
    pub fn rewrite<F>(mut self, rewrite: F) -> Self
    where
        F: Fn(&mut Parts) + Send + Sync + 'static,
    {
        self.rewrites.push(Box::new(rewrite));
        self
    }

    /// Declares that a layer puts a `T` into each request's extensions.
    ///
    /// A handler that takes [`Extension<T>`](crate::extract::Extension) without this declaration keeps the application from being
    /// built.
    pub fn provide<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.provided.push(TypeId::of::<T>());
        self
    }

    /// Limits the size of requests' bodies to so many bytes, by default [2 MB](DEFAULT_BODY_LIMIT). `#[body_limit(…)]` on a
    /// route replaces it there. What is larger is a 413.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = Some(bytes);
        self.defaults.body_limit = Some(bytes);
        self
    }

    /// What a slash more or less at the end of a path means.
    pub fn trailing_slash(mut self, policy: TrailingSlash) -> Self {
        self.trailing_slash = policy;
        self
    }

    /// Runs before the first request. Where it fails, the application doesn't start.
    pub fn on_start<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.on_start.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// Runs when the last request has been answered, in the reverse order of addition.
    pub fn on_shutdown<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.on_shutdown.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// Builds the application, once: all its connections share what its layers count.
    ///
    /// # Errors
    ///
    /// [`BuildError`] tells everything that is wrong: routes that conflict, with the places of both; paths that
    /// aren't any; extensions that nothing provides; with the feature `openapi`, what fits badly into the document.
    pub fn build(self) -> Result<AppService, BuildError> {
        let mut faults = self.faults;
        #[cfg(feature = "openapi")]
        let own = {
            described::check(&self.drafts, &self.docs, &mut faults);
            crate::openapi::own_routes(&self.drafts, self.docs)
        };
        check_requirements(&self.drafts, &self.provided, &mut faults);
        let shutdown = ShutdownSource::new();
        let app = AppId::new();
        let settings = Settings {
            app,
            body_limit: self.defaults.body_limit.unwrap_or(u64::MAX),
            handler_timeout: self.defaults.handler_timeout,
            trailing_slash: self.trailing_slash,
            shutdown: shutdown.clone(),
        };
        let is_taken = |path: &str| self.drafts.iter().any(|draft| draft.path == path);
        let health = self
            .defaults
            .health
            .then(|| Arc::new(Health::new(self.ready_checks, shutdown.clone(), is_taken)));
        let drafts = self.drafts;
        #[cfg(feature = "openapi")]
        let drafts = drafts.into_iter().chain(own).collect();
        let mut router = Router::new(drafts, &settings, &mut faults);
        if !faults.is_empty() {
            return Err(BuildError { faults });
        }
        #[cfg(feature = "server")]
        let drain_delay = self.defaults.drain_delay;
        let shared = Shared::new(app, self.defaults, self.on_problem, router.take_outlines());
        let core = Arc::new(Core {
            app,
            shorter_times: shared.shorter_times(),
            router,
            rewrites: self.rewrites,
        });
        let shared = shared.is_needed().then(|| Arc::new(shared));
        let layers =
            (!self.layers.is_empty()).then(|| wrap(self.layers, Next::new(Arc::clone(&core))));
        Ok(AppService {
            built: Arc::new(Built {
                core,
                layers,
                shared,
                health,
                #[cfg(feature = "server")]
                drain_delay,
                shutdown,
                hooks: std::sync::Mutex::new(Hooks {
                    on_start: self.on_start,
                    on_shutdown: self.on_shutdown,
                }),
            }),
        })
    }
}

fn around(layers: Option<&Next>, endpoint: Arc<dyn Endpoint>) -> Arc<dyn Endpoint> {
    match layers {
        Some(layers) => Arc::new(Around {
            layers: layers.clone(),
            endpoint,
        }),
        None => endpoint,
    }
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.drafts.iter().map(|draft| &draft.path);
        f.debug_struct("App")
            .field("routes", &routes.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why an application can't be built: everything that is wrong, a line each.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildError {
    faults: Vec<String>,
}

impl BuildError {
    /// What is wrong, each in words.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// As displayed, since this is what a `main` that returns it prints.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application can't be built")?;
        for fault in &self.faults {
            write!(f, "\n- {fault}")?;
        }
        Ok(())
    }
}

impl Error for BuildError {}
