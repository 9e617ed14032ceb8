//! Bodies piece by piece: what comes in, and what goes out.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Body as _;

use crate::BoxError;
use crate::body::{Body, BodyError};
use crate::extract::{Extract, RequestHead, WholeBody};
use crate::respond::{IntoResponse, Response};

/// The request's body as a stream of its pieces, for handlers that don't want it in memory.
///
/// It is bounded by the application's limit of bodies; an upload that may be larger has a route with a limit of its own.
///
/// **Errors.** [`BodyError`]; as a [`Rejection`](crate::Rejection) it is a 413 or a 400.
#[derive(Debug)]
pub struct BodyStream {
    body: Body,
}

impl BodyStream {
    /// The pieces of this body, for tests of a handler.
    pub fn new(body: impl Into<Body>) -> Self {
        Self { body: body.into() }
    }

    /// The next piece, or `None` at the end.
    ///
    /// **Cancellation.** Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Fails where the body does.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.body.chunk().await
    }
}

impl Extract for BodyStream {
    type Body = WholeBody;
    type Rejection = std::convert::Infallible;

    async fn extract(_: &mut RequestHead, body: Body) -> Result<Self, Self::Rejection> {
        Ok(Self { body })
    }
}

impl futures_core::Stream for BodyStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => None,
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => Some(Ok(data)),
                    // Trailers, or nothing.
                    _ => continue,
                },
            });
        }
    }
}

/// A response that is sent as it is made: the items are `Result`s of bytes or text. An error breaks it off.
///
/// Its length isn't told beforehand, so a client can't know how much there is to come. What stands still, rather than goes
/// on for ever, is a [`File`](crate::files::File).
///
/// **Cancellation.** The stream is dropped when the client has gone.
///
/// # Example
///
/// ```
/// use tower_web::respond::IntoResponse;
/// use tower_web::streams::{BodyStream, Stream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // What comes in goes out, without being in memory as a whole.
/// async fn echo(body: BodyStream) -> Stream<BodyStream> {
///     Stream::new(body).with_content_type("text/csv")
/// }
///
/// let response = echo(BodyStream::new("a,b\n")).await.into_response();
/// assert_eq!(response.headers()["content-type"], "text/csv");
/// assert_eq!(response.into_body().bytes().await.unwrap(), "a,b\n");
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a response does nothing unless a handler returns it"]
pub struct Stream<S> {
    pieces: S,
    content_type: HeaderValue,
}

impl<S> Stream<S> {
    /// The pieces of this stream, of no type that is told (`application/octet-stream`).
    pub const fn new(pieces: S) -> Self {
        Self {
            pieces,
            content_type: HeaderValue::from_static("application/octet-stream"),
        }
    }

    /// With the type of what is sent.
    pub fn with_content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = HeaderValue::from_static(content_type);
        self
    }
}

impl<S, T, E> IntoResponse for Stream<S>
where
    S: futures_core::Stream<Item = Result<T, E>> + Send + 'static,
    T: Into<Bytes> + 'static,
    E: Into<BoxError> + 'static,
{
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from_stream(self.pieces));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, self.content_type);
        response
    }
}

impl<S> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}
