//! The body of a request, from either protocol.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_h2::RecvBody;

use crate::link::{ConnectInfo, Link};
use crate::{Error, ErrorKind};

/// The body of a request, as it comes from the connection.
///
/// What isn't read isn't received: the sender is held back by HTTP/2's windows, or by TCP's.
///
/// **Cancellation.** Dropping it before its end means that the rest isn't wanted: an HTTP/1.1 connection
/// is closed after the response, unless the rest is there already; an HTTP/2 stream is reset.
///
/// **Errors.** [`Error`]: the sender broke off or broke the protocol, or sent nothing for as long as
/// [`Settings::with_body_timeout`](crate::Settings::with_body_timeout) says.
pub struct Incoming {
    kind: Kind,
    link: Option<Arc<Link>>,
    has_ended: bool,
    /// Made when the sender is waited for.
    stall: Option<Pin<Box<Stall>>>,
}

enum Kind {
    Empty,
    Http1(hyper::body::Incoming),
    Http2(RecvBody),
}

/// How long the sender has been waited for.
struct Stall {
    /// Since when, while it is.
    since: Option<Instant>,
    /// At or before the time at which it is enough: moved only when it is over.
    timer: Pin<Box<Sleep>>,
}

impl Incoming {
    /// A body without content, of no connection.
    pub fn empty() -> Self {
        Self {
            kind: Kind::Empty,
            link: None,
            has_ended: false,
            stall: None,
        }
    }

    pub(crate) fn http1(body: hyper::body::Incoming, link: Arc<Link>) -> Self {
        if !body.is_end_stream() {
            link.open_body(true);
        }
        Self {
            kind: Kind::Http1(body),
            link: Some(link),
            has_ended: false,
            stall: None,
        }
    }

    pub(crate) fn http2(body: RecvBody, link: Arc<Link>) -> Self {
        Self {
            kind: Kind::Http2(body),
            link: Some(link),
            has_ended: false,
            stall: None,
        }
    }

    /// Facts about the connection that it comes by; none where it is of no connection.
    pub fn connect_info(&self) -> Option<&ConnectInfo> {
        self.link.as_ref().map(|link| &link.info)
    }

    /// Waits for the sender, but not for ever.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.link.as_ref().and_then(|link| link.body_timeout) else {
            return Poll::Pending;
        };
        if self.stall.is_none() {
            if Handle::try_current().is_err() {
                return Poll::Pending;
            }
            self.stall = Some(Box::pin(Stall {
                since: None,
                timer: Box::pin(sleep_until(Instant::now() + timeout)),
            }));
        }
        self.stall
            .as_mut()
            .map_or(Poll::Pending, |stall| stall.poll(timeout, cx))
    }
}

impl Stall {
    fn poll(&mut self, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        while self.timer.as_mut().poll(cx).is_ready() {
            let end = since + timeout;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Empty => return Poll::Ready(None),
            Kind::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| Error::because(ErrorKind::Http1, error)),
            Kind::Http2(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| Error::because(ErrorKind::Http2, error)),
        };
        if polled.is_ready() {
            if matches!(polled, Poll::Ready(None)) {
                this.has_ended = true;
                this.abandon();
            }
            if let Some(stall) = &mut this.stall {
                stall.since = None;
            }
            return polled;
        }
        if this.poll_stall(cx).is_pending() {
            return Poll::Pending;
        }
        this.abandon();
        Poll::Ready(Some(Err(Error::new(ErrorKind::BodyTimeout))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Http1(body) => body.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Http1(body) => body.size_hint(),
            Kind::Http2(body) => body.size_hint(),
        }
    }
}

impl Incoming {
    /// Lets go of the rest, if there is any.
    fn abandon(&mut self) {
        if let (Kind::Http1(body), Some(link)) = (&self.kind, &self.link) {
            if self.has_ended || body.is_end_stream() {
                link.open_body(false);
            }
        }
        self.kind = Kind::Empty;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Http1(_) => "http/1.1",
            Kind::Http2(_) => "http/2",
        };
        f.debug_struct("Incoming")
            .field("kind", &kind)
            .field("size_hint", &self.size_hint())
            .finish_non_exhaustive()
    }
}
