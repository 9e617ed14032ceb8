//! What an application tells the `metrics` facade: rate, errors and duration of requests, by route.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, SharedString, Unit};

/// How many requests have been answered.
const REQUESTS: &str = "http_requests_total";
/// How long until the response's head was there.
const DURATION: &str = "http_request_duration_seconds";
/// How many are being answered.
const IN_FLIGHT: &str = "http_requests_in_flight";

/// The methods that are told apart. A client can make up others, as many as it likes.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT",
];
const OTHER: usize = METHODS.len();

/// The first digits of a status.
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is made for each method and class of a route.
const SLOTS: usize = (METHODS.len() + 1) * CLASSES.len();

/// The metrics of all routes.
///
/// There are as many series as there are routes, methods and classes of statuses, whatever clients send. A series is
/// made when it is first needed: whoever records has to be installed before the first request.
pub(crate) struct Metrics {
    /// By the number of the route; the last is for requests without one.
    routes: Vec<RouteMetrics>,
    in_flight: OnceLock<Gauge>,
    is_described: AtomicBool,
}

struct RouteMetrics {
    pattern: SharedString,
    /// By method and class.
    series: Box<[OnceLock<Series>]>,
}

struct Series {
    requests: Counter,
    duration: Histogram,
}

/// A method, as far as it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told(usize);

impl Told {
    #[inline]
    pub(crate) fn of(method: &Method) -> Self {
        // In the order of `METHODS`.
        Self(match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::PATCH => 4,
            Method::DELETE => 5,
            Method::OPTIONS => 6,
            Method::CONNECT => 7,
            _ => OTHER,
        })
    }

    fn as_str(self) -> &'static str {
        METHODS.get(self.0).copied().unwrap_or("other")
    }
}

impl Metrics {
    /// Of the routes with these paths.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Self {
        let patterns = patterns.chain(["(none)"]);
        Self {
            routes: patterns.map(RouteMetrics::new).collect(),
            in_flight: OnceLock::new(),
            is_described: AtomicBool::new(false),
        }
    }

    /// A request has come.
    pub(crate) fn came(&self) {
        let gauge = self.in_flight.get_or_init(|| {
            self.describe();
            metrics::gauge!(IN_FLIGHT)
        });
        gauge.increment(1.0);
    }

    /// It has gone, answered or not.
    pub(crate) fn went(&self) {
        if let Some(gauge) = self.in_flight.get() {
            gauge.decrement(1.0);
        }
    }

    /// It was answered.
    pub(crate) fn answered(&self, route: u32, method: Told, status: StatusCode, took: Duration) {
        let none = self.routes.len() - 1;
        let number = usize::try_from(route).unwrap_or(none).min(none);
        let series = self.routes[number].series(method, status);
        series.requests.increment(1);
        series.duration.record(took.as_secs_f64());
    }

    fn describe(&self) {
        if self.is_described.swap(true, Ordering::Relaxed) {
            return;
        }
        metrics::describe_counter!(REQUESTS, Unit::Count, "requests that were answered");
        metrics::describe_histogram!(
            DURATION,
            Unit::Seconds,
            "time from a request's head to its response's head"
        );
        metrics::describe_gauge!(IN_FLIGHT, Unit::Count, "requests that are being answered");
    }
}

impl RouteMetrics {
    fn new(pattern: &str) -> Self {
        Self {
            pattern: SharedString::from(pattern.to_owned()),
            series: (0..SLOTS).map(|_| OnceLock::new()).collect(),
        }
    }

    fn series(&self, method: Told, status: StatusCode) -> &Series {
        let class = usize::from(status.as_u16() / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.series[method.0 * CLASSES.len() + class].get_or_init(|| {
            let labels = [
                ("method", SharedString::const_str(method.as_str())),
                ("route", self.pattern.clone()),
                ("status", SharedString::const_str(CLASSES[class])),
            ];
            Series {
                requests: metrics::counter!(REQUESTS, &labels),
                duration: metrics::histogram!(DURATION, &labels),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_told_by_its_name() {
        for name in METHODS {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(Told::of(&method).as_str(), name);
        }
        assert_eq!(Told::of(&Method::TRACE).as_str(), "other");
    }
}
