//! Sends a body on a stream, no faster than the peer takes it.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use h2::{Reason, SendStream};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::failure::reason_for;
use crate::{Error, ErrorKind};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What may be handed to h2 before it must say that the peer has room.
///
/// Asking takes locks for each chunk, which small messages would feel. So a stream holds at most this,
/// and one chunk, beyond the peer's window.
const CREDIT: usize = 16 * 1024;

/// What is handed to h2: a chunk of a body, or nothing, which carries the end of the stream.
#[derive(Debug)]
pub(crate) enum SendBuf<D> {
    Data(D),
    End,
}

pin_project! {
    /// Sends a body on its stream; resolves once all is handed to h2.
    pub(crate) struct SendBody<B>
    where
        B: Body,
    {
        stream: SendStream<SendBuf<B::Data>>,
        credit: usize,
        #[pin]
        body: B,
    }
}

impl<B> SendBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(stream: SendStream<SendBuf<B::Data>>, body: B) -> Self {
        Self {
            stream,
            credit: CREDIT,
            body,
        }
    }

    /// Ends the stream before its time.
    pub(crate) fn reset(self: Pin<&mut Self>, reason: Reason) {
        self.project().stream.send_reset(reason);
    }
}

impl<B> Future for SendBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if *this.credit == 0 {
                ready!(poll_room(this.stream, cx))?;
                *this.credit = CREDIT;
            }
            let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) else {
                return poll_reset(this.stream, cx).map(Err);
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let error = error.into();
                    this.stream.send_reset(reason_for(&*error));
                    return Poll::Ready(Err(Error::because(ErrorKind::Body, error)));
                }
                None => return Poll::Ready(sent(this.stream.send_data(SendBuf::End, true))),
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = this.body.is_end_stream();
                    let length = data.remaining();
                    if length > 0 || last {
                        sent(this.stream.send_data(SendBuf::Data(data), last))?;
                    }
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                    *this.credit = this.credit.saturating_sub(length);
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(sent(this.stream.send_trailers(trailers)));
                    }
                }
            }
        }
    }
}

/// What h2 says to a frame. It refuses those of a stream that is closed already.
fn sent(result: Result<(), h2::Error>) -> Result<(), Error> {
    result.map_err(|error| match error.reason() {
        Some(_) => Error::from_h2(error),
        None if error.is_io() => Error::from_h2(error),
        None => Error::because(ErrorKind::Closed, error),
    })
}

/// Waits until the peer has room for all that was handed over, and a byte more.
fn poll_room<D: Buf>(
    stream: &mut SendStream<SendBuf<D>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    stream.reserve_capacity(1);
    if stream.capacity() > 0 {
        return Poll::Ready(Ok(()));
    }
    match ready!(stream.poll_capacity(cx)) {
        Some(Ok(_)) => Poll::Ready(Ok(())),
        Some(Err(error)) => Poll::Ready(Err(Error::from_h2(error))),
        // The stream is closed, and this says why.
        None => match stream.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Error::reset(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Error::from_h2(error))),
            Poll::Pending => Poll::Ready(Err(Error::new(ErrorKind::Closed))),
        },
    }
}

/// While the body is pending, a reset by the peer ends the wait.
fn poll_reset<D: Buf>(stream: &mut SendStream<SendBuf<D>>, cx: &mut Context<'_>) -> Poll<Error> {
    match ready!(stream.poll_reset(cx)) {
        Ok(reason) => Poll::Ready(Error::reset(reason)),
        Err(error) => Poll::Ready(Error::from_h2(error)),
    }
}

impl<D: Buf> Buf for SendBuf<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Data(data) => data.remaining(),
            Self::End => 0,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Data(data) => data.chunk(),
            Self::End => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Data(data) => data.advance(count),
            Self::End => debug_assert_eq!(count, 0, "nothing to advance over"),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Data(data) => data.chunks_vectored(slices),
            Self::End => 0,
        }
    }
}
