//! The client's messages, for a handler: one, or a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use pin_project_lite::pin_project;

use super::failure;
use super::opening::Head;
use crate::codec::Decode;
use crate::inbound::Inbound;
use crate::streaming::{Source, Streaming};
use crate::{BoxError, GrpcBody, Metadata, Request, Status};

pin_project! {
    /// A call of one message: reads it where it stays, and hands it to the handler.
    // Written by hand, for what is read to be in the place of what is called: an `async` block has room for both,
    // and for each move between them.
    #[project = SingleProj]
    pub(super) enum Single<B, C, Req, H, F> {
        Reading {
            #[pin]
            messages: Inbound<B>,
            message: Option<Req>,
            codec: C,
            // What the handler gets, and the handler. Taken together.
            head: Option<Head>,
            handler: Option<H>,
        },
        Handling {
            #[pin]
            answer: F,
        },
    }
}

impl<B, C, Req, H, F> Single<B, C, Req, H, F> {
    #[inline]
    pub(super) fn new(messages: Inbound<B>, head: Head, codec: C, handler: H) -> Self {
        Self::Reading {
            messages,
            message: None,
            codec,
            head: Some(head),
            handler: Some(handler),
        }
    }
}

impl<B, C, Req, H, F> Future for Single<B, C, Req, H, F>
where
    // The request.
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Decode<Req>,
    // The handler, which goes on with the codec.
    H: FnOnce(Request<Req>, C) -> F,
    F: Future<Output = http::Response<GrpcBody>>,
{
    type Output = http::Response<GrpcBody>;

    // Reading -> Reading, Handling; Handling -> Handling.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                SingleProj::Reading {
                    mut messages,
                    message,
                    codec,
                    head,
                    handler,
                } => {
                    let read = ready!(messages.as_mut().poll_single(message, codec, cx));
                    if let Err(status) = read {
                        return Poll::Ready(failure(status));
                    }
                    let (Some(message), Some(head), Some(handler)) =
                        (message.take(), head.take(), handler.take())
                    else {
                        let why = "there is no message, where the method takes one";
                        return Poll::Ready(failure(Status::unimplemented(why)));
                    };
                    let request = head.with(message, messages.was_compressed());
                    let answer = handler(request, std::mem::take(codec));
                    self.set(Self::Handling { answer });
                }
                SingleProj::Handling { answer } => return answer.poll(cx),
            }
        }
    }
}

/// The messages as they come.
pub(super) fn stream<B, C, T>(messages: Inbound<B>, head: Head) -> Request<Streaming<T>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Decode<T>,
    T: Send + 'static,
{
    let source = Requests {
        codec: C::default(),
        state: Reading::Open { messages },
        was_compressed: false,
    };
    head.with(Streaming::new(source), false)
}

pin_project! {
    /// The messages of a client, for a handler.
    struct Requests<B, C> {
        codec: C,
        #[pin]
        state: Reading<B>,
        was_compressed: bool,
    }
}

pin_project! {
    #[project = ReadingProj]
    enum Reading<B> {
        Open { #[pin] messages: Inbound<B> },
        Ended,
    }
}

impl<B, C, T> Source<T> for Requests<B, C>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    C: Decode<T>,
{
    fn poll_message(
        self: Pin<&mut Self>,
        place: &mut Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        let mut this = self.project();
        let ReadingProj::Open { mut messages } = this.state.as_mut().project() else {
            return Poll::Ready(Ok(()));
        };
        let polled = ready!(messages.as_mut().poll_message(this.codec, place, cx));
        *this.was_compressed = messages.was_compressed();
        if let Ok(false) | Err(_) = polled {
            this.state.set(Reading::Ended);
        }
        Poll::Ready(polled.map(drop))
    }

    fn poll_metadata(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn metadata(&self) -> Option<&Metadata> {
        None
    }

    fn trailers(&self) -> Option<&Metadata> {
        None
    }

    fn was_compressed(&self) -> bool {
        self.was_compressed
    }

    fn failure(&self) -> Option<&Status> {
        None
    }
}
