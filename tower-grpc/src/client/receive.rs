//! The responses of a server.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_deadline::Deadline;

use super::late;
use crate::codec::{Codec, Decode};
use crate::compression::{Announced, EncodingSet, GRPC_ENCODING};
use crate::expiry::{Expiry, expired};
use crate::inbound::Inbound;
use crate::status::GRPC_STATUS;
use crate::streaming::Source;
use crate::{BoxError, Code, Metadata, Response, Status, content_type};

pin_project! {
    /// A response whose head is in order.
    pub(super) struct Answer<B> {
        metadata: Metadata,
        extensions: Extensions,
        // The end, where the head has said it: there are no messages then.
        #[pin]
        body: Option<Inbound<B>>,
    }
}

impl<B> Answer<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Looks at the head; the error is what it says of a failure, or what is wrong with it.
    pub(super) fn read(
        response: http::Response<B>,
        subtype: &str,
        accept: EncodingSet,
        max: usize,
    ) -> Result<Self, Status> {
        let (head, body) = response.into_parts();
        let fields = Fields::read(&head.headers);
        // Only trailers. Where a body follows, what comes after it counts; but what isn't gRPC has no such end.
        if fields.has_status && (body.is_end_stream() || head.status != StatusCode::OK) {
            let metadata = Status::from_trailers(head.headers).unwrap_or(Ok(Metadata::new()))?;
            return Ok(Self {
                metadata,
                extensions: head.extensions,
                body: None,
            });
        }
        check_http(head.status, fields.content_type, subtype)?;
        let encoding = match Announced::read(fields.encoding) {
            Announced::Plain => None,
            Announced::Known(encoding) if accept.contains(encoding) => Some(encoding),
            _ => {
                let name = fields.encoding;
                return Err(Status::internal(format!(
                    "the server compresses with {name:?}, which it wasn't offered"
                )));
            }
        };
        Ok(Self {
            metadata: Metadata::received(head.headers),
            extensions: head.extensions,
            body: Some(Inbound::new(body, encoding, max)),
        })
    }
}

/// The one message that the method answers with.
pub(super) async fn single<B, T, C>(
    response: http::Response<B>,
    mut codec: C,
    accept: EncodingSet,
    max: usize,
) -> Result<Response<T>, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Decode<T>,
{
    let none = || Status::unimplemented("there is no message, where the method answers with one");
    let Answer {
        metadata,
        extensions,
        body,
    } = Answer::read(response, C::SUBTYPE, accept, max)?;
    let mut body = pin!(body.ok_or_else(none)?);
    let mut single = None;
    let polled = poll_fn(|cx| body.as_mut().poll_single(&mut single, &mut codec, cx)).await;
    let ended = polled.and_then(|()| read_end(body.as_mut(), &metadata));
    let trailers = ended.map_err(|mut status| {
        status.metadata_mut().complete(&metadata);
        status
    })?;
    Ok(Response::received(
        single.ok_or_else(none)?,
        metadata,
        trailers,
        extensions,
        body.was_compressed(),
    ))
}

/// What is to be known of a response's headers. One pass costs less than a lookup for each.
#[derive(Default)]
struct Fields<'a> {
    has_status: bool,
    content_type: Option<&'a HeaderValue>,
    encoding: Option<&'a HeaderValue>,
}

impl<'a> Fields<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if *name == header::CONTENT_TYPE {
                fields.content_type = fields.content_type.or(Some(value));
            } else if *name == GRPC_STATUS {
                fields.has_status = true;
            } else if *name == GRPC_ENCODING {
                fields.encoding = fields.encoding.or(Some(value));
            }
        }
        fields
    }
}

/// What a response says that isn't gRPC, or not in the codec's format.
fn check_http(
    status: StatusCode,
    content_type: Option<&HeaderValue>,
    subtype: &str,
) -> Result<(), Status> {
    if status != StatusCode::OK {
        let message = format!("the server answered with the HTTP status {status}");
        return Err(Status::new(Code::from_http(status), message));
    }
    match content_type.and_then(|value| content_type::subtype(value.as_bytes())) {
        Some(named) if named.is_empty() || named == subtype.as_bytes() => Ok(()),
        Some(_) => Err(Status::internal(format!(
            "the server answered with the content type {content_type:?}, where the codec reads {subtype}"
        ))),
        None => Err(Status::unknown(format!(
            "the server answered with the content type {content_type:?}, which isn't gRPC's"
        ))),
    }
}

/// How the trailers say that the call has ended; or its head, where nothing at all came after it.
fn read_end<B>(messages: Pin<&mut Inbound<B>>, head: &Metadata) -> Result<Metadata, Status> {
    let is_blank = messages.is_blank();
    messages
        .take_trailers()
        .or_else(|| is_blank.then(|| head.raw().clone()))
        .and_then(Status::from_trailers)
        .unwrap_or_else(|| Err(Status::internal("the response ends without a grpc-status")))
}

