//! A body that is compressed while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};

use super::PIECE;
use super::coding::Encoder;
use crate::body::{Body, BodyError};

/// The body, what of it wasn't compressed yet, and the state of the encoder.
///
/// What was written is flushed when the body has no more at the moment, so that a client has all that there is.
pub(super) struct Compressed {
    /// What is read from. Afterwards only its trailers are left.
    body: Body,
    /// `None` once the end was written.
    encoder: Option<Box<dyn Encoder>>,
    rest: Bytes,
    trailers: Option<Frame<Bytes>>,
    /// Whether something was written that the client couldn't read yet.
    is_unflushed: bool,
    /// Whether a whole piece was compressed just now, so that it is others' turn.
    is_tired: bool,
}

impl Compressed {
    pub(super) fn new(body: Body, encoder: Box<dyn Encoder>) -> Self {
        Self {
            body,
            encoder: Some(encoder),
            rest: Bytes::new(),
            trailers: None,
            is_unflushed: false,
            is_tired: false,
        }
    }

    /// A body whose length isn't known, and which is dropped unread.
    pub(super) fn nothing() -> Self {
        Self {
            body: Body::empty(),
            encoder: None,
            rest: Bytes::new(),
            trailers: None,
            is_unflushed: false,
            is_tired: false,
        }
    }

    /// Compresses the next piece of what is there.
    fn write(&mut self) -> Result<Bytes, BodyError> {
        let length = self.rest.len().min(PIECE);
        let Some(encoder) = &mut self.encoder else {
            return Ok(Bytes::new());
        };
        encoder.write(&self.rest[..length]).map_err(broken)?;
        self.rest.advance(length);
        self.is_unflushed = true;
        self.is_tired = length == PIECE;
        Ok(encoder.take().into())
    }

    fn flush(&mut self) -> Result<Bytes, BodyError> {
        self.is_unflushed = false;
        let Some(encoder) = &mut self.encoder else {
            return Ok(Bytes::new());
        };
        encoder.flush().map_err(broken)?;
        Ok(encoder.take().into())
    }

    fn finish(&mut self) -> Result<Bytes, BodyError> {
        match self.encoder.take() {
            Some(encoder) => Ok(encoder.finish().map_err(broken)?.into()),
            None => Ok(Bytes::new()),
        }
    }
}

fn broken(error: std::io::Error) -> BodyError {
    BodyError::Broken(error.into())
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.encoder.is_none() {
            return Poll::Ready(this.trailers.take().map(Ok));
        }
        loop {
            if std::mem::take(&mut this.is_tired) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (written, is_pending) = if !this.rest.is_empty() {
                (this.write(), false)
            } else {
                match Pin::new(&mut this.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            this.rest = data;
                            continue;
                        }
                        Err(trailers) => {
                            this.trailers = Some(trailers);
                            (this.finish(), false)
                        }
                    },
                    Poll::Ready(Some(Err(error))) => {
                        this.encoder = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(None) => (this.finish(), false),
                    Poll::Pending if this.is_unflushed => (this.flush(), true),
                    Poll::Pending => return Poll::Pending,
                }
            };
            match written {
                Ok(bytes) if !bytes.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // Its waker is in the body's hands.
                Ok(_) if is_pending => return Poll::Pending,
                Ok(_) if this.encoder.is_none() => {
                    return Poll::Ready(this.trailers.take().map(Ok));
                }
                Ok(_) => {}
                Err(error) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A body without a length isn't at its end before it was asked.
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
