//! The one body type, of requests and of responses.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;

/// The body of a request or of a response: nothing, bytes that are there, or a stream of frames.
///
/// Bytes that are there need no allocation besides their own, and what comes from the server isn't
/// boxed. Any other [`http_body::Body`] is, by [`new`](Self::new).
///
/// **Errors.** [`BodyError`]: the sender broke off, or sent more than the [limit](Self::with_limit).
///
/// # Example
///
/// ```
/// use tower_web::body::Body;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let body = Body::from("hello");
/// assert_eq!(body.bytes().await.unwrap(), "hello");
///
/// let error = Body::from("hello").with_limit(4).bytes().await.unwrap_err();
/// assert_eq!(error.to_string(), "the body is larger than 4 bytes");
/// # }
/// ```
#[must_use]
pub struct Body {
    kind: Kind,
}

enum Kind {
    /// There is nothing, or nothing any more.
    Empty,
    Full(Bytes),
    /// More was declared or sent than may be.
    TooLarge {
        limit: u64,
    },
    /// As it comes from the server.
    #[cfg(feature = "server")]
    Incoming {
        inner: tower_hyper::Incoming,
        bound: Bound,
    },
    Boxed {
        inner: Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>,
        bound: Bound,
    },
}

/// How much of a stream may still come.
#[derive(Debug, Clone, Copy)]
struct Bound {
    limit: u64,
    left: u64,
}

impl Bound {
    const NONE: Self = Self {
        limit: u64::MAX,
        left: u64::MAX,
    };

    /// Takes a frame's bytes off. Fails when that is more than is left.
    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(BodyError::TooLarge { limit: self.limit }),
        }
    }
}

/// Why a body couldn't be read to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than may be.
    TooLarge {
        /// How many bytes may be.
        limit: u64,
    },
    /// Its sender broke off, or a layer failed.
    Broken(BoxError),
}

impl BodyError {
    /// Finds a limit that was exceeded, however deep a layer has wrapped it, and keeps other errors whole.
    fn new(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(error) => error,
        };
        let mut source: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(current) = source {
            if let Some(Self::TooLarge { limit }) = current.downcast_ref() {
                return Self::TooLarge { limit: *limit };
            }
            source = current.source();
        }
        Self::Broken(error)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Broken(_) => f.write_str("the body broke off"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Broken(source) => Some(&**source),
        }
    }
}

