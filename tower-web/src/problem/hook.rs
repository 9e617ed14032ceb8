//! The one place where problems are written.

use http::{HeaderValue, Method};

use super::Problem;
use crate::defaults::{RequestId, TraceContext};
use crate::respond::Response;

/// What [`App::on_problem`](crate::App::on_problem) was given.
pub(crate) type OnProblem = Box<dyn Fn(&Problem, &ProblemFacts<'_>) -> Response + Send + Sync>;

/// What is known of a request that has ended in a problem.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProblemFacts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, as the client has sent it.
    pub path: &'a str,
    /// Its `Accept`.
    pub accept: Option<&'a HeaderValue>,
    /// The path of its route, as `/users/{id}`. `None` where it has none.
    pub route: Option<&'a str>,
    /// What it is called, unless that is turned off.
    pub request_id: Option<&'a RequestId>,
    /// Its place in a trace, unless that is turned off.
    pub trace: Option<TraceContext>,
}

impl ProblemFacts<'_> {
    /// Whether the client has named this type among those that it accepts. `*/*` doesn't: all clients send it.
    pub fn accepts(&self, media_type: &str) -> bool {
        let accept = self.accept.and_then(|value| value.to_str().ok());
        accept.unwrap_or_default().split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(media_type));
            is_named && !parts.any(is_refusal)
        })
    }
}

/// `q=0`, `q=0.000`: not that one (RFC 9110, section 12.4.2).
fn is_refusal(parameter: &str) -> bool {
    let Some(("q" | "Q", weight)) = parameter.split_once('=') else {
        return false;
    };
    weight.trim().parse() == Ok(0.0_f32)
}
