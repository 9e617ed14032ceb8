//! The requests of calls: what they are made of, and how long they have.

use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, HeaderValue, Uri, Version, header};
use tokio::time::Instant;
use tower_deadline::Deadline;

use super::Client;
use crate::codec::{Codec, Encode};
use crate::compression::{Compression, Encoding, EncodingSet, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use crate::expiry::expired;
use crate::outbound::{GrpcBody, Requests, Typed, Writing};
use crate::{Metadata, Request, Status, timeout};

pub(super) const USER_AGENT: &str = concat!("grpc-rust-tower/", env!("CARGO_PKG_VERSION"));

/// What all requests of a client have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) scheme: Option<Scheme>,
    pub(super) authority: Option<Authority>,
    pub(super) user_agent: HeaderValue,
    pub(super) max_decoding: usize,
    pub(super) max_encoding: usize,
    pub(super) accept: EncodingSet,
    pub(super) send: Option<Encoding>,
    pub(super) reserve: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheme: None,
            authority: None,
            user_agent: HeaderValue::from_static(USER_AGENT),
            max_decoding: crate::server::MAX_DECODING,
            max_encoding: usize::MAX,
            accept: EncodingSet::all(),
            send: None,
            reserve: None,
        }
    }
}

/// The heads of the methods that were called, which cost more to make than the rest of a call's request.
#[derive(Clone, Debug, Default)]
pub(super) struct Methods(Vec<Method>);

/// What all calls of a method have in common.
#[derive(Clone, Debug)]
struct Method {
    path: &'static str,
    subtype: &'static str,
    uri: Uri,
    headers: HeaderMap,
}

impl Methods {
    /// No service has more methods that are called often.
    const MAX: usize = 16;

    /// The method's place. The last makes room for one that isn't known yet.
    fn find<C: Codec>(&mut self, settings: &Settings, path: &'static str) -> Result<usize, Status> {
        // The texts themselves, not ones like them: a few words to compare.
        let is_it = |known: &Method| {
            std::ptr::eq(known.path, path) && std::ptr::eq(known.subtype, C::SUBTYPE)
        };
        if let Some(at) = self.0.iter().position(is_it) {
            return Ok(at);
        }
        let method = Method {
            path,
            subtype: C::SUBTYPE,
            uri: settings.uri(path)?,
            headers: settings.headers::<C>(),
        };
        self.0.truncate(Self::MAX - 1);
        self.0.push(method);
        Ok(self.0.len() - 1)
    }
}

impl Method {
    /// The head of a call.
    fn head(
        &self,
        metadata: &Metadata,
        extensions: Extensions,
        timeout: Option<Duration>,
    ) -> http::Request<()> {
        let mut head = http::Request::new(());
        *head.method_mut() = http::Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = self.uri.clone();
        *head.headers_mut() = self.headers(metadata, timeout);
        *head.extensions_mut() = extensions;
        head
    }

    fn headers(&self, metadata: &Metadata, timeout: Option<Duration>) -> HeaderMap {
        let mut headers;
        if metadata.raw().is_empty() {
            headers = self.headers.clone();
        } else {
            headers = metadata.clone().into_headers();
            headers.reserve(self.headers.len() + 1);
            for (name, value) in &self.headers {
                // A program may name itself in the metadata.
                if *name != header::USER_AGENT || !headers.contains_key(name) {
                    headers.insert(name, value.clone());
                }
            }
        }
        if let Some(timeout) = timeout {
            headers.insert(timeout::GRPC_TIMEOUT, timeout::format(timeout));
        }
        headers
    }
}

/// What is known of a call before its request is made, which is small.
pub(super) struct Outgoing {
    method: usize,
    /// When this side gives up, and how long that was from the beginning.
    pub(super) deadline: Option<Deadline>,
    timeout: Option<Duration>,
}

/// A message that is sent, and may have to be sent again.
pub(super) struct Outbound {
    bytes: Bytes,
    /// Whether it can be.
    pub(super) is_kept: bool,
    metadata: Metadata,
    extensions: Extensions,
}

/// The longest message that is kept until its call is answered, in bytes: as much as gRPC's C core keeps of a call. Memory
/// that is held on to for so long is had anew for each call, which for a message of 1 MiB costs as much as to send it.
const KEPT: usize = 256 * 1024;

