//! The task behind a WebSocket: it reads and writes frames, keeps the connection alive, and closes it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_channel::mpsc;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as FrameError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use super::handshake::Settings;
use super::io::{Io, NotUtf8};
use super::{Closed, Message, Text};
use crate::shutdown::Shutdown;

/// What a handler asks of the driver.
#[derive(Debug)]
pub(super) enum Order {
    Send(Message),
    Close { code: u16, reason: String },
}

/// How long the closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the end may take once all is said: a peer that broke the protocol has to read why.
const LINGER: Duration = Duration::from_secs(1);
/// How many orders are carried out before others have their turn.
const AT_ONCE: usize = 64;

pub(super) struct Driver {
    frames: WebSocketStream<Io>,
    orders: mpsc::Receiver<Order>,
    /// Where messages go. `None` when nobody reads them any more.
    inbox: Option<mpsc::Sender<Message>>,
    /// Tells the handler why there are no more messages.
    reason: Arc<OnceLock<Closed>>,
    liveness: Option<Liveness>,
    max_message: usize,
    /// The application's end. It is kept to the last, so that a drain waits for this task.
    shutdown: Option<Pin<Box<dyn Future<Output = Option<Instant>> + Send>>>,
    /// When the application cuts what is still open. `None` until it ends.
    cut_at: Option<Instant>,
    unflushed: bool,
}

impl Driver {
    pub(super) fn new(
        frames: WebSocketStream<Io>,
        settings: &Settings,
        orders: mpsc::Receiver<Order>,
        inbox: mpsc::Sender<Message>,
        reason: Arc<OnceLock<Closed>>,
        shutdown: Option<Shutdown>,
    ) -> Self {
        Self {
            frames,
            orders,
            inbox: Some(inbox),
            reason,
            liveness: settings
                .ping_interval
                .map(|interval| Liveness::new(interval, settings.pong_timeout)),
            max_message: settings.max_message,
            shutdown: shutdown.map(|mut shutdown| {
                let wait: Pin<Box<dyn Future<Output = Option<Instant>> + Send>> =
                    Box::pin(async move {
                        shutdown.wait().await;
                        shutdown.deadline()
                    });
                wait
            }),
            cut_at: None,
            unflushed: false,
        }
    }

    /// Runs until the connection is closed, and says why to whoever asks.
    pub(super) async fn run(mut self) {
        let closed = poll_fn(|cx| self.poll_open(cx)).await;
        tracing::debug!(reason = %closed, "a websocket closes");
        let farewell = closed.farewell();
        // The reason is there before its readers are woken.
        let _ = self.reason.set(closed);
        self.inbox = None;
        self.orders.close();
        // A peer that doesn't answer, or doesn't read, is left.
        let now = Instant::now();
        let by = match self.cut_at {
            Some(cut_at) => cut_at.min(now + FAREWELL),
            None => now + FAREWELL,
        };
        let _ = timeout_at(by, self.close(farewell)).await;
    }

