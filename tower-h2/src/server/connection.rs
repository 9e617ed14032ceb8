//! One connection: its handshake, its upkeep, its end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::Reason;
use h2::server::Handshake;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::requests::{Ending, H2, Requests};
use crate::clockwork::Times;
use crate::send_body::SendBuf;
use crate::upkeep::Upkeep;
use crate::wiretap::{Notes, Wiretap};
use crate::{Error, ErrorKind, RecvBody};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a peer that is sent away has to read why.
const TELLING: Duration = Duration::from_secs(1);

pin_project! {
    /// Serves one connection while it is polled.
    ///
    /// Each time it wakes it takes in the requests that have arrived, calls the service for each, and
    /// polls each response once; then it writes all that is there. A response that isn't ready goes on
    /// in a task of its own. Where the service computes for long before it first waits, the
    /// requests get tasks from the start, so that they run on all threads.
    ///
    /// **Readiness.** The service is asked before each call. While it isn't ready, no request is
    /// accepted, and the peer may open only as many as `with_max_concurrent_streams` says.
    ///
    /// **Cancellation.** Dropping it closes the transport and ends the tasks of its requests. A peer that
    /// resets a stream, or vanishes, ends the future of the service. See
    /// [`graceful_shutdown`](Self::graceful_shutdown) for an end without loss.
    ///
    /// **Errors.** [`Error`], when the connection fails, or when the service's `poll_ready` does. A
    /// service whose response is an error has its stream reset with INTERNAL_ERROR, or with the
    /// [`Reason`] of an [`Error`] in its error's chain.
    ///
    /// **Panics.** A panic of the service resets the one stream with INTERNAL_ERROR.
    #[must_use = "futures do nothing unless polled"]
    pub struct Connection<IO, S, B>
    where
        IO: AsyncRead,
        IO: AsyncWrite,
        IO: Unpin,
        S: Service<Request<RecvBody>>,
        B: Body,
    {
        link: Link<IO, B::Data>,
        requests: Requests<S, B>,
        received: u64,
    }
}

/// The protocol's side of a connection.
#[allow(
    clippy::large_enum_variant,
    reason = "a connection is open for nearly all its life"
)]
enum Link<IO, D: bytes::Buf> {
    /// The preface isn't there yet.
    Handshaking {
        handshake: Handshake<Wiretap<IO>, SendBuf<D>>,
        notes: Arc<Notes>,
        times: Times,
        window: Option<u32>,
        timeout: Option<Duration>,
        timer: Option<Pin<Box<Sleep>>>,
        draining: bool,
    },
    Open {
        h2: H2<IO, D>,
        upkeep: Upkeep,
    },
    /// It has failed, and the peer is told, if it listens in time.
    Telling {
        h2: H2<IO, D>,
        error: Option<Error>,
        timer: Option<Pin<Box<Sleep>>>,
    },
    Closed,
}

impl<IO, S, B> Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<RecvBody>, Response = Response<B>>,
    B: Body,
{
    pub(super) fn new(
        handshake: Handshake<Wiretap<IO>, SendBuf<B::Data>>,
        timeout: Option<Duration>,
        notes: Arc<Notes>,
        times: Times,
        window: Option<u32>,
        service: S,
    ) -> Self {
        Self {
            link: Link::Handshaking {
                handshake,
                notes,
                times,
                window,
                timeout,
                timer: None,
                draining: false,
            },
            requests: Requests::new(service, times.stream),
            received: 0,
        }
    }

    /// Ends the connection once the requests that the peer has sent are answered.
    ///
    /// The peer is told with GOAWAY to send no more, twice as RFC 9113, section 6.8 has it, so that none
    /// that is under way is lost. The connection must still be polled until it ends; how long that may
    /// take is for whoever polls it to bound.
    pub fn graceful_shutdown(self: Pin<&mut Self>) {
        match self.project().link {
            Link::Handshaking { draining, .. } => *draining = true,
            Link::Open { h2, upkeep } => {
                h2.graceful_shutdown();
                upkeep.drain();
            }
            Link::Telling { .. } | Link::Closed => {}
        }
    }

    /// Whether the peer has sent the whole head of a request.
    pub fn has_received_request(&self) -> bool {
        self.received > 0
    }

    /// How many requests the peer has sent so far.
    pub fn received_requests(&self) -> u64 {
        self.received
    }

    /// Whether a request is open: its end, or that of its response, is still to come.
    pub fn has_open_streams(&self) -> bool {
        match &self.link {
            Link::Open { h2, .. } => h2.has_streams(),
            Link::Handshaking { .. } | Link::Telling { .. } | Link::Closed => false,
        }
    }
}

