//! The messages that a body brings.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::codec::{Decode, MessageBuf};
use crate::compression::{Encoding, decompress};
use crate::framing::{Chunks, Deframer, Head};
use crate::{BoxError, Status};

pin_project! {
    /// Reads messages out of a body, and then its trailers.
    pub(crate) struct Inbound<B> {
        #[pin]
        body: B,
        frames: Deframer,
        encoding: Option<Encoding>,
        was_compressed: bool,
        trailers: Option<HeaderMap>,
        ended: bool,
    }
}

impl<B> Inbound<B> {
    /// Messages may have `max` bytes, and be compressed in the one way that the peer has announced.
    pub(crate) fn new(body: B, encoding: Option<Encoding>, max: usize) -> Self {
        Self {
            body,
            frames: Deframer::new(max),
            encoding,
            was_compressed: false,
            trailers: None,
            ended: false,
        }
    }

    /// Whether the last message was compressed.
    pub(crate) fn was_compressed(&self) -> bool {
        self.was_compressed
    }

    /// What came after the last message.
    pub(crate) fn take_trailers(self: Pin<&mut Self>) -> Option<HeaderMap> {
        self.project().trailers.take()
    }
}

impl<B> Inbound<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// The next message; `None` after the last.
    // Inline, as each call that isn't costs a move of the message.
    #[inline]
    pub(crate) fn poll_message<T, C: Decode<T>>(
        self: Pin<&mut Self>,
        codec: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<T>, Status>> {
        let mut this = self.project();
        loop {
            let max = this.frames.max();
            if let Some((head, chunks)) = this.frames.next()? {
                *this.was_compressed = head.compressed;
                return Poll::Ready(decode(codec, head, *this.encoding, chunks, max).map(Some));
            }
            if *this.ended || this.body.is_end_stream() {
                *this.ended = true;
                return Poll::Ready(match this.frames.is_clean() {
                    true => Ok(None),
                    false => Err(Status::internal("the body ends within a message")),
                });
            }
            match ready!(this.body.as_mut().poll_frame(cx)) {
                None => *this.ended = true,
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Err(Status::from_error(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.frames.push(data),
                    Err(frame) => {
                        *this.trailers = frame.into_trailers().ok();
                        *this.ended = true;
                    }
                },
            }
        }
    }
}

impl<B> Inbound<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// The one message that there should be, if there is one, once the body has ended. More are an error.
    pub(crate) fn poll_single<T, C: Decode<T>>(
        mut self: Pin<&mut Self>,
        single: &mut Option<T>,
        codec: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<T>, Status>> {
        loop {
            let next = ready!(self.as_mut().poll_message(codec, cx))?;
            match next {
                Some(_) if single.is_some() => {
                    let message = "there are several messages, where the method has one";
                    return Poll::Ready(Err(Status::unimplemented(message)));
                }
                Some(message) => *single = Some(message),
                None => return Poll::Ready(Ok(single.take())),
            }
        }
    }
}

#[inline]
fn decode<T, C: Decode<T>>(
    codec: &mut C,
    head: Head,
    encoding: Option<Encoding>,
    chunks: &mut Chunks,
    max: usize,
) -> Result<T, Status> {
    let mut message = MessageBuf::new(chunks, head.len);
    if !head.compressed {
        return codec.decode(&mut message);
    }
    let Some(encoding) = encoding else {
        return Err(Status::internal(
            "a message is compressed, and grpc-encoding doesn't say how",
        ));
    };
    let plain = decompress(encoding, message, max)?;
    let len = plain.len();
    codec.decode(&mut MessageBuf::new(&mut Chunks::from(plain), len))
}
