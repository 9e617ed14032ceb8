//! What is done around each request: one struct in the application's future, and nothing boxed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tower_deadline::Deadline;
use tracing::Span;
use tracing::level_filters::LevelFilter;

use super::Defaults;
use super::alarms::{Alarms, Ticket};
#[cfg(feature = "compression")]
use super::compression;
use super::current::{self, AppId, Facts};
use super::protection;
use super::request_id::{RequestId, X_REQUEST_ID};
use super::trace_context::TraceContext;
use crate::body::Body;
#[cfg(feature = "metrics")]
use crate::metrics::{Metrics, Told};
use crate::problem::{OnProblem, Problem, ProblemFacts};
use crate::respond::{IntoResponse, Response};
use crate::routing::Outline;

/// After how many seconds a client that was refused for the load may come again.
const RETRY_SECONDS: u16 = 1;

/// What all requests of an application share.
pub(crate) struct Shared {
    app: AppId,
    pub(crate) defaults: Defaults,
    pub(crate) on_problem: Option<OnProblem>,
    /// The routes, by their numbers.
    routes: Vec<Outline>,
    /// The longest time that any handler may take. It holds until the route is known.
    longest: Option<Duration>,
    alarms: Arc<Alarms>,
    /// Whether anybody asks when a request has come.
    needs_clock: bool,
    #[cfg(feature = "metrics")]
    metrics: Option<Metrics>,
    /// How many requests are being answered.
    in_flight: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        app: AppId,
        defaults: Defaults,
        on_problem: Option<OnProblem>,
        routes: Vec<Outline>,
    ) -> Self {
        let own = defaults.handler_timeout;
        let has_metrics = cfg!(feature = "metrics") && defaults.metrics;
        let timeouts = || {
            routes
                .iter()
                .map(|route| route.handler_timeout)
                .chain([own])
        };
        Self {
            app,
            #[cfg(feature = "metrics")]
            metrics: defaults
                .metrics
                .then(|| Metrics::new(routes.iter().map(|route| &*route.pattern))),
            defaults,
            on_problem,
            // No time at all is longer than any.
            longest: timeouts()
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
            needs_clock: timeouts().any(|timeout| timeout.is_some()) || has_metrics,
            routes,
            alarms: Alarms::new(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Whether anything is to be done for each request.
    pub(crate) fn is_needed(&self) -> bool {
        self.defaults.has_shell() || self.needs_clock || self.on_problem.is_some()
    }

    /// The times of routes, by their numbers, that are shorter than what holds until the route is known. None of them where all
    /// have the same.
    pub(crate) fn shorter_times(&self) -> Vec<Option<Duration>> {
        let is_shorter = |own: &Duration| self.longest.is_none_or(|longest| *own < longest);
        let routes = self.routes.iter();
        let times: Vec<_> = routes
            .map(|route| route.handler_timeout.filter(is_shorter))
            .collect();
        match times.iter().any(Option::is_some) {
            true => times,
            false => Vec::new(),
        }
    }

    /// Counts a request in. Says whether there are too many.
    #[inline]
    fn enter(&self) -> bool {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            metrics.came();
        }
        // Relaxed: it counts, and orders nothing.
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.defaults.max_in_flight.is_some_and(|max| before >= max)
    }
}

/// What one request has.
pub(crate) struct Shell {
    shared: Arc<Shared>,
    facts: Facts,
    span: Span,
    /// Taken when the handler has to wait for the first time.
    ticket: Option<Ticket>,
    /// Whether there were too many others when it came.
    is_too_much: bool,
    #[cfg(feature = "metrics")]
    method: Told,
    /// Which codings the client understands.
    #[cfg(feature = "compression")]
    accepts: Option<HeaderValue>,
    /// What a hook for problems may want to know.
    asked: Option<Box<AskedFor>>,
}

struct AskedFor {
    method: Method,
    path: String,
    accept: Option<HeaderValue>,
}

impl Shell {
    /// Receives a request.
    #[inline]
    pub(crate) fn new(shared: &Arc<Shared>, request: &Parts) -> Self {
        let defaults = &shared.defaults;
        let wanted = Wanted::find(&request.headers);
        let trace = defaults
            .trace_context
            .then(|| TraceContext::of(wanted.traceparent));
        let id = defaults
            .request_id
            .then(|| RequestId::of(wanted.request_id, trace.map(|trace| trace.trace_id())));
        let mut facts = Facts::new(shared.app, id, trace);
        facts.came = shared.needs_clock.then(Instant::now);
        let mut span = Span::none();
        // Asked before the macro, which would have a line for `log` written where that is compiled in.
        let wants_span = defaults.span || defaults.access_log;
        if wants_span && LevelFilter::current() != LevelFilter::OFF {
            span = span_of(&facts, request);
            if !span.is_disabled() {
                facts.span = span.clone();
            }
        }
        Self {
            ticket: None,
            is_too_much: shared.enter(),
            #[cfg(feature = "metrics")]
            method: Told::of(&request.method),
            #[cfg(feature = "compression")]
            accepts: wanted.accept_encoding.cloned(),
            asked: shared.on_problem.is_some().then(|| AskedFor::of(request)),
            shared: Arc::clone(shared),
            facts,
            span,
        }
    }

    /// What the request is refused with before anybody sees it, if it is.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<Problem> {
        self.is_too_much.then(|| self.overloaded())
    }

    #[cold]
    fn overloaded(&self) -> Problem {
        let _entered = self.span.enter();
        tracing::warn!("too many requests at once: one is refused");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE)
            .with_detail("there are too many requests at the moment")
            .with_header(RETRY_AFTER, RETRY_SECONDS.into())
    }

    /// Does what belongs to the request: it is the current one meanwhile.
    #[inline]
    pub(crate) fn enter<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let deadline = self.deadline();
        let _entered = (!self.span.is_none()).then(|| self.span.enter());
        current::enter(&mut self.facts, || match deadline {
            Some(deadline) => Deadline::at(deadline).enter(work),
            None => work(),
        })
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        self.facts.came?.checked_add(self.timeout()?)
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        match self.outline() {
            Some(route) => route.handler_timeout,
            None => self.shared.longest,
        }
    }

    #[inline]
    fn outline(&self) -> Option<&Outline> {
        let number = usize::try_from(self.facts.route).ok()?;
        self.shared.routes.get(number)
    }

    /// Waits for the handler's deadline, after the handler has been found to wait.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Problem> {
        let Some(deadline) = self.deadline() else {
            return Poll::Pending;
        };
        match self.shared.alarms.poll(&mut self.ticket, deadline, cx) {
            Poll::Ready(()) => Poll::Ready(self.late()),
            Poll::Pending => Poll::Pending,
        }
    }

    #[cold]
    fn late(&self) -> Problem {
        let _entered = self.span.enter();
        tracing::warn!(
            route = self.route(),
            timeout = ?self.timeout(),
            "a handler took too long"
        );
        Problem::new(StatusCode::GATEWAY_TIMEOUT).with_detail("the answer took too long")
    }

    /// The path of the request's route, once it is known.
    fn route(&self) -> Option<&str> {
        self.outline().map(|route| &*route.pattern)
    }

    /// Finishes the response, in its place.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        response: &mut Response,
        #[cfg_attr(
            not(feature = "compression"),
            expect(unused_variables, reason = "what isn't sent isn't compressed")
        )]
        is_head: bool,
    ) {
        if response.status().as_u16() >= 400 {
            self.tell(response);
        }
        let defaults = &self.shared.defaults;
        if let Some(id) = &self.facts.id {
            response
                .headers_mut()
                .insert(X_REQUEST_ID, id.to_header_value());
        }
        if defaults.security_headers && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            protection::protect(response.headers_mut());
        }
        #[cfg(feature = "compression")]
        if defaults.compression {
            compression::compress(self.accepts.as_ref(), is_head, response);
        }
        #[cfg(feature = "metrics")]
        if let (Some(metrics), Some(came)) = (&self.shared.metrics, self.facts.came) {
            metrics.answered(
                self.facts.route,
                self.method,
                response.status(),
                came.elapsed(),
            );
        }
        if !self.span.is_disabled() {
            self.record(response);
        }
    }

    #[cold]
    fn record(&self, response: &Response) {
        let status = response.status().as_u16();
        self.span.record("status", status);
        let elapsed = self.facts.came;
        let elapsed = elapsed.map(|came| tracing::field::debug(came.elapsed()));
        // What no route answers is asked by those who try all paths that there may be, and by orchestrators.
        let is_routed = self.outline().is_some_and(|route| !route.is_fallback);
        if self.shared.defaults.access_log && is_routed {
            tracing::info!(parent: &self.span, status, elapsed, "answered");
        } else {
            tracing::debug!(parent: &self.span, status, elapsed, "answered");
        }
    }

    /// Makes a problem of a response that says that something went wrong, unless a layer has made it something else.
    #[cold]
    fn tell(&mut self, response: &mut Response) {
        let Some(problem) = problem_in(response) else {
            return;
        };
        let problem = match &self.facts.id {
            Some(id) => problem.with_request_id(id.to_string()),
            None => problem,
        };
        let told = match (&self.shared.on_problem, &self.asked) {
            (Some(hook), Some(asked)) => self.ask_hook(hook, asked, &problem),
            _ => problem.into_response(),
        };
        // What layers have put on it stays on it.
        let whole = std::mem::replace(response, Response::new(Body::empty()));
        let (mut parts, _) = whole.into_parts();
        let (told, body) = told.into_parts();
        parts.status = told.status;
        parts.headers.remove(CONTENT_LENGTH);
        crate::respond::IntoHeaders::put(told.headers, &mut parts.headers);
        parts.extensions.extend(told.extensions);
        *response = Response::from_parts(parts, body);
    }

    fn ask_hook(&self, hook: &OnProblem, asked: &AskedFor, problem: &Problem) -> Response {
        let facts = ProblemFacts {
            method: &asked.method,
            path: &asked.path,
            accept: asked.accept.as_ref(),
            route: self.route(),
            request_id: self.facts.id.as_ref(),
            trace: self.facts.trace,
        };
        let called = std::panic::AssertUnwindSafe(|| hook(problem, &facts));
        std::panic::catch_unwind(called).unwrap_or_else(|_| {
            tracing::error!("the hook for problems panicked");
            problem.clone().into_response()
        })
    }
}

