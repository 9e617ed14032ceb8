//! The error type of connections, bodies and servers.

use std::error::Error as StdError;
use std::{fmt, io};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A connection, a request's body, or a server failed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<BoxError>,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer broke HTTP/1.1, or the connection under it failed.
    Http1,
    /// The peer broke HTTP/2, or the connection under it failed.
    Http2,
    /// The first request's head, or a later one that had begun, wasn't there in time.
    HeadTimeout,
    /// The sender of a request's body stalled.
    BodyTimeout,
    /// The reader of a response stalled.
    WriteTimeout,
    /// The connection reached its age and wasn't done in the time of grace after it.
    TooOld,
    /// The server was shut down, and the time to drain was over.
    Aborted,
    /// The PROXY protocol's header is missing or malformed.
    Proxy,
    /// The TLS handshake failed.
    Tls,
    /// The operating system refused something.
    Io,
    /// There is no Tokio runtime to serve in.
    NoRuntime,
    /// A worker's thread panicked.
    Panicked,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn because(kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the peer took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::HeadTimeout | ErrorKind::BodyTimeout | ErrorKind::WriteTimeout
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::Http1 => "the HTTP/1.1 connection failed",
            ErrorKind::Http2 => "the HTTP/2 connection failed",
            ErrorKind::HeadTimeout => "the request's head wasn't there in time",
            ErrorKind::BodyTimeout => "the sender of the request's body stalled",
            ErrorKind::WriteTimeout => "the reader of the response stalled",
            ErrorKind::TooOld => {
                "the connection had reached its age, and its time of grace was over"
            }
            ErrorKind::Aborted => "the server was shut down, and the time to drain was over",
            ErrorKind::Proxy => "the PROXY protocol's header is missing or malformed",
            ErrorKind::Tls => "the TLS handshake failed",
            ErrorKind::Io => "the operating system refused",
            ErrorKind::NoRuntime => "there is no Tokio runtime to serve in",
            ErrorKind::Panicked => "a worker's thread panicked",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::because(ErrorKind::Io, source)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = if error.is_timeout() {
            io::ErrorKind::TimedOut
        } else {
            io::ErrorKind::Other
        };
        Self::new(kind, error)
    }
}
