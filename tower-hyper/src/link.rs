//! What the parts of one connection know of each other: its facts, and how far it has come.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;

use crate::leftover::Leftover;

/// Facts about the connection that a request came by.
///
/// A request's body has them ([`Incoming::connect_info`](crate::Incoming::connect_info)); with
/// [`Settings::with_connect_info`](crate::Settings::with_connect_info) its extensions have, too. A clone
/// costs a reference count.
#[derive(Debug, Clone, Default)]
pub struct ConnectInfo {
    facts: Arc<Facts>,
}

#[derive(Debug, Clone, Default)]
struct Facts {
    peer: Address,
    local: Address,
    #[cfg(feature = "tls")]
    tls: Option<crate::TlsInfo>,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Address {
    /// A host and a port.
    Tcp(SocketAddr),
    /// A Unix socket, with its path where it has one.
    Unix(Option<PathBuf>),
    /// Nothing is known of it.
    #[default]
    Unknown,
}

/// As `127.0.0.1:8080`, `unix:/run/app.sock`, `unix` or `unknown`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl ConnectInfo {
    /// The facts of a connection from `peer` to `local`.
    pub fn new(peer: Address, local: Address) -> Self {
        Self {
            facts: Arc::new(Facts {
                peer,
                local,
                #[cfg(feature = "tls")]
                tls: None,
            }),
        }
    }

    /// The ends that a proxy has named, if it has.
    #[cfg(feature = "proxy-protocol")]
    pub(crate) fn with_ends(mut self, ends: Option<(SocketAddr, SocketAddr)>) -> Self {
        if let Some((peer, local)) = ends {
            let facts = Arc::make_mut(&mut self.facts);
            facts.peer = peer.into();
            facts.local = local.into();
        }
        self
    }

    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(mut self, tls: crate::TlsInfo) -> Self {
        Arc::make_mut(&mut self.facts).tls = Some(tls);
        self
    }

    /// What the TLS handshake has found out; none where there was none.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::TlsInfo> {
        self.facts.tls.as_ref()
    }

    /// Who is at the other end: a proxy's client, where the PROXY protocol names it.
    pub fn peer(&self) -> &Address {
        &self.facts.peer
    }

    /// The end that was connected to.
    pub fn local(&self) -> &Address {
        &self.facts.local
    }

    /// The other end's host and port, if it has them.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.facts.peer.socket_addr()
    }

    /// The host and port that were connected to, if there are any.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.facts.local.socket_addr()
    }
}

impl Address {
    /// The host and port, if it has them.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Unknown => None,
        }
    }

    /// The path of a Unix socket, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => path.as_deref(),
            Self::Tcp(_) | Self::Unknown => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What the transport, the requests and the driver of one connection share.
///
/// All of them run in the connection's task, but for bodies that a service took elsewhere; so each counter
/// has one writer, orderings are relaxed, and an addition is a load and a store.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) info: ConnectInfo,
    /// How long the sender of a body may stall.
    pub(crate) body_timeout: Option<Duration>,
    /// Requests handed to the service.
    begun: AtomicU32,
    /// HTTP/1.1 responses whose bodies are over.
    ended: AtomicU32,
    /// Bytes have come since the last request was handed over.
    received: AtomicBool,
    /// The transport takes no more bytes.
    blocked: AtomicBool,
    /// Times that the transport took bytes while or after it was blocked.
    unblocked: AtomicU32,
    /// A request's body isn't at its end; never again if it was dropped before that.
    body_open: AtomicBool,
    /// What was dropped of it.
    pub(crate) leftover: Leftover,
    /// Everything is said, and the peer's last words are awaited.
    lingering: AtomicBool,
    /// Which head can be understood in two ways, the first being 1.
    doubtful: AtomicU32,
    /// Responses are gathered, and not written yet.
    holding: AtomicBool,
    /// They are to be written now.
    releasing: AtomicBool,
    /// The driver has handed the transport over, to what was upgraded to.
    handed_over: AtomicBool,
    /// No more requests are wanted.
    draining: AtomicBool,
    drained: Notify,
}

/// Tells whether a connection is to end: the server drains, or the connection has reached its age.
///
/// For a response that would go on for ever, as a stream of events: what is still open at the end of the drain is cut. It
/// comes from [`Incoming::draining`](crate::Incoming::draining). A clone costs a reference count.
#[derive(Debug, Clone)]
pub struct Draining {
    link: Option<Arc<Link>>,
}

impl Draining {
    pub(crate) fn new(link: Option<Arc<Link>>) -> Self {
        Self { link }
    }

    /// Whether it is to end.
    pub fn has_begun(&self) -> bool {
        // Acquire: pairs with `tell_draining`.
        let link = self.link.as_ref();
        link.is_some_and(|link| link.draining.load(Ordering::Acquire))
    }

