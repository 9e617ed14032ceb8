//! Responses of handlers that take nothing of their requests.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::HeaderMap;

use super::{Call, Endpoint, log_cause, taken};
use crate::layered::BoxFuture;
use crate::respond::{IntoResponse, Response};
use crate::routing::RouteInfo;

/// How the response of a handler is made that takes nothing of its request.
///
/// A future that holds no request is moved to its place at half the cost.
pub struct Reply<R> {
    kept: Kept,
    make: fn(Kept, R) -> Response,
}

/// What of the request has a part in the response.
enum Kept {
    Little {
        /// Their memory serves the response's.
        headers: HeaderMap,
        route: Option<Arc<RouteInfo>>,
    },
    /// For a response that asks about its request.
    All(Box<Call>),
}

/// Takes of a call what its response will need: nothing where it was taken already.
#[inline]
pub fn reply<R: IntoResponse>(call: &mut Option<Call>) -> Option<Reply<R>> {
    let kept = if R::NEEDS_REQUEST {
        Kept::All(Box::new(call.take()?))
    } else {
        let head = &mut call.as_mut()?.head;
        Kept::Little {
            headers: std::mem::take(&mut head.parts.headers),
            route: head.route.info.take(),
        }
    };
    Some(Reply {
        kept,
        make: make::<R>,
    })
}

impl<R> Reply<R> {
    /// The response that a handler has returned. A failure's cause is logged, as it isn't sent.
    #[inline]
    pub fn respond(self, returned: R) -> Response {
        (self.make)(self.kept, returned)
    }
}

fn make<R: IntoResponse>(kept: Kept, returned: R) -> Response {
    match kept {
        Kept::Little { mut headers, route } => {
            headers.clear();
            let mut response = returned.into_response_in(headers);
            if !response.extensions().is_empty() {
                log_cause(route.as_deref(), &mut response);
            }
            response
        }
        Kept::All(mut call) => call.respond(returned),
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// A handler that takes of a call what it needs before its future is made.
pub(super) struct Brief<T, F> {
    pub(super) resource: Arc<T>,
    pub(super) run: F,
}

impl<T, F, Fut> Endpoint for Brief<T, F>
where
    T: Send + Sync,
    F: Fn(Arc<T>, &mut Option<Call>) -> Option<Fut> + Send + Sync,
    Fut: Future<Output = Response> + Send + 'static,
{
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        match (self.run)(Arc::clone(&self.resource), call) {
            Some(running) => Box::pin(running),
            None => taken(),
        }
    }
}
