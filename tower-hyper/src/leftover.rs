//! The rest of a request's body that nobody will read.
//!
//! Unless it is read all the same, the connection has to be closed, as the next request begins behind it (RFC 9112,
//! section 9.3). And a client that has been told nothing of that sends the next one, and loses it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http_body::Body;

/// How much is read for nothing, so that a connection may go on. What is more costs more than another connection.
const MOST: u64 = 256 * 1024;

const NONE: u8 = 0;
const KEPT: u8 = 1;
const REFUSED: u8 = 2;

/// Where a body goes that is dropped before its end: its connection throws it away once it has nothing else to do.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    state: AtomicU8,
    /// Whether a body that is dropped is to be refused.
    refuses: AtomicBool,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    rest: Option<Rest>,
    /// Whoever drives the connection.
    driver: Option<Waker>,
}

#[derive(Debug)]
struct Rest {
    body: hyper::body::Incoming,
    /// How much more may be thrown away.
    left: u64,
}

impl Leftover {
    /// Says who is to be woken when something is left.
    pub(crate) fn drive_by(&self, waker: &Waker) {
        let old = self.shelf().driver.replace(waker.clone());
        drop(old);
    }

    /// What is left of the request's body is to be thrown away.
    pub(crate) fn keep_next(&self) {
        self.refuses.store(false, Ordering::Relaxed);
    }

    /// The connection ends with this request.
    pub(crate) fn refuse_next(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// Takes what is left of a body, unless that is too much.
    #[cold]
    pub(crate) fn take(&self, body: hyper::body::Incoming) {
        if self.refuses.load(Ordering::Relaxed) || body.size_hint().lower() > MOST {
            self.refuse();
            return;
        }
        let mut shelf = self.shelf();
        shelf.rest = Some(Rest { body, left: MOST });
        self.state.store(KEPT, Ordering::Relaxed);
        let driver = shelf.driver.clone();
        drop(shelf);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// A body was dropped whose rest won't be read.
    #[cold]
    fn refuse(&self) {
        self.state.store(REFUSED, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_kept(&self) -> bool {
        self.state.load(Ordering::Relaxed) == KEPT
    }

    /// Whether the connection can't go on after this response.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.load(Ordering::Relaxed) == REFUSED
    }

    /// Whether anything was dropped before its end.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.state.load(Ordering::Relaxed) != NONE
    }

    /// Lets go of what is kept: the connection ends with the response.
    #[cold]
    pub(crate) fn give_up(&self) {
        let rest = self.shelf().rest.take();
        if rest.is_some() {
            self.refuse();
        }
        drop(rest);
    }

    /// Throws away what has come. Ready with whether that was the end, after some of it.
    #[cold]
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(mut rest) = self.shelf().rest.take() else {
            return Poll::Pending;
        };
        match Pin::new(&mut rest.body).poll_frame(cx) {
            Poll::Pending => {
                self.shelf().rest = Some(rest);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                // One of known length says by that that it is over, and nobody says it once more.
                let is_over = rest.body.is_end_stream();
                match rest.left.checked_sub(length) {
                    Some(_) if is_over => self.state.store(NONE, Ordering::Relaxed),
                    Some(left) => {
                        rest.left = left;
                        self.shelf().rest = Some(rest);
                    }
                    None => self.refuse(),
                }
                Poll::Ready(is_over)
            }
            Poll::Ready(None) => {
                self.state.store(NONE, Ordering::Relaxed);
                Poll::Ready(true)
            }
            Poll::Ready(Some(Err(_))) => {
                self.refuse();
                Poll::Ready(false)
            }
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing in here panics half-way.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
