//! Routes, and how a request finds its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, LOCATION, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use crate::captures::Captures;
use crate::defaults::current::AppId;
use crate::extract::{Request, RequestHead, Route};
use crate::handler::{Answers, Call, Endpoint, Place, taken};
use crate::layered::{BoxFuture, CatchPanic};
use crate::pattern::Pattern;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};
use crate::shutdown::{Shutdown, ShutdownSource};
use crate::tree::Tree;

/// What a path that no route has, but one would with a slash more or less at its end, is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TrailingSlash {
    /// A 308 to the path that has a route: each resource has one address, and nobody is turned away.
    #[default]
    Redirect,
    /// What the other path is answered with.
    Ignore,
    /// A 404.
    Strict,
}

/// What is known of a route before any request comes.
pub(crate) struct RouteInfo {
    app: AppId,
    /// Counted from zero, in the order of addition.
    number: u32,
    pattern: String,
    capture_names: Vec<String>,
    body_limit: u64,
    /// Whether an argument is about the connection. Few are, and an extension costs three allocations.
    #[cfg(feature = "server")]
    wants_connect_info: bool,
    shutdown: ShutdownSource,
}

impl RouteInfo {
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    pub(crate) fn capture_names(&self) -> &[String] {
        &self.capture_names
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.shutdown.subscribe()
    }
}

/// A route, before the application is built.
pub(crate) struct Draft {
    pub(crate) answers: Answers,
    pub(crate) path: String,
    pub(crate) place: Where,
    pub(crate) body_limit: Option<u64>,
    pub(crate) handler_timeout: Option<Option<Duration>>,
    pub(crate) requirements: crate::extract::Requirements,
    #[cfg(feature = "openapi")]
    pub(crate) description: Option<crate::openapi::Description>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
}

/// Where a route comes from.
#[derive(Debug, Clone)]
pub(crate) enum Where {
    Handler(Place),
    Call(&'static str, &'static std::panic::Location<'static>),
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(place) => place.fmt(f),
            Self::Call(what, location) => {
                write!(f, "{what} ({}:{})", location.file(), location.line())
            }
        }
    }
}

/// What the application knows of a route besides how to answer it.
pub(crate) struct Outline {
    pub(crate) pattern: String,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) is_fallback: bool,
}

/// What answers a request.
struct Target {
    endpoint: Arc<dyn Endpoint>,
    info: Arc<RouteInfo>,
    place: Where,
}

/// What answers the methods of a path.
#[derive(Default)]
struct Methods {
    own: Vec<(Method, Target)>,
    any: Option<Target>,
    /// The methods that are answered, as `Allow` tells them.
    allow: Option<HeaderValue>,
}

impl Methods {
    /// Which target answers, and whether the response goes without its body.
    fn find(&self, method: &Method) -> Option<&Target> {
        let own = |wanted: &Method| {
            self.own
                .iter()
                .find(|(own, _)| own == wanted)
                .map(|(_, target)| target)
        };
        own(method)
            .or_else(|| {
                if method == Method::HEAD {
                    own(&Method::GET)
                } else {
                    None
                }
            })
            .or(self.any.as_ref())
    }

    fn seal(&mut self) {
        let mut methods: Vec<&str> = self.own.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") && !methods.contains(&"HEAD") {
            methods.push("HEAD");
        }
        if !methods.contains(&"OPTIONS") {
            methods.push("OPTIONS");
        }
        methods.sort_unstable();
        self.allow = HeaderValue::try_from(methods.join(", ")).ok();
    }
}

/// All routes of an application.
pub(crate) struct Router {
    routes: Tree<Methods>,
    fallbacks: Tree<Target>,
    trailing_slash: TrailingSlash,
    /// By their numbers.
    outlines: Vec<Outline>,
}

/// What a router needs to know besides its routes.
pub(crate) struct Settings {
    pub(crate) app: AppId,
    pub(crate) body_limit: u64,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) trailing_slash: TrailingSlash,
    pub(crate) shutdown: ShutdownSource,
}

