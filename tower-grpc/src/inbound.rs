//! The messages that a body brings.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::codec::{Decode, MessageBuf};
use crate::compression::{Encoding, decompress};
use crate::framing::Deframer;
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
        // Nothing has come yet.
        is_blank: bool,
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
            is_blank: true,
            ended: false,
        }
    }

    /// Whether the last message was compressed.
    pub(crate) fn was_compressed(&self) -> bool {
        self.was_compressed
    }

    /// Whether no byte of a message has come.
    pub(crate) fn is_blank(&self) -> bool {
        self.is_blank
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
    /// Puts the next message into its place; `false` after the last.
    // Inline, and with the message where it is to be: a call that isn't costs a move of it.
    #[inline]
    pub(crate) fn poll_message<T, C: Decode<T>>(
        mut self: Pin<&mut Self>,
        codec: &mut C,
        place: &mut Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Status>> {
        loop {
            let this = self.as_mut().project();
            let (encoding, max) = (*this.encoding, this.frames.max());
            let was_compressed = this.was_compressed;
            let decoded = this.frames.next(|head, mut message| {
                *was_compressed = head.compressed;
                match head.compressed {
                    false => codec.decode_into(&mut message, place),
                    true => decode_compressed(codec, message, encoding, max, place),
                }
            })?;
            if let Some(decoded) = decoded {
                return Poll::Ready(decoded.map(|()| true));
            }
            if !ready!(self.as_mut().poll_bytes(cx))? {
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Takes in more of the body; `false` where it has ended well.
    fn poll_bytes(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        let mut this = self.project();
        // Before the first bytes a body is asked for them at once: it has some, nearly always.
        let is_over = *this.ended || (!*this.is_blank && this.body.is_end_stream());
        if !is_over {
            match ready!(this.body.as_mut().poll_frame(cx)) {
                None => {}
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Err(Status::from_error(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        *this.is_blank &= data.is_empty();
                        this.frames.push(data);
                        return Poll::Ready(Ok(true));
                    }
                    Err(frame) => *this.trailers = frame.into_trailers().ok(),
                },
            }
        }
        *this.ended = true;
        Poll::Ready(match this.frames.is_clean() {
            true => Ok(false),
            false => Err(Status::internal("the body ends within a message")),
        })
    }

    /// Puts the one message that there should be into its place, if there is one; ready once the body has ended. More
    /// are an error.
    pub(crate) fn poll_single<T, C: Decode<T>>(
        mut self: Pin<&mut Self>,
        single: &mut Option<T>,
        codec: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        if single.is_none() && !ready!(self.as_mut().poll_message(codec, single, cx))? {
            return Poll::Ready(Ok(()));
        }
        let this = self.as_mut().project();
        if this.frames.is_clean() && this.body.is_end_stream() {
            *this.ended = true;
            return Poll::Ready(Ok(()));
        }
        let mut more = None;
        match ready!(self.as_mut().poll_message(codec, &mut more, cx))? {
            false => Poll::Ready(Ok(())),
            true => Poll::Ready(Err(Status::unimplemented(
                "there are several messages, where the method has one",
            ))),
        }
    }
}

fn decode_compressed<T, C: Decode<T>>(
    codec: &mut C,
    message: MessageBuf<'_>,
    encoding: Option<Encoding>,
    max: usize,
    place: &mut Option<T>,
) -> Result<(), Status> {
    let Some(encoding) = encoding else {
        return Err(Status::internal(
            "a message is compressed, and grpc-encoding doesn't say how",
        ));
    };
    let plain = decompress(encoding, message, max)?;
    codec.decode_into(&mut MessageBuf::from(&plain), place)
}
