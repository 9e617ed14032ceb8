//! Accepts connections, serves each in a task, and drains them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::time::{Instant, sleep};
use tower_close::{Close, Closing, NotClosed};
use tower_deadline::Deadline;
use tower_service::Service;

use crate::connection::{Connection, Opening};
use crate::gate::{Entered, Gate, Order};
use crate::listen::{Tcp, concerns_one_connection};
use crate::{Accept, Error, ErrorKind, Incoming, Settings};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The first and the longest pause after the operating system has refused to accept.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves a Tower service over HTTP/1.1 and HTTP/2 on one port.
///
/// Each connection gets a clone of the service and a task.
///
/// **Readiness.** See [`Connection`].
///
/// **Cancellation.** Dropping the future of [`serve`](Self::serve) stops accepting and ends all connections, as
/// soon as their tasks are polled. To finish what has begun, use
/// [`serve_with_shutdown`](Self::serve_with_shutdown) or a [`Handle`].
///
/// **Errors.** None of a single connection; those are logged at debug. A socket that refuses to accept, for
/// want of file descriptors perhaps, is asked again after a pause.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_hyper::{Incoming, Server};
/// use tower_util::service_fn;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hello = service_fn(|_: Request<Incoming>| async {
///     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let server = Server::bind("127.0.0.1:0").await?;
/// let handle = server.handle();
/// # handle.shutdown();
/// server.serve(hello).await?; // Until `handle.shutdown()`.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until it serves"]
pub struct Server<L> {
    listener: L,
    options: Options,
    gate: Arc<Gate>,
}

#[derive(Debug, Clone)]
struct Options {
    settings: Settings,
    max_connections: usize,
    drain_timeout: Duration,
}

/// Tells a server to stop, from anywhere. A clone tells the same server.
#[derive(Debug, Clone)]
pub struct Handle {
    gate: Arc<Gate>,
}

impl Server<Tcp> {
    /// Listens on a TCP address.
    ///
    /// **Errors.** The address is taken, isn't this machine's, or can't be resolved.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::new(Tcp::new(TcpListener::bind(address).await?)?))
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(unix)]
impl Server<tokio::net::UnixListener> {
    /// Listens on a Unix socket. The path must not exist yet, and isn't removed at the end.
    ///
    /// **Errors.** The path exists or can't be made.
    pub fn bind_unix(path: impl AsRef<std::path::Path>) -> io::Result<Self> {
        Ok(Self::new(tokio::net::UnixListener::bind(path)?))
    }
}

impl<L> Server<L> {
    /// A server of the connections that `listener` yields.
    pub fn new(listener: L) -> Self {
        Self {
            listener,
            options: Options {
                settings: Settings::new(),
                max_connections: usize::MAX,
                drain_timeout: Duration::from_secs(30),
            },
            gate: Arc::new(Gate::new()),
        }
    }

    /// How each connection is served.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.options.settings = settings;
        self
    }

    /// How many connections may be open at once; as many as the operating system allows by default.
    ///
    /// At the cap the server stops accepting, and others wait in the socket's backlog.
    pub fn with_max_connections(mut self, max: usize) -> Self {
        self.options.max_connections = max;
        self
    }

    /// How long connections may take to finish once the server was told to stop; 30 seconds by default.
    ///
    /// What hasn't ended then is cut.
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// Makes a handle to stop the server with.
    pub fn handle(&self) -> Handle {
        Handle {
            gate: Arc::clone(&self.gate),
        }
    }
}

impl<L: Accept> Server<L> {
    /// Serves until a [`Handle`] tells it to stop, or the listener yields no more, and the connections
    /// have ended.
    ///
    /// **Errors.** [`ErrorKind::NoRuntime`].
    pub async fn serve<S, B>(self, service: S) -> Result<(), Error>
    where
        // The service.
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        // Its responses' bodies.
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.serve_with_shutdown(service, std::future::pending())
            .await
    }

    /// Serves until `signal` is ready, then drains: accepts no more, lets connections finish the requests that
    /// they have, and cuts what isn't done in [time](Self::with_drain_timeout).
    ///
    /// **Errors.** [`ErrorKind::NoRuntime`].
    pub async fn serve_with_shutdown<S, B, F>(self, service: S, signal: F) -> Result<(), Error>
    where
        // The service.
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        // Its responses' bodies.
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
        // What tells it to stop.
        F: Future<Output = ()>,
    {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(ErrorKind::NoRuntime));
        }
        let Self {
            mut listener,
            options,
            gate,
        } = self;
        let owner = Owner(Arc::clone(&gate));
        tokio::select! {
            () = accept_all(&mut listener, &options, &gate, service) => {}
            () = signal => {}
            () = gate.told(Order::Drain) => {}
        }
        // New connections are refused from here on, rather than left in the backlog.
        drop(listener);
        drain(&gate, options.drain_timeout).await;
        drop(owner);
        Ok(())
    }
}

/// Ends all connections with the server's future, however that ends.
struct Owner(Arc<Gate>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.tell(Order::Abort);
    }
}

async fn drain(gate: &Gate, timeout: Duration) {
    gate.tell(Order::Drain);
    let drained = tokio::select! {
        biased;
        () = gate.fewer_than(1) => true,
        () = gate.told(Order::Abort) => false,
        () = sleep(timeout) => false,
    };
    if !drained {
        let connections = gate.open_connections();
        tracing::warn!(connections, "drain timeout: connections are cut");
        gate.tell(Order::Abort);
        gate.fewer_than(1).await;
    }
}

/// Accepts until there are no more connections.
async fn accept_all<L, S, B>(listener: &mut L, options: &Options, gate: &Arc<Gate>, service: S)
where
    L: Accept,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses' bodies.
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut pause = PAUSE;
    loop {
        if gate.open_connections() >= options.max_connections {
            gate.fewer_than(options.max_connections).await;
        }
        match listener.accept().await {
            Ok(Some((io, info))) => {
                pause = PAUSE;
                let opening = Opening {
                    accepted: Instant::now(),
                    info,
                    protocols: options.settings.values.protocols,
                    gate: Some(Arc::clone(gate)),
                };
                let connection = Connection::new(&options.settings, io, opening, service.clone());
                tokio::spawn(run(connection, gate.enter()));
            }
            Ok(None) => return,
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Most likely the process is out of descriptors, and only time can help.
                tracing::warn!(%error, pause = ?pause, "can't accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// One connection's task.
async fn run(connection: impl Future<Output = Result<(), Error>>, entered: Entered) {
    if let Err(error) = connection.await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "connection failed"
        );
    }
    drop(entered);
}

impl Handle {
    /// Tells the server to stop accepting and to drain, for as long as its
    /// [drain timeout](Server::with_drain_timeout) says.
    pub fn shutdown(&self) {
        self.gate.tell(Order::Drain);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.gate.open_connections()
    }
}

impl Close for Handle {
    /// Tells the server to drain, and cuts what is left at the deadline. The server's own
    /// [drain timeout](Server::with_drain_timeout) holds as well.
    fn close(&self, by: Deadline) -> Closing {
        self.gate.tell(Order::Drain);
        let gate = Arc::clone(&self.gate);
        Closing::new(async move {
            if by.within(gate.fewer_than(1)).await.is_ok() {
                return Ok(());
            }
            let unfinished = gate.open_connections();
            gate.tell(Order::Abort);
            Err(NotClosed::CutOff { unfinished })
        })
    }
}
