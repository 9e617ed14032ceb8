//! Drives one connection: detects its protocol, runs it, and ends it when it is time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

use crate::exchange::Requests;
use crate::gate::{Ear, Gate, Order};
use crate::link::{Link, Progress};
use crate::outgoing::Outgoing;
use crate::schedule::{Due, Schedule};
use crate::settings::Values;
use crate::wire::Wire;
use crate::{ConnectInfo, Error, ErrorKind, Incoming, Protocols, Settings};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
#[cfg(feature = "http2")]
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read to detect a protocol: whole heads, mostly, so that one read does.
const FIRST_READ: usize = 2048;

/// How a connection began.
pub(crate) struct Opening {
    /// When it was accepted.
    pub(crate) accepted: Instant,
    pub(crate) info: ConnectInfo,
    pub(crate) protocols: Protocols,
    /// What was read of HTTP already.
    pub(crate) seen: Vec<u8>,
    /// What its server tells it.
    pub(crate) gate: Option<Arc<Gate>>,
}

pin_project! {
    /// Serves one connection while it is polled.
    ///
    /// **Readiness.** The service is asked before each call, and while it isn't ready nothing more is read: an
    /// HTTP/1.1 connection waits with the one request, an HTTP/2 connection accepts no more streams.
    ///
    /// **Cancellation.** Dropping it closes the transport and ends its requests. For an end without loss see
    /// [`graceful_shutdown`](Self::graceful_shutdown). A client that closes the connection drops the
    /// service's futures (see [`Settings::with_half_close`]).
    ///
    /// **Errors.** [`Error`]: the peer broke the protocol, the transport failed, or the peer took too long.
    /// A service that fails is none: the request is answered with status 500, or 503 where `poll_ready`
    /// failed, and that is logged. An HTTP/1.1 connection is closed after that.
    ///
    /// **Panics.** A panic of the service is answered like an error. A runtime without time (`enable_time`)
    /// panics, as all timers of Tokio do there.
    #[must_use = "futures do nothing unless polled"]
    pub struct Connection<IO, S, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        S: Service<Request<Incoming>, Response = Response<B>>,
        S: Clone,
        S::Error: Into<BoxError>,
        B: Body,
        B::Error: Into<BoxError>,
    {
        #[pin]
        stage: Stage<IO, S, B>,
        values: Arc<Values>,
        link: Arc<Link>,
        schedule: Schedule,
        // One for all deadlines. It is moved when it fires, or to an earlier time.
        #[pin]
        timer: Option<Sleep>,
        armed: Option<Armed>,
        #[pin]
        ear: Option<Ear>,
        // Who was woken last.
        waker: Option<Waker>,
        draining: bool,
        // The protocol was found after draining had begun, and has yet to be told.
        must_drain: bool,
    }
}

/// For when the timer is set.
#[derive(Debug, Clone, Copy)]
struct Armed {
    at: Instant,
    /// Soon enough to see that the connection has become idle.
    is_soon: bool,
}

pin_project! {
    #[project = StageProj]
    enum Stage<IO, S, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        S: Service<Request<Incoming>, Response = Response<B>>,
        S: Clone,
        S::Error: Into<BoxError>,
        B: Body,
        B::Error: Into<BoxError>,
    {
        // Which protocol it is shows in its first bytes.
        Detecting { detecting: Option<Detecting<IO, S>> },
        Http1 { #[pin] http1: UpgradeableConnection<TokioIo<Wire<IO>>, Requests<S>> },
        // It is several times as large as the others, which don't need to make room for it.
        Http2 { http2: Pin<Box<Http2<IO, S, B>>> },
    }
}

#[cfg(feature = "http2")]
type Http2<IO, S, B> = tower_h2::server::Connection<Wire<IO>, Requests<S>, Outgoing<B>>;
#[cfg(not(feature = "http2"))]
type Http2<IO, S, B> = crate::absent::Connection<Wire<IO>, Requests<S>, Outgoing<B>>;

struct Detecting<IO, S> {
    io: IO,
    service: S,
    /// What was read, where that is the beginning of the preface.
    seen: Vec<u8>,
}

/// What the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "http2"),
    expect(dead_code, reason = "there is nothing to detect")
)]
enum Detected {
    Http1,
    Http2,
    Unclear,
}

