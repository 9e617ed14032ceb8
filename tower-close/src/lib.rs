//! Closing with grace: one trait for everything that can stop accepting, drain, and end by a deadline.
//!
//! A server that is told to go has three things to do in order: take no more work, finish what it has, and not
//! wait for ever. So have a pool of connections, a queue with a worker, a cache that writes behind. [`Close`] is
//! those three in one call, so that an application can close all it is made of, in the order that it
//! chooses ([`InTurn`], [`AtOnce`]), by one [`Deadline`].
//!
//! Finagle's `Closable` is the model: `close(deadline)`, and `Closable.all` and `Closable.sequence`.
//!
//! # What implements it
//!
//! - [`Task`]: a background task that is told, drains, and is cut off at the deadline. It ends with its owner.
//! - [`Drain`]: a middleware that counts the requests in flight, and refuses others once it is closed.
//! - `Buffer` of `tower-buffer`, `SpawnReady` of `tower-spawn-ready`, and the pool of `tower-balance`.
//! - [`Closer`]: the half of a pair, for whatever else there is. The other half, a [`Signal`], tells that
//!   closing was asked, and is dropped when it is done.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower_close::{Close, InTurn, Task};
//! use tower_deadline::Deadline;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (log, mut lines) = tokio::sync::mpsc::unbounded_channel();
//! # let other_log = log.clone();
//! let server = Task::spawn(|mut signal| async move {
//!     signal.closing().await; // … accepting until then …
//!     tokio::time::sleep(Duration::from_secs(1)).await; // … and then draining.
//!     log.send("server is drained").unwrap();
//! })?;
//! let pool = Task::spawn(|mut signal| async move {
//!     signal.closing().await;
//!     other_log.send("pool is closed").unwrap();
//! })?;
//!
//! // The pool goes last, as the server's requests need it.
//! let app = InTurn::new().then(server).then(pool);
//! app.close(Deadline::after(Duration::from_secs(10))).await?;
//! assert_eq!(lines.recv().await, Some("server is drained"));
//! assert_eq!(lines.recv().await, Some("pool is closed"));
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! A [`Drain`] counts with two reference counts for each request. The rest costs nothing until it is closed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Notify, watch};
use tower_deadline::Deadline;

mod drain;
mod order;
mod task;

pub use self::drain::{Drain, DrainLayer, IsClosed, ResponseFuture};
pub use self::order::{AtOnce, InTurn};
pub use self::task::{NoRuntime, Task, panic_message};

/// Something that can be closed: it stops accepting, drains, and ends by a deadline.
///
/// - **The call stops accepting**, before the future is polled. What is accepted is finished.
/// - **The future** resolves when all of it is, or at the deadline with [`NotClosed::CutOff`]. Dropping it
///   takes nothing back: closing goes on.
/// - **Calling it again** is allowed and waits for the same end. The earliest deadline counts.
///
/// Implement it with a [`Closer`] inside, or by hand; it has a `dyn` form.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be closed",
    note = "`tower_close::Closer` and `tower_close::Task` can, and so can types that call theirs"
)]
pub trait Close {
    /// Stops accepting, and finishes by the deadline what was accepted.
    fn close(&self, by: Deadline) -> Closing;
}

/// The future of [`Close::close`].
///
/// **Cancellation.** Dropping it only stops the waiting.
///
/// **Errors.** [`NotClosed`].
#[must_use = "closing has begun, but whether it is done only the future tells"]
pub struct Closing {
    future: Pin<Box<dyn Future<Output = Result<(), NotClosed>> + Send>>,
}

/// What was to be closed didn't end well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotClosed {
    /// The deadline came first.
    CutOff {
        /// How many things hadn't ended: requests of a [`Drain`], or tasks.
        unfinished: usize,
    },
    /// A task panicked, perhaps long before.
    Panicked {
        /// What it said, if it was text.
        message: String,
    },
}

/// Asks for closing, and waits for it: the one half of a [pair](closer).
///
/// Its clones ask the same. Where all are dropped nobody can ask any more, which is not the same as asking.
#[derive(Clone, Debug)]
pub struct Closer {
    asked: Arc<Asked>,
}

#[derive(Debug)]
struct Asked {
    /// The deadline, once closing was asked for. It has ended when no receiver is left.
    by: watch::Sender<Option<Deadline>>,
    /// Tells those who wait for the first asking, and aren't waited for.
    first: Notify,
}

/// Learns that closing was asked for, and tells by being dropped that it is done: the other half of a
/// [pair](closer).
///
/// Each clone is one more thing to wait for: give one to each request or connection.
#[derive(Clone, Debug)]
pub struct Signal {
    asked: watch::Receiver<Option<Deadline>>,
}