impl Router {
    /// Arranges the routes. All that is wrong with them is told, not only the first.
    pub(crate) fn new(drafts: Vec<Draft>, settings: &Settings, faults: &mut Vec<String>) -> Self {
        let mut router = Self {
            routes: Tree::new(),
            fallbacks: Tree::new(),
            trailing_slash: settings.trailing_slash,
            outlines: Vec::new(),
        };
        for draft in drafts {
            router.add(draft, settings, faults);
        }
        for methods in router.routes.values_mut() {
            methods.seal();
        }
        router
    }

    /// What is known of all routes, by their numbers.
    pub(crate) fn take_outlines(&mut self) -> Vec<Outline> {
        std::mem::take(&mut self.outlines)
    }

    fn add(&mut self, draft: Draft, settings: &Settings, faults: &mut Vec<String>) {
        let pattern = match Pattern::parse(&draft.path) {
            Ok(pattern) => pattern,
            Err(error) => {
                faults.push(format!(
                    "{}: the path `{}`: {error}",
                    draft.place, draft.path
                ));
                return;
            }
        };
        let number = u32::try_from(self.outlines.len()).unwrap_or(u32::MAX);
        self.outlines.push(Outline {
            pattern: draft.path.clone(),
            handler_timeout: draft.handler_timeout.unwrap_or(settings.handler_timeout),
            is_fallback: draft.answers == Answers::Fallback,
        });
        let target = Target {
            endpoint: draft.endpoint,
            info: Arc::new(RouteInfo {
                app: settings.app,
                number,
                pattern: draft.path,
                capture_names: pattern.names().to_vec(),
                body_limit: draft.body_limit.unwrap_or(settings.body_limit),
                #[cfg(feature = "server")]
                wants_connect_info: draft.requirements.wants_connect_info(),
                shutdown: settings.shutdown.clone(),
            }),
            place: draft.place,
        };
        if draft.answers == Answers::Fallback {
            self.add_fallback(target, faults);
            return;
        }
        let methods = self
            .routes
            .entry(&pattern)
            .get_or_insert_with(Methods::default);
        let (name, taken) = match &draft.answers {
            Answers::One(method) => (
                method.as_str(),
                methods
                    .own
                    .iter()
                    .find(|(own, _)| own == method)
                    .map(|(_, target)| target),
            ),
            Answers::Any | Answers::Fallback => ("any method", methods.any.as_ref()),
        };
        if let Some(other) = taken {
            faults.push(conflict(name, &target, other));
            return;
        }
        match draft.answers {
            Answers::One(method) => methods.own.push((method, target)),
            Answers::Any | Answers::Fallback => methods.any = Some(target),
        }
    }

    /// A fallback is found by its path itself and by all paths below it.
    fn add_fallback(&mut self, target: Target, faults: &mut Vec<String>) {
        let prefix = target.info.pattern.trim_end_matches('/').to_owned();
        let Target {
            endpoint,
            info,
            place,
        } = target;
        for (first, suffix) in ["", "/", "/{*fallback}"].into_iter().enumerate() {
            let path = format!("{prefix}{suffix}");
            let Ok(pattern) = Pattern::parse(if path.is_empty() { "/" } else { &path }) else {
                continue;
            };
            let target = Target {
                endpoint: Arc::clone(&endpoint),
                info: Arc::clone(&info),
                place: place.clone(),
            };
            match self.fallbacks.entry(&pattern) {
                // `/` is its own `/` below.
                Some(other) if first == 0 => faults.push(conflict("the fallback", &target, other)),
                Some(_) => {}
                slot @ None => *slot = Some(target),
            }
        }
    }

    /// Answers a request. What is known of it is put where it stands, as to move it is what costs most here.
    #[inline]
    pub(crate) fn answer(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(Call { head, .. }) = call else {
            return taken();
        };
        let RequestHead { parts, route } = head;
        let Some(methods) = self.routes.find(parts.uri.path(), &mut route.captures) else {
            return self.not_found(call);
        };
        let Some(target) = methods.find(&parts.method) else {
            return methods.otherwise(call);
        };
        target.call(call)
    }

