//! What is on without being asked for, and how to change it.
//!
//! An application that is served has all of these. Each is changed by a line of code, [`App::defaults`](crate::App::defaults), and by a
//! variable of the environment, which [`App::serve`](crate::App::serve) reads and which wins over the code: who runs a
//! service knows better than who wrote it. [`App::bare`](crate::App::bare) has none of them.
//!
//! | what | by default | variable | method of [`Defaults`] | why |
//! |---|---|---|---|---|
//! | time for a handler, to the response's head | 30 s, then a 504 | `TOWER_WEB_HANDLER_TIMEOUT` | [`handler_timeout`](Defaults::handler_timeout), `#[handler_timeout(…)]` on a route | a client that has given up is worked for no longer; it is the ambient deadline ([`tower_deadline`]) of all that the handler calls |
//! | size of a request's body | 2 MB, then a 413 | `TOWER_WEB_BODY_LIMIT` | [`body_limit`](Defaults::body_limit), `#[body_limit(…)]` on a route | a body is read into memory |
//! | requests at once | 8192, then a 503 with `Retry-After` | `TOWER_WEB_MAX_IN_FLIGHT` | [`max_in_flight`](Defaults::max_in_flight) | what is refused at once costs nothing; what waits for ever costs memory, and then fails as well |
//! | request id | taken over from `x-request-id` if it is sane, else made; sent back, in each problem and line of the log | `TOWER_WEB_REQUEST_ID` | [`request_id`](Defaults::request_id) | what a user reports can be found |
//! | trace context | `traceparent` is read, and a span's number made | `TOWER_WEB_TRACE_CONTEXT` | [`trace_context`](Defaults::trace_context) | one trace over all services |
//! | a span for each request | with method, route (not the path, which has a user's data), id, status | `TOWER_WEB_SPAN` | [`span`](Defaults::span) | each line of the log says which request it is about; it costs nothing where nobody subscribes |
//! | a line of the log for each request that a route has answered | at `debug`; switched on, at `info` | `TOWER_WEB_ACCESS_LOG` | [`access_log`](Defaults::access_log) | off: to write a line costs more than to answer, and [metrics](Defaults::metrics) have rate, errors and duration. What no route answers (404, 405, health) stays at `debug`: nobody who tries paths fills a disk |
//! | refusals | each at `warn`, with route and field; failures and panics at `error`, with their causes | | | what clients get wrong is seen by who can help, and isn't an error of the service |
//! | security headers | `x-content-type-options`, `referrer-policy`; for pages `x-frame-options` and `content-security-policy: frame-ancestors` | `TOWER_WEB_SECURITY_HEADERS` | [`security_headers`](Defaults::security_headers) | uploads aren't taken for pages, paths aren't told to other sites, pages aren't framed by them; a header that a handler sets stays |
//! | compression of responses | text of 1 KiB and more, as gzip or deflate (with features, brotli and zstd) | `TOWER_WEB_COMPRESSION` | [`compression`](Defaults::compression) | less to send; not what is compressed already, not events, and nothing with `cache-control: no-transform` ([why one may want that](Defaults::compression)) |
//! | metrics | `http_requests_total`, `http_request_duration_seconds` by `method`, `route` and class of `status`; `http_requests_in_flight` | `TOWER_WEB_METRICS` | [`metrics`](Defaults::metrics) | rate, errors and duration, in as many series as there are routes, whatever clients send; it costs little where nobody records |
//! | health | `/livez` and `/readyz`, for `GET` | `TOWER_WEB_HEALTH` | [`health`](Defaults::health) | an orchestrator asks; they stand outside of layers and limits, and a route of yours wins |
//! | problems | every error is `application/problem+json` | | [`App::on_problem`](crate::App::on_problem) | one form for all |
//! | a handler that panics | a 500 | | | the others on the connection go on |
//!
//! And of the connections, in `serve` (to a [`Server`](crate::Server) of your own [`Defaults::set_up`] tells them):
//!
//! | what | by default | variable | method of [`Defaults`] | why |
//! |---|---|---|---|---|
//! | address | as the code says | `TOWER_WEB_LISTEN` | | |
//! | connections | 25 000; others wait | `TOWER_WEB_MAX_CONNECTIONS` | [`max_connections`](Defaults::max_connections) | descriptors and memory end somewhere |
//! | time from accepting to the end of a head | 15 s | `TOWER_WEB_HEAD_TIMEOUT` | [`head_timeout`](Defaults::head_timeout) | who connects and says nothing is let go |
//! | time between requests | 75 s | `TOWER_WEB_IDLE_TIMEOUT` | [`idle_timeout`](Defaults::idle_timeout) | longer than load balancers keep theirs |
//! | time in which nothing of a body comes | 30 s, then a 408 | `TOWER_WEB_BODY_TIMEOUT` | [`body_timeout`](Defaults::body_timeout) | a body that drips |
//! | time in which nothing of a response is taken | 30 s, then it is cut | `TOWER_WEB_WRITE_TIMEOUT` | [`write_timeout`](Defaults::write_timeout) | a reader that has stopped |
//! | `Host`, and the form of the target | 400 where they are malformed | `TOWER_WEB_HOST_CHECK` | [`host_check`](Defaults::host_check) | what two parsers read differently smuggles requests |
//! | time to end in | 30 s | `TOWER_WEB_DRAIN_TIMEOUT` | [`drain_timeout`](Defaults::drain_timeout) | what has begun is finished, events and WebSockets are told, and what is left is cut |
//! | time from `/readyz` saying no to accepting no more | none | `TOWER_WEB_DRAIN_DELAY` | [`drain_delay`](Defaults::drain_delay) | a load balancer has to notice first |
//! | port for administration | none | `TOWER_WEB_ADMIN` | [`admin`](Defaults::admin) | `/metrics`, `/livez` and `/readyz` where the public doesn't come |
//!
//! A time is `30s`, `500ms`, `2m`, `1h`, or seconds; a size `2MB`, `64KiB`, or bytes; a switch `on` or `off`; and what can be without a
//! bound is `off`, too.

