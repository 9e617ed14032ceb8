//! The end of the application, as handlers see it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

/// Tells whether the application is shutting down, for handlers whose responses would go on for ever.
///
/// A stream of events or a WebSocket ends itself when [`wait`](Self::wait) does; what is still open at the drain's
/// deadline is cut. A task that holds one is waited for until then. It is an extractor, and
/// [`RequestHead::shutdown`](crate::extract::RequestHead::shutdown) gives it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Receiver<Stage>,
}

/// How far the application is on its way to the end. It only ever goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Nobody shall send new requests any more, but they are answered.
    Draining,
    /// Whoever has something open shall end it, by this time if there is one.
    Ending {
        by: Option<Instant>,
    },
}

impl Stage {
    const fn is_end(self) -> bool {
        matches!(self, Self::Ending { .. })
    }
}

impl Shutdown {
    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.stage.borrow().is_end()
    }

    /// When what is still open is cut. `None` before the shutdown, and where nothing is cut, as in a test.
    pub fn deadline(&self) -> Option<Instant> {
        match *self.stage.borrow() {
            Stage::Ending { by } => by,
            Stage::Running | Stage::Draining => None,
        }
    }

    /// Waits until it begins. Never ends for an application that doesn't.
    pub async fn wait(&mut self) {
        if self.stage.wait_for(|stage| stage.is_end()).await.is_err() {
            // The application is gone, without having said so: a test that drops its client. Nobody would
            // read on, but ending everything is not what dropping a handle says.
            std::future::pending::<()>().await;
        }
    }
}

/// Who begins the shutdown.
#[derive(Debug, Clone)]
pub(crate) struct ShutdownSource {
    stage: Arc<watch::Sender<Stage>>,
}

impl ShutdownSource {
    pub(crate) fn new() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::Running)),
        }
    }

    /// Turns new requests away, where anybody asks: `/readyz`.
    #[cfg_attr(
        not(feature = "server"),
        allow(dead_code, reason = "only a server drains")
    )]
    pub(crate) fn drain(&self) {
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Running;
            if is_first {
                *stage = Stage::Draining;
            }
            is_first
        });
    }

    /// Ends what is open, by this time if there is one. It holds from the first call on.
    pub(crate) fn begin(&self, by: Option<Instant>) {
        self.stage.send_if_modified(|stage| {
            let is_first = !stage.is_end();
            if is_first {
                *stage = Stage::Ending { by };
            }
            is_first
        });
    }

    /// Whether new requests are turned away.
    pub(crate) fn is_draining(&self) -> bool {
        *self.stage.borrow() != Stage::Running
    }

    /// Waits until nobody holds a [`Shutdown`] any more.
    #[cfg_attr(
        not(feature = "server"),
        allow(dead_code, reason = "only a server ends")
    )]
    pub(crate) async fn released(&self) {
        self.stage.closed().await;
    }

    pub(crate) fn subscribe(&self) -> Shutdown {
        Shutdown {
            stage: self.stage.subscribe(),
        }
    }
}