impl Body {
    /// A body without bytes.
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    /// Any body, boxed unless it is one of these already.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        // What the type says is known when this is compiled.
        #[cfg(feature = "server")]
        if let Some(incoming) =
            (&mut body as &mut dyn Any).downcast_mut::<Option<tower_hyper::Incoming>>()
        {
            return incoming.take().map_or_else(Self::empty, Self::incoming);
        }
        // A body that went through a layer untouched needs no second box.
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        match body {
            Some(body) => Self {
                kind: Kind::Boxed {
                    inner: Box::pin(Erased { inner: body }),
                    bound: Bound::NONE,
                },
            },
            None => Self::empty(),
        }
    }

    /// Whether all its bytes are there, in one piece.
    #[cfg(feature = "compression")]
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.kind, Kind::Full(_))
    }

    #[cfg(feature = "server")]
    fn incoming(inner: tower_hyper::Incoming) -> Self {
        Self {
            kind: Kind::Incoming {
                inner,
                bound: Bound::NONE,
            },
        }
    }

    /// Facts about the connection that a request's body comes by; none for any other body.
    #[cfg(feature = "server")]
    pub fn connect_info(&self) -> Option<&tower_hyper::ConnectInfo> {
        match &self.kind {
            Kind::Incoming { inner, .. } => inner.connect_info(),
            _ => None,
        }
    }

    /// The chunks of a stream, in the order in which they come. An error breaks the body off.
    pub fn from_stream<S, T, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        Self {
            kind: Kind::Boxed {
                inner: Box::pin(Chunks { stream }),
                bound: Bound::NONE,
            },
        }
    }

    /// The same body, which fails with [`BodyError::TooLarge`] once it is larger than `limit` bytes, and at
    /// once where its declared length is.
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit(limit);
        self
    }

    pub(crate) fn limit(&mut self, limit: u64) {
        match &mut self.kind {
            Kind::Empty | Kind::TooLarge { .. } => return,
            Kind::Full(_) => {}
            #[cfg(feature = "server")]
            Kind::Incoming { inner, .. } if http_body::Body::is_end_stream(inner) => return,
            #[cfg(feature = "server")]
            Kind::Incoming { bound, .. } => *bound = Bound { limit, left: limit },
            Kind::Boxed { bound, .. } => *bound = Bound { limit, left: limit },
        }
        if http_body::Body::size_hint(self).lower() > limit {
            self.kind = Kind::TooLarge { limit };
        }
    }

    /// Reads the body to its end. Trailers are dropped.
    ///
    /// A body that comes in one piece isn't copied.
    ///
    /// # Errors
    ///
    /// Fails where the body does; what was read is lost then.
    pub async fn bytes(mut self) -> Result<Bytes, BodyError> {
        if let Kind::Full(bytes) = self.kind {
            return Ok(bytes);
        }
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::with_capacity(2 * (first.len() + second.len()));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The next bytes, or `None` at the end. Trailers are dropped.
    ///
    /// **Cancellation.** Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Fails where the body does.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *self), cx))
                    .await;
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => return Ok(Some(data)),
                // Trailers.
                Some(Err(_)) => {}
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Empty => f.write_str("Body::Empty"),
            Kind::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Kind::TooLarge { limit } => write!(f, "Body::TooLarge(over {limit} bytes)"),
            #[cfg(feature = "server")]
            Kind::Incoming { inner, .. } => inner.fmt(f),
            Kind::Boxed { .. } => f.write_str("Body::Stream"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (frame, bound) = match &mut self.kind {
            Kind::Empty => return Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Kind::TooLarge { limit } => {
                let limit = *limit;
                self.kind = Kind::Empty;
                return Poll::Ready(Some(Err(BodyError::TooLarge { limit })));
            }
            #[cfg(feature = "server")]
            Kind::Incoming { inner, bound } => {
                let frame = ready!(Pin::new(inner).poll_frame(cx));
                (
                    frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))),
                    bound,
                )
            }
            Kind::Boxed { inner, bound } => {
                let frame = ready!(inner.as_mut().poll_frame(cx));
                (frame.map(|frame| frame.map_err(BodyError::new)), bound)
            }
        };
        let frame = frame.map(|frame| {
            let frame = frame?;
            bound.take(&frame)?;
            Ok(frame)
        });
        // A body that has ended or failed lets go of what it was made of.
        if !matches!(frame, Some(Ok(_))) {
            self.kind = Kind::Empty;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::TooLarge { .. } => false,
            #[cfg(feature = "server")]
            Kind::Incoming { inner, .. } => inner.is_end_stream(),
            Kind::Boxed { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::TooLarge { .. } => SizeHint::new(),
            #[cfg(feature = "server")]
            Kind::Incoming { inner, .. } => inner.size_hint(),
            Kind::Boxed { inner, .. } => inner.size_hint(),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            kind: Kind::Full(bytes),
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

pin_project! {
    /// A body whose data and errors are made ours.
    struct Erased<B> {
        #[pin]
        inner: B,
    }
}

impl<B> http_body::Body for Erased<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.project().inner.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            // Of `Bytes` this is free.
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A stream of chunks as a body.
    struct Chunks<S> {
        #[pin]
        stream: S,
    }
}

impl<S, T, E> http_body::Body for Chunks<S>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Bytes>,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let item = ready!(self.project().stream.poll_next(cx));
        Poll::Ready(item.map(|item| match item {
            Ok(chunk) => Ok(Frame::data(chunk.into())),
            Err(error) => Err(error.into()),
        }))
    }
}
