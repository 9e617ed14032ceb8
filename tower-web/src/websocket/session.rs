//! The task of one open WebSocket: its driver, and the handler beside it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use futures_channel::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::driver::{Driver, Order};
use super::handshake::Settings;
use super::io::Io;
use super::{Closed, WebSocket, WebSocketReceiver, WebSocketSender};
use crate::BoxError;
use crate::shutdown::Shutdown;

/// How long a handler may go on after the connection has ended.
const GRACE: Duration = Duration::from_secs(30);
/// How many messages may wait to be sent.
const OUTBOX: usize = 8;
/// What is read at once. It is allocated for each connection, idle or not.
const READ_BUFFER: usize = 4 * 1024;
/// What is collected before it is written while there is more to come.
const WRITE_BUFFER: usize = 32 * 1024;

/// A socket that is about to be opened.
pub(super) struct Session {
    pub(super) settings: Settings,
    pub(super) protocol: Option<String>,
    pub(super) shutdown: Option<Shutdown>,
}

impl Session {
    /// Runs the driver and the handler side by side, in one task.
    pub(super) async fn run<F, Fut>(self, io: Io, handler: F)
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future,
        Fut::Output: Outcome,
    {
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.settings.max_message))
            .max_frame_size(Some(self.settings.max_message))
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER);
        let frames =
            WebSocketStream::from_raw_socket(io.watched(), Role::Server, Some(config)).await;
        let (orders, outbox) = mpsc::channel(OUTBOX);
        // A channel has room for one message more than is asked for.
        let (inbox, messages) = mpsc::channel(0);
        let reason = Arc::new(OnceLock::new());
        // An application that ends waits for whoever holds it.
        let _until_the_end = self.shutdown.clone();
        let driver = Driver::new(
            frames,
            &self.settings,
            outbox,
            inbox,
            Arc::clone(&reason),
            self.shutdown,
        );
        let socket = WebSocket {
            sender: WebSocketSender {
                orders: orders.clone(),
                reason: Arc::clone(&reason),
            },
            receiver: WebSocketReceiver { messages, reason },
            protocol: self.protocol,
        };
        let handler = supervise(move || handler(socket), orders);
        let mut driver = pin!(driver.run());
        let mut handler = pin!(handler);
        // Both in one task: a message goes from one to the other without another thread's help.
        let mut handled = false;
        poll_fn(|cx| {
            let driven = driver.as_mut().poll(cx);
            handled = handled || handler.as_mut().poll(cx).is_ready();
            driven
        })
        .await;
        if !handled && timeout(GRACE, handler).await.is_err() {
            tracing::warn!(
                "a websocket's handler is dropped, as it went on after the connection had ended"
            );
        }
    }
}

/// Runs a handler, and closes with 1011 if it fails.
async fn supervise<F, Fut>(handler: F, mut orders: mpsc::Sender<Order>)
where
    F: FnOnce() -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    let outcome = {
        let Ok(handler) = catch_unwind(AssertUnwindSafe(handler)) else {
            return fail(&mut orders).await;
        };
        let mut handler = pin!(handler);
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
                // The panic has printed itself.
                Err(_) => Poll::Ready(None),
            },
        )
        .await
    };
    match outcome.map(Outcome::into_result) {
        Some(Ok(())) => {}
        Some(Err(error)) if error.is::<Closed>() => {}
        Some(Err(error)) => {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "a websocket's handler failed"
            );
            fail(&mut orders).await;
        }
        None => {
            tracing::error!("a websocket's handler panicked");
            fail(&mut orders).await;
        }
    }
}

async fn fail(orders: &mut mpsc::Sender<Order>) {
    let order = Order::Close {
        code: 1011,
        reason: String::new(),
    };
    // If nobody takes it, the connection has ended already.
    if poll_fn(|cx| orders.poll_ready(cx)).await.is_ok() {
        let _ = orders.start_send(order);
    }
}

/// What the handler of a WebSocket may return: nothing, or a `Result`.
#[diagnostic::on_unimplemented(
    message = "the handler of a WebSocket can't return `{Self}`",
    note = "return `()`, or `Result<(), E>` with any error"
)]
pub trait Outcome: Send {
    /// Whether it went well.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError> + Send> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}
