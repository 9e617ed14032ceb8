//! Connectors for [`client::Connect`](crate::client::Connect): services from a target to a byte stream.
//!
//! Any service is a connector whose response is a byte stream; these are the usual ones. For TLS, `tls::Tls`
//! goes around one of them (feature `tls`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::pin::Pin;
#[cfg(unix)]
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tower_service::Service;

type Connecting<IO> = Pin<Box<dyn Future<Output = io::Result<IO>> + Send>>;

/// Connects to the host and port of a URI, over TCP.
///
/// The host is resolved, and its addresses are tried one after the other. Without a port it is 443 for
/// `https`, else 80. Small writes aren't held back (TCP_NODELAY).
///
/// **Errors.** [`io::Error`]: of kind `InvalidInput` where the URI has no host, `TimedOut` where no address
/// answers in time, and else that of the last address.
#[derive(Debug, Clone)]
pub struct Tcp {
    timeout: Duration,
}

impl Tcp {
    /// Gives each address 10 s.
    pub fn new() -> Self {
        Self {
            timeout: Duration::from_secs(10),
        }
    }

    /// How long each address may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Uri> for Tcp {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Connecting<TcpStream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        Box::pin(async move {
            let host = uri.host().ok_or_else(|| {
                let what = format!("`{uri}` has no host to connect to");
                io::Error::new(io::ErrorKind::InvalidInput, what)
            })?;
            // An IPv6 address stands in brackets in a URI only.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let secure = uri.scheme() == Some(&Scheme::HTTPS);
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let addresses = tokio::net::lookup_host((host, port)).await?;
            dial_each(addresses, timeout).await
        })
    }
}

async fn dial_each(
    addresses: impl Iterator<Item = SocketAddr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(io)) => {
                io.set_nodelay(true)?;
                return Ok(io);
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, elapsed),
        }
    }
    Err(last)
}

/// Connects to one Unix socket, whatever the target.
///
/// **Errors.** [`io::Error`].
#[cfg(unix)]
#[derive(Debug, Clone)]
pub struct Unix {
    path: Arc<Path>,
}

#[cfg(unix)]
impl Unix {
    /// Connects to the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into().into(),
        }
    }
}

#[cfg(unix)]
impl<T> Service<T> for Unix {
    type Response = UnixStream;
    type Error = io::Error;
    type Future = Connecting<UnixStream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: T) -> Self::Future {
        let path = Arc::clone(&self.path);
        Box::pin(UnixStream::connect(path))
    }
}