use std::time::Duration;

use crate::DEFAULT_BODY_LIMIT;

mod alarms;
#[cfg(feature = "compression")]
mod compression;
pub(crate) mod current;
#[cfg(feature = "server")]
mod environment;
mod protection;
mod random;
mod request_id;
pub(crate) mod shell;
mod trace_context;

#[cfg(feature = "server")]
pub use environment::EnvironmentError;
#[cfg(feature = "server")]
pub(crate) use environment::of_process as variables_of_process;
pub use request_id::RequestId;
pub use trace_context::TraceContext;

/// What is on without being asked for. See the [module](self) for all of it in a table.
///
/// Times and limits take a value, or `None` for none.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_web::App;
///
/// let app = App::new().defaults(|defaults| {
///     defaults
///         .handler_timeout(Duration::from_secs(5))
///         .max_in_flight(None)
///         .security_headers(false)
/// });
/// # let _ = app;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "give them back to the application"]
pub struct Defaults {
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) body_limit: Option<u64>,
    pub(crate) max_in_flight: Option<usize>,
    pub(crate) request_id: bool,
    pub(crate) trace_context: bool,
    pub(crate) span: bool,
    pub(crate) access_log: bool,
    pub(crate) security_headers: bool,
    pub(crate) compression: bool,
    pub(crate) metrics: bool,
    pub(crate) health: bool,
    pub(crate) max_connections: Option<usize>,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) host_check: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) admin: Option<String>,
}

impl Defaults {
    /// All of them.
    pub fn new() -> Self {
        Self {
            handler_timeout: Some(Duration::from_secs(30)),
            body_limit: Some(DEFAULT_BODY_LIMIT),
            max_in_flight: Some(8192),
            request_id: true,
            trace_context: true,
            span: true,
            access_log: false,
            security_headers: true,
            compression: true,
            metrics: true,
            health: true,
            max_connections: Some(25_000),
            head_timeout: Duration::from_secs(15),
            idle_timeout: Some(Duration::from_secs(75)),
            body_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            host_check: true,
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            admin: None,
        }
    }

    /// None of them, but for the limit of bodies, the time for a head, and the drain: without these, anybody could end the
    /// process.
    pub fn none() -> Self {
        Self {
            handler_timeout: None,
            max_in_flight: None,
            request_id: false,
            trace_context: false,
            span: false,
            security_headers: false,
            compression: false,
            metrics: false,
            health: false,
            max_connections: None,
            idle_timeout: None,
            body_timeout: None,
            write_timeout: None,
            host_check: false,
            ..Self::new()
        }
    }

