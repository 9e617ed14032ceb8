//! What generated clients are made of, and the channel that they usually call over.
//!
//! A generated `GreeterClient` calls over any `Service` of `http::Request<GrpcBody>`s: a `Channel`, a connection of
//! `tower-h2`, a server in memory ([`crate::test`]), and each of them in layers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version, header};
use http_body::Body;
use tokio::time::Instant;
use tower_deadline::Deadline;
use tower_service::Service;

use crate::codec::{Codec, Decode, Encode};
use crate::compression::{Encoding, EncodingSet, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use crate::expiry::expired;
use crate::outbound::{GrpcBody, Requests, Typed, Writing};
use crate::streaming::Streaming;
use crate::{BoxError, Code, Metadata, Request, Response, Status, timeout};

#[cfg(feature = "transport")]
mod channel;
mod receive;

#[cfg(feature = "transport")]
pub use self::channel::{Channel, ChannelBuilder, ChannelFuture, InvalidTarget};

use self::receive::{Answer, Answers};

const USER_AGENT: &str = concat!("grpc-rust-tower/", env!("CARGO_PKG_VERSION"));

/// Calls methods over a service. What generated clients hold.
///
/// **Readiness.** Each call waits for the service's; it is part of the call's time.
///
/// **Cancellation.** Dropping a call's future, or its [`Streaming`], ends the call; the server is told.
///
/// **Errors.** [`Status`]: what the server has said, or what stands for what has failed on the way
/// ([`Status::from_error`]). When the call's time is up it is `DEADLINE_EXCEEDED`.
#[derive(Clone, Debug)]
pub struct Client<S> {
    service: S,
    settings: Settings,
    paths: Paths,
}

/// The paths of the methods that were called, which cost a few hundred instructions to check.
#[derive(Clone, Debug, Default)]
struct Paths(Vec<(&'static str, PathAndQuery)>);

impl Paths {
    /// No service has more methods that are called often.
    const MAX: usize = 16;

    fn get(&mut self, path: &'static str) -> Result<PathAndQuery, Status> {
        // The text itself, not one like it: two words to compare.
        let mut known = self.0.iter();
        if let Some((_, found)) = known.find(|(known, _)| std::ptr::eq(*known, path)) {
            return Ok(found.clone());
        }
        let checked = PathAndQuery::from_maybe_shared(Bytes::from_static(path.as_bytes()))
            .map_err(|error| {
                Status::internal(format!("{path:?} is no path of a method")).with_source(error)
            })?;
        if self.0.len() < Self::MAX {
            self.0.push((path, checked.clone()));
        }
        Ok(checked)
    }
}

#[derive(Clone, Debug)]
struct Settings {
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    user_agent: HeaderValue,
    max_decoding: usize,
    max_encoding: usize,
    accept: EncodingSet,
    send: Option<Encoding>,
    reserve: Option<Duration>,
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

impl<S> Client<S> {
    /// A client that calls over `service`.
    pub fn new(service: S) -> Self {
        Self {
            service,
            settings: Settings::default(),
            paths: Paths::default(),
        }
    }

    /// Calls the server at `origin`, of which scheme and authority count.
    ///
    /// For services that don't know it themselves. A [`Channel`] does.
    #[must_use]
    pub fn with_origin(mut self, origin: &Uri) -> Self {
        self.settings.scheme = origin.scheme().cloned();
        self.settings.authority = origin.authority().cloned();
        self
    }

    /// Names the program before the name of this library in `user-agent`.
    ///
    /// What can't stand in a header is left out.
    #[must_use]
    pub fn with_user_agent(mut self, name: &str) -> Self {
        if let Ok(value) = HeaderValue::try_from(format!("{name} {USER_AGENT}")) {
            self.settings.user_agent = value;
        }
        self
    }

    /// How many bytes a received message may have, before it is decompressed and after; 4 MiB by default.
    #[must_use]
    pub fn with_max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.settings.max_decoding = bytes;
        self
    }

    /// How many bytes a message that is sent may have, before it is compressed; unbounded by default.
    #[must_use]
    pub fn with_max_encoding_message_size(mut self, bytes: usize) -> Self {
        self.settings.max_encoding = bytes;
        self
    }

    /// Compresses what is sent. The server has to know the encoding; most know gzip.
    #[must_use]
    pub fn with_sent_encoding(mut self, encoding: Encoding) -> Self {
        self.settings.send = Some(encoding);
        self
    }

    /// Which encodings the server may use; all that were compiled, by default.
    #[must_use]
    pub fn with_accepted_encodings(
        mut self,
        encodings: impl IntoIterator<Item = Encoding>,
    ) -> Self {
        self.settings.accept = encodings.into_iter().collect();
        self
    }

    /// How much of the time of the task's deadline a call doesn't get, so that there is time to answer.
    ///
    /// By default that is a twentieth of what is left, and at most 50 ms.
    #[must_use]
    pub fn with_deadline_reserve(mut self, reserve: Duration) -> Self {
        self.settings.reserve = Some(reserve);
        self
    }

    /// The service that it calls over.
    pub fn get_ref(&self) -> &S {
        &self.service
    }

    /// The service that it calls over, to change.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.service
    }
}

impl<S, B> Client<S>
where
    // The transport.
    S: Service<http::Request<GrpcBody>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    // Its responses.
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Calls a method of one message each way.
    pub async fn unary<C, Req, Res>(
        &mut self,
        path: &'static str,
        mut codec: C,
        request: Request<Req>,
    ) -> Result<Response<Res>, Status>
    where
        C: Encode<Req> + Decode<Res>,
    {
        let outgoing = Outgoing::new::<C>(&self.settings, self.paths.get(path)?, request)?;
        let bytes = outgoing.writing.message(&mut codec, outgoing.message)?;
        let request = outgoing.head.map(|()| GrpcBody::message(bytes));
        self.single(codec, request, outgoing.deadline).await
    }

    /// Calls a method of many messages to the server and one back.
    pub async fn client_streaming<C, Req, Res>(
        &mut self,
        path: &'static str,
        codec: C,
        request: Request<Req>,
    ) -> Result<Response<Res>, Status>
    where
        Req: Stream + Send + 'static,
        Req::Item: 'static,
        C: Encode<Req::Item> + Decode<Res>,
    {
        let outgoing = Outgoing::new::<C>(&self.settings, self.paths.get(path)?, request)?;
        let deadline = outgoing.deadline;
        self.single(codec, outgoing.stream::<C>(), deadline).await
    }

    /// Calls a method of one message to the server and many back.
    ///
    /// It waits for the head of the response; one that is a failure is the error.
    pub async fn server_streaming<C, Req, Res>(
        &mut self,
        path: &'static str,
        mut codec: C,
        request: Request<Req>,
    ) -> Result<Response<Streaming<Res>>, Status>
    where
        C: Encode<Req> + Decode<Res>,
        Res: Send + 'static,
        S::Future: Send + 'static,
        B: Send + 'static,
    {
        let outgoing = Outgoing::new::<C>(&self.settings, self.paths.get(path)?, request)?;
        let bytes = outgoing.writing.message(&mut codec, outgoing.message)?;
        let request = outgoing.head.map(|()| GrpcBody::message(bytes));
        let mut messages = self.begin(codec, request, outgoing.deadline).await?;
        let metadata = messages.metadata().await?.clone();
        Ok(Response::new(messages).with_metadata(metadata))
    }

    /// Calls a method of many messages each way.
    ///
    /// It doesn't wait for the server: the messages that it sends may depend on those that this side sends first.
    /// [`Streaming::metadata`] waits.
    pub async fn streaming<C, Req, Res>(
        &mut self,
        path: &'static str,
        codec: C,
        request: Request<Req>,
    ) -> Result<Streaming<Res>, Status>
    where
        Req: Stream + Send + 'static,
        Req::Item: 'static,
        C: Encode<Req::Item> + Decode<Res>,
        Res: Send + 'static,
        S::Future: Send + 'static,
        B: Send + 'static,
    {
        let outgoing = Outgoing::new::<C>(&self.settings, self.paths.get(path)?, request)?;
        let deadline = outgoing.deadline;
        self.begin(codec, outgoing.stream::<C>(), deadline).await
    }

    /// Sends a request whose response is one message.
    async fn single<C, Res>(
        &mut self,
        codec: C,
        request: http::Request<GrpcBody>,
        deadline: Option<Deadline>,
    ) -> Result<Response<Res>, Status>
    where
        C: Decode<Res>,
    {
        let (max, accept) = (self.settings.max_decoding, self.settings.accept);
        let answer = async {
            let response = self.send(request).await?.await;
            let response = response.map_err(Status::from_error)?;
            Answer::read(response, C::SUBTYPE, accept, max)?
                .single(codec)
                .await
        };
        within(deadline, answer).await
    }

    /// Sends a request whose response is a stream, and doesn't wait for the response.
    async fn begin<C, Res>(
        &mut self,
        codec: C,
        request: http::Request<GrpcBody>,
        deadline: Option<Deadline>,
    ) -> Result<Streaming<Res>, Status>
    where
        C: Decode<Res>,
        Res: Send + 'static,
        S::Future: Send + 'static,
        B: Send + 'static,
    {
        let (max, accept) = (self.settings.max_decoding, self.settings.accept);
        let response = within(deadline, self.send(request)).await?;
        Ok(Streaming::new(Answers::new(
            response, codec, accept, max, deadline,
        )))
    }

    async fn send(&mut self, request: http::Request<GrpcBody>) -> Result<S::Future, Status> {
        poll_fn(|cx| self.service.poll_ready(cx))
            .await
            .map_err(Status::from_error)?;
        Ok(self.service.call(request))
    }
}

/// The outcome of `work`, or `DEADLINE_EXCEEDED` where there is none in time.
async fn within<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let work: Pin<&mut _> = pin!(work);
    let Some(deadline) = deadline else {
        return work.await;
    };
    match deadline.within(work).await {
        Ok(outcome) => outcome.map_err(|status| late(status, deadline)),
        Err(_) => Err(expired()),
    }
}

