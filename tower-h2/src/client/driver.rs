//! What moves a connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Shared;
use crate::send_body::SendBuf;
use crate::upkeep::{Chore, Upkeep};
use crate::wiretap::{Notes, Wiretap};
use crate::{Error, ErrorKind};

/// Moves a connection while it is polled. It must be spawned, or polled beside the requests.
///
/// It resolves when the connection is over: when the last handle and the last response are gone, or when
/// it fails. Dropping it closes the transport, and fails what is under way.
///
/// **Errors.** [`Error`], when the connection fails or the peer ends it for an error. The requests get errors
/// of their own, so it can be ignored.
#[must_use = "futures do nothing unless polled"]
pub struct Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    h2: h2::client::Connection<Wiretap<IO>, SendBuf<B::Data>>,
    shared: Arc<Shared>,
    /// What the peer allows, as last seen.
    limit: usize,
    notes: Arc<Notes>,
    upkeep: Upkeep,
}

impl<IO, B> Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    pub(super) fn new(
        h2: h2::client::Connection<Wiretap<IO>, SendBuf<B::Data>>,
        shared: Arc<Shared>,
        limit: usize,
        notes: Arc<Notes>,
        upkeep: Upkeep,
    ) -> Self {
        Self {
            h2,
            shared,
            limit,
            notes,
            upkeep,
        }
    }
}

impl<IO, B> Future for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(result) = Pin::new(&mut this.h2).poll(cx) {
                this.shared.gate.close();
                return Poll::Ready(result.map_err(Error::from_h2));
            }
            this.tell_gate();
            let gate = &this.shared.gate;
            let busy = || gate.open() > 0;
            match ready!(this.upkeep.poll(busy, false, cx)) {
                // A client's connection ends when nobody holds it.
                Chore::Drain => {}
                Chore::Widen(window) => {
                    this.h2.set_target_window_size(window);
                    // It fails while the peer hasn't acknowledged the last; then the next sample does.
                    let _ = this.h2.set_initial_window_size(window);
                }
                Chore::Equip => this.upkeep.equip(this.h2.ping_pong()),
                Chore::Fail(error) => {
                    this.shared.gate.close();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<IO, B> Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    /// Moves it until the peer has said something.
    pub(super) fn poll_greeted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match Pin::new(&mut *self).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.and(Err(Error::new(ErrorKind::Closed)))),
            Poll::Pending if self.notes.read() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Passes on what the peer allows.
    fn tell_gate(&mut self) {
        let limit = self.h2.max_concurrent_send_streams();
        if limit != self.limit {
            self.limit = limit;
            self.shared.gate.set_limit(limit);
        }
        if self.notes.is_going_away() {
            // What is under way goes on; who waits for a place learns why there is none.
            self.shared.gate.close();
        }
    }
}

// Nothing is pinned structurally.
impl<IO, B> Unpin for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
}

impl<IO, B> Drop for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn drop(&mut self) {
        self.shared.gate.close();
    }
}

impl<IO, B> fmt::Debug for Driver<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