    /// Waits until it is to end. Never ends where there is no connection.
    ///
    /// **Cancellation.** Dropping the future loses nothing.
    pub async fn wait(&self) {
        let Some(link) = &self.link else {
            return std::future::pending().await;
        };
        loop {
            // In line first, then look: what is told in between wakes.
            let told = link.drained.notified();
            if self.has_begun() {
                return;
            }
            told.await;
        }
    }
}

/// How far a connection has come. Two that are equal mean that nothing has happened in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) begun: u32,
    pub(crate) busy: bool,
    pub(crate) received: bool,
    pub(crate) blocked: bool,
    pub(crate) unblocked: u32,
    pub(crate) lingering: bool,
}

impl Link {
    pub(crate) fn new(info: ConnectInfo, body_timeout: Option<Duration>) -> Self {
        Self {
            info,
            body_timeout,
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            received: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unblocked: AtomicU32::new(0),
            body_open: AtomicBool::new(false),
            leftover: Leftover::default(),
            lingering: AtomicBool::new(false),
            doubtful: AtomicU32::new(0),
            holding: AtomicBool::new(false),
            releasing: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
        }
    }

    /// Tells whoever answers for long that the connection is to end.
    pub(crate) fn tell_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drained.notify_waiters();
    }

    /// How far an HTTP/1.1 connection has come.
    pub(crate) fn progress(&self) -> Progress {
        let begun = self.begun.load(Ordering::Relaxed);
        Progress {
            begun,
            busy: begun != self.ended.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
            unblocked: self.unblocked.load(Ordering::Relaxed),
            lingering: self.lingering.load(Ordering::Relaxed),
        }
    }

    /// A request is handed to the service.
    pub(crate) fn begin(&self) {
        add_one(&self.begun);
        self.received.store(false, Ordering::Relaxed);
    }

    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The head with this number can be understood in two ways.
    #[cold]
    pub(crate) fn doubt(&self, head: u32) {
        self.doubtful.store(head, Ordering::Relaxed);
    }

    /// Whether the head of the request that was handed over last can be understood in two ways.
    #[inline]
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed) == self.begun()
    }

    pub(crate) fn hold(&self, is_holding: bool) {
        self.holding.store(is_holding, Ordering::Relaxed);
        if !is_holding {
            // The order is carried out, and isn't about what comes next.
            self.releasing.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Relaxed)
    }

    /// Asks that what is held be written by the next flush.
    pub(crate) fn release(&self) {
        self.releasing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_release(&self) -> bool {
        let is_releasing = self.releasing.load(Ordering::Relaxed);
        self.releasing.store(false, Ordering::Relaxed);
        is_releasing || self.is_handed_over()
    }

    /// Nobody drives the connection from here on.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// A response's body is over: what comes next begins another head.
    pub(crate) fn end(&self) {
        add_one(&self.ended);
        self.received.store(false, Ordering::Relaxed);
    }

    pub(crate) fn receive(&self) {
        self.received.store(true, Ordering::Relaxed);
    }

    /// The transport took bytes, or took none.
    pub(crate) fn wrote(&self, is_blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) && !is_blocked {
            add_one(&self.unblocked);
        }
        self.blocked.store(is_blocked, Ordering::Relaxed);
    }

    pub(crate) fn linger(&self) {
        self.lingering.store(true, Ordering::Relaxed);
    }

    /// A request's body, on HTTP/1.1, begins or has come to its end.
    pub(crate) fn open_body(&self, is_open: bool) {
        self.body_open.store(is_open, Ordering::Relaxed);
    }

    /// Throws away what nobody reads of a request that is answered, so that the next one may come. Ready where the connection
    /// has to be polled for it.
    #[inline]
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let is_busy = || self.begun() != self.ended.load(Ordering::Relaxed);
        if !self.leftover.is_kept() || is_busy() {
            return Poll::Pending;
        }
        if ready!(self.leftover.poll_discard(cx)) {
            self.open_body(false);
            // What came belonged to this body, and begins no head.
            self.received.store(false, Ordering::Relaxed);
        }
        Poll::Ready(())
    }

    /// Whether the peer may still be sending what nobody reads: the rest of a body, or of a head that
    /// was refused.
    pub(crate) fn has_unread(&self) -> bool {
        self.body_open.load(Ordering::Relaxed) || self.received.load(Ordering::Relaxed)
    }
}

fn add_one(counter: &AtomicU32) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_people_write_it() {
        let tcp = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 80)));
        let unix = Address::Unix(Some("/run/app.sock".into()));
        assert_eq!(tcp.to_string(), "127.0.0.1:80");
        assert_eq!(unix.to_string(), "unix:/run/app.sock");
        assert_eq!(Address::Unix(None).to_string(), "unix");
        assert_eq!(Address::default().to_string(), "unknown");
    }
}
