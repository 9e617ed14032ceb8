//! From an accepted byte stream to one that speaks HTTP: the PROXY protocol's header, and TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "tls")]
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{ConnectInfo, Error, Protocols};

/// What a server does with a byte stream before HTTP.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preparation {
    #[cfg(feature = "proxy-protocol")]
    pub(crate) proxied: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Tls>,
}

/// A byte stream that speaks HTTP.
#[derive(Debug)]
pub(crate) enum Transport<IO> {
    Plain(IO),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<Replayed<IO>>>),
}

/// What preparation has found.
pub(crate) struct Prepared<IO> {
    pub(crate) transport: Transport<IO>,
    pub(crate) info: ConnectInfo,
    pub(crate) protocols: Protocols,
    /// Bytes of HTTP that were read already.
    pub(crate) seen: Vec<u8>,
}

impl Preparation {
    /// Whether there is nothing to do.
    #[allow(
        clippy::unused_self,
        clippy::needless_bool,
        reason = "there is something only with features"
    )]
    pub(crate) fn is_none(&self) -> bool {
        #[cfg(feature = "proxy-protocol")]
        if self.proxied {
            return false;
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return false;
        }
        true
    }

    /// Does it. The caller bounds the time.
    #[allow(
        unused_mut,
        clippy::unused_async,
        reason = "there is something to do only with features"
    )]
    pub(crate) async fn prepare<IO>(
        &self,
        mut io: IO,
        mut info: ConnectInfo,
        protocols: Protocols,
    ) -> Result<Prepared<IO>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut seen = Vec::new();
        #[cfg(feature = "proxy-protocol")]
        if self.proxied {
            let header = crate::proxied::read_header(&mut io).await?;
            seen = header.rest;
            info = info.with_ends(header.ends);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let io = Replayed {
                io,
                stash: Bytes::from(seen),
            };
            return tls.handshake(io, info, protocols).await;
        }
        Ok(Prepared {
            transport: Transport::Plain(io),
            info,
            protocols,
            seen,
        })
    }
}

/// A byte stream of which some was read before.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub(crate) struct Replayed<IO> {
    io: IO,
    stash: Bytes,
}

#[cfg(feature = "tls")]
impl<IO: AsyncRead + Unpin> AsyncRead for Replayed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stash.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.stash.len().min(buf.remaining());
        buf.put_slice(&self.stash[..length]);
        self.stash.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(feature = "tls")]
impl<IO: AsyncWrite + Unpin> AsyncWrite for Replayed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Calls a method of whichever stream it is.
macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport {
            Transport::Plain($io) => $call,
            #[cfg(feature = "tls")]
            Transport::Tls($io) => $call,
        }
    };
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<IO> {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<IO> {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