    /// Answers a request whose path no route has.
    #[cold]
    #[inline(never)]
    fn not_found(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(Call { head, .. }) = call else {
            return taken();
        };
        if let Some(answer) = self.other_slash(&head.parts) {
            return match answer {
                Other::Redirect(location) => ready(location),
                Other::Serve(target, captures) => {
                    head.route.captures = captures;
                    target.call(call)
                }
            };
        }
        let RequestHead { parts, route } = head;
        // `OPTIONS *` is about the server, not about a resource (RFC 9110, 9.3.7).
        if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
            return ready(StatusCode::NO_CONTENT.into_response());
        }
        match self.fallbacks.find(parts.uri.path(), &mut route.captures) {
            Some(target) => target.call(call),
            None => ready(Problem::new(StatusCode::NOT_FOUND).into_response()),
        }
    }

    fn other_slash(&self, request: &Parts) -> Option<Other<'_>> {
        if self.trailing_slash == TrailingSlash::Strict {
            return None;
        }
        let path = request.uri.path();
        let other = match path.strip_suffix('/') {
            Some("") => return None,
            Some(shorter) => shorter.to_owned(),
            None => format!("{path}/"),
        };
        let mut captures = Captures::default();
        let methods = self.routes.find(&other, &mut captures)?;
        if self.trailing_slash == TrailingSlash::Ignore {
            return Some(match methods.find(&request.method) {
                Some(target) => Other::Serve(target, captures),
                None => Other::Redirect(methods.refuse(&request.method)),
            });
        }
        // `//host/` would lead to another host.
        let mut location = format!("/{}", other.trim_start_matches(['/', '\\']));
        if let Some(query) = request.uri.query() {
            location = format!("{location}?{query}");
        }
        let location = HeaderValue::try_from(location).ok()?;
        Some(Other::Redirect(
            (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)], ()).into_response(),
        ))
    }
}

enum Other<'a> {
    Redirect(Response),
    Serve(&'a Target, Captures),
}

impl Methods {
    /// Answers a request whose method no route of the path has.
    ///
    /// The question of a browser whether it may send another method ("preflight") is asked of the layers of that method's route: one
    /// of them may know.
    #[cold]
    #[inline(never)]
    fn otherwise(&self, slot: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(call) = slot else {
            return taken();
        };
        let parts = &call.head.parts;
        let Some(target) = asked_for(parts).and_then(|asked| self.find(&asked)) else {
            return ready(self.refuse(&parts.method));
        };
        let target = Target {
            endpoint: target.endpoint.around(Arc::new(Prepared(self.allowed()))),
            info: Arc::clone(&target.info),
            place: target.place.clone(),
        };
        target.call(slot)
    }

    fn allowed(&self) -> HeaderValue {
        let allow = self.allow.clone();
        allow.unwrap_or_else(|| HeaderValue::from_static("OPTIONS"))
    }

    /// Answers a method that no route of the path has.
    #[cold]
    fn refuse(&self, method: &Method) -> Response {
        let allow = self.allowed();
        if method == Method::OPTIONS {
            return (StatusCode::NO_CONTENT, [(ALLOW, allow)], ()).into_response();
        }
        Problem::new(StatusCode::METHOD_NOT_ALLOWED)
            .with_header(ALLOW, allow)
            .into_response()
    }
}

impl Target {
    #[inline]
    fn call(&self, slot: &mut Option<Call>) -> BoxFuture<Response> {
        if let Some(call) = slot {
            #[cfg(feature = "server")]
            if self.info.wants_connect_info {
                if let Some(info) = call.body.connect_info() {
                    call.head.parts.extensions.insert(info.clone());
                }
            }
            crate::defaults::current::note_route(
                self.info.app,
                self.info.number,
                &self.info.pattern,
            );
            call.head.route.info = Some(Arc::clone(&self.info));
            call.body.limit(self.info.body_limit);
        }
        self.endpoint.call(slot)
    }
}

