//! What a call's messages are wrapped in.

use std::fmt;
use std::time::Duration;

use futures_core::Stream;
use http::Extensions;

use crate::Metadata;
use crate::compression::Compression;

/// A message, or a stream of them, on its way to a server, with metadata and a timeout.
///
/// A client method takes one, or the message alone. A server's method gets one.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_grpc::Request;
///
/// let mut request = Request::new("hello").with_timeout(Duration::from_secs(5));
/// request.metadata_mut().insert("x-tenant", "blue")?;
/// assert_eq!(request.into_inner(), "hello");
/// # Ok::<_, tower_grpc::InvalidMetadata>(())
/// ```
pub struct Request<T> {
    message: T,
    metadata: Metadata,
    extensions: Extensions,
    timeout: Option<Duration>,
    compression: Option<Compression>,
    was_compressed: bool,
}

/// A message, or a stream of them, on its way back to a client, with metadata.
///
/// # Example
///
/// ```
/// use tower_grpc::Response;
///
/// let mut response = Response::new("hello");
/// response.trailers_mut().insert("x-cost", "3")?;
/// assert_eq!(response.get_ref(), &"hello");
/// # Ok::<_, tower_grpc::InvalidMetadata>(())
/// ```
pub struct Response<T> {
    message: T,
    metadata: Metadata,
    trailers: Metadata,
    extensions: Extensions,
    compression: Option<Compression>,
    was_compressed: bool,
}

/// What the two have in common.
macro_rules! common {
    ($type:ident, $peer:literal) => {
        impl<T> $type<T> {
            /// The message.
            pub fn get_ref(&self) -> &T {
                &self.message
            }

            /// The message, to change.
            pub fn get_mut(&mut self) -> &mut T {
                &mut self.message
            }

            /// The message alone.
            pub fn into_inner(self) -> T {
                self.message
            }

            /// What travels before the message.
            pub fn metadata(&self) -> &Metadata {
                &self.metadata
            }

            /// What is to travel before the message.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                &mut self.metadata
            }

            /// What layers on this side have attached; it doesn't travel.
            pub fn extensions(&self) -> &Extensions {
                &self.extensions
            }

            /// What is attached on this side, to change.
            pub fn extensions_mut(&mut self) -> &mut Extensions {
                &mut self.extensions
            }

            /// A handle that says which of its messages are compressed.
            ///
            /// Where no encoding is configured, or the peer accepts none, none is.
            pub fn compression(&mut self) -> Compression {
                self.compression
                    .get_or_insert_with(Compression::new)
                    .clone()
            }

            #[doc = concat!("Whether the message that came from the ", $peer, " was compressed.")]
            ///
            /// For streams, ask [`Streaming::was_compressed`](crate::Streaming::was_compressed).
            pub fn was_compressed(&self) -> bool {
                self.was_compressed
            }
        }

        impl<T: Default> Default for $type<T> {
            fn default() -> Self {
                Self::new(T::default())
            }
        }

        impl<T> From<T> for $type<T> {
            fn from(message: T) -> Self {
                Self::new(message)
            }
        }
    };
}

common!(Request, "client");
common!(Response, "server");

impl<T> Request<T> {
    /// A request of nothing but the message.
    pub fn new(message: T) -> Self {
        Self {
            message,
            metadata: Metadata::new(),
            extensions: Extensions::new(),
            timeout: None,
            compression: None,
            was_compressed: false,
        }
    }

    /// Gives the call no more time than this, from when it is made.
    ///
    /// The server is told, and the call fails with `DEADLINE_EXCEEDED` where there is no end by then. A deadline of
    /// the task ([`tower_deadline::Deadline::current`]) that comes sooner counts all the same.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends metadata along.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The time that the caller has given it. What is left of that,
    /// [`tower_deadline::Deadline::current`] tells.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Another message with the same metadata.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            message: with(self.message),
            metadata: self.metadata,
            extensions: self.extensions,
            timeout: self.timeout,
            compression: self.compression,
            was_compressed: self.was_compressed,
        }
    }

    pub(crate) fn received(
        message: T,
        metadata: Metadata,
        extensions: Extensions,
        timeout: Option<Duration>,
        was_compressed: bool,
    ) -> Self {
        Self {
            message,
            metadata,
            extensions,
            timeout,
            compression: None,
            was_compressed,
        }
    }

    pub(crate) fn into_parts(self) -> (T, Metadata, Extensions, Option<Compression>) {
        (
            self.message,
            self.metadata,
            self.extensions,
            self.compression,
        )
    }
}

impl<T> Response<T> {
    /// A response of nothing but the message.
    pub fn new(message: T) -> Self {
        Self {
            message,
            metadata: Metadata::new(),
            trailers: Metadata::new(),
            extensions: Extensions::new(),
            compression: None,
            was_compressed: false,
        }
    }

    /// Sends metadata before the message.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// What travels after the message.
    ///
    /// A client finds those of a stream in [`Streaming::trailers`](crate::Streaming::trailers).
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// What is to travel after the message, or after the last of a stream.
    ///
    /// Where the stream fails it travels with the status, under names that the status's own metadata doesn't have.
    pub fn trailers_mut(&mut self) -> &mut Metadata {
        &mut self.trailers
    }

    /// Another message with the same metadata.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Response<U> {
        Response {
            message: with(self.message),
            metadata: self.metadata,
            trailers: self.trailers,
            extensions: self.extensions,
            compression: self.compression,
            was_compressed: self.was_compressed,
        }
    }

    pub(crate) fn received(
        message: T,
        metadata: Metadata,
        trailers: Metadata,
        extensions: Extensions,
        was_compressed: bool,
    ) -> Self {
        Self {
            message,
            metadata,
            trailers,
            extensions,
            compression: None,
            was_compressed,
        }
    }

    pub(crate) fn into_parts(self) -> (T, Metadata, Metadata, Extensions, Option<Compression>) {
        let Self {
            message,
            metadata,
            trailers,
            extensions,
            compression,
            ..
        } = self;
        (message, metadata, trailers, extensions, compression)
    }
}

impl<T: fmt::Debug> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("message", &self.message)
            .field("metadata", &self.metadata)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Response<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("message", &self.message)
            .field("metadata", &self.metadata)
            .field("trailers", &self.trailers)
            .finish_non_exhaustive()
    }
}

/// What a client method takes for a single message: the message, or a [`Request`] of it.
pub trait IntoRequest<T> {
    /// Wraps it, if it isn't.
    fn into_request(self) -> Request<T>;
}

impl<T> IntoRequest<T> for T {
    fn into_request(self) -> Request<T> {
        Request::new(self)
    }
}

impl<T> IntoRequest<T> for Request<T> {
    fn into_request(self) -> Self {
        self
    }
}

/// What a client method takes for a stream of messages: the stream, or a [`Request`] of it.
pub trait IntoStreamingRequest {
    /// The messages.
    type Message;
    /// The stream of them.
    type Stream: Stream<Item = Self::Message> + Send + 'static;

    /// Wraps it, if it isn't.
    fn into_streaming_request(self) -> Request<Self::Stream>;
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for S {
    type Message = S::Item;
    type Stream = S;

    fn into_streaming_request(self) -> Request<S> {
        Request::new(self)
    }
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for Request<S> {
    type Message = S::Item;
    type Stream = S;

    fn into_streaming_request(self) -> Self {
        self
    }
}
