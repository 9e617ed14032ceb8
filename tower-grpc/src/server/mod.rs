//! What generated servers are made of, and what serves them.
//!
//! A generated `GreeterServer` is a `Service` of `http::Request`s. Mount it wherever such services go: on
//! [`Server`], next to other services in a [`Router`], or under any HTTP/2 server and framework.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_deadline::Deadline;

use crate::expiry::{Expiry, expired};
use crate::outbound::GrpcBody;

mod answer;
mod incoming;
mod methods;
mod opening;
mod refusal;
mod router;
#[cfg(feature = "transport")]
mod serve;
mod settings;

pub use self::answer::{Answer, Reply};
pub use self::methods::{client_streaming, server_streaming, streaming, unary, unimplemented};
pub use self::router::{GrpcService, Router};
#[cfg(feature = "transport")]
pub use self::serve::{Server, ServerBuilder};
pub use self::settings::Settings;

pub(crate) use self::answer::{content_type, failure};
pub(crate) use self::settings::MAX_DECODING;

/// The response of a generated server.
///
/// **Cancellation.** Dropping it drops the handler.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    call: Pin<Box<dyn Future<Output = http::Response<GrpcBody>> + Send>>,
    // Beside the box, so that what is in it is made where it stays.
    expiry: Expiry,
}

impl ResponseFuture {
    #[inline]
    pub(crate) fn new(
        deadline: Option<Deadline>,
        call: impl Future<Output = http::Response<GrpcBody>> + Send + 'static,
    ) -> Self {
        Self {
            call: Box::pin(call),
            expiry: Expiry::new(deadline),
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<GrpcBody>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(deadline) = self.expiry.deadline() else {
            return self.call.as_mut().poll(cx).map(Ok);
        };
        // Nobody waits for what is done after it, and the client has been promised this.
        if deadline.has_passed_at(Instant::now()) {
            return Poll::Ready(Ok(failure(expired())));
        }
        if let Poll::Ready(response) = deadline.enter(|| self.call.as_mut().poll(cx)) {
            return Poll::Ready(Ok(response));
        }
        self.expiry.poll(cx).map(|()| Ok(failure(expired())))
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
