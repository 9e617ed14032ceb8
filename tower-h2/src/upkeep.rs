//! Keeps a connection: its timer, its pings, and its windows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use h2::{Ping, PingPong};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::bdp::Estimator;
use crate::clockwork::{Clockwork, Due, Look, Sight, Times};
use crate::wiretap::Notes;
use crate::{Error, ErrorKind};

/// What a connection has to do for its upkeep.
#[derive(Debug)]
pub(crate) enum Chore {
    /// To take no more streams, and to end with those that are open.
    Drain,
    /// To let the peer send this much before it is read.
    Widen(u32),
    /// To [`equip`](Upkeep::equip) it for pings.
    Equip,
    /// To end at once.
    Fail(Error),
}

/// The shell around what decides: [`Clockwork`] and [`Estimator`].
#[derive(Debug)]
pub(crate) struct Upkeep {
    notes: Arc<Notes>,
    clockwork: Clockwork,
    estimator: Option<Estimator>,
    pings: Option<PingPong>,
    ping: PingState,
    timer: Timer,
    /// Whether any time is bounded, or anything estimated.
    active: bool,
}

/// h2 sends one ping at a time. Once it is asked for what sends them it looks for one at each poll, so it isn't asked
/// before there is one to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PingState {
    Unequipped,
    None,
    UnderWay,
}

impl Upkeep {
    pub(crate) fn new(notes: Arc<Notes>, times: Times, window: Option<u32>) -> Self {
        let clockwork = Clockwork::new(times, Instant::now());
        Self {
            active: window.is_some() || times.is_bounded(),
            notes,
            clockwork,
            estimator: window.map(Estimator::new),
            pings: None,
            ping: PingState::Unequipped,
            timer: Timer::default(),
        }
    }

    /// Here is what sends pings; `None` where others have it.
    pub(crate) fn equip(&mut self, pings: Option<PingPong>) {
        self.pings = pings;
        self.ping = PingState::None;
    }

    /// It was told to drain.
    pub(crate) fn drain(&mut self) {
        self.clockwork.drain(Instant::now());
    }

    /// Whether it takes no more streams.
    pub(crate) fn is_draining(&self) -> bool {
        self.clockwork.is_draining()
    }

    /// What was seen of the bytes.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Looks what is to be done. Call it at the end of each poll of the connection, again
    /// after each chore.
    pub(crate) fn poll(
        &mut self,
        busy: impl FnOnce() -> bool,
        worked: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Chore> {
        if self.notes.is_flood() {
            return Poll::Ready(Chore::Fail(Error::new(ErrorKind::Flood)));
        }
        if let Some(fault) = self.notes.fault() {
            return Poll::Ready(Chore::Fail(fault.into()));
        }
        if !self.active {
            return Poll::Pending;
        }
        let now = Instant::now();
        let read = self.notes.read();
        let sight = Sight {
            read,
            written: self.notes.written(),
            blocked: self.notes.is_blocked(),
            head_open: self.notes.is_head_open(),
            busy: busy(),
            worked,
        };
        self.clockwork.see(sight, now);
        if self.estimator.is_some() && self.ping == PingState::Unequipped {
            return Poll::Ready(Chore::Equip);
        }
        if let Some(window) = self.sample(read, now, cx) {
            return Poll::Ready(Chore::Widen(window));
        }
        let next = loop {
            match self.clockwork.look(now) {
                Look::Due(Due::Ping) if self.ping == PingState::Unequipped => {
                    return Poll::Ready(Chore::Equip);
                }
                Look::Due(Due::Ping) => {
                    self.send_ping();
                    // Where none can be sent one is under way, and as good.
                    self.clockwork.pinged(now);
                }
                Look::Due(Due::Drain) => {
                    self.clockwork.drain(now);
                    return Poll::Ready(Chore::Drain);
                }
                Look::Due(Due::Fail(what)) => {
                    let error = Error::because(ErrorKind::Timeout, what);
                    return Poll::Ready(Chore::Fail(error));
                }
                Look::Next(next) => break next,
            }
        };
        if self.timer.poll(next, now, cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn send_ping(&mut self) -> bool {
        let sent = match (&mut self.pings, self.ping) {
            (Some(pings), PingState::None) => pings.send_ping(Ping::opaque()).is_ok(),
            _ => false,
        };
        if sent {
            self.ping = PingState::UnderWay;
        }
        sent
    }

    /// Ends the sample under way, or begins one; gives the window where it is to grow.
    fn sample(&mut self, read: u64, now: Instant, cx: &mut Context<'_>) -> Option<u32> {
        let mut window = None;
        if let (PingState::UnderWay, Some(pings)) = (self.ping, &mut self.pings) {
            if pings.poll_pong(cx).is_pending() {
                self.estimator.as_mut()?.wants_sample(read);
                return None;
            }
            self.ping = PingState::None;
            window = self.estimator.as_mut()?.end(now, read);
        }
        if self.estimator.as_mut()?.wants_sample(read) && self.send_ping() {
            self.estimator.as_mut()?.begin(now);
        }
        window
    }
}

/// A timer that is made when it is first needed, and moved only when it fires or is late.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken by it.
    waker: Option<Waker>,
    at: Option<Instant>,
}

impl Timer {
    /// Ready when `deadline` has come; sees to it that the task is woken at it or before.
    fn poll(&mut self, deadline: Option<Instant>, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let known = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        // An early one is left: it fires, and is moved then.
        if known && self.at.is_some_and(|at| at <= deadline && at > now) {
            return Poll::Pending;
        }
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            // Without a runtime there are no timers; bytes are moved all the same.
            None if Handle::try_current().is_err() => return Poll::Pending,
            None => self.sleep.insert(Box::pin(sleep_until(deadline))),
        };
        self.at = Some(deadline);
        if !known {
            self.waker = Some(cx.waker().clone());
        }
        sleep.as_mut().poll(cx)
    }
}
