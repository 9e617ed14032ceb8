//! The body that a peer sends.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

use crate::client::Hold;
use crate::{Error, ErrorKind};

/// How much a reader may have taken before the peer is told, so that small messages don't each cost it.
const RELEASE_AT: usize = 4 * 1024;

/// A frame for which malloc asks the kernel, until it has learned better: M_MMAP_THRESHOLD of glibc.
const LARGE: usize = 128 * 1024;

/// The body of a request or response, as the peer sends it.
///
/// The peer may send as much as the window holds (see `with_initial_stream_window` of the builders), and
/// more only as the reader takes chunks: whoever stops reading stops the peer. The chunks are the
/// received frames' payloads; nothing is copied.
///
/// **Cancellation.** Dropping it before its end tells the peer to stop: a server's response is finished
/// first and the request then reset with NO_ERROR, a client's request is reset with CANCEL.
///
/// **Errors.** [`Error`], where the peer has reset the stream, has broken the protocol (a length other
/// than its Content-Length among that), or where the connection has failed.
pub struct RecvBody {
    stream: Option<RecvStream>,
    stage: Stage,
    /// Taken by the reader, and not yet given back to the peer's window.
    unreleased: usize,
    length: Option<u64>,
    /// What a client's request holds until its response is over.
    hold: Option<Hold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Ended,
}

impl RecvBody {
    /// A body of the stream, whose length is `length` where the head says so.
    pub(crate) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self {
            stage: Stage::Data,
            stream: Some(stream),
            unreleased: 0,
            length,
            hold: None,
        }
    }

    /// Holds `hold` until the body is over.
    pub(crate) fn with_hold(mut self, hold: Option<Hold>) -> Self {
        self.hold = hold;
        if self.is_end_stream() {
            self.end();
        }
        self
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        if let Some(hold) = self.hold.take() {
            hold.finish();
        }
    }

    /// A body without content.
    pub fn empty() -> Self {
        Self {
            stream: None,
            stage: Stage::Ended,
            unreleased: 0,
            length: Some(0),
            hold: None,
        }
    }

    fn release(&mut self) {
        let taken = std::mem::take(&mut self.unreleased);
        if let (true, Some(stream)) = (taken > 0, &mut self.stream) {
            // It fails only where more is given back than was taken.
            let _ = stream.flow_control().release_capacity(taken);
        }
    }

    fn took(&mut self, bytes: usize) {
        self.length = self
            .length
            .map(|length| length.saturating_sub(bytes as u64));
        self.unreleased += bytes;
        if bytes >= LARGE {
            keep_memory();
        }
        if self.unreleased >= RELEASE_AT {
            self.release();
        }
    }
}

/// Has glibc keep the memory of large messages for the next ones.
///
/// What it gives back to the kernel when a message is freed comes anew for the next one, page by page, and 256 page faults
/// for 1 MiB cost more than all else. It gives back what is free at the end of the heap beyond twice the largest block
/// that was ever freed to the kernel (mallopt(3), M_MMAP_THRESHOLD); so here is one, which nobody touches. That is up to
/// 4 MiB for each arena. Messages of 1 MiB, each echoed before the next, go twice as fast.
#[cold]
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BLOCK: usize = 2 << 20;
        static KEPT: std::sync::Once = std::sync::Once::new();
        KEPT.call_once(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK))));
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = Error;

    // Data -> Data, Trailers, Ended; Trailers -> Ended.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        while this.stage == Stage::Data {
            match stream.poll_data(cx) {
                // It carries nothing but perhaps the end.
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    this.took(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.end();
                    return Poll::Ready(Some(Err(Error::from_h2(error))));
                }
                Poll::Ready(None) => this.stage = Stage::Trailers,
                Poll::Pending => {
                    this.release();
                    return Poll::Pending;
                }
            }
        }
        if this.stage == Stage::Trailers {
            let trailers = ready!(stream.poll_trailers(cx));
            this.end();
            return match trailers {
                Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
                Err(error) => Poll::Ready(Some(Err(Error::from_h2(error)))),
            };
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        match (self.stage, &self.stream) {
            (Stage::Data, Some(stream)) => stream.is_end_stream(),
            (Stage::Trailers, _) => false,
            (Stage::Ended, _) | (_, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

impl Default for RecvBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBody")
            .field("stage", &self.stage)
            .field("remaining", &self.length)
            .finish_non_exhaustive()
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Timeout => std::io::ErrorKind::TimedOut,
            ErrorKind::Reset | ErrorKind::GoAway => std::io::ErrorKind::ConnectionReset,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
