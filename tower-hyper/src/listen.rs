//! Where connections come from.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream, unix};

use crate::{Address, ConnectInfo};

/// How many connections may wait to be accepted.
pub(crate) const BACKLOG: u32 = 1024;

/// A source of connections: a listening socket, or anything else that yields byte streams.
///
/// Implement it for sources of your own; a server then bounds, detects and drains as for a socket.
///
/// # Example
///
/// ```
/// use std::io;
/// use tokio::io::DuplexStream;
/// use tokio::sync::mpsc::Receiver;
/// use tower_hyper::{Accept, ConnectInfo};
///
/// struct InMemory(Receiver<DuplexStream>);
///
/// impl Accept for InMemory {
///     type Io = DuplexStream;
///
///     async fn accept(&mut self) -> io::Result<Option<(DuplexStream, ConnectInfo)>> {
///         Ok(self.0.recv().await.map(|io| (io, ConnectInfo::default())))
///     }
/// }
/// ```
pub trait Accept: Send + 'static {
    /// The connections.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection; `None` where there will be no more.
    ///
    /// An error isn't the end: the server asks again, at once where only the one connection has failed, and
    /// after a pause otherwise.
    ///
    /// **Cancellation.** The future is dropped when the server drains; a connection may be lost then.
    fn accept(
        &mut self,
    ) -> impl Future<Output = io::Result<Option<(Self::Io, ConnectInfo)>>> + Send;
}

/// A TCP socket that listens, as servers use it.
///
/// Its connections have `TCP_NODELAY` set, as a server that writes whole responses wants it.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    reuses_port: bool,
    /// The address of every connection's end, where the socket is bound to just one.
    local: Option<SocketAddr>,
}

impl Tcp {
    /// Takes over a listening socket.
    ///
    /// **Errors.** The operating system doesn't know the address that it is bound to.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self {
            listener,
            reuses_port: false,
            local: (!local.ip().is_unspecified()).then_some(local),
        })
    }

    /// Takes over a listening socket of the standard library. It is made non-blocking.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::new(TcpListener::from_std(listener)?)
    }

    /// Listens on an address with `SO_REUSEPORT`, so that other sockets may, too; Unix only.
    ///
    /// Other processes of the same user may as well, and then get some of the connections.
    #[cfg(unix)]
    pub fn bind_reusing_port(address: SocketAddr) -> io::Result<Self> {
        let socket = crate::workers::socket_reusing_port(address)?;
        let mut tcp = Self::new(socket.listen(BACKLOG)?)?;
        tcp.reuses_port = true;
        Ok(tcp)
    }

    /// Takes over the sockets that a supervisor such as systemd passes on by `LISTEN_FDS`.
    ///
    /// There are some only in the process that they are meant for, and only at the first call.
    ///
    /// **Errors.** One isn't a TCP socket that listens.
    #[cfg(feature = "listenfd")]
    pub fn inherited() -> io::Result<Vec<Self>> {
        let mut passed = listenfd::ListenFd::from_env();
        (0..passed.len())
            .filter_map(|index| passed.take_tcp_listener(index).transpose())
            .map(|listener| listener.and_then(Self::from_std))
            .collect()
    }

    pub(crate) fn reuses_port(&self) -> bool {
        self.reuses_port
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Accept for Tcp {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<Option<(TcpStream, ConnectInfo)>> {
        let (stream, peer) = self.listener.accept().await?;
        // A socket that is gone already refuses it; the first read tells.
        let _ = stream.set_nodelay(true);
        let local = match self.local {
            Some(local) => Address::Tcp(local),
            None => stream.local_addr().map_or(Address::Unknown, Address::Tcp),
        };
        Ok(Some((stream, ConnectInfo::new(peer.into(), local))))
    }
}

#[cfg(unix)]
impl Accept for UnixListener {
    type Io = UnixStream;

    async fn accept(&mut self) -> io::Result<Option<(UnixStream, ConnectInfo)>> {
        let (stream, peer) = Self::accept(self).await?;
        let local = self
            .local_addr()
            .map_or(Address::Unknown, |end| unix_end(&end));
        Ok(Some((stream, ConnectInfo::new(unix_end(&peer), local))))
    }
}

#[cfg(unix)]
fn unix_end(address: &unix::SocketAddr) -> Address {
    Address::Unix(address.as_pathname().map(Into::into))
}

#[cfg(unix)]
impl std::os::fd::AsFd for Tcp {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for Tcp {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        self.listener.as_socket()
    }
}

/// Whether only the connection that was to be accepted has failed, so that the next may be asked for at once.
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
