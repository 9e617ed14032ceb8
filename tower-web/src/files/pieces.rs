//! The body of a file: spans of it, with text between them where there are several.

use std::collections::VecDeque;
use std::fs;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::ranges::Span;
use crate::BoxError;

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Memory(Bytes),
    Disk { file: Arc<fs::File>, len: u64 },
}

impl Source {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }
}

/// What is read at once: as a thread is asked to, small pieces cost more than they save.
const PIECE: u64 = 128 * 1024;

/// Sends spans of a source. Nothing is read before it is wanted, and one piece is held at most.
#[derive(Debug)]
pub(super) struct Pieces {
    source: Source,
    ahead: VecDeque<Piece>,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

#[derive(Debug)]
pub(super) enum Piece {
    Text(Bytes),
    Span(Span),
}

impl Piece {
    const fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Span(span) => span.len(),
        }
    }
}

impl Pieces {
    pub(super) fn new(source: Source, ahead: impl IntoIterator<Item = Piece>) -> Self {
        Self {
            source,
            ahead: ahead.into_iter().collect(),
            reading: None,
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                let bytes = match read {
                    Ok(Ok(bytes)) => bytes,
                    Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                };
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
            let span = match self.ahead.pop_front() {
                None => return Poll::Ready(None),
                Some(Piece::Text(text)) => return Poll::Ready(Some(Ok(Frame::data(text)))),
                Some(Piece::Span(span)) => span,
            };
            match &self.source {
                Source::Memory(bytes) => {
                    // A span is within the length, which is a `usize` here.
                    let bytes = bytes.slice(span.start as usize..span.end as usize);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Source::Disk { file, .. } => {
                    let file = Arc::clone(file);
                    let end = span.end.min(span.start + PIECE);
                    if end < span.end {
                        let rest = Span {
                            start: end,
                            end: span.end,
                        };
                        self.ahead.push_front(Piece::Span(rest));
                    }
                    self.reading = Some(spawn_blocking(move || read(&file, span.start, end)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none() && self.ahead.is_empty()
    }

    /// Exact while nothing is being read, which is when a server asks.
    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().map(Piece::len).sum();
        match self.reading {
            None => SizeHint::with_exact(ahead),
            Some(_) => SizeHint::new(),
        }
    }
}

/// Reads these bytes. A file that has become shorter is an error, as its length was told.
fn read(file: &fs::File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    // At most a piece.
    let mut bytes = vec![0; (end - start) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match read_at(file, &mut bytes[filled..], start + filled as u64) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file has become shorter while it was sent",
                ));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn read_at(file: &fs::File, into: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, at)
}

#[cfg(windows)]
fn read_at(file: &fs::File, into: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, at)
}