pin_project! {
    /// The messages of a server, from before its head is there.
    pub(super) struct Answers<F, B, C> {
        codec: C,
        accept: EncodingSet,
        max: usize,
        #[pin]
        stage: Stage<F, B>,
        metadata: Option<Metadata>,
        trailers: Option<Metadata>,
        // The failure that is still to be told.
        failure: Option<Status>,
        was_compressed: bool,
        expiry: Expiry,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<F, B> {
        Waiting { #[pin] response: F },
        Receiving { #[pin] messages: Inbound<B> },
        Ended,
    }
}

impl<F, B, C> Answers<F, B, C> {
    pub(super) fn new(
        response: F,
        codec: C,
        accept: EncodingSet,
        max: usize,
        deadline: Option<Deadline>,
    ) -> Self {
        Self {
            codec,
            accept,
            max,
            stage: Stage::Waiting { response },
            metadata: None,
            trailers: None,
            failure: None,
            was_compressed: false,
            expiry: Expiry::new(deadline),
        }
    }
}

impl<F, B, C, E> Answers<F, B, C>
where
    // The response.
    F: Future<Output = Result<http::Response<B>, E>>,
    E: Into<BoxError>,
    // Its body.
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Codec,
{
    /// Ends the call with a failure.
    fn fail(self: Pin<&mut Self>, status: Status) {
        let mut this = self.project();
        // This resets the stream, if it is open still.
        this.stage.set(Stage::Ended);
        let deadline = this.expiry.deadline();
        *this.failure = Some(match deadline {
            Some(deadline) => late(status, deadline),
            None => status,
        });
    }

    #[inline]
    fn poll_head(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.stage {
            Stage::Waiting { .. } => self.poll_waiting(cx),
            Stage::Receiving { .. } | Stage::Ended => Poll::Ready(()),
        }
    }

    // Waiting -> Receiving, Ended.
    fn poll_waiting(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        let StageProj::Waiting { response } = this.stage.as_mut().project() else {
            return Poll::Ready(());
        };
        let Poll::Ready(response) = response.poll(cx) else {
            ready!(this.expiry.poll(cx));
            self.fail(expired());
            return Poll::Ready(());
        };
        let answer = response
            .map_err(Status::from_error)
            .and_then(|response| Answer::read(response, C::SUBTYPE, *this.accept, *this.max));
        match answer {
            Err(status) => self.fail(status),
            Ok(answer) => match answer.body {
                Some(messages) => {
                    *this.metadata = Some(answer.metadata);
                    this.stage.set(Stage::Receiving { messages });
                }
                None => {
                    *this.metadata = Some(Metadata::new());
                    *this.trailers = Some(answer.metadata);
                    this.stage.set(Stage::Ended);
                }
            },
        }
        Poll::Ready(())
    }

    // Receiving -> Ended.
    fn end(mut self: Pin<&mut Self>, ended: Result<(), Status>) {
        let mut this = self.as_mut().project();
        let StageProj::Receiving { mut messages } = this.stage.as_mut().project() else {
            return;
        };
        *this.was_compressed = messages.was_compressed();
        let head = this.metadata.get_or_insert_default();
        match ended.and_then(|()| read_end(messages.as_mut(), head)) {
            Ok(trailers) => {
                *this.trailers = Some(trailers);
                this.stage.set(Stage::Ended);
            }
            Err(status) => self.fail(status),
        }
    }
}

impl<F, B, C, E, T> Source<T> for Answers<F, B, C>
where
    // The response.
    F: Future<Output = Result<http::Response<B>, E>>,
    E: Into<BoxError>,
    // Its body.
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Decode<T>,
{
    #[inline]
    fn poll_message(
        mut self: Pin<&mut Self>,
        place: &mut Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        ready!(self.as_mut().poll_head(cx));
        let mut this = self.as_mut().project();
        if let StageProj::Receiving { mut messages } = this.stage.as_mut().project() {
            let ended = match messages.as_mut().poll_message(this.codec, place, cx) {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(ended) => ended.map(drop),
                Poll::Pending => {
                    ready!(this.expiry.poll(cx));
                    Err(expired())
                }
            };
            self.as_mut().end(ended);
        }
        Poll::Ready(self.project().failure.take().map_or(Ok(()), Err))
    }

    fn poll_metadata(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_head(cx)
    }

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    fn trailers(&self) -> Option<&Metadata> {
        self.trailers.as_ref()
    }

    fn was_compressed(&self) -> bool {
        match &self.stage {
            Stage::Receiving { messages } => messages.was_compressed(),
            Stage::Waiting { .. } | Stage::Ended => self.was_compressed,
        }
    }

    fn failure(&self) -> Option<&Status> {
        self.failure.as_ref()
    }
}
