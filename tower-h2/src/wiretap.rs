//! Watches the bytes of a connection: what kind of frames come, and whether writes go.
//!
//! The `h2` crate bounds what a peer can make it hold: header lists, CONTINUATION frames, streams that are reset
//! before they are accepted, streams that break the protocol, tiny and empty DATA frames. It doesn't bound how many
//! frames a peer may send that are cheap to send and bring nothing: PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, frames of unknown types, and resets of streams that were accepted already. So the heads of
//! the frames are read as they pass.
//!
//! Where h2 ends a connection for another reason than RFC 9113 has it, and a head tells, the frame isn't passed on, and
//! the peer is told the right one.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frames::{PREFACE_LEN, Scan};
use crate::Error;

mod allowance;
mod frames;

pub(crate) use self::allowance::Allowance;

/// What is seen of a connection. Only its own task writes and reads it, so that no ordering matters.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    read: AtomicU64,
    heads: AtomicU64,
    written: AtomicU64,
    blocked: AtomicBool,
    head_open: AtomicBool,
    flood: AtomicBool,
    fault: OnceLock<Fault>,
    paused: AtomicBool,
    going_away: AtomicBool,
}

impl Notes {
    /// How many bytes have come.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many requests the peer has begun.
    pub(crate) fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    /// How many bytes have left.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether bytes are waiting that the transport doesn't take.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Whether the peer has begun a block of header fields, and not ended it.
    pub(crate) fn is_head_open(&self) -> bool {
        self.head_open.load(Ordering::Relaxed)
    }

    /// Whether the peer has sent more empty frames than it may. Nothing is read from it any more.
    pub(crate) fn is_flood(&self) -> bool {
        self.flood.load(Ordering::Relaxed)
    }

    /// What the peer has sent that the protocol forbids. Nothing is read from it any more.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    fn found(&self, fault: Fault) {
        let _ = self.fault.set(fault);
    }

    /// Has the transport seem to have nothing to read for a while. Nobody is woken when it does; whoever ends the pause
    /// has to poll again.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether the peer has sent GOAWAY.
    pub(crate) fn is_going_away(&self) -> bool {
        self.going_away.load(Ordering::Relaxed)
    }
}

/// What the protocol forbids, and h2 lets pass or takes for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    PseudoFieldInTrailers,
    /// DATA or HEADERS after END_STREAM. Where the response is still to come h2 takes it for a PROTOCOL_ERROR.
    AfterTheEnd,
    /// A frame isn't as long as its type has it, which h2 takes for a PROTOCOL_ERROR.
    Length,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::PseudoFieldInTrailers => {
                Self::protocol(Reason::PROTOCOL_ERROR, "trailers with a pseudo-field")
            }
            Fault::AfterTheEnd => Self::protocol(
                Reason::STREAM_CLOSED,
                "a message goes on after the end of its stream",
            ),
            Fault::Length => Self::protocol(
                Reason::FRAME_SIZE_ERROR,
                "a frame isn't as long as its type has it",
            ),
        }
    }
}

/// A transport whose frames are looked at.
#[derive(Debug)]
pub(crate) struct Wiretap<IO> {
    io: IO,
    scan: Scan,
    notes: Arc<Notes>,
}

impl<IO> Wiretap<IO> {
    /// The server's side, where the client's preface comes first.
    pub(crate) fn server(io: IO, allowance: Allowance) -> Self {
        Self::new(io, Scan::new(Some(PREFACE_LEN), allowance))
    }

    /// The client's side.
    pub(crate) fn client(io: IO, allowance: Allowance) -> Self {
        Self::new(io, Scan::new(None, allowance))
    }

    fn new(io: IO, scan: Scan) -> Self {
        Self {
            io,
            scan,
            notes: Arc::default(),
        }
    }

    pub(crate) fn notes(&self) -> Arc<Notes> {
        Arc::clone(&self.notes)
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(count)) => {
                let total = self.notes.written() + *count as u64;
                self.notes.written.store(total, Ordering::Relaxed);
                self.notes.blocked.store(false, Ordering::Relaxed);
                self.scan.earn(*count);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.notes.blocked.store(true, Ordering::Relaxed),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wiretap<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.notes.is_paused() {
            return Poll::Pending;
        }
        if this.notes.is_flood() || this.notes.fault().is_some() {
            // Whoever drives the connection sees it after this poll, and ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            let total = this.notes.read() + read.len() as u64;
            this.notes.read.store(total, Ordering::Relaxed);
            let fine = this.scan.scan(read, &this.notes);
            if fine < read.len() {
                buffer.set_filled(before + fine);
                // Nothing read would be the end of the stream.
                return if fine > 0 { polled } else { Poll::Pending };
            }
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wiretap<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if flushed.is_pending() {
            this.notes.blocked.store(true, Ordering::Relaxed);
        } else {
            this.notes.blocked.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
