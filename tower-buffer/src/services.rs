//! The service behind a queue: one for ever, or a new one after each panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use tower_service::Service;

use crate::queue::{self, Serve, Served};
use crate::{BoxError, ServiceError};

/// A service that is used until it fails.
pub(crate) struct Single<S> {
    pub(crate) service: S,
}

impl<S, Req> Serve<Req, S::Future> for Single<S>
where
    S: Service<Req> + Send,
    S::Error: Into<BoxError>,
{
    fn serve(&mut self, req: Req, cx: &mut Context<'_>) -> Served<Req, S::Future> {
        serve_caught(&mut self.service, req, cx)
    }
}

/// A service that is replaced when it fails.
pub(crate) struct Rebuilding<S, M> {
    pub(crate) service: S,
    pub(crate) make: M,
}

impl<S, M, Req> Serve<Req, S::Future> for Rebuilding<S, M>
where
    S: Service<Req> + Send,
    S::Error: Into<BoxError>,
    M: FnMut() -> S + Send,
{
    fn serve(&mut self, req: Req, cx: &mut Context<'_>) -> Served<Req, S::Future> {
        match serve_caught(&mut self.service, req, cx) {
            Served::Broken(error) => match catch_unwind(AssertUnwindSafe(&mut self.make)) {
                Ok(service) => {
                    queue::drop_quietly(std::mem::replace(&mut self.service, service));
                    Served::Refused(error)
                }
                Err(panic) => Served::Broken(ServiceError::panicked(&*panic)),
            },
            served => served,
        }
    }
}

#[inline]
fn serve_caught<S, Req>(service: &mut S, req: Req, cx: &mut Context<'_>) -> Served<Req, S::Future>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    // After a panic the service is dropped, so nobody sees what it left in disorder.
    let serve = AssertUnwindSafe(|| match service.poll_ready(cx) {
        Poll::Pending => Served::Pending(req),
        Poll::Ready(Ok(())) => Served::Called(service.call(req)),
        Poll::Ready(Err(error)) => Served::Broken(ServiceError::new(error.into())),
    });
    catch_unwind(serve).unwrap_or_else(|panic| Served::Broken(ServiceError::panicked(&*panic)))
}
