//! How connections and streams fail.

use std::fmt;

use h2::Reason;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection, or a stream of one, has failed.
///
/// Both sides return it: the connections, the bodies that are received, and the responses of a client.
/// What a caller acts on is [`kind`](Self::kind), [`reason`](Self::reason) and
/// [`is_unprocessed`](Self::is_unprocessed), which says that a request may be sent again without harm.
/// What has caused it is its source.
pub struct Error {
    kind: ErrorKind,
    reason: Option<Reason>,
    unprocessed: bool,
    source: Option<BoxError>,
}

/// What has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection couldn't be made; the connector's error is the source.
    Connect,
    /// The transport below failed, or it ended in the middle of something.
    Io,
    /// The peer broke the protocol, or a limit that this side has set; it was told so.
    Protocol,
    /// The peer has reset the stream.
    Reset,
    /// The peer has ended the connection with GOAWAY.
    GoAway,
    /// The connection was closed before the request could be sent, or while it was under way.
    Closed,
    /// A time was up: the handshake, a ping, a write, or the head of a request took too long.
    Timeout,
    /// The peer sent more frames that carry nothing than it may.
    Flood,
    /// The body that was to be sent has failed; its error is the source.
    Body,
    /// The service has failed; its error is the source.
    Service,
    /// The message can't be sent over HTTP/2, or not on this connection.
    Unsendable,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self {
            kind,
            reason: None,
            unprocessed: false,
            source: None,
        }
    }

    pub(crate) fn because(kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(kind)
        }
    }

    /// What the peer is told.
    pub(crate) fn protocol(reason: Reason, why: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..Self::because(ErrorKind::Protocol, why)
        }
    }

    pub(crate) fn reset(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            unprocessed: reason == Reason::REFUSED_STREAM,
            ..Self::new(ErrorKind::Reset)
        }
    }

    pub(crate) fn from_h2(error: h2::Error) -> Self {
        let kind = if error.is_io() {
            ErrorKind::Io
        } else if error.is_library() {
            ErrorKind::Protocol
        } else if error.is_reset() && error.is_remote() {
            ErrorKind::Reset
        } else if error.is_reset() {
            // Nothing but a body that failed resets a stream which someone still waits for.
            ErrorKind::Body
        } else if error.is_go_away() && error.is_remote() {
            ErrorKind::GoAway
        } else if error.reason().is_some() {
            ErrorKind::Closed
        } else {
            ErrorKind::Unsendable
        };
        let reason = error.reason();
        Self {
            kind,
            reason,
            // A GOAWAY fails only the streams after the last that it names.
            unprocessed: error.is_remote()
                && (error.is_go_away() || reason == Some(Reason::REFUSED_STREAM)),
            source: Some(error.into()),
        }
    }

    /// The request never left.
    pub(crate) fn before_sending(mut self) -> Self {
        self.unprocessed = true;
        self
    }

    /// What has failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The code of RFC 9113, section 7, that the peer sent, or that was sent to it.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether the request certainly wasn't processed, so that it may be sent again, whatever it does.
    ///
    /// So it is where the peer has refused the stream, where its GOAWAY names a last stream before this
    /// one (RFC 9113, section 8.7), and where the request was never sent.
    pub fn is_unprocessed(&self) -> bool {
        self.unprocessed
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind);
        if let Some(reason) = self.reason {
            debug.field("reason", &reason);
        }
        if self.unprocessed {
            debug.field("unprocessed", &true);
        }
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::Connect => "the connection couldn't be made",
            ErrorKind::Io => "the transport of the connection failed",
            ErrorKind::Protocol => "the peer broke the protocol",
            ErrorKind::Reset => "the peer has reset the stream",
            ErrorKind::GoAway => "the peer has ended the connection",
            ErrorKind::Closed => "the connection is closed",
            ErrorKind::Timeout => "the connection's time is up",
            ErrorKind::Flood => "the peer sent too many frames that carry nothing",
            ErrorKind::Body => "the body to be sent failed",
            ErrorKind::Service => "the service failed",
            ErrorKind::Unsendable => "the message can't be sent over this connection",
        })?;
        if let Some(reason) = self.reason {
            write!(f, " ({})", reason.description())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// The code that tells the peer of `error`: that of an HTTP/2 error in its chain, else INTERNAL_ERROR.
pub(crate) fn reason_for(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut next = Some(error);
    while let Some(error) = next {
        let reason = match error.downcast_ref::<Error>() {
            Some(error) => error.reason,
            None => error
                .downcast_ref::<h2::Error>()
                .and_then(h2::Error::reason),
        };
        if let Some(reason) = reason {
            return reason;
        }
        next = error.source();
    }
    Reason::INTERNAL_ERROR
}