impl<IO, S, B> Future for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    // The service.
    S: Service<Request<RecvBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), Error>;

    // Handshaking -> Open, Closed; Open -> Telling, Closed; Telling -> Closed.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = loop {
            match this.link {
                Link::Handshaking { .. } => match ready!(this.link.poll_handshake(cx)) {
                    Ok(open) => *this.link = open,
                    Err(error) => break Err(error),
                },
                Link::Open { h2, upkeep } => {
                    match ready!(this.requests.poll_all(h2, upkeep, this.received, cx)) {
                        Ending::Over(result) => break result,
                        Ending::Failing(error) => this.link.tell(error),
                    }
                }
                Link::Telling { h2, error, timer } => {
                    let late = timer.as_mut().map(|timer| timer.as_mut().poll(cx));
                    if h2.poll_closed(cx).is_pending() && late == Some(Poll::Pending) {
                        return Poll::Pending;
                    }
                    break error.take().map_or(Ok(()), Err);
                }
                Link::Closed => return Poll::Ready(Ok(())),
            }
        };
        *this.link = Link::Closed;
        // How the connection ends is a consequence of the service's failure.
        Poll::Ready(this.requests.take_failure().map_or(result, Err))
    }
}

impl<IO, D> Link<IO, D>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    D: bytes::Buf,
{
    /// Ends the connection for an error.
    fn tell(&mut self, error: Error) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open { mut h2, .. } => {
                h2.abrupt_shutdown(match error.kind() {
                    ErrorKind::Flood => Reason::ENHANCE_YOUR_CALM,
                    ErrorKind::Protocol => error.reason().unwrap_or(Reason::PROTOCOL_ERROR),
                    _ => Reason::NO_ERROR,
                });
                Self::Telling {
                    h2,
                    error: Some(error),
                    timer: Handle::try_current().ok().map(|_| Box::pin(sleep(TELLING))),
                }
            }
            other => other,
        };
    }

    /// Waits for the peer's preface, and gives the open link.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self, Error>> {
        let Self::Handshaking {
            handshake,
            notes,
            times,
            window,
            timeout,
            timer,
            draining,
        } = self
        else {
            return Poll::Pending;
        };
        let Poll::Ready(shaken) = Pin::new(handshake).poll(cx) else {
            if let (Some(timeout), Ok(_)) = (*timeout, Handle::try_current()) {
                let timer = timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(timer.as_mut().poll(cx));
                let why = "the peer's preface doesn't come";
                return Poll::Ready(Err(Error::because(ErrorKind::Timeout, why)));
            }
            return Poll::Pending;
        };
        let mut h2 = shaken.map_err(Error::from_h2)?;
        let mut upkeep = Upkeep::new(Arc::clone(notes), *times, *window);
        if *draining {
            h2.graceful_shutdown();
            upkeep.drain();
        }
        Poll::Ready(Ok(Self::Open { h2, upkeep }))
    }
}

impl<IO, S, B> fmt::Debug for Connection<IO, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<RecvBody>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match &self.link {
            Link::Handshaking { .. } => "handshaking",
            Link::Open { .. } => "open",
            Link::Telling { .. } => "failing",
            Link::Closed => "closed",
        };
        f.debug_struct("Connection")
            .field("link", &link)
            .finish_non_exhaustive()
    }
}
