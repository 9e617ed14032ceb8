//! The load of HTTP services: requests that last until their response's body has ended, and load that servers
//! report themselves.
//!
//! `tower-load` measures any service, and so knows of a response only that it is there. For HTTP that is when the head has come; a
//! download, a stream of events or a gRPC call has only begun then. [`CompleteOnBody`] lets a request count until its body's end.
//!
//! What a client measures is its own share. A server that many clients use knows more, and says so in its responses, in the form that gRPC
//! and Envoy have agreed on (ORCA): [`ReportLayer`] writes [`Report`]s, and [`Reported`] reads them and balances by them.
//!
//! # When not to use it
//!
//! - [`CompleteOnBody`], where bodies are short: the head is as good an end, for less.
//! - [`Reported`], where there are no reports: it counts requests in flight then, and `PendingRequests` does that for less.
//!
//! # What it costs
//!
//! [`CompleteOnBody`] moves the request's handle into the body, and looks at each frame. A report costs its writing, some 50 bytes a
//! response, and its reading. Nothing else is allocated.

mod orca;
mod reported;
mod reporting;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_load::TrackCompletion;

pub use self::orca::{Report, ReportError};
pub use self::reported::{Reported, ReportedBody, ReportedFuture};
pub use self::reporting::{ReportFuture, ReportLayer, ReportService};

/// Completes a request when the body of its response has ended: with its last frame, with an error, or when it is dropped.
///
/// A body that is empty completes its request at once.
///
/// # Example
///
/// ```
/// use http_body_util::{BodyExt, Full};
/// use tower_http_load::CompleteOnBody;
/// use tower_load::TrackCompletion;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let handle = std::sync::Arc::new(());
/// let response = http::Response::new(Full::<&[u8]>::from("hello".as_bytes()));
/// let response = CompleteOnBody::new().track_completion(handle.clone(), response);
/// assert_eq!(std::sync::Arc::strong_count(&handle), 2);
///
/// response.into_body().collect().await.unwrap();
/// assert_eq!(std::sync::Arc::strong_count(&handle), 1);
/// # }
/// ```
///
/// In a metric of `tower-load`:
///
/// ```
/// use tower_http_load::CompleteOnBody;
/// use tower_load::pending_requests::PendingRequests;
///
/// # let (client, _handle) = tower_test::mock::pair::<(), http::Response<http_body_util::Empty<bytes::Bytes>>>();
/// let client = PendingRequests::new(client, CompleteOnBody::new());
/// # let _ = client;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CompleteOnBody {}

impl CompleteOnBody {
    /// Completes requests at the end of their bodies.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<H, B: Body> TrackCompletion<H, http::Response<B>> for CompleteOnBody {
    type Output = http::Response<TrackedBody<B, H>>;

    fn track_completion(&self, handle: H, response: http::Response<B>) -> Self::Output {
        response.map(|inner| {
            let handle = (!inner.is_end_stream()).then_some(handle);
            TrackedBody { inner, handle }
        })
    }
}

pin_project! {
    /// A body that keeps its request in flight until it has ended. See [`CompleteOnBody`].
    pub struct TrackedBody<B, H> {
        #[pin]
        inner: B,
        // `None` once it has ended.
        handle: Option<H>,
    }
}

impl<B: Body, H> Body for TrackedBody<B, H> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let has_ended = match &frame {
            None | Some(Err(_)) => true,
            // Who knows that it was the last needn't ask for another.
            Some(Ok(frame)) => frame.is_trailers() || this.inner.is_end_stream(),
        };
        if has_ended {
            *this.handle = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: fmt::Debug, H> fmt::Debug for TrackedBody<B, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("inner", &self.inner)
            .field("has_ended", &self.handle.is_none())
            .finish()
    }
}