/// The headers of a request that the shell wants.
#[derive(Default)]
struct Wanted<'a> {
    request_id: Option<&'a HeaderValue>,
    traceparent: Option<&'a HeaderValue>,
    #[cfg(feature = "compression")]
    accept_encoding: Option<&'a HeaderValue>,
}

impl<'a> Wanted<'a> {
    /// Finds the first of each. One pass over the few that there are is cheaper than a look-up for each.
    #[inline]
    fn find(headers: &'a HeaderMap) -> Self {
        let mut wanted = Self::default();
        for (name, value) in headers {
            let slot = match name.as_str() {
                "x-request-id" => &mut wanted.request_id,
                "traceparent" => &mut wanted.traceparent,
                #[cfg(feature = "compression")]
                "accept-encoding" => &mut wanted.accept_encoding,
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(value);
            }
        }
        wanted
    }
}

impl AskedFor {
    fn of(request: &Parts) -> Box<Self> {
        Box::new(Self {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            accept: request.headers.get(ACCEPT).cloned(),
        })
    }
}

/// The problem that a response is: what was answered as one and is one still, or a bare status.
fn problem_in(response: &Response) -> Option<Problem> {
    let headers = response.headers();
    match (
        response.extensions().get::<Problem>(),
        headers.get(CONTENT_TYPE),
    ) {
        (Some(problem), Some(kind)) => {
            let is_untouched =
                kind == crate::problem::MEDIA_TYPE && !headers.contains_key(CONTENT_ENCODING);
            is_untouched.then(|| problem.clone())
        }
        (None, None) if http_body::Body::is_end_stream(response.body()) => {
            Some(Problem::new(response.status()))
        }
        _ => None,
    }
}

fn span_of(facts: &Facts, request: &Parts) -> Span {
    use tracing::field::Empty;

    // Of the highest level, so that each line of any level says which request it is about.
    tracing::error_span!(
        "request",
        method = %request.method,
        route = Empty,
        request_id = facts.id.as_ref().map(display),
        trace_id = facts.trace.map(|trace| display(trace.trace_id_in_hex())),
        status = Empty,
    )
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.alarms.cancel(ticket);
        }
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.shared.metrics {
            metrics.went();
        }
    }
}