impl Outgoing {
    pub(super) fn new<C: Codec>(
        client: &mut Client<impl Sized>,
        path: &'static str,
        request: &Request<impl Sized>,
    ) -> Result<Self, Status> {
        let method = client.methods.find::<C>(&client.settings, path)?;
        let (deadline, timeout) = client.settings.deadline(request.timeout()).unzip();
        if timeout.is_some_and(|left| left.is_zero()) {
            return Err(expired());
        }
        Ok(Self {
            method,
            timeout,
            deadline,
        })
    }

    /// What the server is told of the time.
    ///
    /// The wait for the transport counts. What is less than a millisecond doesn't: values that are equal stay in HPACK's
    /// table.
    fn time_left(&self) -> Option<Duration> {
        let left = self.deadline?.remaining();
        let timeout = self.timeout.unwrap_or(left);
        let waited = timeout.saturating_sub(left);
        Some(match waited < Duration::from_millis(1) {
            true => timeout,
            false => left,
        })
    }

    /// What a request of one message is made of.
    pub(super) fn message<T, C: Encode<T>>(
        &self,
        client: &Client<impl Sized>,
        request: Request<T>,
        codec: &mut C,
    ) -> Result<Outbound, Status> {
        let (message, metadata, extensions, compression) = request.into_parts();
        let writing = client.settings.writing(compression);
        let bytes = writing.message(codec, message)?;
        Ok(Outbound {
            is_kept: bytes.len() <= KEPT,
            bytes,
            metadata,
            extensions,
        })
    }

    /// A request of it. Another one may be made if it is kept.
    pub(super) fn request(
        &self,
        client: &Client<impl Sized>,
        message: &mut Outbound,
    ) -> http::Request<GrpcBody> {
        let bytes = match message.is_kept {
            true => message.bytes.clone(),
            false => std::mem::take(&mut message.bytes),
        };
        let method = &client.methods.0[self.method];
        let extensions = message.extensions.clone();
        let head = method.head(&message.metadata, extensions, self.time_left());
        head.map(|()| GrpcBody::message(bytes))
    }

    /// A request of a stream of them.
    pub(super) fn stream<T, C>(
        &self,
        client: &Client<impl Sized>,
        request: Request<T>,
    ) -> http::Request<GrpcBody>
    where
        T: Stream + Send + 'static,
        T::Item: 'static,
        C: Encode<T::Item>,
    {
        let (messages, metadata, extensions, compression) = request.into_parts();
        let requests = Requests::new(messages, C::default(), client.settings.writing(compression));
        let body = GrpcBody::streaming(Typed::<T::Item, _>::new(requests));
        let head = client.methods.0[self.method].head(&metadata, extensions, self.time_left());
        head.map(|()| body)
    }
}

impl Settings {
    /// When the call has to end, and how long that is from now.
    fn deadline(&self, timeout: Option<Duration>) -> Option<(Deadline, Duration)> {
        let ambient = Deadline::current();
        if timeout.is_none() && ambient.is_none() {
            return None;
        }
        let now = Instant::now();
        let ambient = ambient.map(|deadline| {
            let left = deadline.remaining_at(now);
            let usual = (left / 20).min(Duration::from_millis(50));
            left.saturating_sub(self.reserve.unwrap_or(usual))
        });
        let left = match (timeout, ambient) {
            (Some(timeout), Some(ambient)) => timeout.min(ambient),
            (one, other) => one.or(other)?,
        };
        // What the clock can't count to is no deadline, for this side.
        let at = now.checked_add(left)?;
        Some((Deadline::at(at), left))
    }

    fn uri(&self, path: &'static str) -> Result<Uri, Status> {
        let mut parts = http::uri::Parts::default();
        let checked = PathAndQuery::from_maybe_shared(Bytes::from_static(path.as_bytes()));
        parts.path_and_query = Some(checked.map_err(|error| {
            Status::internal(format!("{path:?} is no path of a method")).with_source(error)
        })?);
        if let Some(authority) = self.authority.clone() {
            parts.scheme = Some(self.scheme.clone().unwrap_or(Scheme::HTTP));
            parts.authority = Some(authority);
        }
        Uri::from_parts(parts)
            .map_err(|error| Status::internal("the origin is no URI").with_source(error))
    }

    fn headers<C: Codec>(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, crate::server::content_type::<C>());
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        if let Some(encoding) = self.send {
            headers.insert(GRPC_ENCODING, encoding.to_header());
        }
        if let Some(accepted) = self.accept.to_header() {
            headers.insert(GRPC_ACCEPT_ENCODING, accepted);
        }
        headers
    }

    fn writing(&self, compression: Option<Compression>) -> Writing {
        Writing {
            encoding: self.send,
            compression,
            max: self.max_encoding,
        }
    }
}
