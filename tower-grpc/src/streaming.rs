//! The messages that a peer sends one after the other.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::{Metadata, Status};

/// The messages that a peer sends, one after the other.
///
/// It is a [`Stream`] of `Result<T, Status>`, and has [`message`](Self::message) for those who'd rather not use
/// one. After an error there is nothing more.
///
/// **Cancellation.** Dropping a client's ends the call: the server is told. What a server's handler drops unread
/// is dropped; its client learns how the call has ended from the response.
///
/// **Errors.** On a client, how the call has failed. On a server, `CANCELLED` where the client has given up, and
/// what is wrong with a message.
pub struct Streaming<T> {
    source: Pin<Box<dyn Source<T> + Send>>,
}

/// Where the messages come from.
pub(crate) trait Source<T> {
    /// Puts the next message into its place, which is empty; it stays so after the last.
    // Messages may be large, and what is returned is moved at each step.
    fn poll_message(
        self: Pin<&mut Self>,
        place: &mut Option<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>>;

    /// Ready when what comes before the first message is there, or never will be.
    fn poll_metadata(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    fn metadata(&self) -> Option<&Metadata>;

    fn trailers(&self) -> Option<&Metadata>;

    fn was_compressed(&self) -> bool;

    /// The failure that the next poll gives, where it is known already.
    fn failure(&self) -> Option<&Status>;
}

impl<T> Streaming<T> {
    pub(crate) fn new(source: impl Source<T> + Send + 'static) -> Self {
        Self {
            source: Box::pin(source),
        }
    }

    /// The next message; `None` after the last.
    ///
    /// **Cancellation.** Safe: no message is lost where the future is dropped.
    ///
    /// # Errors
    ///
    /// How the call has failed.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        let mut place = None;
        poll_fn(|cx| self.source.as_mut().poll_message(&mut place, cx)).await?;
        Ok(place)
    }

    /// Waits for what the server sends before its first message.
    ///
    /// A call that sends and receives streams doesn't wait for it on its own, as a server may only
    /// send it with its first answer.
    ///
    /// # Errors
    ///
    /// How the call has failed, where that is all the server says.
    pub async fn metadata(&mut self) -> Result<&Metadata, Status> {
        poll_fn(|cx| self.source.as_mut().poll_metadata(cx)).await;
        let source = self.source.as_ref().get_ref();
        match (source.failure(), source.metadata()) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(metadata)) => Ok(metadata),
            (None, None) => Err(Status::unknown("the call has failed before")),
        }
    }

    /// What the server has sent after its last message, once the stream has ended well.
    ///
    /// Where it ended badly, see [`Status::metadata`].
    pub fn trailers(&self) -> Option<&Metadata> {
        self.source.trailers()
    }

    /// Whether the last message was compressed.
    pub fn was_compressed(&self) -> bool {
        self.source.was_compressed()
    }
}

impl<T> Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut place = None;
        match ready!(self.source.as_mut().poll_message(&mut place, cx)) {
            Ok(()) => Poll::Ready(place.map(Ok)),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }
}

impl<T> fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").finish_non_exhaustive()
    }
}
