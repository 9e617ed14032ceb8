//! The bodies that are sent: requests of clients, responses of servers.

use std::fmt;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::codec::Encode;
use crate::compression::{Compression, Encoding};
use crate::expiry::{Expiry, expired};
use crate::framing::put_message;
use crate::status::GRPC_STATUS;
use crate::{BoxError, Code, Metadata, Status};

/// Messages that are ready together are sent together, up to this many bytes and the message that reaches
/// them.
const BATCH: usize = 16 * 1024;

/// A body that is sent: the request of a client, or the response of a server.
///
/// A single message is one frame of data. Messages of a stream that are ready together are, too.
///
/// **Errors.** [`Status`], where a client's message can't be sent. A server's responses say in their trailers how
/// they have ended, and never fail.
pub struct GrpcBody(Kind);

enum Kind {
    /// A message, or any bytes, and the trailers after it. What is sent is taken, the message first.
    Single(Option<Bytes>, Option<HeaderMap>),
    /// Something that isn't gRPC, for a client that doesn't speak it.
    Boxed(Pin<Box<dyn Body<Data = Bytes, Error = Status> + Send>>),
}

impl GrpcBody {
    /// A body of nothing.
    pub fn empty() -> Self {
        Self(Kind::Single(None, None))
    }

    /// Any other body, as a layer may make one.
    ///
    /// Its errors become [`Status`]es by [`Status::from_error`].
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(Box::pin(Mapped { body })))
    }

    /// One message, or any bytes.
    pub(crate) fn message(bytes: Bytes) -> Self {
        Self(Kind::Single(Some(bytes), None))
    }

    pub(crate) fn unary(message: Bytes, trailers: HeaderMap) -> Self {
        Self(Kind::Single(Some(message), Some(trailers)))
    }

    pub(crate) fn streaming<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        Self(Kind::Boxed(Box::pin(body)))
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Kind::Single(message, trailers) => Poll::Ready(match message.take() {
                Some(message) => Some(Ok(Frame::data(message))),
                None => trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Single(message, trailers) => message.is_none() && trailers.is_none(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    /// Nothing is said of the length of messages: no peer asks, and a Content-Length would only cost.
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Boxed(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Default for GrpcBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for GrpcBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Single(None, None) => "GrpcBody(empty)",
            Kind::Single(Some(_), None) => "GrpcBody(message)",
            Kind::Single(Some(_), Some(_)) => "GrpcBody(message, trailers)",
            Kind::Single(None, Some(_)) => "GrpcBody(trailers)",
            Kind::Boxed(_) => "GrpcBody(stream)",
        })
    }
}

pin_project! {
    struct Mapped<B> {
        #[pin]
        body: B,
    }
}

impl<B> Body for Mapped<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Status::from_error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How the messages of a call are written.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) encoding: Option<Encoding>,
    pub(crate) compression: Option<Compression>,
    pub(crate) max: usize,
}

impl Writing {
    /// How the message that is there now is compressed.
    #[inline]
    fn encoding_now(&self) -> Option<Encoding> {
        let encoding = self.encoding?;
        let wanted = self.compression.as_ref().is_none_or(Compression::is_set);
        wanted.then_some(encoding)
    }

    /// One message with its prefix.
    pub(crate) fn message<T, C: Encode<T>>(
        &self,
        codec: &mut C,
        message: T,
    ) -> Result<Bytes, Status> {
        let mut buf = BytesMut::new();
        put_message(codec, message, self.encoding_now(), self.max, &mut buf)?;
        Ok(buf.freeze())
    }
}

/// A field to copy, which costs half of what making it anew does.
///
/// There is room for more: h2 asks for six others, and misses most of them at the first look then.
pub(crate) fn template(name: HeaderName, value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(name, value);
    headers
}

/// The trailers of a call that succeeded.
pub(crate) fn ok_trailers(metadata: Metadata) -> HeaderMap {
    // As nearly all are.
    static PLAIN: LazyLock<HeaderMap> =
        LazyLock::new(|| template(GRPC_STATUS, Code::Ok.to_header()));

    let Some(metadata) = metadata.unless_new() else {
        return PLAIN.clone();
    };
    let mut trailers = metadata.into_headers();
    trailers.insert(GRPC_STATUS, Code::Ok.to_header());
    trailers
}

pin_project! {
    /// Writes a stream of messages.
    struct Messages<S, C> {
        #[pin]
        stream: S,
        codec: C,
        writing: Writing,
        buf: BytesMut,
        // The last time there was enough for a whole batch.
        is_long: bool,
        // How the stream has ended, with the messages before that still to be sent.
        end: Option<Result<(), Status>>,
    }
}

