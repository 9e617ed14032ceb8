//! What generated servers are made of, and what serves them.
//!
//! A generated `GreeterServer` is a `Service` of `http::Request`s. Mount it wherever such services go: on
//! [`Server`], next to other services in a [`Router`], or under any HTTP/2 server and framework.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Extensions, HeaderMap, HeaderValue, Version, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_deadline::Deadline;

use crate::codec::{Codec, Decode, Encode};
use crate::compression::{Announced, Encoding, EncodingSet, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use crate::expiry::{Expiry, expired};
use crate::inbound::Inbound;
use crate::outbound::{GrpcBody, Responses, Typed, Writing, as_failure, ok_trailers};
use crate::streaming::{Source, Streaming};
use crate::{BoxError, Metadata, Request, Response, Status, timeout};

mod refusal;
mod router;
#[cfg(feature = "transport")]
mod serve;

pub use self::router::{GrpcService, Router};
#[cfg(feature = "transport")]
pub use self::serve::{Server, ServerBuilder};

use self::refusal::Refusal;

/// What a peer may send, and how it is answered. Each generated server has one.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    max_decoding: usize,
    max_encoding: usize,
    accept: EncodingSet,
    send: EncodingSet,
}

/// How large a received message may be where nobody says otherwise: as all implementations of gRPC have it.
pub(crate) const MAX_DECODING: usize = 4 * 1024 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_decoding: MAX_DECODING,
            max_encoding: usize::MAX,
            accept: EncodingSet::all(),
            send: EncodingSet::NONE,
        }
    }
}

impl Settings {
    /// How many bytes a received message may have, before it is decompressed and after.
    pub fn set_max_decoding_message_size(&mut self, bytes: usize) {
        self.max_decoding = bytes;
    }

    /// How many bytes a message that is sent may have, before it is compressed.
    pub fn set_max_encoding_message_size(&mut self, bytes: usize) {
        self.max_encoding = bytes;
    }

    /// Which encodings received messages may have.
    pub fn set_accepted_encodings(&mut self, encodings: impl IntoIterator<Item = Encoding>) {
        self.accept = encodings.into_iter().collect();
    }

    /// Compresses messages in the first of these that the peer accepts.
    pub fn set_sent_encodings(&mut self, encodings: impl IntoIterator<Item = Encoding>) {
        self.send = encodings.into_iter().collect();
    }
}

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

