//! What stands for HTTP/2 where it isn't built: types without values, so that no code comes of them.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// No body.
pub(crate) struct RecvBody(Infallible);

/// No connection.
pub(crate) struct Connection<IO, S, B> {
    never: Infallible,
    _types: PhantomData<fn(IO, S, B)>,
}

impl<IO, S, B> Connection<IO, S, B> {
    pub(crate) fn graceful_shutdown(self: Pin<&mut Self>) {
        match self.never {}
    }

    pub(crate) fn has_open_streams(&self) -> bool {
        match self.never {}
    }
}

impl<IO, S, B> Future for Connection<IO, S, B> {
    type Output = Result<(), Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.never {}
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0 {}
    }

    fn is_end_stream(&self) -> bool {
        match self.0 {}
    }

    fn size_hint(&self) -> SizeHint {
        match self.0 {}
    }
}