impl<S, C> Messages<S, C> {
    fn new(stream: S, codec: C, writing: Writing) -> Self {
        Self {
            stream,
            codec,
            writing,
            buf: BytesMut::new(),
            is_long: false,
            end: None,
        }
    }

    /// Takes what is ready; the bytes of it, or how the stream has ended.
    fn poll_bytes<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Result<(), Status>>>
    where
        S: Stream<Item = Result<T, Status>>,
        C: Encode<T>,
    {
        let mut this = self.project();
        let mut pending = false;
        if *this.is_long && this.buf.capacity() < BATCH {
            this.buf.reserve(BATCH + BATCH / 4);
        }
        while this.end.is_none() && !pending && this.buf.len() < BATCH {
            match this.stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let encoding = this.writing.encoding_now();
                    let max = this.writing.max;
                    if let Err(status) = put_message(this.codec, message, encoding, max, this.buf) {
                        *this.end = Some(Err(status));
                    }
                }
                Poll::Pending => pending = true,
                Poll::Ready(None) => *this.end = Some(Ok(())),
                Poll::Ready(Some(Err(status))) => *this.end = Some(Err(status)),
            }
        }
        if !this.buf.is_empty() {
            *this.is_long = this.buf.len() >= BATCH;
            return Poll::Ready(Ok(this.buf.split().freeze()));
        }
        match this.end.take() {
            Some(end) => Poll::Ready(Err(end)),
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// A server's stream of messages, with the trailers at its end.
    pub(crate) struct Responses<S, C> {
        #[pin]
        messages: Option<Messages<S, C>>,
        trailers: Metadata,
        expiry: Expiry,
    }
}

impl<S, C> Responses<S, C> {
    pub(crate) fn new(
        stream: S,
        codec: C,
        writing: Writing,
        trailers: Metadata,
        expiry: Expiry,
    ) -> Self {
        Self {
            messages: Some(Messages::new(stream, codec, writing)),
            trailers,
            expiry,
        }
    }
}

pin_project! {
    /// A body that knows the type of its messages, which the ones inside only learn as they are polled.
    pub(crate) struct Typed<T, S> {
        #[pin]
        inner: S,
        message: std::marker::PhantomData<fn(T)>,
    }
}

impl<T, S> Typed<T, S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            message: std::marker::PhantomData,
        }
    }
}

impl<T, S, C> Body for Typed<T, Responses<S, C>>
where
    S: Stream<Item = Result<T, Status>>,
    C: Encode<T>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project().inner.project();
        let Some(messages) = this.messages.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let deadline = this.expiry.deadline();
        let polled = match deadline {
            Some(deadline) => deadline.enter(|| messages.poll_bytes(cx)),
            None => messages.poll_bytes(cx),
        };
        let end = match polled {
            Poll::Ready(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Poll::Ready(Err(end)) => end,
            Poll::Pending => {
                ready!(this.expiry.poll(cx));
                Err(expired())
            }
        };
        this.messages.set(None);
        let trailers = match end {
            Ok(()) => ok_trailers(std::mem::take(this.trailers)),
            Err(status) => {
                let mut status = as_failure(status);
                status.metadata_mut().complete(this.trailers);
                status.into_trailers()
            }
        };
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.messages.is_none()
    }
}

/// A status that says how a call has failed, whatever the handler has put into it.
pub(crate) fn as_failure(status: Status) -> Status {
    match status.code() {
        Code::Ok => status.with_code(Code::Internal),
        _ => status,
    }
}

pin_project! {
    /// A client's stream of messages.
    pub(crate) struct Requests<S, C> {
        #[pin]
        messages: Option<Messages<Infallibly<S>, C>>,
    }
}

impl<S, C> Requests<S, C> {
    pub(crate) fn new(stream: S, codec: C, writing: Writing) -> Self {
        Self {
            messages: Some(Messages::new(Infallibly { stream }, codec, writing)),
        }
    }
}

impl<T, S, C> Body for Typed<T, Requests<S, C>>
where
    S: Stream<Item = T>,
    C: Encode<T>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project().inner.project();
        let Some(messages) = this.messages.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        match ready!(messages.poll_bytes(cx)) {
            Ok(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(end) => {
                this.messages.set(None);
                Poll::Ready(end.err().map(Err))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.messages.is_none()
    }
}

pin_project! {
    /// A stream whose messages are all good.
    struct Infallibly<S> {
        #[pin]
        stream: S,
    }
}

impl<S: Stream> Stream for Infallibly<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().stream.poll_next(cx).map(|next| next.map(Ok))
    }
}
