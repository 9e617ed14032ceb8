//! The end of the application, as handlers see it.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells whether the application is shutting down, for handlers whose responses would go on for ever.
///
/// A stream of events or a WebSocket ends itself when [`wait`](Self::wait) does; what is still open at the drain's
/// deadline is cut. A task that holds one is waited for, up to ten seconds, after the last connection has ended. It is an extractor, and [`RequestHead::shutdown`](crate::extract::RequestHead::shutdown) gives it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    began: watch::Receiver<bool>,
}

impl Shutdown {
    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.began.borrow()
    }

    /// Waits until it begins. Never ends for an application that doesn't.
    pub async fn wait(&mut self) {
        if self.began.wait_for(|began| *began).await.is_err() {
            // The application is gone, without having said so: a test that drops its client. Nobody would
            // read on, but ending everything is not what dropping a handle says.
            std::future::pending::<()>().await;
        }
    }
}

/// Who begins the shutdown.
#[derive(Debug, Clone)]
pub(crate) struct ShutdownSource {
    begin: Arc<watch::Sender<bool>>,
}

impl ShutdownSource {
    pub(crate) fn new() -> Self {
        Self {
            begin: Arc::new(watch::Sender::new(false)),
        }
    }

    pub(crate) fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Waits until nobody holds a [`Shutdown`] any more.
    #[cfg_attr(
        not(feature = "server"),
        allow(dead_code, reason = "only a server ends")
    )]
    pub(crate) async fn released(&self) {
        self.begin.closed().await;
    }

    pub(crate) fn subscribe(&self) -> Shutdown {
        Shutdown {
            began: self.begin.subscribe(),
        }
    }
}