#[cfg(not(feature = "http2"))]
fn detect(_: &[u8], _: Protocols) -> Detected {
    Detected::Http1
}

#[cfg(feature = "http2")]
fn detect(seen: &[u8], protocols: Protocols) -> Detected {
    match protocols {
        Protocols::Http1 => Detected::Http1,
        Protocols::Http2 => Detected::Http2,
        Protocols::Both if seen.starts_with(PREFACE) => Detected::Http2,
        Protocols::Both if PREFACE.starts_with(seen) => Detected::Unclear,
        Protocols::Both => Detected::Http1,
    }
}

impl<IO, S, B> Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    // Its responses' bodies.
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(settings: &Settings, io: IO, opening: Opening, service: S) -> Self {
        let values = Arc::clone(&settings.values);
        let mut bounds = values.bounds;
        bounds.age = bounds.age.map(|age| {
            // From 0.9 to 1.1 of it.
            age.mul_f64(0.9 + SplitMix64::from_entropy().next_f64() / 5.0)
        });
        let link = Arc::new(Link::new(opening.info, values.body_timeout));
        let detecting = Detecting {
            io,
            service,
            seen: opening.seen,
        };
        let detected = detect(&detecting.seen, opening.protocols);
        let mut connection = Self {
            stage: Stage::Detecting { detecting: None },
            schedule: Schedule::new(bounds, opening.accepted),
            values,
            link,
            timer: None,
            armed: None,
            ear: opening.gate.map(Ear::new),
            waker: None,
            draining: false,
            must_drain: false,
        };
        connection.stage = match detected {
            Detected::Unclear => Stage::Detecting {
                detecting: Some(detecting),
            },
            known => connection.stage_of(known, detecting),
        };
        connection
    }

    fn stage_of(&self, detected: Detected, detecting: Detecting<IO, S>) -> Stage<IO, S, B> {
        stage_of(&self.values, &self.link, detected, detecting)
    }

    /// Ends the connection once the requests that have arrived are answered.
    ///
    /// It must still be polled until it ends; how long that may take is for whoever polls it to bound.
    pub fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.project();
        *this.draining = true;
        this.link.tell_draining();
        match this.stage.project() {
            StageProj::Detecting { .. } => {}
            StageProj::Http1 { http1 } => http1.graceful_shutdown(),
            StageProj::Http2 { http2 } => http2.as_mut().graceful_shutdown(),
        }
    }
}

fn stage_of<IO, S, B>(
    values: &Values,
    link: &Arc<Link>,
    detected: Detected,
    detecting: Detecting<IO, S>,
) -> Stage<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    // Its responses' bodies.
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    let Detecting { io, service, seen } = detecting;
    let wire = Wire::new(io, Arc::clone(link)).with_replay(Bytes::from(seen));
    let requests = Requests::new(service, Arc::clone(link), values.vets, values.attaches_info);
    match detected {
        #[cfg(feature = "http2")]
        Detected::Http2 => {
            let http2 = Box::pin(values.http2.serve_connection(wire, requests));
            Stage::Http2 { http2 }
        }
        _ => {
            let io = TokioIo::new(wire.with_http1(values.vets));
            let http1 = values.http1.serve_connection(io, requests).with_upgrades();
            Stage::Http1 { http1 }
        }
    }
}