/// Answers a method of one message each way. For generated code.
pub fn unary<B, C, Req, Res, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req> + Encode<Res>,
    Req: Send + 'static,
    Res: Send + 'static,
    // The handler.
    H: FnOnce(Request<Req>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Res>, Status>> + Send,
{
    let Opened {
        incoming,
        writing,
        deadline,
    } = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let mut codec = codec;
    ResponseFuture::new(deadline, async move {
        let request = match incoming.single(&mut codec).await {
            Ok(request) => request,
            Err(status) => return failure(status),
        };
        match handler(request).await {
            Ok(response) => write_single(&mut codec, response, writing),
            Err(status) => failure(status),
        }
    })
}

/// Answers a method of many messages to the server and one back. For generated code.
pub fn client_streaming<B, C, Req, Res, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req> + Encode<Res>,
    Req: Send + 'static,
    Res: Send + 'static,
    // The handler.
    H: FnOnce(Request<Streaming<Req>>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Res>, Status>> + Send,
{
    let Opened {
        incoming,
        writing,
        deadline,
    } = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let mut codec = codec;
    ResponseFuture::new(deadline, async move {
        match handler(incoming.stream::<C, Req>()).await {
            Ok(response) => write_single(&mut codec, response, writing),
            Err(status) => failure(status),
        }
    })
}

/// Answers a method of one message to the server and many back. For generated code.
///
/// The handler turns its stream into the answer itself, by [`Reply::stream`]: what it awaits for may borrow, what
/// it leaves may not.
pub fn server_streaming<B, C, Req, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The message.
    C: Decode<Req>,
    Req: Send + 'static,
    // The handler.
    H: FnOnce(Request<Req>, Reply<C>) -> F + Send + 'static,
    F: Future<Output = Result<Answer, Status>> + Send,
{
    let Opened {
        incoming,
        writing,
        deadline,
    } = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let mut codec = codec;
    ResponseFuture::new(deadline, async move {
        let request = match incoming.single(&mut codec).await {
            Ok(request) => request,
            Err(status) => return failure(status),
        };
        let reply = Reply {
            codec,
            writing,
            deadline,
        };
        let answer = handler(request, reply).await;
        answer.map_or_else(failure, |answer| answer.0)
    })
}

/// Answers a method of many messages each way. For generated code.
///
/// See [`server_streaming`].
pub fn streaming<B, C, Req, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req>,
    Req: Send + 'static,
    // The handler.
    H: FnOnce(Request<Streaming<Req>>, Reply<C>) -> F + Send + 'static,
    F: Future<Output = Result<Answer, Status>> + Send,
{
    let Opened {
        incoming,
        writing,
        deadline,
    } = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    ResponseFuture::new(deadline, async move {
        let reply = Reply {
            codec,
            writing,
            deadline,
        };
        let answer = handler(incoming.stream::<C, Req>(), reply).await;
        answer.map_or_else(failure, |answer| answer.0)
    })
}

/// How a stream is to be answered with. For generated code.
#[derive(Debug)]
pub struct Reply<C> {
    codec: C,
    writing: Writing,
    deadline: Option<Deadline>,
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

/// Answers a call of a method that there isn't. For generated code.
pub fn unimplemented<B>(request: http::Request<B>) -> ResponseFuture
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let refusal = Refusal::of_protocol(&request).unwrap_or_else(|| {
        let path = request.uri().path();
        Refusal::Failure(Status::unimplemented(format!("there is no method {path}")))
    });
    refusal.answer(request.into_body())
}

/// A call whose head is in order.
struct Opened<B> {
    incoming: Incoming<B>,
    writing: Writing,
    deadline: Option<Deadline>,
}

impl<B> Opened<B> {
    fn read(
        settings: Settings,
        subtype: &'static str,
        request: http::Request<B>,
    ) -> Result<Self, (Refusal, B)>
    where
        B: Body,
    {
        if let Some(refusal) = Refusal::of_method(request.method()) {
            return Err((refusal, request.into_body()));
        }
        let (head, body) = request.into_parts();
        let fields = match Fields::read(settings, subtype, &head.headers) {
            Ok(fields) => fields,
            Err(refusal) => return Err((refusal, body)),
        };
        let ambient = Deadline::current();
        let asked = fields.timeout.map(Deadline::after);
        Ok(Self {
            writing: Writing {
                encoding: fields.send,
                compression: None,
                max: settings.max_encoding,
            },
            deadline: asked.map(|asked| ambient.map_or(asked, |now| now.min(asked))),
            incoming: Incoming {
                messages: Inbound::new(body, fields.encoding, settings.max_decoding),
                headers: head.headers,
                extensions: head.extensions,
                timeout: fields.timeout,
            },
        })
    }
}

/// What the headers say of the time and of encodings.
struct Fields {
    timeout: Option<Duration>,
    encoding: Option<Encoding>,
    send: Option<Encoding>,
}

impl Fields {
    /// One pass, which costs less than a lookup for each.
    fn read(settings: Settings, subtype: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut fields = Self {
            timeout: None,
            encoding: None,
            send: None,
        };
        let mut content_type = None;
        let mut refusal = None;
        for (name, value) in headers {
            if *name == header::CONTENT_TYPE {
                content_type = content_type.or(Some(value));
            } else if *name == timeout::GRPC_TIMEOUT {
                fields.timeout = timeout::parse(value.as_bytes());
                if fields.timeout.is_none() {
                    let message = format!("grpc-timeout is malformed: {value:?}");
                    refusal = Some(Refusal::Failure(Status::internal(message)));
                }
            } else if *name == GRPC_ENCODING {
                match read_encoding(settings, value) {
                    Ok(encoding) => fields.encoding = encoding,
                    Err(unknown) => refusal = Some(unknown),
                }
            } else if settings.send != EncodingSet::NONE && *name == GRPC_ACCEPT_ENCODING {
                fields.send = settings.send.first_of(EncodingSet::from_header(value));
            }
        }
        // Whoever speaks no gRPC is told so first.
        match Refusal::of_content_type(content_type, Some(subtype)).or(refusal) {
            Some(refusal) => Err(refusal),
            None => Ok(fields),
        }
    }
}

/// How the messages are compressed that come.
fn read_encoding(settings: Settings, value: &HeaderValue) -> Result<Option<Encoding>, Refusal> {
    match Announced::read(Some(value)) {
        Announced::Plain => Ok(None),
        Announced::Known(encoding) if settings.accept.contains(encoding) => Ok(Some(encoding)),
        Announced::Known(_) | Announced::Unknown => {
            Err(Refusal::Encoding(value.clone(), settings.accept))
        }
    }
}

/// The client's side of a call.
struct Incoming<B> {
    messages: Inbound<B>,
    headers: HeaderMap,
    extensions: Extensions,
    timeout: Option<Duration>,
}

impl<B> Incoming<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// The one message that the method takes.
    async fn single<T, C: Decode<T>>(self, codec: &mut C) -> Result<Request<T>, Status> {
        let mut messages = pin!(self.messages);
        let mut single = None;
        poll_fn(|cx| messages.as_mut().poll_single(&mut single, codec, cx)).await?;
        let message = single.ok_or_else(|| {
            Status::unimplemented("there is no message, where the method takes one")
        })?;
        Ok(Request::received(
            message,
            Metadata::received(self.headers),
            self.extensions,
            self.timeout,
            messages.was_compressed(),
        ))
    }

    /// The messages as they come.
    fn stream<C, T>(self) -> Request<Streaming<T>>
    where
        B: Send + 'static,
        C: Decode<T>,
        T: Send + 'static,
    {
        let source = Requests {
            codec: C::default(),
            state: Reading::Open {
                messages: self.messages,
            },
            was_compressed: false,
        };
        Request::received(
            Streaming::new(source),
            Metadata::received(self.headers),
            self.extensions,
            self.timeout,
            false,
        )
    }
}

pin_project! {
    /// The messages of a client, for a handler.
    struct Requests<B, C> {
        codec: C,
        #[pin]
        state: Reading<B>,
        was_compressed: bool,
    }
}

pin_project! {
    #[project = ReadingProj]
    enum Reading<B> {
        Open { #[pin] messages: Inbound<B> },
        Ended,
    }
}

impl<B, C, T> Source<T> for Requests<B, C>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Decode<T>,
{
    fn poll_message(
        self: Pin<&mut Self>,
        place: &mut Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        let mut this = self.project();
        let ReadingProj::Open { mut messages } = this.state.as_mut().project() else {
            return Poll::Ready(Ok(()));
        };
        let polled = ready!(messages.as_mut().poll_message(this.codec, place, cx));
        *this.was_compressed = messages.was_compressed();
        if let Ok(false) | Err(_) = polled {
            this.state.set(Reading::Ended);
        }
        Poll::Ready(polled.map(drop))
    }

    fn poll_metadata(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn metadata(&self) -> Option<&Metadata> {
        None
    }

    fn trailers(&self) -> Option<&Metadata> {
        None
    }

    fn was_compressed(&self) -> bool {
        self.was_compressed
    }

    fn failure(&self) -> Option<&Status> {
        None
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
    let mut headers = metadata.into_headers();
    headers.insert(header::CONTENT_TYPE, content_type::<C>());
    if let Some(encoding) = encoding {
        headers.insert(GRPC_ENCODING, encoding.to_header());
    }
    headers
}

fn respond(headers: HeaderMap, body: GrpcBody) -> http::Response<GrpcBody> {
    let mut response = http::Response::new(body);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = headers;
    response
}

fn write_single<C, T>(
    codec: &mut C,
    response: Response<T>,
    mut writing: Writing,
) -> http::Response<GrpcBody>
where
    C: Encode<T>,
{
    let (message, metadata, trailers, extensions, compression) = response.into_parts();
    writing.compression = compression;
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