/// A server whose time is up may reset the stream before it is up here, by a little.
fn late(status: Status, deadline: Deadline) -> Status {
    match status.code() {
        Code::Cancelled if deadline.has_passed_at(Instant::now()) => expired().with_source(status),
        _ => status,
    }
}

/// A request that is about to be sent.
struct Outgoing<T> {
    message: T,
    head: http::Request<()>,
    writing: Writing,
    deadline: Option<Deadline>,
}

impl<T> Outgoing<T> {
    fn new<C: Codec>(
        settings: &Settings,
        path: PathAndQuery,
        request: Request<T>,
    ) -> Result<Self, Status> {
        let timeout = request.timeout();
        let (message, metadata, extensions, compression) = request.into_parts();
        let deadline = settings.deadline(timeout);
        let left = deadline.map(|(_, left)| left);
        let mut head = http::Request::new(());
        *head.method_mut() = Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = settings.uri(path)?;
        *head.headers_mut() = settings.headers::<C>(metadata, left);
        *head.extensions_mut() = extensions;
        if left.is_some_and(|left| left.is_zero()) {
            return Err(expired());
        }
        Ok(Self {
            message,
            head,
            writing: Writing {
                encoding: settings.send,
                compression,
                max: settings.max_encoding,
            },
            deadline: deadline.map(|(deadline, _)| deadline),
        })
    }

