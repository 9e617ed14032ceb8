//! A single-threaded runtime for each core, with an accept loop of its own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::mpsc::UnboundedSender;

use crate::{Error, ErrorKind, Tcp};

/// Threads that each run a single-threaded runtime, and accept and serve connections by themselves.
///
/// A connection stays on the thread that has accepted it: no task is stolen, and no cache line of it
/// changes cores. That suits many short requests. Where some requests compute for long, the others on
/// their thread wait, and a multi-threaded runtime serves better.
///
/// Each thread listens on a duplicate of the one socket, so that whichever is free accepts. With
/// `SO_REUSEPORT` ([`Tcp::bind_reusing_port`]) each has a socket of its own, and the kernel picks by a
/// hash of the addresses, also one that is busy, and what is in a socket's backlog is lost when that is closed. With a
/// connection for each request and two threads on two cores, that served 0.94 of what duplicates did, at the same CPU time a
/// request (`bench`, `web churn`).
///
/// The service's futures run on these threads' runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    count: NonZeroUsize,
}

impl Workers {
    /// As many threads as `count`, or one if that is zero.
    pub fn new(count: usize) -> Self {
        Self {
            count: NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// As many threads as this process may use cores.
    pub fn per_core() -> Self {
        Self {
            count: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// How many threads there are.
    pub fn count(self) -> usize {
        self.count.get()
    }
}

/// Runs `work` on a thread with a single-threaded runtime, and sends how it went.
pub(crate) fn spawn<F, W>(
    index: usize,
    ended: UnboundedSender<Result<(), Error>>,
    work: W,
) -> io::Result<()>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<(), Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("tower-hyper-{index}"))
        .spawn(move || {
            let run = || runtime.block_on(async { work().await });
            let result = catch_unwind(AssertUnwindSafe(run));
            let _ = ended.send(result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Panicked))));
        })?;
    Ok(())
}

/// One more socket like a listening one, which no runtime has registered yet.
pub(crate) fn another(listener: &Tcp) -> io::Result<TcpListener> {
    if listener.reuses_port() {
        let socket = socket_reusing_port(listener.local_addr()?)?;
        let listener = socket.listen(crate::listen::BACKLOG)?.into_std()?;
        return Ok(listener);
    }
    duplicate(listener)
}

#[cfg(unix)]
fn duplicate(listener: &Tcp) -> io::Result<TcpListener> {
    use std::os::fd::AsFd;
    Ok(listener.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn duplicate(listener: &Tcp) -> io::Result<TcpListener> {
    use std::os::windows::io::AsSocket;
    Ok(listener.as_socket().try_clone_to_owned()?.into())
}

/// A socket bound to an address that others of this process are bound to as well.
pub(crate) fn socket_reusing_port(address: SocketAddr) -> io::Result<tokio::net::TcpSocket> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    Ok(socket)
}
