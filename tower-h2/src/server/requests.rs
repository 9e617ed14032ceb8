//! The requests of a connection: taken in together, answered in place or in tasks.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_service::Service;

use crate::exchange::{Exchange, Manner, Paced};
use crate::fields::announced_length;
use crate::pace::Pace;
use crate::send_body::SendBuf;
use crate::upkeep::{Chore, Upkeep};
use crate::wiretap::{Notes, Wiretap};
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many requests are taken in before they are answered, and their responses written.
const BATCH: usize = 32;

/// How many such turns a connection has before others have theirs.
const TURNS: usize = 8;

/// An exchange where it stays, in a task or out of one.
type Placed<F, B> = Pin<Box<Exchange<F, B>>>;

type Accepted<D> = (Request<RecvStream>, SendResponse<SendBuf<D>>);

/// How serving ends.
pub(super) enum Ending {
    /// The connection is over.
    Over(Result<(), Error>),
    /// It is to be, for an error that the peer doesn't know of.
    Failing(Error),
}

pub(super) type H2<IO, D> = h2::server::Connection<Wiretap<IO>, SendBuf<D>>;

/// The service's side of a connection.
pub(super) struct Requests<S, B>
where
    S: Service<Request<RecvBody>>,
    B: Body,
{
    service: S,
    accepted: VecDeque<Accepted<B::Data>>,
    /// The place of the last exchange that was over at its first poll, for the next one.
    spare: Option<Placed<S::Future, B>>,
    /// Exchanges that had to wait where there is no runtime to give them tasks.
    waiting: Vec<Placed<S::Future, B>>,
    pace: Arc<Pace>,
    /// What counts as slow.
    bar: Duration,
    /// When the last of a batch was accepted, if none is answered yet.
    taken_in: Option<Instant>,
    /// How long the peer may keep a stream's window shut.
    stream_timeout: Option<Duration>,
    /// How many of the heads that have begun were accepted, or are known not to come.
    claimed: u64,
    /// The service can't take requests any more.
    failed: Option<Error>,
}

impl<S, B> Requests<S, B>
where
    S: Service<Request<RecvBody>>,
    B: Body,
{
    pub(super) fn new(service: S, stream_timeout: Option<Duration>) -> Self {
        Self {
            service,
            stream_timeout,
            // One at a time needs no room for four, over the life of an idle connection.
            accepted: VecDeque::with_capacity(1),
            spare: None,
            waiting: Vec::new(),
            pace: Arc::new(Pace::new()),
            bar: Pace::bar(Duration::ZERO),
            taken_in: None,
            claimed: 0,
            failed: None,
        }
    }

    /// Why the service takes no more requests.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }
}

