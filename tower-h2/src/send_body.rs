//! Sends a body on a stream, no faster than the peer takes it.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use crate::failure::reason_for;
use crate::{Error, ErrorKind};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What may be handed to h2 before it must say that the peer has room.
///
/// Asking takes locks for each chunk, which small messages would feel. So a stream holds at most this,
/// and one chunk, beyond the peer's window.
const CREDIT: usize = 16 * 1024;

/// What is handed to h2: a chunk of a body, a part of one, or nothing, which carries the end of the stream.
#[derive(Debug)]
pub(crate) enum SendBuf<D> {
    Data(D),
    Part(Bytes),
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
        // Where the peer may not keep the window shut for ever.
        held: Option<Box<Held<B::Data>>>,
        #[pin]
        body: B,
    }
}

/// Hands over no more than the peer has room for, and gives up a peer that makes none.
struct Held<D> {
    timeout: Duration,
    /// What waits for room, and whether it is the last of the body.
    data: Option<(D, bool)>,
    /// Made when there is no room.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> SendBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// A body to send, whose stream is reset when the peer has had no room for as long as `timeout`.
    #[inline]
    pub(crate) fn new(
        stream: SendStream<SendBuf<B::Data>>,
        body: B,
        timeout: Option<Duration>,
    ) -> Self {
        let held = timeout.map(|timeout| {
            Box::new(Held {
                timeout,
                data: None,
                timer: None,
            })
        });
        Self {
            stream,
            credit: CREDIT,
            held,
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
            match this.held {
                Some(held) => {
                    let is_over = ready!(held.poll(this.stream, cx))?;
                    if is_over {
                        return Poll::Ready(Ok(()));
                    }
                }
                None if *this.credit == 0 => {
                    ready!(poll_room(this.stream, cx))?;
                    *this.credit = CREDIT;
                }
                None => {}
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
                    if let (Some(held), 1..) = (&mut *this.held, length) {
                        held.data = Some((data, last));
                        continue;
                    }
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

impl<D: Buf> Held<D> {
    /// Hands over what waits, as the peer makes room. Says whether that was the last of the body.
    fn poll(
        &mut self,
        stream: &mut SendStream<SendBuf<D>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Error>> {
        while let Some((data, last)) = &mut self.data {
            let (left, last) = (data.remaining(), *last);
            stream.reserve_capacity(left);
            let room = match stream.capacity() {
                0 => match poll_capacity(stream, cx) {
                    Poll::Ready(room) => room?,
                    Poll::Pending => {
                        ready!(poll_timer(&mut self.timer, self.timeout, cx));
                        stream.send_reset(Reason::CANCEL);
                        let why = "the peer keeps the stream's window shut";
                        return Poll::Ready(Err(Error::because(ErrorKind::Timeout, why)));
                    }
                },
                room => room,
            };
            self.timer = None;
            if room < left {
                let part = data.copy_to_bytes(room);
                sent(stream.send_data(SendBuf::Part(part), false))?;
            } else if let Some((data, _)) = self.data.take() {
                sent(stream.send_data(SendBuf::Data(data), last))?;
                return Poll::Ready(Ok(last));
            }
        }
        Poll::Ready(Ok(false))
    }
}

/// Without a runtime there is no time, and the peer is waited for.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    timeout: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if timer.is_none() && Handle::try_current().is_err() {
        return Poll::Pending;
    }
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
    timer.as_mut().poll(cx)
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
    poll_capacity(stream, cx).map_ok(|_| ())
}

/// Waits until there is room for more of what was asked for.
fn poll_capacity<D: Buf>(
    stream: &mut SendStream<SendBuf<D>>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Error>> {
    match ready!(stream.poll_capacity(cx)) {
        Some(Ok(room)) => Poll::Ready(Ok(room)),
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
            Self::Part(part) => part.remaining(),
            Self::End => 0,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Data(data) => data.chunk(),
            Self::Part(part) => part.chunk(),
            Self::End => &[],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Data(data) => data.advance(count),
            Self::Part(part) => part.advance(count),
            Self::End => debug_assert_eq!(count, 0, "nothing to advance over"),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Data(data) => data.chunks_vectored(slices),
            Self::Part(part) => part.chunks_vectored(slices),
            Self::End => 0,
        }
    }
}
