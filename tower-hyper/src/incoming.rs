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
#[cfg(feature = "http2")]
use tower_h2::RecvBody;

#[cfg(not(feature = "http2"))]
use crate::absent::RecvBody;
use crate::link::{ConnectInfo, Draining, Link};
use crate::{Error, ErrorKind};

/// The body of a request, as it comes from the connection.
///
/// What isn't read isn't received: the sender is held back by HTTP/2's windows, or by TCP's.
///
/// **Cancellation.** Dropping it before its end means that the rest isn't wanted: on an HTTP/1.1 connection up to 256 KiB
/// of it are read and thrown away after the response, and if there are more the connection is closed; an HTTP/2 stream is
/// reset.
///
/// **Errors.** [`Error`]: the sender broke off or broke the protocol, or sent nothing for as long as
/// [`Settings::with_body_timeout`](crate::Settings::with_body_timeout) says.
pub struct Incoming {
    link: Option<Arc<Link>>,
    /// What may still come. Most requests have no body, and are moved about the cheaper the smaller they are.
    open: Option<Box<Open>>,
}

/// A body that may have content.
struct Open {
    source: Source,
    has_ended: bool,
    /// Made when the sender is waited for.
    stall: Option<Pin<Box<Stall>>>,
}

enum Source {
    Http1(hyper::body::Incoming),
    #[cfg_attr(not(feature = "http2"), expect(dead_code, reason = "it has no values"))]
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
            link: None,
            open: None,
        }
    }

    #[inline]
    pub(crate) fn http1(body: hyper::body::Incoming, link: Arc<Link>) -> Self {
        if body.is_end_stream() {
            return Self {
                link: Some(link),
                open: None,
            };
        }
        link.open_body(true);
        Self::open(Source::Http1(body), link)
    }

    #[cfg(feature = "http2")]
    pub(crate) fn http2(body: RecvBody, link: Arc<Link>) -> Self {
        if body.is_end_stream() {
            return Self {
                link: Some(link),
                open: None,
            };
        }
        Self::open(Source::Http2(body), link)
    }

    fn open(source: Source, link: Arc<Link>) -> Self {
        Self {
            link: Some(link),
            open: Some(Box::new(Open {
                source,
                has_ended: false,
                stall: None,
            })),
        }
    }

    /// Facts about the connection that it comes by; none where it is of no connection.
    pub fn connect_info(&self) -> Option<&ConnectInfo> {
        self.link.as_ref().map(|link| &link.info)
    }

    /// Tells when the connection that it comes by is to end, for a response that would go on for ever. Never, where it is of
    /// no connection.
    pub fn draining(&self) -> Draining {
        Draining::new(self.link.clone())
    }

    /// Lets go of the rest, if there is any.
    fn abandon(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        if let (Source::Http1(body), Some(link)) = (open.source, &self.link) {
            if open.has_ended || body.is_end_stream() {
                link.open_body(false);
            } else {
                link.leftover.take(body);
            }
        }
    }
}

impl Open {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| Error::because(ErrorKind::Http1, error)),
            Source::Http2(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| Error::because(ErrorKind::Http2, error)),
        }
    }

    /// Waits for the sender, but not for ever.
    fn poll_stall(&mut self, timeout: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = timeout else {
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
        let Some(open) = &mut this.open else {
            return Poll::Ready(None);
        };
        let polled = open.poll_frame(cx);
        if polled.is_ready() {
            if let Some(stall) = &mut open.stall {
                stall.since = None;
            }
            if matches!(polled, Poll::Ready(None)) {
                open.has_ended = true;
                this.abandon();
            }
            return polled;
        }
        let timeout = this.link.as_ref().and_then(|link| link.body_timeout);
        if open.poll_stall(timeout, cx).is_pending() {
            return Poll::Pending;
        }
        // Who stalls isn't waited for once more.
        if let Some(link) = &this.link {
            link.leftover.refuse_next();
        }
        this.abandon();
        Poll::Ready(Some(Err(Error::new(ErrorKind::BodyTimeout))))
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|open| match &open.source {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        })
    }

    fn size_hint(&self) -> SizeHint {
        match self.open.as_ref().map(|open| &open.source) {
            None => SizeHint::with_exact(0),
            Some(Source::Http1(body)) => body.size_hint(),
            Some(Source::Http2(body)) => body.size_hint(),
        }
    }
}

impl Drop for Incoming {
    #[inline]
    fn drop(&mut self) {
        if self.open.is_some() {
            self.abandon();
        }
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.open.as_ref().map(|open| &open.source) {
            None => "empty",
            Some(Source::Http1(_)) => "http/1.1",
            Some(Source::Http2(_)) => "http/2",
        };
        f.debug_struct("Incoming")
            .field("kind", &kind)
            .field("size_hint", &self.size_hint())
            .finish_non_exhaustive()
    }
}
