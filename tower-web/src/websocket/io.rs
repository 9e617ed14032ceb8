//! What a WebSocket's frames travel over.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_channel::mpsc;
use http_body::Body as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::body::Body;

/// The bytes both ways, and how many have gone out.
#[derive(Debug)]
pub(super) struct Io {
    way: Way,
    written: u64,
    /// Of what a client sends. `None` at the client's own end.
    watch: Option<Watch>,
    /// What comes next isn't UTF-8.
    wrong: bool,
}

/// The error of a read whose next byte isn't UTF-8.
#[derive(Debug)]
pub(super) struct NotUtf8;

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text isn't UTF-8")
    }
}

impl std::error::Error for NotUtf8 {}

#[derive(Debug)]
enum Way {
    /// A connection that has left HTTP/1.1 behind (RFC 6455).
    Upgraded(TokioIo<Upgraded>),
    /// One stream of HTTP/2 (RFC 8441), or a test's: the bodies of the request and of the response.
    Tunnel {
        incoming: Body,
        /// What is left of the last piece.
        piece: Bytes,
        outgoing: mpsc::Sender<Result<Bytes, Infallible>>,
    },
}

/// As much as is copied into one frame of HTTP/2.
const PIECE: usize = 16 * 1024;

impl Io {
    pub(super) fn upgraded(connection: Upgraded) -> Self {
        Self::new(Way::Upgraded(TokioIo::new(connection)))
    }

    /// A tunnel that reads `incoming`, and the body that it writes.
    pub(super) fn tunnel(incoming: Body) -> (Self, Body) {
        let (outgoing, pieces) = mpsc::channel(1);
        (
            Self::from_bodies(incoming, outgoing),
            Body::from_stream(pieces),
        )
    }

    /// A tunnel of which both bodies are there.
    pub(super) fn from_bodies(
        incoming: Body,
        outgoing: mpsc::Sender<Result<Bytes, Infallible>>,
    ) -> Self {
        Self::new(Way::Tunnel {
            incoming,
            piece: Bytes::new(),
            outgoing,
        })
    }

    const fn new(way: Way) -> Self {
        Self {
            way,
            written: 0,
            watch: None,
            wrong: false,
        }
    }

    /// Fails at the first byte of a text that isn't UTF-8, however far its frame has come.
    pub(super) const fn watched(mut self) -> Self {
        self.watch = Some(Watch::new());
        self
    }

    /// How many bytes have gone out, by which a peer is told that reads slowly from one that doesn't.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let not_utf8 = || Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, NotUtf8)));
        if self.wrong {
            return not_utf8();
        }
        let before = buf.filled().len();
        ready!(self.way.poll_read(cx, buf))?;
        let Some(watch) = &mut self.watch else {
            return Poll::Ready(Ok(()));
        };
        let Some(good) = watch.look(&buf.filled()[before..]) else {
            return Poll::Ready(Ok(()));
        };
        // What was said before is still heard.
        self.wrong = true;
        buf.set_filled(before + good);
        if good == 0 {
            return not_utf8();
        }
        Poll::Ready(Ok(()))
    }
}

impl Way {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (incoming, piece) = match self {
            Self::Upgraded(io) => return Pin::new(io).poll_read(cx, buf),
            Self::Tunnel {
                incoming, piece, ..
            } => (incoming, piece),
        };
        while piece.is_empty() {
            match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                // Trailers mean nothing here.
                Some(Ok(frame)) => *piece = frame.into_data().unwrap_or_default(),
            }
        }
        let fits = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..fits]);
        piece.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let written = match &mut self.way {
            Way::Upgraded(io) => ready!(Pin::new(io).poll_write(cx, buf))?,
            Way::Tunnel { outgoing, .. } => {
                ready!(outgoing.poll_ready(cx)).map_err(gone)?;
                let piece = &buf[..buf.len().min(PIECE)];
                outgoing
                    .start_send(Ok(Bytes::copy_from_slice(piece)))
                    .map_err(gone)?;
                piece.len()
            }
        };
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Upgraded(io) => Pin::new(io).poll_flush(cx),
            // Whoever sends the body sends it as it comes.
            Way::Tunnel { .. } => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Upgraded(io) => Pin::new(io).poll_shutdown(cx),
            Way::Tunnel { outgoing, .. } => {
                outgoing.close_channel();
                Poll::Ready(Ok(()))
            }
        }
    }
}