    /// Moves messages both ways until there is a reason to close.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if let Poll::Ready(closed) = self.poll_orders(cx) {
            return Poll::Ready(closed);
        }
        // What was sent before the shutdown goes out before it.
        if let Some(shutdown) = &mut self.shutdown {
            if let Poll::Ready(cut_at) = shutdown.as_mut().poll(cx) {
                self.shutdown = None;
                self.cut_at = cut_at;
                return Poll::Ready(Closed::ByShutdown);
            }
        }
        let handler_is_slow = match self.poll_frames(cx) {
            Poll::Ready(Received::Closed(closed)) => return Poll::Ready(closed),
            Poll::Ready(Received::HandlerIsSlow) => true,
            Poll::Pending => false,
        };
        if self.unflushed {
            match Pin::new(&mut self.frames).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(self.closed_by(error)),
                Poll::Pending => {}
            }
        }
        self.poll_liveness(cx, handler_is_slow)
    }

    /// Carries out what the handler has ordered, as far as the connection takes it.
    fn poll_orders(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        for _ in 0..AT_ONCE {
            match Pin::new(&mut self.frames).poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(self.closed_by(error)),
                Poll::Pending => {
                    self.unflushed = true;
                    return Poll::Pending;
                }
            }
            let frame = match ready!(Pin::new(&mut self.orders).poll_next(cx)) {
                Some(Order::Send(message)) => message.into_frame(),
                Some(Order::Close { code, reason }) => {
                    return Poll::Ready(Closed::ByHandler { code, reason });
                }
                None => {
                    return Poll::Ready(Closed::ByHandler {
                        code: 1000,
                        reason: String::new(),
                    });
                }
            };
            self.unflushed = true;
            if let Err(error) = Pin::new(&mut self.frames).start_send(frame) {
                return Poll::Ready(self.closed_by(error));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, as far as the handler takes it: the connection holds back what it doesn't.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            if let Some(inbox) = &mut self.inbox {
                match inbox.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    // Who only sends may drop the receiver. The closing handshake is still read.
                    Poll::Ready(Err(_)) => self.inbox = None,
                    Poll::Pending => return Poll::Ready(Received::HandlerIsSlow),
                }
            }
            let frame = ready!(Pin::new(&mut self.frames).poll_next(cx));
            if let Some(liveness) = &mut self.liveness {
                liveness.heard = true;
            }
            let message = match frame {
                Some(Ok(Frame::Text(text))) => Message::Text(Text(text)),
                Some(Ok(Frame::Binary(bytes))) => Message::Binary(bytes),
                Some(Ok(Frame::Close(frame))) => {
                    return Poll::Ready(Received::Closed(Closed::by_peer(frame)));
                }
                Some(Ok(Frame::Ping(_))) => {
                    // The answer is in the buffer.
                    self.unflushed = true;
                    continue;
                }
                Some(Ok(Frame::Pong(_) | Frame::Frame(_))) => continue,
                Some(Err(error)) => return Poll::Ready(Received::Closed(self.closed_by(error))),
                None => return Poll::Ready(Received::Closed(Closed::Lost)),
            };
            if let Some(inbox) = &mut self.inbox {
                // It was ready, or nobody reads.
                let _ = inbox.start_send(message);
            }
        }
    }

    fn poll_liveness(&mut self, cx: &mut Context<'_>, handler_is_slow: bool) -> Poll<Closed> {
        let written = self.frames.get_ref().written();
        let Some(liveness) = &mut self.liveness else {
            return Poll::Pending;
        };
        // What the peer says stands behind what the handler hasn't read.
        liveness.heard |= handler_is_slow;
        loop {
            match ready!(liveness.poll(cx, self.unflushed, written)) {
                Verdict::Alive => {}
                Verdict::Gone => return Poll::Ready(Closed::Unresponsive),
                Verdict::Ask => {
                    let ping = Frame::Ping(bytes::Bytes::new());
                    let sent = Pin::new(&mut self.frames).start_send(ping);
                    self.unflushed = true;
                    if let Err(error) = sent {
                        return Poll::Ready(self.closed_by(error));
                    }
                    // Whatever can't go out now goes out when the connection is writable.
                    if let Poll::Ready(flushed) = Pin::new(&mut self.frames).poll_flush(cx) {
                        self.unflushed = false;
                        if let Err(error) = flushed {
                            return Poll::Ready(self.closed_by(error));
                        }
                    }
                }
            }
        }
    }

    fn closed_by(&self, error: FrameError) -> Closed {
        match error {
            FrameError::ConnectionClosed | FrameError::AlreadyClosed => Closed::Lost,
            FrameError::Capacity(CapacityError::MessageTooLong { .. }) => Closed::TooLarge {
                limit: self.max_message,
            },
            FrameError::Utf8(_) => Closed::NotUtf8,
            FrameError::Io(error) if error.get_ref().is_some_and(|error| error.is::<NotUtf8>()) => {
                Closed::NotUtf8
            }
            FrameError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Closed::Lost,
            FrameError::Protocol(error) => Closed::Malformed(error.to_string().into()),
            // The connection's own, among which is that the peer went away without a word.
            _ => Closed::Lost,
        }
    }

    /// Says farewell, and waits until the peer has answered.
    async fn close(&mut self, farewell: Option<(u16, String)>) {
        let broken = match farewell {
            Some((code, reason)) => {
                let code = CloseCode::from(code);
                let frame = CloseFrame {
                    code,
                    reason: close_reason(reason),
                };
                if self.frames.close(Some(frame)).await.is_err() {
                    return;
                }
                matches!(
                    code,
                    CloseCode::Protocol | CloseCode::Invalid | CloseCode::Size
                )
            }
            None => false,
        };
        if !broken {
            // The peer's answer, or, where the peer began, that ours has gone out.
            poll_fn(|cx| {
                while let Some(Ok(_)) = ready!(Pin::new(&mut self.frames).poll_next(cx)) {}
                Poll::Ready(())
            })
            .await;
        }
        let io = self.frames.get_mut();
        let end = async {
            let ended = poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await;
            if ended.is_ok() && broken {
                // A connection that is closed with bytes unread is reset, and with it goes the farewell.
                discard(io).await;
            }
        };
        let _ = timeout(LINGER, end).await;
    }
}

