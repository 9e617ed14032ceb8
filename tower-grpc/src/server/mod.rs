//! What generated servers are made of, and what serves them.
//!
//! A generated `GreeterServer` is a `Service` of `http::Request`s. Mount it wherever such services go: on
//! [`Server`], next to other services in a [`Router`], or under any HTTP/2 server and framework.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, Version, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_deadline::{Deadline, Scope, inherit};

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
}

impl ResponseFuture {
    pub(crate) fn new(
        call: impl Future<Output = http::Response<GrpcBody>> + Send + 'static,
    ) -> Self {
        Self {
            call: Box::pin(call),
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<GrpcBody>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.as_mut().poll(cx).map(Ok)
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
    opened(
        settings,
        codec,
        request,
        move |opened, mut codec| async move {
            let writing = opened.writing;
            let answer = async {
                let request = opened.incoming.single(&mut codec).await?;
                handler(request).await
            };
            match answer.await {
                Ok(response) => write_single(&mut codec, response, writing),
                Err(status) => failure(status),
            }
        },
    )
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
    opened(
        settings,
        codec,
        request,
        move |opened, mut codec| async move {
            let writing = opened.writing;
            match handler(opened.incoming.stream::<C, Req>()).await {
                Ok(response) => write_single(&mut codec, response, writing),
                Err(status) => failure(status),
            }
        },
    )
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
    opened(
        settings,
        codec,
        request,
        move |opened, mut codec| async move {
            let (writing, deadline) = (opened.writing, opened.deadline);
            let answer = async {
                let request = opened.incoming.single(&mut codec).await?;
                let reply = Reply {
                    codec,
                    writing,
                    deadline,
                };
                handler(request, reply).await
            };
            answer.await.map_or_else(failure, |answer| answer.0)
        },
    )
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
    opened(settings, codec, request, move |opened, codec| async move {
        let (writing, deadline) = (opened.writing, opened.deadline);
        let reply = Reply {
            codec,
            writing,
            deadline,
        };
        let answer = handler(opened.incoming.stream::<C, Req>(), reply).await;
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
    let refusal = Refusal::of_protocol(&request, None).unwrap_or_else(|| {
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

/// Looks at the head of a request, and answers it by `work`, or says what is wrong.
fn opened<B, C, W, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    work: W,
) -> ResponseFuture
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Codec,
    W: FnOnce(Opened<B>, C) -> F,
    F: Future<Output = http::Response<GrpcBody>> + Send + 'static,
{
    match Opened::read(settings, C::SUBTYPE, request) {
        Err((refusal, body)) => refusal.answer(body),
        Ok(opened) => {
            let expiry = Expiry::new(opened.deadline);
            let work = work(opened, codec);
            let work = match expiry.deadline() {
                Some(deadline) => deadline.enter(|| inherit(work)),
                None => inherit(work),
            };
            ResponseFuture::new(Call { work, expiry })
        }
    }
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
        if let Some(refusal) = Refusal::of_protocol(&request, Some(subtype)) {
            return Err((refusal, request.into_body()));
        }
        let (head, body) = request.into_parts();
        let (timeout, encoding) = match read_fields(settings, &head.headers) {
            Ok(fields) => fields,
            Err(refusal) => return Err((refusal, body)),
        };
        let accepted = match settings.send {
            EncodingSet::NONE => None,
            _ => head.headers.get(GRPC_ACCEPT_ENCODING),
        };
        let accepted = accepted.map_or(EncodingSet::NONE, EncodingSet::from_header);
        let wanted = Encoding::ALL.iter().copied();
        let deadline = timeout.map(Deadline::after);
        Ok(Self {
            writing: Writing {
                encoding: wanted
                    .filter(|encoding| accepted.contains(*encoding))
                    .find(|encoding| settings.send.contains(*encoding)),
                compression: None,
                max: settings.max_encoding,
            },
            deadline: deadline.map(|asked| Deadline::current().map_or(asked, |now| now.min(asked))),
            incoming: Incoming {
                messages: Inbound::new(body, encoding, settings.max_decoding),
                head,
                timeout,
            },
        })
    }
}

type Fields = (Option<std::time::Duration>, Option<Encoding>);

/// What the headers say of the time and the encoding.
fn read_fields(settings: Settings, headers: &HeaderMap) -> Result<Fields, Refusal> {
    let timeout = match headers.get(timeout::GRPC_TIMEOUT) {
        None => None,
        Some(value) => Some(timeout::parse(value.as_bytes()).ok_or_else(|| {
            Refusal::Failure(Status::internal(format!(
                "grpc-timeout is malformed: {value:?}"
            )))
        })?),
    };
    let encoding = match Announced::read(headers.get(GRPC_ENCODING)) {
        Announced::Plain => None,
        Announced::Known(encoding) if settings.accept.contains(encoding) => Some(encoding),
        Announced::Known(encoding) => {
            return Err(Refusal::Encoding(encoding.to_header(), settings.accept));
        }
        Announced::Unknown(name) => return Err(Refusal::Encoding(name.clone(), settings.accept)),
    };
    Ok((timeout, encoding))
}

/// The client's side of a call.
struct Incoming<B> {
    messages: Inbound<B>,
    head: http::request::Parts,
    timeout: Option<std::time::Duration>,
}

impl<B> Incoming<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// The one message that the method takes.
    async fn single<T, C: Decode<T>>(self, codec: &mut C) -> Result<Request<T>, Status> {
        let mut messages = pin!(self.messages);
        let mut next =
            async || std::future::poll_fn(|cx| messages.as_mut().poll_message(codec, cx)).await;
        let Some(message) = next().await? else {
            return Err(Status::unimplemented(
                "the method takes one message, and there is none",
            ));
        };
        let more: Option<T> = next().await?;
        if more.is_some() {
            return Err(Status::unimplemented(
                "the method takes one message, and there are more",
            ));
        }
        Ok(Request::received(
            message,
            Metadata::received(self.head.headers),
            self.head.extensions,
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
            Metadata::received(self.head.headers),
            self.head.extensions,
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
    fn poll_message(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Status>>> {
        let mut this = self.project();
        let ReadingProj::Open { mut messages } = this.state.as_mut().project() else {
            return Poll::Ready(None);
        };
        let polled = messages.as_mut().poll_message(this.codec, cx);
        *this.was_compressed = messages.was_compressed();
        if let Poll::Ready(Ok(None) | Err(_)) = polled {
            this.state.set(Reading::Ended);
        }
        polled.map(Result::transpose)
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

pin_project! {
    /// The work of a handler, within its deadline.
    struct Call<F> {
        #[pin]
        work: Scope<F>,
        expiry: Expiry,
    }
}

impl<F> Future for Call<F>
where
    F: Future<Output = http::Response<GrpcBody>>,
{
    type Output = http::Response<GrpcBody>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.work.poll(cx) {
            return Poll::Ready(response);
        }
        this.expiry.poll(cx).map(|()| failure(expired()))
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
