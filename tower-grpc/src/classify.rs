//! What responses mean to the middleware that breaks circuits, retries and measures load.
//!
//! A gRPC call that has failed is an HTTP response of status 200. Its status is in the head only where the server
//! has sent nothing else; usually it comes in the trailers, after everything that a layer sees of a response. So
//! there are two ways to judge:
//!
//! - [`ByStatus`] is a [`Classify`]: of a [`Status`], by its code, and of HTTP responses by their head. It is for
//!   breakers and retries.
//! - [`watch_trailers`] lets a response pass and tells its end, as the trailers say it, when that comes: for
//!   measuring, logging and balancing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_classify::{Class, Classify};

use crate::status::GRPC_STATUS;
use crate::{Code, GrpcBody, Status};

/// Where a server asks not to be called again for a while, in milliseconds; negative for never.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Judges calls by their codes.
///
/// | code | class |
/// |---|---|
/// | `OK` | success |
/// | `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `UNAUTHENTICATED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `ABORTED` | invalid request |
/// | `UNAVAILABLE`, `RESOURCE_EXHAUSTED` | retryable, after what `grpc-retry-pushback-ms` says; a failure where that says never |
/// | `UNAVAILABLE` of a stream that HTTP/2 says wasn't processed | rejected before work |
/// | `CANCELLED` | ignored |
/// | `DEADLINE_EXCEEDED`, `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | failure |
///
/// An HTTP response without `grpc-status` in its head is a success if its HTTP status is 200, as far as is known then.
/// One of another HTTP status is judged by the code that it maps to.
///
/// # Example
///
/// ```
/// use tower_classify::{Class, Classify};
/// use tower_grpc::classify::ByStatus;
/// use tower_grpc::Status;
///
/// let class = |status| ByStatus.classify(&(), &Err::<(), _>(status));
/// assert!(class(Status::unavailable("later")).is_retryable());
/// assert_eq!(class(Status::not_found("who?")), Class::InvalidRequest);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus;

impl ByStatus {
    /// What a status means.
    pub fn class_of(self, status: &Status) -> Class {
        if is_unprocessed(status) {
            return Class::RejectedBeforeWork { after: None };
        }
        class(status.code(), status.metadata().raw())
    }
}

fn class(code: Code, headers: &HeaderMap) -> Class {
    match code {
        Code::Ok => Class::Success,
        Code::Cancelled => Class::Ignored,
        Code::Unavailable | Code::ResourceExhausted => match headers.get(PUSHBACK) {
            None => Class::Retryable { after: None },
            Some(value) => match value.to_str().ok().and_then(|text| text.parse().ok()) {
                Some(millis) => Class::Retryable {
                    after: Some(Duration::from_millis(millis)),
                },
                // Negative, or malformed: gRFC A6 has both mean never.
                None => Class::Failure,
            },
        },
        Code::DeadlineExceeded | Code::Unknown | Code::Internal | Code::DataLoss => Class::Failure,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Class::InvalidRequest,
    }
}

#[cfg(feature = "transport")]
fn is_unprocessed(status: &Status) -> bool {
    of_h2(status).any(tower_h2::Error::is_unprocessed)
}

#[cfg(not(feature = "transport"))]
fn is_unprocessed(_: &Status) -> bool {
    false
}

/// Whether a connection that there was hasn't taken the call.
#[cfg(feature = "transport")]
pub(crate) fn is_refused(status: &Status) -> bool {
    use tower_h2::ErrorKind::{Closed, GoAway, Io, Reset};

    let by_connection =
        |error: &tower_h2::Error| matches!(error.kind(), Closed | GoAway | Io | Reset);
    of_h2(status).any(|error| error.is_unprocessed() && by_connection(error))
}

#[cfg(not(feature = "transport"))]
pub(crate) fn is_refused(_: &Status) -> bool {
    false
}

/// The transport's errors that have caused it.
#[cfg(feature = "transport")]
fn of_h2(status: &Status) -> impl Iterator<Item = &tower_h2::Error> {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source())
        .filter_map(|error| error.downcast_ref::<tower_h2::Error>())
}

