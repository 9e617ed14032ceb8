//! Requests that aren't answered by a method.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Body;
use tokio::runtime::Handle;
use tower_deadline::Deadline;

use super::{ResponseFuture, failure};
use crate::compression::{EncodingSet, GRPC_ACCEPT_ENCODING};
use crate::{GrpcBody, Status, content_type};

/// How much of the body of a request that isn't gRPC is read before it is answered …
const DRAIN_BYTES: usize = 256 * 1024;
/// … and for how long.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why a request isn't answered by a method.
pub(super) enum Refusal {
    /// It isn't gRPC; the status and the text tell whoever speaks HTTP.
    Http(StatusCode, &'static str),
    Failure(Status),
    /// Its messages are compressed in a way that isn't accepted.
    Encoding(HeaderValue, EncodingSet),
}

impl Refusal {
    /// What is wrong with the method or the content type.
    pub(super) fn of_protocol<B>(request: &http::Request<B>) -> Option<Self> {
        let content_type = || request.headers().get(header::CONTENT_TYPE);
        Self::of_method(request.method()).or_else(|| Self::of_content_type(content_type(), None))
    }

    pub(super) fn of_method(method: &Method) -> Option<Self> {
        (*method != Method::POST).then(|| {
            let text = "This is a gRPC server: calls are POST requests.\n";
            Self::Http(StatusCode::METHOD_NOT_ALLOWED, text)
        })
    }

    /// `subtype` is that of the codec where there is one.
    pub(super) fn of_content_type(
        content_type: Option<&HeaderValue>,
        subtype: Option<&str>,
    ) -> Option<Self> {
        let known = content_type.is_some_and(|value| is_grpc(value.as_bytes(), subtype));
        (!known).then(|| {
            let text = "This is a gRPC server: the content type of calls is application/grpc.\n";
            Self::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
        })
    }

    /// The answer, after a look at what else the client sends.
    pub(super) fn answer<B>(self, body: B) -> ResponseFuture
    where
        B: Body + Send + 'static,
    {
        ResponseFuture::new(None, async move {
            match self {
                Self::Http(status, text) => {
                    // HTTP/2 finds faults in a body only as it is read, and some clients send all of it first.
                    drain(body).await;
                    http(status, text)
                }
                Self::Failure(status) => failure(status),
                Self::Encoding(name, accepted) => encoding(&name, accepted),
            }
        })
    }
}

/// Whether the content type is gRPC's, in this format where there is one.
fn is_grpc(content_type: &[u8], format: Option<&str>) -> bool {
    // As nearly every client has it.
    content_type == b"application/grpc"
        || content_type::subtype(content_type).is_some_and(|named| {
            named.is_empty() || format.is_none_or(|format| format.as_bytes() == named)
        })
}

fn http(status: StatusCode, text: &'static str) -> http::Response<GrpcBody> {
    let mut response = http::Response::new(GrpcBody::message(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn encoding(name: &HeaderValue, accepted: EncodingSet) -> http::Response<GrpcBody> {
    let name = String::from_utf8_lossy(name.as_bytes());
    let status = Status::unimplemented(format!(
        "messages can't be decompressed from grpc-encoding {name:?}; see grpc-accept-encoding"
    ));
    let mut response = failure(status);
    let list = accepted
        .to_header()
        .unwrap_or(HeaderValue::from_static("identity"));
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, list);
    response
}

async fn drain<B: Body>(body: B) {
    let mut body = pin!(body);
    let read = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let len = frame.data_ref().map_or(0, Buf::remaining);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Without a runtime there is no timer; then whoever polls bounds it.
    match Handle::try_current() {
        Ok(_) => {
            let _ = Deadline::after(DRAIN_TIME).within(read).await;
        }
        Err(_) => read.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_grpc_are_known_from_others() {
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC",
        ] {
            assert!(is_grpc(good.as_bytes(), Some("proto")), "{good}");
        }
        for bad in ["", "application/grpc-web", "application/grpc+json"] {
            assert!(!is_grpc(bad.as_bytes(), Some("proto")), "{bad}");
        }
        // Where no method is known, neither is its codec.
        assert!(is_grpc(b"application/grpc+json", None));
    }
}
