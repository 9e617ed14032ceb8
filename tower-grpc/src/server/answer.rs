//! How calls are answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use http::{HeaderMap, HeaderValue, Version, header};
use pin_project_lite::pin_project;
use tower_deadline::Deadline;

use crate::codec::{Codec, Encode, Prost};
use crate::compression::{Encoding, GRPC_ENCODING};
use crate::expiry::Expiry;
use crate::outbound::{GrpcBody, Responses, Typed, Writing, as_failure, ok_trailers, template};
use crate::{Metadata, Response, Status};

/// How a stream is to be answered with. For generated code.
#[derive(Debug)]
pub struct Reply<C> {
    pub(super) codec: C,
    pub(super) writing: Writing,
    pub(super) deadline: Option<Deadline>,
}

/// A response as it goes out. For generated code.
#[derive(Debug)]
pub struct Answer(http::Response<GrpcBody>);

impl<C> Reply<C> {
    /// The answer that a handler's stream makes.
    pub fn stream<S, T>(self, response: Response<S>) -> Answer
    where
        C: Encode<T>,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
        T: 'static,
    {
        Answer(write_stream(
            self.codec,
            response,
            self.writing,
            self.deadline,
        ))
    }
}

impl Answer {
    /// What goes out for a handler that may have failed.
    pub(super) fn of(result: Result<Self, Status>) -> http::Response<GrpcBody> {
        result.map_or_else(failure, |answer| answer.0)
    }
}

pin_project! {
    /// Writes the one message that a handler gives.
    pub(super) struct Written<F, C> {
        #[pin]
        handling: F,
        codec: C,
        writing: Writing,
    }
}

impl<F, C> Written<F, C> {
    #[inline]
    pub(super) fn new(handling: F, codec: C, writing: Writing) -> Self {
        Self {
            handling,
            codec,
            writing,
        }
    }
}

impl<F, C, Res> Future for Written<F, C>
where
    F: Future<Output = Result<Response<Res>, Status>>,
    C: Encode<Res>,
{
    type Output = http::Response<GrpcBody>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.handling.poll(cx)) {
            Ok(response) => write_single(this.codec, response, this.writing),
            Err(status) => failure(status),
        })
    }
}

pub(crate) fn content_type<C: Codec>() -> HeaderValue {
    match C::SUBTYPE {
        "proto" => HeaderValue::from_static("application/grpc+proto"),
        subtype => HeaderValue::try_from(format!("application/grpc+{subtype}"))
            .unwrap_or(HeaderValue::from_static("application/grpc")),
    }
}

/// The head of a response with messages.
fn head<C: Codec>(metadata: Metadata, encoding: Option<Encoding>) -> HeaderMap {
    // As nearly all are.
    static PROTO: LazyLock<HeaderMap> =
        LazyLock::new(|| template(header::CONTENT_TYPE, content_type::<Prost>()));

    let metadata = metadata.unless_new();
    if C::SUBTYPE == "proto" && encoding.is_none() && metadata.is_none() {
        return PROTO.clone();
    }
    let mut headers = metadata.map(Metadata::into_headers).unwrap_or_default();
    headers.insert(header::CONTENT_TYPE, content_type::<C>());
    if let Some(encoding) = encoding {
        headers.insert(GRPC_ENCODING, encoding.to_header());
    }
    headers
}

fn respond(headers: HeaderMap, body: GrpcBody) -> http::Response<GrpcBody> {
    let mut response = http::Response::new(body);
    *response.version_mut() = Version::HTTP_2;
    // An empty one has nothing to drop, but looks for it.
    std::mem::forget(std::mem::replace(response.headers_mut(), headers));
    response
}

pub(super) fn write_single<C, T>(
    codec: &mut C,
    response: Response<T>,
    writing: &Writing,
) -> http::Response<GrpcBody>
where
    C: Encode<T>,
{
    let (message, metadata, trailers, extensions, compression) = response.into_parts();
    let writing = Writing {
        compression,
        ..*writing
    };
    let bytes = match writing.message(codec, message) {
        Ok(bytes) => bytes,
        Err(status) => return failure(status),
    };
    let body = GrpcBody::unary(bytes, ok_trailers(trailers));
    let mut response = respond(head::<C>(metadata, writing.encoding), body);
    *response.extensions_mut() = extensions;
    response
}

fn write_stream<C, S, T>(
    codec: C,
    response: Response<S>,
    mut writing: Writing,
    deadline: Option<Deadline>,
) -> http::Response<GrpcBody>
where
    C: Encode<T>,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
    T: 'static,
{
    let (stream, metadata, trailers, extensions, compression) = response.into_parts();
    writing.compression = compression;
    let headers = head::<C>(metadata, writing.encoding);
    let responses = Responses::new(stream, codec, writing, trailers, Expiry::new(deadline));
    let body = GrpcBody::streaming(Typed::<T, _>::new(responses));
    let mut response = respond(headers, body);
    *response.extensions_mut() = extensions;
    response
}

/// A response that is only trailers.
pub(crate) fn failure(status: Status) -> http::Response<GrpcBody> {
    let mut headers = as_failure(status).into_trailers();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    respond(headers, GrpcBody::empty())
}