/// Reads until the peer closes.
async fn discard(io: &mut Io) {
    let mut scratch = vec![0; 4096];
    loop {
        let mut buf = ReadBuf::new(&mut scratch);
        let read = poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buf)).await;
        if read.is_err() || buf.filled().is_empty() {
            return;
        }
    }
}

/// What a farewell has room for (RFC 6455, section 5.5): 125 bytes less the code.
fn close_reason(mut reason: String) -> Utf8Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason.into()
}

enum Received {
    Closed(Closed),
    /// It hasn't taken the last message yet.
    HandlerIsSlow,
}

/// Whether the peer is still there: pure but for its timer.
///
/// It looks once an interval, not at each message. A peer that is silent for two intervals and the timeout is gone, and
/// so is one that takes nothing of what is sent to it.
struct Liveness {
    interval: Duration,
    timeout: Duration,
    /// Whether anything came since the last look.
    heard: bool,
    asked: bool,
    /// What had been written when writing was first seen to stand still.
    stalled: Option<(u64, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    Ask,
    Gone,
}

impl Liveness {
    const fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            heard: false,
            asked: false,
            stalled: None,
            timer: None,
        }
    }

    /// Waits for the next look.
    fn poll(&mut self, cx: &mut Context<'_>, unflushed: bool, written: u64) -> Poll<Verdict> {
        let interval = self.interval;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(interval)));
        ready!(timer.as_mut().poll(cx));
        let now = Instant::now();
        let verdict = self.look(now, unflushed, written);
        let next = if verdict == Verdict::Ask {
            self.timeout
        } else {
            self.interval
        };
        if let (Some(timer), Some(next)) = (&mut self.timer, now.checked_add(next)) {
            timer.as_mut().reset(next);
        }
        Poll::Ready(verdict)
    }

    fn look(&mut self, now: Instant, unflushed: bool, written: u64) -> Verdict {
        self.stalled = match self.stalled {
            _ if !unflushed => None,
            Some((before, since)) if before == written => {
                if now.duration_since(since) >= self.timeout {
                    return Verdict::Gone;
                }
                Some((before, since))
            }
            _ => Some((written, now)),
        };
        match (std::mem::take(&mut self.heard), self.asked) {
            (true, _) => {
                self.asked = false;
                Verdict::Alive
            }
            (false, false) => {
                self.asked = true;
                Verdict::Ask
            }
            (false, true) => Verdict::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_asked_when_it_is_silent_and_gone_when_it_does_not_answer() {
        let mut liveness = Liveness::new(SECOND, SECOND);
        let now = Instant::now();
        liveness.heard = true;
        assert_eq!(liveness.look(now, false, 0), Verdict::Alive);
        assert_eq!(liveness.look(now, false, 0), Verdict::Ask);
        liveness.heard = true;
        assert_eq!(liveness.look(now, false, 0), Verdict::Alive);
        assert_eq!(liveness.look(now, false, 0), Verdict::Ask);
        assert_eq!(liveness.look(now, false, 0), Verdict::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_talks_and_does_not_read_is_gone() {
        let mut liveness = Liveness::new(SECOND, 2 * SECOND);
        let start = Instant::now();
        let mut look = |seconds, written| {
            liveness.heard = true;
            liveness.look(start + seconds * SECOND, true, written)
        };
        assert_eq!(look(1, 10), Verdict::Alive);
        // A slow reader moves.
        assert_eq!(look(2, 11), Verdict::Alive);
        assert_eq!(look(3, 12), Verdict::Alive);
        assert_eq!(look(4, 12), Verdict::Alive);
        assert_eq!(look(5, 12), Verdict::Gone);
    }

    #[test]
    fn a_reason_is_cut_between_letters() {
        assert_eq!(close_reason("é".repeat(100)).as_str(), "é".repeat(61));
        assert_eq!(close_reason("short".into()).as_str(), "short");
    }
}