impl<IO, S> Detecting<IO, S>
where
    IO: AsyncRead + Unpin,
{
    /// Reads until the protocol is clear; `None` where the peer has left.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Detected>, Error>> {
        loop {
            let mut bytes = [0; FIRST_READ];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                // The beginning of a preface, and no more, is a malformed request of HTTP/1.1.
                let rest = (!self.seen.is_empty()).then_some(Detected::Http1);
                return Poll::Ready(Ok(rest));
            }
            self.seen.extend_from_slice(buf.filled());
            match detect(&self.seen, Protocols::Both) {
                Detected::Unclear => {}
                detected => return Poll::Ready(Ok(Some(detected))),
            }
        }
    }
}

impl<IO, S, B> Future for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let is_moved = self.as_mut().note_waker(cx)?;
        if let Some(ear) = self.as_mut().project().ear.as_pin_mut() {
            match ear.poll_new(is_moved, cx) {
                Some(Order::Drain) => self.as_mut().graceful_shutdown(),
                Some(Order::Abort) => return Poll::Ready(Err(Error::new(ErrorKind::Aborted))),
                Some(Order::Serve) | None => {}
            }
        }
        loop {
            if let Poll::Ready(result) = self.as_mut().poll_stage(cx) {
                return Poll::Ready(result);
            }
            match ready!(self.as_mut().poll_due(is_moved, cx)) {
                Due::Age => self.as_mut().graceful_shutdown(),
                Due::Idle if self.as_mut().retire() => {}
                Due::Idle | Due::Linger => return Poll::Ready(Ok(())),
                Due::Head => return Poll::Ready(Err(Error::new(ErrorKind::HeadTimeout))),
                Due::Write => return Poll::Ready(Err(Error::new(ErrorKind::WriteTimeout))),
                Due::Grace => return Poll::Ready(Err(Error::new(ErrorKind::TooOld))),
            }
        }
    }
}