/// Makes what asks for closing, and what is told.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_close::{Close, closer};
/// use tower_deadline::Deadline;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (closer, mut signal) = closer();
/// let connection = tokio::spawn(async move {
///     tokio::select! {
///         _ = signal.closing() => "closed",
///         () = std::future::pending() => "served for ever",
///     }
/// });
///
/// closer.close(Deadline::after(Duration::from_secs(1))).await.unwrap();
/// assert_eq!(connection.await.unwrap(), "closed");
/// # }
/// ```
pub fn closer() -> (Closer, Signal) {
    let (by, asked) = watch::channel(None);
    let asker = Closer {
        asked: Arc::new(Asked {
            by,
            first: Notify::new(),
        }),
    };
    (asker, Signal { asked })
}

impl Closer {
    /// Makes one more signal: one more thing to wait for.
    ///
    /// Fine after closing was asked for, too: the signal says so at once.
    pub fn signal(&self) -> Signal {
        Signal {
            asked: self.asked.by.subscribe(),
        }
    }

    /// The deadline, once closing was asked for.
    pub fn asked(&self) -> Option<Deadline> {
        *self.asked.by.borrow()
    }

    /// Whether all signals are dropped.
    pub fn is_done(&self) -> bool {
        self.asked.by.is_closed()
    }

    /// Asks, without waiting. The earliest deadline counts.
    fn ask(&self, by: Deadline) {
        self.asked.by.send_if_modified(|asked| {
            let is_earlier = asked.is_none_or(|before| by < before);
            if is_earlier {
                *asked = Some(by);
            }
            is_earlier
        });
        self.asked.first.notify_waiters();
    }
}

impl Close for Closer {
    fn close(&self, by: Deadline) -> Closing {
        self.ask(by);
        let asked = Arc::clone(&self.asked);
        Closing::new(async move {
            // Whoever asks for an earlier end later is answered then; this one waits for what it was promised.
            let drained = by.within(asked.by.closed()).await;
            drained.map_err(|_| NotClosed::CutOff {
                unfinished: asked.by.receiver_count(),
            })
        })
    }
}

impl Signal {
    /// Waits until closing is asked for, and says until when.
    ///
    /// Where every [`Closer`] was dropped without asking it waits for ever. May be called again.
    ///
    /// **Cancellation.** Safe: nothing is lost.
    pub async fn closing(&mut self) -> Deadline {
        let asked = self.asked.wait_for(Option::is_some).await.map(|by| *by);
        match asked {
            Ok(Some(by)) => by,
            _ => std::future::pending().await,
        }
    }

    /// Waits until the deadline has passed. See [`closing`](Self::closing).
    pub async fn cut_off(&mut self) {
        let mut by = self.closing().await;
        loop {
            // It may be moved to an earlier time while it is waited for.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(by.instant()) => return,
                changed = self.asked.changed() => match changed {
                    Ok(()) => by = self.asked.borrow_and_update().unwrap_or(by),
                    Err(_) => return tokio::time::sleep_until(by.instant()).await,
                },
            }
        }
    }

    /// The deadline, once closing was asked for.
    pub fn asked(&self) -> Option<Deadline> {
        *self.asked.borrow()
    }
}

impl Closing {
    /// Makes one of any future.
    pub fn new<F>(future: F) -> Self
    where
        F: Future<Output = Result<(), NotClosed>> + Send + 'static,
    {
        Self {
            future: Box::pin(future),
        }
    }
}

impl Future for Closing {
    type Output = Result<(), NotClosed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx)
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing").finish_non_exhaustive()
    }
}

impl<C: Close + ?Sized> Close for Arc<C> {
    fn close(&self, by: Deadline) -> Closing {
        (**self).close(by)
    }
}

impl<C: Close + ?Sized> Close for Box<C> {
    fn close(&self, by: Deadline) -> Closing {
        (**self).close(by)
    }
}

impl NotClosed {
    /// Both of two ends: a panic says more than a deadline, and unfinished things add up.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::CutOff { unfinished: a }, Self::CutOff { unfinished: b }) => Self::CutOff {
                unfinished: a.saturating_add(b),
            },
            (panicked @ Self::Panicked { .. }, _) | (_, panicked) => panicked,
        }
    }
}

impl fmt::Display for NotClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff { unfinished } => {
                write!(f, "deadline came before {unfinished} had ended")
            }
            Self::Panicked { message } => write!(f, "task panicked: {message}"),
        }
    }
}

impl std::error::Error for NotClosed {}
