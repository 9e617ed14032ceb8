//! The transport under a protocol: replays what detection has read, notes progress, and lingers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::Link;

/// How much of what nobody reads is taken in before the transport is closed.
const LINGER_BYTES: usize = 256 * 1024;

/// A transport whose progress its connection's driver sees.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    link: Arc<Link>,
    /// Read by detection, and not by the protocol yet.
    stash: Bytes,
    lingers: bool,
    closing: Closing,
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
            lingers: false,
            closing: Closing::Open,
        }
    }

    /// Lets the next reads begin with `bytes`.
    #[must_use]
    pub(crate) fn with_replay(mut self, bytes: Bytes) -> Self {
        self.stash = bytes;
        self
    }

    /// Lets it wait, on closing, for a peer that is still sending.
    #[must_use]
    pub(crate) fn with_linger(mut self) -> Self {
        self.lingers = true;
        self
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.stash.is_empty() {
            let length = this.stash.len().min(buf.remaining());
            buf.put_slice(&this.stash[..length]);
            this.stash.advance(length);
            if this.stash.is_empty() {
                this.stash = Bytes::new();
            }
            this.link.receive();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.link.receive();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Notes whether the transport is blocked.
    fn noted<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.link.wrote(poll.is_pending());
        poll
    }

    /// Takes in what the peer still sends, up to a bound. The driver bounds the time.
    fn poll_linger(&mut self, mut left: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
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
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.noted(poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.noted(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
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
            let poll = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.noted(poll))?;
            this.closing = if this.lingers && this.link.has_unread() {
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
