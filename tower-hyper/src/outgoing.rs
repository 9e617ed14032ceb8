//! The body of a response: the service's, or none where the server answers by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::link::Link;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// The body of a response. Its connection learns when it is over.
    pub(crate) struct Outgoing<B> {
        #[pin]
        body: Option<B>,
        over: Over,
    }
}

/// Says by being dropped that a response is over.
pub(crate) struct Over(Arc<Link>);

impl<B> Outgoing<B> {
    pub(crate) fn new(body: Option<B>, over: Over) -> Self {
        Self { body, over }
    }
}

impl Over {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self(link)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let Some(body) = self.project().body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => polled.map_err(Into::into),
            // Its head has left, so that it can only be broken off.
            Err(_) => Poll::Ready(Some(Err("the response's body panicked".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
