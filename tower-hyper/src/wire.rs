//! The transport under a protocol: replays what detection has read, notes progress, scans heads, gathers
//! responses to pipelined requests, and lingers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::Link;
use crate::scan::Scan;

/// How much of the responses to pipelined requests is gathered before it is written.
const GATHERED: usize = 16 * 1024;

/// How much of what nobody reads is taken in before the transport is closed.
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// A transport whose progress its connection's driver sees.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    link: Arc<Link>,
    /// Read by detection, and not by the protocol yet.
    stash: Bytes,
    /// What HTTP/1.1 has besides.
    http1: Option<Http1>,
    closing: Closing,
}

#[derive(Debug, Default)]
struct Http1 {
    /// Looks at heads, where they are vetted.
    scan: Option<Box<Scan>>,
    /// How many requests had begun when something was read last. More than one since then were read together.
    begun_at_read: u32,
    /// Those of the read before were, so that these are as well, most likely.
    pipelines: bool,
    gathered: Vec<u8>,
    /// How much of it is written.
    written: usize,
}

/// How far closing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    /// The peer was told. It may still be sending, and would lose our last words by a reset if the
    /// transport were closed before it has read them (RFC 9112, section 9.6).
    Lingering {
        left: usize,
    },
    Closed,
}

impl<IO> Wire<IO> {
    pub(crate) fn new(io: IO, link: Arc<Link>) -> Self {
        Self {
            io,
            link,
            stash: Bytes::new(),
            http1: None,
            closing: Closing::Open,
        }
    }

    /// Lets the next reads begin with `bytes`.
    #[must_use]
    pub(crate) fn with_replay(mut self, bytes: Bytes) -> Self {
        self.stash = bytes;
        self
    }

    /// Lets it do what only HTTP/1.1 needs, and look at heads where they are vetted.
    #[must_use]
    pub(crate) fn with_http1(mut self, vets: bool) -> Self {
        self.http1 = Some(Http1 {
            scan: vets.then(|| Box::new(Scan::new())),
            ..Http1::default()
        });
        self
    }

    /// Takes note of bytes that the protocol gets.
    #[inline]
    fn received(&mut self, bytes: &[u8]) {
        if let Some(http1) = &mut self.http1 {
            match &mut http1.scan {
                Some(scan) if !self.link.is_handed_over() => {
                    if let Some(head) = scan.feed(bytes) {
                        self.link.doubt(head);
                    }
                }
                _ => {}
            }
            let begun = self.link.begun();
            http1.pipelines = begun.wrapping_sub(http1.begun_at_read) > 1;
            http1.begun_at_read = begun;
        }
        self.link.receive();
    }
}

impl Http1 {
    /// Gathers what is written, if it answers a request that was read together with others, and is short. It
    /// leaves when the last of them is answered or has to wait, in any case before the task does.
    #[inline]
    fn gather<'a>(
        &mut self,
        link: &Link,
        bufs: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<usize> {
        let is_pipelined = self.pipelines || link.begun().wrapping_sub(self.begun_at_read) > 1;
        if !is_pipelined || link.is_handed_over() {
            return None;
        }
        let length = bufs.clone().map(<[u8]>::len).sum();
        if self.gathered.len() + length > GATHERED {
            return None;
        }
        bufs.for_each(|buf| self.gathered.extend_from_slice(buf));
        link.hold(true);
        Some(length)
    }
}

impl Http1 {
    /// Whether what is written may be hyper's refusal of a target that doesn't fit into its buffer.
    #[inline]
    fn refuses_target(&self) -> bool {
        let scan = self.scan.as_ref();
        scan.is_some_and(|scan| scan.is_in_long_target())
    }

    /// hyper tells of too many bytes of fields, whatever is too long. A target has a status of its own (RFC 9110, section
    /// 15.5.15).
    #[cold]
    fn refuse_target(&mut self, link: &Link, response: &[u8]) -> Option<usize> {
        let rest = response.strip_prefix(b"HTTP/1.1 431 Request Header Fields Too Large")?;
        self.gathered
            .extend_from_slice(b"HTTP/1.1 414 URI Too Long");
        self.gathered.extend_from_slice(rest);
        link.hold(true);
        Some(response.len())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.poll_read_through(cx, buf);
        // There is more to do, or no more to come: what was gathered goes before it. Where nothing is there, the last
        // response may still be on its way here, and the driver sees to it that all leave before the task does.
        if this.link.is_holding() && (polled.is_ready() || this.link.is_handed_over()) {
            if let Poll::Ready(Err(error)) = this.poll_release(cx) {
                return Poll::Ready(Err(error));
            }
        }
        polled
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    #[inline]
    fn poll_read_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.stash.is_empty() {
            let length = self.stash.len().min(buf.remaining());
            let bytes = self.stash.split_to(length);
            buf.put_slice(&bytes);
            self.received(&bytes);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Some(bytes @ [_, ..]) = buf.filled().get(before..) {
            self.received(bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes whether the transport is blocked.
    #[inline]
    fn noted<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.link.wrote(poll.is_pending());
        poll
    }

    /// Writes what was gathered.
    #[cold]
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(http1) = &mut self.http1 else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest @ [_, ..]) = http1.gathered.get(http1.written..) {
            let poll = Pin::new(&mut self.io).poll_write(cx, rest);
            self.link.wrote(poll.is_pending());
            match ready!(poll)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => http1.written += length,
            }
        }
        http1.gathered.clear();
        http1.written = 0;
        if !http1.pipelines {
            // A connection that pipelines only now and then keeps no buffer.
            http1.gathered = Vec::new();
        }
        self.link.hold(false);
        Poll::Ready(Ok(()))
    }

    /// Takes in what the peer still sends, up to a bound. The driver bounds the time.
    fn poll_linger(&mut self, mut left: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 * 1024];
        while left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    left = left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.closing = Closing::Lingering { left };
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(http1) = &mut this.http1 {
            if let Some(length) = http1.gather(&this.link, std::iter::once(buf)) {
                return Poll::Ready(Ok(length));
            }
            if http1.refuses_target() {
                if let Some(length) = http1.refuse_target(&this.link, buf) {
                    return Poll::Ready(Ok(length));
                }
            }
            if this.link.is_holding() {
                ready!(this.poll_release(cx))?;
            }
        }
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.noted(poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(http1) = &mut this.http1 {
            if let Some(length) = http1.gather(&this.link, bufs.iter().map(|buf| &**buf)) {
                return Poll::Ready(Ok(length));
            }
            if this.link.is_holding() {
                ready!(this.poll_release(cx))?;
            }
        }
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.noted(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link.is_holding() {
            if !this.link.take_release() {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_release(cx))?;
        }
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        if poll.is_pending() {
            this.link.wrote(true);
        }
        poll
    }

    // Open -> Lingering, Closed; Lingering -> Lingering, Closed.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing == Closing::Open {
            if this.link.is_holding() {
                ready!(this.poll_release(cx))?;
            }
            let poll = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.noted(poll))?;
            this.closing = if this.http1.is_some() && this.link.has_unread() {
                Closing::Lingering { left: LINGER_BYTES }
            } else {
                Closing::Closed
            };
        }
        if let Closing::Lingering { left } = this.closing {
            this.link.linger();
            ready!(this.poll_linger(left, cx));
            this.closing = Closing::Closed;
        }
        Poll::Ready(Ok(()))
    }
}