/// What the head of a response says of the end.
fn class_of_head<B>(response: &Response<B>) -> Class {
    let headers = response.headers();
    match headers.get(GRPC_STATUS) {
        Some(value) => class(Code::from_header(value.as_bytes()), headers),
        None if response.status() == http::StatusCode::OK => Class::Success,
        None => class(Code::from_http(response.status()), headers),
    }
}

impl<Req, B> Classify<Req, Response<B>, Status> for ByStatus {
    fn classify(&self, _: &Req, result: &Result<Response<B>, Status>) -> Class {
        match result {
            Ok(response) => class_of_head(response),
            Err(status) => self.class_of(status),
        }
    }
}

impl<Req> Classify<Req, (), Status> for ByStatus {
    fn classify(&self, _: &Req, result: &Result<(), Status>) -> Class {
        match result {
            Ok(()) => Class::Success,
            Err(status) => self.class_of(status),
        }
    }
}

impl<Req, T> Classify<Req, crate::Response<T>, Status> for ByStatus {
    fn classify(&self, _: &Req, result: &Result<crate::Response<T>, Status>) -> Class {
        match result {
            Ok(_) => Class::Success,
            Err(status) => self.class_of(status),
        }
    }
}

/// Tells how a call ends: its class and its code, once.
///
/// The response passes as it is. A body that is dropped before its end is `CANCELLED`, and one that fails has the
/// code of its error.
///
/// # Example
///
/// ```
/// use http_body_util::BodyExt;
/// use std::sync::mpsc;
/// use tower_classify::Class;
/// use tower_grpc::classify::watch_trailers;
/// use tower_grpc::health::health_reporter;
/// use tower_grpc::{Code, GrpcBody};
/// use tower_service::Service;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (_reporter, mut health) = health_reporter();
/// let request = http::Request::post("/grpc.health.v1.Health/Check")
///     .header("content-type", "application/grpc")
///     .body(GrpcBody::new(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]))))?;
///
/// let (sender, ends) = mpsc::channel();
/// let response = health.call(request).await?;
/// let response = watch_trailers(response, move |class, code| {
///     let _ = sender.send((class, code));
/// });
/// assert!(ends.try_recv().is_err(), "the end is still to come");
/// response.into_body().collect().await?;
/// assert_eq!(ends.try_recv()?, (Class::Success, Code::Ok));
/// # Ok(())
/// # }
/// ```
pub fn watch_trailers<B, F>(response: Response<B>, end: F) -> Response<GrpcBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<crate::BoxError>,
    F: FnOnce(Class, Code) + Send + 'static,
{
    let headers = response.headers();
    let is_http = response.status() != http::StatusCode::OK;
    let said = match headers.get(GRPC_STATUS) {
        Some(value) => Some(Code::from_header(value.as_bytes())),
        None => is_http.then(|| Code::from_http(response.status())),
    };
    let said = said.map(|code| (class(code, headers), code));
    match said {
        Some((class, code)) if is_http || response.body().is_end_stream() => {
            end(class, code);
            response.map(GrpcBody::new)
        }
        said => response.map(|body| {
            GrpcBody::streaming(Watched {
                body,
                said,
                teller: Teller(Some(end)),
            })
        }),
    }
}

pin_project! {
    struct Watched<B, F>
    where
        F: FnOnce(Class, Code),
    {
        #[pin]
        body: B,
        // What the head has said, while nothing has come after it.
        said: Option<(Class, Code)>,
        teller: Teller<F>,
    }
}

/// Tells the end once, if only by being dropped.
struct Teller<F: FnOnce(Class, Code)>(Option<F>);

impl<F: FnOnce(Class, Code)> Teller<F> {
    fn tell(&mut self, class: Class, code: Code) {
        if let Some(end) = self.0.take() {
            end(class, code);
        }
    }
}