impl<S, B, E> Requests<S, B>
where
    // The service.
    S: Service<Request<RecvBody>, Response = Response<B>, Error = E>,
    E: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Serves, and does what is due on the connection.
    pub(super) fn poll_all<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        upkeep: &mut Upkeep,
        received: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Ending>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let before = *received;
            match self.poll(h2, upkeep.notes(), received, cx) {
                // A peer that is told to go may do so at once.
                Poll::Ready(Err(error))
                    if error.kind() == ErrorKind::Io && upkeep.is_draining() =>
                {
                    return Poll::Ready(Ending::Over(Ok(())));
                }
                Poll::Ready(result) => return Poll::Ready(Ending::Over(result)),
                Poll::Pending => {}
            }
            let worked = *received != before;
            match ready!(upkeep.poll(|| h2.has_streams(), worked, cx)) {
                Chore::Drain => h2.graceful_shutdown(),
                Chore::Widen(window) => {
                    h2.set_target_window_size(window);
                    // It fails while the peer hasn't acknowledged the last; then the next sample does.
                    let _ = h2.set_initial_window_size(window);
                }
                Chore::Equip => upkeep.equip(h2.ping_pong()),
                Chore::Fail(error) => return Poll::Ready(Ending::Failing(error)),
            }
        }
    }

    fn poll<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        notes: &Notes,
        received: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.waiting
            .retain_mut(|exchange| exchange.as_mut().poll(cx).is_pending());
        for _ in 0..TURNS {
            // Each turn but the first also writes what the one before has answered.
            if self.accepted.is_empty() {
                let open = self.take_in(h2, notes, cx)?;
                if self.accepted.is_empty() {
                    ready!(open);
                    return Poll::Ready(Ok(()));
                }
                *received += self.accepted.len() as u64;
            }
            if self.answer(cx).is_pending() {
                // Nothing more is accepted, but bodies and responses go on.
                return h2.poll_closed(cx).map_err(Error::from_h2);
            }
            if self.failed.is_some() {
                h2.graceful_shutdown();
            }
        }
        // A peer that never stops asking isn't the only one. The answers are written the next time.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Accepts what has arrived, as far as a batch goes; ready where the connection has ended.
    fn take_in<IO>(
        &mut self,
        h2: &mut H2<IO, B::Data>,
        notes: &Notes,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = Instant::now();
        let mut end = Ok(Poll::Pending);
        // Where no other head has come, asking for one is in vain, and h2 would do all its rounds.
        while self.accepted.is_empty()
            || (self.accepted.len() < BATCH && self.claimed != notes.heads())
        {
            // For each request h2 would read again. What has come since is read in the next turn.
            notes.pause(!self.accepted.is_empty());
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    self.accepted.push_back(request);
                    self.claimed += 1;
                }
                Poll::Ready(Some(Err(error))) => {
                    end = Err(Error::from_h2(error));
                    break;
                }
                Poll::Ready(None) => {
                    end = Ok(Poll::Ready(()));
                    break;
                }
                Poll::Pending => {
                    self.claimed = notes.heads();
                    break;
                }
            }
        }
        notes.pause(false);
        if let Ok(count @ 1..) = u32::try_from(self.accepted.len()) {
            let now = Instant::now();
            self.bar = Pace::bar((now - start) / count);
            self.taken_in = Some(now);
        }
        end
    }

    /// Calls the service for what was accepted; pending while it isn't ready for more.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let taken_in = self.taken_in.take();
        let mut start = self
            .pace
            .in_place()
            .then(|| taken_in.unwrap_or_else(Instant::now));
        while !self.accepted.is_empty() {
            if self.failed.is_none() {
                if let Err(error) = ready!(self.service.poll_ready(cx)) {
                    self.failed = Some(Error::because(ErrorKind::Service, error));
                }
            }
            let Some((request, mut respond)) = self.accepted.pop_front() else {
                break;
            };
            if self.failed.is_some() {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            // Without an authority h2 takes a request for one that needs no path (RFC 9113, section 8.3.1).
            if request.uri().path().is_empty() && *request.method() != Method::CONNECT {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                continue;
            }
            let manner = Manner {
                head_only: *request.method() == Method::HEAD,
                timeout: self.stream_timeout,
            };
            let length = announced_length(request.headers());
            let request = request.map(|stream| RecvBody::new(stream, length));
            let Ok(call) = catch_unwind(AssertUnwindSafe(|| self.service.call(request))) else {
                respond.send_reset(Reason::INTERNAL_ERROR);
                continue;
            };
            let exchange = match self.spare.take() {
                Some(mut spare) => {
                    spare.as_mut().renew(call, respond, manner);
                    spare
                }
                None => Box::pin(Exchange::new(call, respond, manner)),
            };
            start = self.begin(exchange, start, cx);
        }
        Poll::Ready(())
    }

    /// Polls an exchange here, where requests are quick, since `start`; else, or if it has to wait, gives
    /// it a task. Returns the time after it, where the next may be polled here.
    fn begin(
        &mut self,
        mut exchange: Placed<S::Future, B>,
        start: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Option<Instant> {
        let Some(start) = start else {
            self.spawn(Paced::new(exchange, Arc::clone(&self.pace), self.bar), cx);
            return None;
        };
        // A task polls it anew at once, with its own waker: what wakes this one would be lost on nobody.
        let polled = exchange
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let end = Instant::now();
        let slow = self.pace.observe(start, end, self.bar);
        match polled {
            Poll::Ready(()) => self.spare = Some(exchange),
            Poll::Pending => self.spawn(Paced::begun(exchange), cx),
        }
        (!slow).then_some(end)
    }

    /// Gives an exchange a task, or without a runtime a place here.
    fn spawn(&mut self, mut exchange: Paced<Placed<S::Future, B>>, cx: &mut Context<'_>) {
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(exchange)),
            Err(_) if Pin::new(&mut exchange).poll(cx).is_ready() => {}
            Err(_) => self.waiting.push(exchange.into_inner()),
        }
    }
}