    /// How long a handler may take until its response's head is there. Then it is dropped, and answered for with a 504.
    ///
    /// A body that the handler reads counts, one that it streams back doesn't: a route for large uploads wants
    /// `#[handler_timeout(…)]`.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = timeout.into();
        self
    }

    /// How many bytes a request's body may have.
    pub fn body_limit(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.body_limit = bytes.into();
        self
    }

    /// How many requests may be answered at once. One that comes on top is refused with a 503 and `Retry-After`.
    ///
    /// A request counts until its response's head is there.
    pub fn max_in_flight(mut self, requests: impl Into<Option<usize>>) -> Self {
        self.max_in_flight = requests.into();
        self
    }

    /// Whether requests have [ids](RequestId).
    pub fn request_id(mut self, is_on: bool) -> Self {
        self.request_id = is_on;
        self
    }

    /// Whether requests have [trace contexts](TraceContext).
    pub fn trace_context(mut self, is_on: bool) -> Self {
        self.trace_context = is_on;
        self
    }

    /// Whether each request has a span of `tracing`.
    pub fn span(mut self, is_on: bool) -> Self {
        self.span = is_on;
        self
    }

    /// Whether each request that a route has answered is told at `info`: its method, route, status, duration and id. Off by default; it is
    /// told at `debug` then.
    ///
    /// Method, route and id are fields of the [span](Self::span), which is there where this is on. What no route answers (a 404, a 405, health)
    /// is told at `debug` nevertheless, so that whoever tries paths can't fill a disk: who looks for a misspelt path subscribes to
    /// `tower_web=debug`. A request whose client went away isn't answered.
    ///
    /// ```
    /// use tower_web::App;
    ///
    /// let app = App::new().defaults(|defaults| defaults.access_log(true));
    /// # let _ = app;
    /// ```
    pub fn access_log(mut self, is_on: bool) -> Self {
        self.access_log = is_on;
        self
    }

    /// Whether responses have security headers.
    pub fn security_headers(mut self, is_on: bool) -> Self {
        self.security_headers = is_on;
        self
    }

    /// Whether responses are compressed, where the client understands it and it is worth it. It takes the feature
    /// `compression`.
    ///
    /// A response that has a secret in it and repeats what a client has sent tells the secret to whoever can make many
    /// requests in that client's name and see how long their responses are (BREACH). Tokens that change with each response
    /// prevent it; so does `cache-control: no-transform` on that response.
    pub fn compression(mut self, is_on: bool) -> Self {
        self.compression = is_on;
        self
    }

    /// Whether requests are counted and timed, for the `metrics` facade. It takes the feature `metrics`.
    ///
    /// Whoever records has to be installed before the first request.
    pub fn metrics(mut self, is_on: bool) -> Self {
        self.metrics = is_on;
        self
    }

    /// Whether there are `/livez` and `/readyz`.
    pub fn health(mut self, is_on: bool) -> Self {
        self.health = is_on;
        self
    }

    /// How many connections may be open at once. Others wait until one ends.
    pub fn max_connections(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.max_connections = connections.into();
        self
    }

    /// How long it may take from accepting a connection to the end of its first request's head.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// How long a connection may stay open between requests.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// How long the sender of a body may send nothing while it is read.
    pub fn body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.body_timeout = timeout.into();
        self
    }

    /// How long the reader of a response may take nothing of it.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// Whether `Host` and the request's target are checked.
    pub fn host_check(mut self, is_on: bool) -> Self {
        self.host_check = is_on;
        self
    }

    /// How long requests, events and WebSockets may take to end, once the process was told to.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long requests are still taken after the process was told to end, while `/readyz` turns them away. None by default.
    ///
    /// Where a load balancer asks only now and then, this should be longer than its interval.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// The address at which `serve` answers whoever administers: `/livez`, `/readyz`, and with the feature `prometheus`
    /// `/metrics`, in the text form of Prometheus. None by default.
    ///
    /// It mustn't be one that anybody can reach. It goes on while the application drains.
    pub fn admin(mut self, address: impl Into<Option<String>>) -> Self {
        self.admin = address.into();
        self
    }

    /// Tells a server what of these concerns connections: for one that isn't made by `serve`.
    ///
    /// Along with the limits goes HTTP/2's [extended CONNECT](tower_hyper::Settings::with_extended_connect), for WebSockets.
    #[cfg(feature = "server")]
    pub fn set_up<L>(&self, server: tower_hyper::Server<L>) -> tower_hyper::Server<L> {
        server
            .with_settings(self.settings())
            .with_max_connections(self.max_connections.unwrap_or(usize::MAX))
            .with_drain_timeout(self.drain_timeout)
    }

    #[cfg(feature = "server")]
    fn settings(&self) -> tower_hyper::Settings {
        let settings = tower_hyper::Settings::new()
            .with_head_timeout(self.head_timeout)
            .with_idle_timeout(self.idle_timeout)
            .with_body_timeout(self.body_timeout)
            .with_write_timeout(self.write_timeout);
        // RFC 8441: browsers open a WebSocket on the connection that they have.
        #[cfg(all(feature = "http2", feature = "websocket"))]
        let settings = settings.with_extended_connect();
        match self.host_check {
            true => settings,
            false => settings.without_vetting(),
        }
    }

    /// Whether anything is to be done for each request.
    pub(crate) fn has_shell(&self) -> bool {
        self.handler_timeout.is_some()
            || self.max_in_flight.is_some()
            || self.request_id
            || self.trace_context
            || self.span
            || self.access_log
            || self.security_headers
            || self.compression
            || self.metrics
            || self.health
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self::new()
    }
}