impl<IO, S, B> Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Tells an idle peer to send no more requests, where the protocol has words for that: one that it has sent at
    /// this moment isn't lost then.
    fn retire(mut self: Pin<&mut Self>) -> bool {
        if !matches!(
            self.as_mut().project().stage.project(),
            StageProj::Http2 { .. }
        ) {
            return false;
        }
        self.as_mut().graceful_shutdown();
        self.project().schedule.retire(Instant::now());
        true
    }

    /// Notes who polls. What was registered with another waker has to be registered anew.
    #[inline]
    fn note_waker(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<bool, Error> {
        let this = self.project();
        let waker = this.waker;
        match waker {
            Some(waker) if waker.will_wake(cx.waker()) => return Ok(false),
            Some(_) => {}
            None if Handle::try_current().is_err() => {
                return Err(Error::new(ErrorKind::NoRuntime));
            }
            None => {}
        }
        *waker = Some(cx.waker().clone());
        this.link.leftover.drive_by(cx.waker());
        Ok(true)
    }

    // Detecting -> Http1, Http2.
    fn poll_stage(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProj::Detecting { detecting } => {
                    let Some(found) = detecting else {
                        return Poll::Ready(Ok(()));
                    };
                    let detected = match found.poll(cx) {
                        Poll::Ready(result) => result?,
                        // It has asked for nothing yet.
                        Poll::Pending if *this.draining && found.seen.is_empty() => None,
                        Poll::Pending => return Poll::Pending,
                    };
                    let (Some(detected), Some(found)) = (detected, detecting.take()) else {
                        return Poll::Ready(Ok(()));
                    };
                    let stage = stage_of(this.values, this.link, detected, found);
                    this.stage.set(stage);
                    *this.must_drain = *this.draining;
                }
                StageProj::Http1 { mut http1 } => {
                    let mut polled = http1.as_mut().poll(cx);
                    if *this.must_drain && polled.is_pending() {
                        // Only now, as hyper closes a connection of which it has read nothing.
                        *this.must_drain = false;
                        http1.as_mut().graceful_shutdown();
                        polled = http1.as_mut().poll(cx);
                    }
                    // A response that is there doesn't wait for the request after it.
                    if polled.is_pending() && this.link.is_holding() {
                        this.link.release();
                        polled = http1.as_mut().poll(cx);
                    }
                    if *this.draining && this.link.leftover.is_kept() {
                        this.link.leftover.give_up();
                        polled = http1.as_mut().poll(cx);
                    }
                    while polled.is_pending() && this.link.poll_discard(cx).is_ready() {
                        polled = http1.as_mut().poll(cx);
                    }
                    if polled.is_ready() {
                        this.link.hand_over();
                    }
                    return polled.map_err(|error| Error::because(ErrorKind::Http1, error));
                }
                StageProj::Http2 { http2 } => {
                    if std::mem::take(this.must_drain) {
                        http2.as_mut().graceful_shutdown();
                    }
                    return http2
                        .as_mut()
                        .poll(cx)
                        .map_err(|error| Error::because(ErrorKind::Http2, error));
                }
            }
        }
    }

    /// Waits until something is due. Pending, nearly always, without touching the timer.
    #[inline]
    fn poll_due(self: Pin<&mut Self>, is_moved: bool, cx: &mut Context<'_>) -> Poll<Due> {
        let mut this = self.project();
        let progress = match this.stage.as_mut().project() {
            StageProj::Detecting { .. } => Progress::default(),
            StageProj::Http1 { .. } => this.link.progress(),
            StageProj::Http2 { http2 } => Progress {
                busy: http2.has_open_streams(),
                // Its bytes are frames, of which most begin no request.
                received: false,
                ..this.link.progress()
            },
        };
        let mut now = this.schedule.observe(progress, Instant::now);
        loop {
            let next = this.schedule.next();
            let is_armed = match (&*this.armed, next) {
                (Some(armed), Some(next)) => armed.at <= next,
                (Some(armed), None) => armed.is_soon || !this.schedule.rests(),
                (None, None) if !this.schedule.rests() => return Poll::Pending,
                (None, _) => false,
            };
            if !is_armed {
                let now = now.take().unwrap_or_else(Instant::now);
                let soon = now.checked_add(this.schedule.soon());
                let Some(at) = next.or(soon) else {
                    return Poll::Pending;
                };
                *this.armed = Some(Armed {
                    at,
                    is_soon: soon.is_none_or(|soon| at <= soon),
                });
                match this.timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.reset(at),
                    None => this.timer.set(Some(sleep_until(at))),
                }
            } else if next.is_none() && this.schedule.needs_no_timer() {
                // The runtime looks at every timer that is set each time that it waits.
                this.timer.set(None);
                *this.armed = None;
                return Poll::Pending;
            } else if !is_moved && !this.timer.as_ref().as_pin_ref().is_some_and(has_fired) {
                // Who is woken by it is known already.
                return Poll::Pending;
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
            *this.armed = None;
            let due = Instant::now();
            this.schedule.date(due);
            if let Some(due) = this.schedule.take_due(due) {
                return Poll::Ready(due);
            }
            now = Some(due);
        }
    }
}

fn has_fired(timer: Pin<&Sleep>) -> bool {
    timer.is_elapsed()
}

impl<IO, S, B> fmt::Debug for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    // Its responses' bodies.
    B: Body,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Detecting { .. } => "detecting",
            Stage::Http1 { .. } => "http/1.1",
            Stage::Http2 { .. } => "http/2",
        };
        f.debug_struct("Connection")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "http2"))]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_told_from_a_request_by_its_first_byte_that_differs() {
        assert_eq!(detect(b"", Protocols::Both), Detected::Unclear);
        assert_eq!(
            detect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Protocols::Both),
            Detected::Unclear
        );
        assert_eq!(detect(PREFACE, Protocols::Both), Detected::Http2);
        assert_eq!(detect(b"PRI /", Protocols::Both), Detected::Http1);
        assert_eq!(detect(b"GET", Protocols::Both), Detected::Http1);
    }
}