/// The method that a page wants to use, where its browser asks for that (Fetch, section 3.3.2).
fn asked_for(request: &Parts) -> Option<Method> {
    let is_preflight = request.method == Method::OPTIONS && request.headers.contains_key(ORIGIN);
    let asked = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
    let asked = asked.filter(|_| is_preflight)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

fn conflict(what: &str, new: &Target, old: &Target) -> String {
    format!(
        "{what} `{}` is answered by {} and, as `{}`, by {}",
        new.info.pattern, new.place, old.info.pattern, old.place
    )
}

fn ready(response: Response) -> BoxFuture<Response> {
    Box::pin(std::future::ready(response))
}

/// What a layer may answer otherwise, and else is the answer.
struct Prepared(HeaderValue);

impl Endpoint for Prepared {
    fn call(&self, _: &mut Option<Call>) -> BoxFuture<Response> {
        ready((StatusCode::NO_CONTENT, [(ALLOW, self.0.clone())], ()).into_response())
    }
}

/// A request's way through the layers of a route: what it meets behind them.
#[derive(Clone)]
struct Passage {
    endpoint: Arc<dyn Endpoint>,
    route: Route,
}

/// What stands inside of a route's layers: it sends each request on to its own endpoint.
pub(crate) struct Inside;

impl crate::layered::Stage for Inside {
    fn run(&self, request: Request) -> BoxFuture<Response> {
        let (mut parts, body) = request.into_parts();
        let Some(Passage { endpoint, route }) = parts.extensions.remove() else {
            // A layer has made a request of its own, and has dropped the extensions of the one it was given.
            return ready(
                Problem::internal("a layer has lost the extensions of a request").into_response(),
            );
        };
        let head = RequestHead { parts, route };
        Box::pin(CatchPanic::new(
            endpoint.call(&mut Some(Call { head, body })),
        ))
    }
}

/// Tells a route's layer when the application shuts down.
pub(crate) fn shutdown_of(request: &Request) -> Option<Shutdown> {
    let passage = request.extensions().get::<Passage>()?;
    passage.route.info.as_ref().map(|info| info.shutdown())
}

/// An endpoint with layers around it. Many may share the layers.
pub(crate) struct Around {
    pub(crate) layers: crate::Next,
    pub(crate) endpoint: Arc<dyn Endpoint>,
}

impl Endpoint for Around {
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(call) = call.take() else {
            return taken();
        };
        let RequestHead { mut parts, route } = call.head;
        parts.extensions.insert(Passage {
            endpoint: Arc::clone(&self.endpoint),
            route,
        });
        self.layers.run(Request::from_parts(parts, call.body))
    }

    fn around(&self, inside: Arc<dyn Endpoint>) -> Arc<dyn Endpoint> {
        Arc::new(Self {
            layers: self.layers.clone(),
            endpoint: self.endpoint.around(inside),
        })
    }
}

/// A service below a prefix, which it doesn't see.
pub(crate) struct Mounted {
    pub(crate) service: crate::Next,
    /// How many segments are taken off.
    pub(crate) segments: usize,
}

impl Endpoint for Mounted {
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(call) = call.take() else {
            return taken();
        };
        let RequestHead { mut parts, .. } = call.head;
        strip(&mut parts.uri, self.segments);
        self.service.run(Request::from_parts(parts, call.body))
    }
}

/// Takes the first segments off a URI's path.
fn strip(uri: &mut http::Uri, segments: usize) {
    let path_and_query = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let path_length = uri.path().len();
    let mut slashes = path_and_query[..path_length]
        .match_indices('/')
        .map(|(at, _)| at);
    let rest = slashes.nth(segments).unwrap_or(path_length);
    let rest = match &path_and_query[rest..] {
        rest if rest.starts_with('/') => rest.to_owned(),
        rest => format!("/{rest}"),
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = rest.try_into().ok();
    if let Ok(stripped) = http::Uri::from_parts(parts) {
        *uri = stripped;
    }
}

/// Checks what handlers need against what the application says that it provides.
pub(crate) fn check_requirements(
    drafts: &[Draft],
    provided: &[std::any::TypeId],
    faults: &mut Vec<String>,
) {
    let mut missing: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for draft in drafts {
        for (id, name) in draft.requirements.extensions() {
            if !provided.contains(id) {
                missing
                    .entry(name)
                    .or_default()
                    .push(draft.place.to_string());
            }
        }
    }
    for (name, places) in missing {
        faults.push(format!(
            "{} takes an `Extension<{name}>` that nothing provides: add the layer that does, and `.provide::<{name}>()`; or take it as `Option`",
            places.join(" and ")
        ));
    }
}
