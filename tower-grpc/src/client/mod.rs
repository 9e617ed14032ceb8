//! What generated clients are made of, and the channel that they usually call over.
//!
//! A generated `GreeterClient` calls over any `Service` of `http::Request<GrpcBody>`s: a `Channel`, a connection of
//! `tower-h2` (made `with_requests_ended_by_responses`, as a channel's are), a server in memory ([`crate::test`]), and each
//! of them in layers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Uri};
use http_body::Body;
use tokio::time::Instant;
use tower_deadline::Deadline;
use tower_service::Service;

use crate::classify::is_refused;
use crate::codec::{Decode, Encode};
use crate::compression::Encoding;
use crate::expiry::expired;
use crate::outbound::GrpcBody;
use crate::streaming::Streaming;
use crate::{BoxError, Code, Request, Response, Status};

#[cfg(feature = "transport")]
mod channel;
mod outgoing;
mod receive;
#[cfg(feature = "transport")]
mod target;

#[cfg(feature = "transport")]
pub use self::channel::{Channel, ChannelFuture};
#[cfg(feature = "transport")]
pub use self::target::{ChannelBuilder, InvalidTarget};

use self::outgoing::{Methods, Outgoing, Settings, USER_AGENT};
use self::receive::Answers;

/// Calls methods over a service. What generated clients hold.
///
/// **Readiness.** Each call waits for the service's; it is part of the call's time.
///
/// A call of one message of up to 256 KiB that a connection certainly hasn't taken (its stream was refused, or comes after
/// the last that a GOAWAY names) is made once more, as gRFC A6 has it. Whatever else may be tried again is for a layer to say.
///
/// **Cancellation.** Dropping a call's future, or its [`Streaming`], ends the call; the server is told.
///
/// **Errors.** [`Status`]: what the server has said, or what stands for what has failed on the way
/// ([`Status::from_error`]). When the call's time is up it is `DEADLINE_EXCEEDED`.
#[derive(Clone, Debug)]
pub struct Client<S> {
    service: S,
    settings: Settings,
    methods: Methods,
}

impl<S> Client<S> {
    /// A client that calls over `service`.
    pub fn new(service: S) -> Self {
        Self {
            service,
            settings: Settings::default(),
            methods: Methods::default(),
        }
    }

    /// Calls the server at `origin`, of which scheme and authority count.
    ///
    /// For services that don't know it themselves. A [`Channel`] does.
    #[must_use]
    pub fn with_origin(mut self, origin: &Uri) -> Self {
        self.settings.scheme = origin.scheme().cloned();
        self.settings.authority = origin.authority().cloned();
        self.methods = Methods::default();
        self
    }

    /// Names the program before the name of this library in `user-agent`.
    ///
    /// What can't stand in a header is left out.
    #[must_use]
    pub fn with_user_agent(mut self, name: &str) -> Self {
        if let Ok(value) = HeaderValue::try_from(format!("{name} {USER_AGENT}")) {
            self.settings.user_agent = value;
            self.methods = Methods::default();
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
        self.methods = Methods::default();
        self
    }

    /// Which encodings the server may use; all that were compiled, by default.
    #[must_use]
    pub fn with_accepted_encodings(
        mut self,
        encodings: impl IntoIterator<Item = Encoding>,
    ) -> Self {
        self.settings.accept = encodings.into_iter().collect();
        self.methods = Methods::default();
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
        let outgoing = Outgoing::new::<C>(self, path, &request)?;
        let work = pin!(async {
            self.ready().await?;
            let mut message = outgoing.message(self, request, &mut codec)?;
            let mut is_first = true;
            let response = loop {
                let request = outgoing.request(self, &mut message);
                let status = match self.service.call(request).await {
                    Ok(response) => break response,
                    Err(error) => Status::from_error(error),
                };
                let may_repeat = std::mem::take(&mut is_first) && message.is_kept;
                if !may_repeat || !is_refused(&status) {
                    return Err(status);
                }
                self.ready().await?;
            };
            receive::single(
                response,
                codec,
                self.settings.accept,
                self.settings.max_decoding,
            )
            .await
        });
        within(outgoing.deadline, work).await
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
        let outgoing = Outgoing::new::<C>(self, path, &request)?;
        let work = pin!(async {
            self.ready().await?;
            let request = outgoing.stream::<_, C>(self, request);
            let response = self
                .service
                .call(request)
                .await
                .map_err(Status::from_error)?;
            receive::single(
                response,
                codec,
                self.settings.accept,
                self.settings.max_decoding,
            )
            .await
        });
        within(outgoing.deadline, work).await
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
        let outgoing = Outgoing::new::<C>(self, path, &request)?;
        within(outgoing.deadline, pin!(self.ready())).await?;
        let mut message = outgoing.message(self, request, &mut codec)?;
        let request = outgoing.request(self, &mut message);
        let mut messages = self.begin(codec, request, outgoing.deadline);
        if let Err(status) = messages.metadata().await {
            if !message.is_kept || !is_refused(&status) {
                return Err(status);
            }
            within(outgoing.deadline, pin!(self.ready())).await?;
            let request = outgoing.request(self, &mut message);
            messages = self.begin(C::default(), request, outgoing.deadline);
        }
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
        let outgoing = Outgoing::new::<C>(self, path, &request)?;
        within(outgoing.deadline, pin!(self.ready())).await?;
        let request = outgoing.stream::<_, C>(self, request);
        Ok(self.begin(codec, request, outgoing.deadline))
    }

    /// Sends a request whose response is a stream, and doesn't wait for the response.
    fn begin<C, Res>(
        &mut self,
        codec: C,
        request: http::Request<GrpcBody>,
        deadline: Option<Deadline>,
    ) -> Streaming<Res>
    where
        C: Decode<Res>,
        Res: Send + 'static,
        S::Future: Send + 'static,
        B: Send + 'static,
    {
        let (max, accept) = (self.settings.max_decoding, self.settings.accept);
        let response = self.service.call(request);
        Streaming::new(Answers::new(response, codec, accept, max, deadline))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        poll_fn(|cx| self.service.poll_ready(cx))
            .await
            .map_err(Status::from_error)
    }
}

/// The outcome of `work`, or `DEADLINE_EXCEEDED` where there is none in time.
async fn within<T>(
    deadline: Option<Deadline>,
    work: Pin<&mut impl Future<Output = Result<T, Status>>>,
) -> Result<T, Status> {
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