impl<F: FnOnce(Class, Code)> Drop for Teller<F> {
    fn drop(&mut self) {
        self.tell(Class::Ignored, Code::Cancelled);
    }
}

impl<B, F> Body for Watched<B, F>
where
    B: Body<Data = Bytes>,
    B::Error: Into<crate::BoxError>,
    F: FnOnce(Class, Code),
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let frame = frame.map(|frame| frame.map_err(Status::from_error));
        match &frame {
            None => {
                // Without trailers nobody knows.
                let end = this.said.take();
                let (class, code) = end.unwrap_or((Class::Failure, Code::Internal));
                this.teller.tell(class, code);
            }
            Some(Err(status)) => this.teller.tell(ByStatus.class_of(status), status.code()),
            Some(Ok(frame)) => {
                if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                    *this.said = None;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    let code = trailers
                        .get(GRPC_STATUS)
                        .map_or(Code::Internal, |value| Code::from_header(value.as_bytes()));
                    this.teller.tell(class(code, trailers), code);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Status) -> Class {
        ByStatus.classify(&(), &Err::<(), _>(status))
    }

    fn pushed_back(text: &'static str) -> Class {
        let trailers = HeaderMap::from_iter([
            (GRPC_STATUS, http::HeaderValue::from_static("14")),
            (
                http::HeaderName::from_static(PUSHBACK),
                http::HeaderValue::from_static(text),
            ),
        ]);
        of(Status::from_trailers(trailers).unwrap().unwrap_err())
    }

    #[test]
    fn a_server_says_when_to_come_again() {
        let after = Some(Duration::from_millis(250));
        assert_eq!(pushed_back("250"), Class::Retryable { after });
        assert_eq!(pushed_back("-1"), Class::Failure);
        assert_eq!(pushed_back("soon"), Class::Failure);
    }

    #[test]
    fn the_head_of_a_response_says_what_it_can() {
        let class = |http: u16, grpc: Option<&str>| {
            let mut response = Response::builder().status(http);
            if let Some(code) = grpc {
                response = response.header("grpc-status", code);
            }
            ByStatus.classify(&(), &Ok::<_, Status>(response.body(()).unwrap()))
        };
        assert_eq!(class(200, None), Class::Success);
        assert_eq!(class(200, Some("5")), Class::InvalidRequest);
        assert_eq!(class(200, Some("13")), Class::Failure);
        assert!(class(503, None).is_retryable());
        assert_eq!(class(401, None), Class::InvalidRequest);
    }

    #[tokio::test]
    async fn the_head_of_a_response_is_its_end_only_where_nothing_follows() {
        use futures_util::stream;
        use http_body_util::{BodyExt, StreamBody};

        let trailers = |code| {
            let fields = [(GRPC_STATUS, http::HeaderValue::from_static(code))];
            Frame::trailers(HeaderMap::from_iter(fields))
        };
        let data = || Frame::data(Bytes::from_static(&[0; 5]));
        for (frames, code) in [
            (vec![], Code::NotFound),
            (vec![Frame::data(Bytes::new())], Code::NotFound),
            (vec![data()], Code::Internal),
            (vec![trailers("9")], Code::FailedPrecondition),
            (vec![data(), trailers("0")], Code::Ok),
        ] {
            let body = stream::iter(frames.into_iter().map(Ok::<_, Status>));
            let response = Response::builder().header("grpc-status", "5");
            let response = response.body(StreamBody::new(body)).unwrap();
            let (sender, ends) = std::sync::mpsc::channel();
            let response = watch_trailers(response, move |_, code| sender.send(code).unwrap());
            assert!(ends.try_recv().is_err());
            response.into_body().collect().await.unwrap();
            assert_eq!(ends.try_recv(), Ok(code));
        }
    }

    #[test]
    fn what_the_caller_gave_up_says_nothing() {
        assert_eq!(of(Status::cancelled("")), Class::Ignored);
        assert_eq!(of(Status::deadline_exceeded("")), Class::Failure);
    }
}
