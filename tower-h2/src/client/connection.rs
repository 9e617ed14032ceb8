//! The handle of a connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use h2::client::SendRequest;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use tower_service::Service;

use super::Origin;
use super::response::{Hold, ResponseFuture, Upload};
use crate::fields::{announce_length, strip_connection_fields};
use crate::gate::{Gate, Line};
use crate::send_body::{SendBody, SendBuf};
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the handles of a connection and its driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gate: Gate,
    /// Whether what is left of a request is dropped when its response has ended.
    drops_uploads: bool,
}

/// A handle of a connection: a service that sends requests over it.
///
/// Clones are handles of the same connection, which goes on until the last of them, and of the responses, is
/// gone.
///
/// **Readiness.** It is ready while fewer streams are open than the peer's
/// SETTINGS_MAX_CONCURRENT_STREAMS allows, and reserves one. Before the peer has said how many, that is one. It fails
/// when the connection is closed, or when the peer has sent GOAWAY; responses that are under way then still
/// arrive. Without readiness a request is queued.
///
/// **Cancellation.** Dropping the response future, or the body before its end, resets the stream.
///
/// **Errors.** [`Error`]. [`is_unprocessed`](Error::is_unprocessed) says whether the request may be
/// sent again whatever it does.
pub struct Connection<B>
where
    B: Body,
{
    send: SendRequest<SendBuf<B::Data>>,
    slot: Slot,
    /// The place of the last body that was sent at once, for the next one. Nobody locks it: the mutex makes handles
    /// `Sync` whose bodies aren't.
    spare: Mutex<Option<Placed<B>>>,
    origin: Option<Origin>,
    shared: Arc<Shared>,
}

/// Where a body is while it is sent.
pub(super) type Placed<B> = Pin<Box<Option<SendBody<B>>>>;

/// A handle's hold on a stream's place.
#[derive(Debug)]
enum Slot {
    None(Line),
    Reserved,
}

/// The place of an open stream, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

impl Ticket {
    /// Whether what is left of the request is dropped when the response has ended.
    pub(super) fn drops_upload(&self) -> bool {
        self.0.drops_uploads
    }
}

impl<B: Body> Connection<B> {
    /// The first handle, before the peer has said how many streams it allows.
    pub(super) fn new(
        send: SendRequest<SendBuf<B::Data>>,
        origin: Option<Origin>,
        limit: usize,
        drops_uploads: bool,
    ) -> Self {
        Self {
            send,
            slot: Slot::None(Line::default()),
            spare: Mutex::new(None),
            origin,
            shared: Arc::new(Shared {
                gate: Gate::new(limit),
                drops_uploads,
            }),
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether the connection can take no more requests.
    pub fn is_closed(&self) -> bool {
        self.shared.gate.is_closed()
    }

    /// How many requests are under way or reserved, over all handles.
    pub fn open_streams(&self) -> usize {
        self.shared.gate.open()
    }

    /// Whether the peer takes extended CONNECT (RFC 8441). It has said so once its settings are here.
    pub fn is_extended_connect_enabled(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// Fails when the connection takes no more requests.
    fn check(&mut self) -> Result<(), Error> {
        match self
            .send
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(result) => result.map_err(|error| Error::from_h2(error).before_sending()),
            Poll::Pending => Ok(()),
        }
    }

    /// h2 lets a handle queue one request beyond what the peer allows, holds on to it, and refuses the next. How many
    /// there may be is for the gate to say; and what a handle holds on to isn't reset where its caller gives it up.
    fn let_go(&mut self) {
        let ready = self
            .send
            .poll_ready(&mut Context::from_waker(Waker::noop()));
        if !matches!(ready, Poll::Ready(Ok(()))) {
            // A clone has none queued.
            self.send = self.send.clone();
        }
    }

    /// The place for a call's stream.
    fn take_ticket(&mut self) -> Ticket {
        match std::mem::replace(&mut self.slot, Slot::None(Line::default())) {
            Slot::Reserved => {}
            Slot::None(mut line) => {
                self.shared.gate.give_up(&mut line);
                self.shared.gate.force();
            }
        }
        Ticket(Arc::clone(&self.shared))
    }
}

impl<B: Body> Drop for Connection<B> {
    fn drop(&mut self) {
        match &mut self.slot {
            Slot::Reserved => self.shared.gate.leave(),
            Slot::None(line) => self.shared.gate.give_up(line),
        }
    }
}

impl<B: Body> Clone for Connection<B> {
    /// Another handle, without a reservation.
    fn clone(&self) -> Self {
        Self {
            send: self.send.clone(),
            slot: Slot::None(Line::default()),
            spare: Mutex::new(None),
            origin: self.origin.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B> Service<Request<B>> for Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<RecvBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Slot::None(line) = &mut self.slot else {
            return Poll::Ready(self.check());
        };
        if ready!(self.shared.gate.poll_enter(line, cx)) {
            self.slot = Slot::Reserved;
            return Poll::Ready(Ok(()));
        }
        self.check()?;
        Poll::Ready(Err(Error::new(ErrorKind::Closed).before_sending()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let ticket = self.take_ticket();
        match self.send(request) {
            Ok((response, upload)) => ResponseFuture::new(response, Hold::new(upload, ticket)),
            Err(error) => ResponseFuture::failed(error),
        }
    }
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends the head, and what there is of the body; what has to wait gets a task.
    fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<(h2::client::ResponseFuture, Option<Upload>), Error> {
        let (mut head, body) = request.into_parts();
        strip_connection_fields(&mut head.headers);
        head.version = Version::HTTP_2;
        head.uri = self.absolute(head.uri);
        let last = body.is_end_stream();
        if !last {
            announce_length(&mut head.headers, &body);
        }
        let sent = self.send.send_request(Request::from_parts(head, ()), last);
        self.let_go();
        let (response, stream) = sent.map_err(|error| Error::from_h2(error).before_sending())?;
        if last {
            return Ok((response, None));
        }
        let spare = self.spare.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut placed = spare.take().unwrap_or_else(|| Box::pin(None));
        placed.as_mut().set(Some(SendBody::new(stream, body, None)));
        let upload = placed.as_mut().as_pin_mut().map(|body| {
            // A task polls it anew at once where it is pending, with a waker of its own.
            body.poll(&mut Context::from_waker(Waker::noop()))
        });
        match upload {
            Some(Poll::Pending) => Ok((response, Some(Upload::spawn(placed)?))),
            Some(Poll::Ready(Err(error))) if error.kind() == ErrorKind::Body => Err(error),
            // Where the peer has ended the stream early, the response says so.
            Some(Poll::Ready(_)) | None => {
                placed.as_mut().set(None);
                *spare = Some(placed);
                Ok((response, None))
            }
        }
    }

    /// The URI with the origin before it, where it is only a path.
    fn absolute(&self, uri: Uri) -> Uri {
        let Some(origin) = &self.origin else {
            return uri;
        };
        if uri.authority().is_some() {
            return uri;
        }
        let mut parts = uri.into_parts();
        parts.scheme = Some(origin.scheme.clone());
        parts.authority = Some(origin.authority.clone());
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        // It can't fail: all three are there.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

impl<B: Body> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("slot", &self.slot)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