    fn stream<C>(self) -> http::Request<GrpcBody>
    where
        T: Stream + Send + 'static,
        T::Item: 'static,
        C: Encode<T::Item>,
    {
        let requests = Requests::new(self.message, C::default(), self.writing);
        let body = GrpcBody::streaming(Typed::<T::Item, _>::new(requests));
        self.head.map(|()| body)
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

    fn uri(&self, path: PathAndQuery) -> Result<Uri, Status> {
        let Some(authority) = self.authority.clone() else {
            return Ok(Uri::from(path));
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone().unwrap_or(Scheme::HTTP));
        parts.authority = Some(authority);
        parts.path_and_query = Some(path);
        Uri::from_parts(parts)
            .map_err(|error| Status::internal("the origin is no URI").with_source(error))
    }

    fn headers<C: Codec>(&self, metadata: Metadata, timeout: Option<Duration>) -> http::HeaderMap {
        let mut headers = metadata.into_headers();
        headers.reserve(6);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, crate::server::content_type::<C>());
        headers
            .entry(header::USER_AGENT)
            .or_insert_with(|| self.user_agent.clone());
        if let Some(timeout) = timeout {
            headers.insert(timeout::GRPC_TIMEOUT, timeout::format(timeout));
        }
        if let Some(encoding) = self.send {
            headers.insert(GRPC_ENCODING, encoding.to_header());
        }
        if let Some(accepted) = self.accept.to_header() {
            headers.insert(GRPC_ACCEPT_ENCODING, accepted);
        }
        headers
    }
}
