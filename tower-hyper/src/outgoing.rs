//! The body of a response: the service's, or none where the server answers by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::leftover::Leftover;
use crate::link::Link;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// hyper copies frames into its buffer, whatever their size: they come to it in pieces, of which it takes no more than
/// its buffer is allowed to hold.
const PIECE: usize = 16 * 1024;

pin_project! {
    /// The body of a response. Its connection learns when it is over.
    pub(crate) struct Outgoing<B>
    where
        B: Body,
    {
        #[pin]
        body: Option<B>,
        // What of a large frame has not been handed on. Few are large, and a response is moved about with it.
        rest: Option<Box<B::Data>>,
        over: Over,
    }
}

/// A frame's data, or a piece of it.
pub(crate) enum Piece<D> {
    Whole(D),
    Part(Bytes),
}

impl<D: Buf> Buf for Piece<D> {
    #[inline]
    fn remaining(&self) -> usize {
        match self {
            Self::Whole(data) => data.remaining(),
            Self::Part(part) => part.remaining(),
        }
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        match self {
            Self::Whole(data) => data.chunk(),
            Self::Part(part) => part.chunk(),
        }
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        match self {
            Self::Whole(data) => data.advance(count),
            Self::Part(part) => part.advance(count),
        }
    }

    // Where HTTP/2 has room for a part only.
    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self {
            Self::Whole(data) => data.copy_to_bytes(length),
            Self::Part(part) => part.copy_to_bytes(length),
        }
    }
}

/// Says by being dropped that a response is over.
pub(crate) struct Over(Arc<Link>);

impl<B: Body> Outgoing<B> {
    pub(crate) fn new(body: Option<B>, over: Over) -> Self {
        Self {
            body,
            rest: None,
            over,
        }
    }

    /// What was dropped of the request.
    #[inline]
    pub(crate) fn leftover(&self) -> &Leftover {
        &self.over.0.leftover
    }
}

impl Over {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self(link)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Piece<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        if this.rest.is_some() {
            return Poll::Ready(take_rest(this.rest).map(|piece| Ok(Frame::data(piece))));
        }
        let Some(body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) else {
            // Its head has left, so that it can only be broken off.
            return Poll::Ready(Some(Err("the response's body panicked".into())));
        };
        polled
            .map_ok(|frame| frame.map_data(|data| first_piece(data, this.rest)))
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self
            .body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        if let Some(rest) = &self.rest {
            let rest = rest.remaining() as u64;
            let upper = hint.upper().map(|upper| upper.saturating_add(rest));
            let lower = hint.lower().saturating_add(rest);
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

/// What comes of `data` first; `rest` takes what remains.
#[inline]
fn first_piece<D: Buf>(data: D, rest: &mut Option<Box<D>>) -> Piece<D> {
    if data.remaining() <= PIECE {
        return Piece::Whole(data);
    }
    begin_rest(data, rest)
}

#[cold]
fn begin_rest<D: Buf>(mut data: D, rest: &mut Option<Box<D>>) -> Piece<D> {
    let part = data.copy_to_bytes(PIECE);
    *rest = Some(Box::new(data));
    Piece::Part(part)
}

/// What comes next of a large frame.
#[cold]
fn take_rest<D: Buf>(rest: &mut Option<Box<D>>) -> Option<Piece<D>> {
    let data = rest.as_mut()?;
    let length = data.remaining().min(PIECE);
    // Of `Bytes` this is no copy.
    let part = data.copy_to_bytes(length);
    if !data.has_remaining() {
        *rest = None;
    }
    Some(Piece::Part(part))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::ConnectInfo;

    /// One frame of the given size, by a body that says how much it has left.
    struct Once(Option<Bytes>);

    impl Body for Once {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
        }
    }

    #[test]
    fn large_frames_come_in_pieces_and_nothing_is_lost() {
        for size in [0, 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let data: Bytes = (0..size).map(|at| at as u8).collect();
            let over = Over::new(Arc::new(Link::new(ConnectInfo::default(), None)));
            let mut body = Box::pin(Outgoing::new(Some(Once(Some(data.clone()))), over));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut received = Vec::new();
            assert_eq!(body.size_hint().exact(), Some(size as u64));
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
                let mut piece = frame.unwrap().into_data().ok().unwrap();
                assert!(piece.remaining() <= PIECE);
                while piece.has_remaining() {
                    let chunk = piece.chunk();
                    received.extend_from_slice(chunk);
                    let len = chunk.len();
                    piece.advance(len);
                }
                let left = (size - received.len()) as u64;
                assert_eq!(body.size_hint().exact(), Some(left));
                assert_eq!(body.is_end_stream(), left == 0);
            }
            assert_eq!(received, data);
        }
    }
}
