//! Accepts connections, serves each in a task, and drains them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tower_close::{Close, Closing, NotClosed};
use tower_deadline::Deadline;
use tower_service::Service;

use crate::connection::{Connection, Opening};
use crate::gate::{Entered, Gate, Order};
use crate::listen::{Tcp, concerns_one_connection};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::transport::{Preparation, Prepared, Transport};
use crate::workers::{Workers, another, spawn};
use crate::{Accept, ConnectInfo, Error, ErrorKind, Incoming, Settings};

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
    /// At least one. Each has an accept loop.
    listeners: Vec<L>,
    options: Options,
    gate: Arc<Gate>,
}

#[derive(Debug, Clone)]
struct Options {
    settings: Settings,
    preparation: Preparation,
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
        self.listeners[0].local_addr()
    }

    /// Accepts by as many loops as `count`, each in a task with a duplicate of the socket; one by default.
    ///
    /// **Errors.** The socket can't be duplicated.
    pub fn with_accept_loops(mut self, count: usize) -> io::Result<Self> {
        self.listeners.truncate(count.max(1));
        while self.listeners.len() < count {
            let another = Tcp::from_std(another(&self.listeners[0])?)?;
            self.listeners.push(another);
        }
        Ok(self)
    }

    /// Serves on threads of their own, as [`serve_with_shutdown`](Self::serve_with_shutdown) does on the
    /// runtime that it is called on. See [`Workers`].
    ///
    /// **Errors.** A socket can't be duplicated, a thread can't be started, or one has panicked.
    pub async fn serve_on<S, B, F>(
        self,
        workers: Workers,
        service: S,
        signal: F,
    ) -> Result<(), Error>
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
        let Self {
            listeners,
            options,
            gate,
        } = self;
        let owner = Owner(Arc::clone(&gate));
        let (sender, mut ended) = mpsc::unbounded_channel();
        for index in 0..workers.count() {
            let listener = another(&listeners[0])?;
            let (options, gate, service) = (options.clone(), Arc::clone(&gate), service.clone());
            spawn(index, sender.clone(), move || async move {
                let mut listener = Tcp::from_std(listener)?;
                tokio::select! {
                    () = accept_all(&mut listener, &options, &gate, service) => {}
                    () = gate.told(Order::Drain) => {}
                }
                drop(listener);
                // Its connections would end with its runtime, so that it stays until they have.
                gate.fewer_than(1).await;
                Ok(())
            })?;
        }
        drop(sender);
        // Nobody accepts from these.
        drop(listeners);
        tokio::select! {
            result = ended.recv() => result.unwrap_or(Ok(()))?,
            () = signal => {}
            () = gate.told(Order::Drain) => {}
        }
        drain(&gate, options.drain_timeout).await;
        drop(owner);
        while let Some(result) = ended.recv().await {
            result?;
        }
        Ok(())
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
            listeners: vec![listener],
            options: Options {
                settings: Settings::new(),
                preparation: Preparation::default(),
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

    /// Expects the PROXY protocol's header, version 1 or 2, at the beginning of each connection, and takes the
    /// client's address from it.
    ///
    /// Only for a server that nobody but the proxy can reach: whoever connects can name any address. A connection
    /// without the header is closed.
    #[cfg(feature = "proxy-protocol")]
    pub fn with_proxy_protocol(mut self) -> Self {
        self.options.preparation.proxied = true;
        self
    }

    /// Speaks TLS.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.options.preparation.tls = Some(tls);
        self
    }

    /// How many connections may be open at once; as many as the operating system allows by default.
    ///
    /// At the cap the server stops accepting, and others wait in the socket's backlog. Several accept loops, or
    /// workers, may each let one more in at the same moment.
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

    /// How long connections [may take](Self::with_drain_timeout) to finish.
    pub fn drain_timeout(&self) -> Duration {
        self.options.drain_timeout
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
            listeners,
            options,
            gate,
        } = self;
        let owner = Owner(Arc::clone(&gate));
        // They end with the set, and the sockets with them.
        let mut loops = JoinSet::new();
        for mut listener in listeners {
            let (options, gate, service) = (options.clone(), Arc::clone(&gate), service.clone());
            loops.spawn(async move { accept_all(&mut listener, &options, &gate, service).await });
        }
        tokio::select! {
            () = all(&mut loops) => {}
            () = signal => {}
            () = gate.told(Order::Drain) => {}
        }
        // New connections are refused from here on, rather than left in the backlog.
        loops.shutdown().await;
        drain(&gate, options.drain_timeout).await;
        drop(owner);
        Ok(())
    }
}

/// Waits until all loops have ended.
async fn all(loops: &mut JoinSet<()>) {
    while loops.join_next().await.is_some() {}
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
                let accepted = Accepted {
                    io,
                    info,
                    at: Instant::now(),
                    entered: gate.enter(),
                };
                if options.preparation.is_none() {
                    tokio::spawn(accepted.serve(options, gate, service.clone()));
                } else {
                    let (options, gate) = (options.clone(), Arc::clone(gate));
                    tokio::spawn(accepted.prepare_and_serve(options, gate, service.clone()));
                }
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

/// A connection that nothing was read of yet.
struct Accepted<IO> {
    io: IO,
    info: ConnectInfo,
    at: Instant,
    entered: Entered,
}

impl<IO> Accepted<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Serves HTTP from the first byte on.
    fn serve<S, B>(
        self,
        options: &Options,
        gate: &Arc<Gate>,
        service: S,
    ) -> impl Future<Output = ()> + Send + use<IO, S, B>
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
        let prepared = Prepared {
            transport: Transport::Plain(self.io),
            info: self.info,
            protocols: options.settings.values.protocols,
            seen: Vec::new(),
        };
        Task {
            connection: open(prepared, self.at, options, gate, service),
            entered: self.entered,
        }
    }

    /// Does what comes before HTTP, by the deadline of the first head, and then serves.
    async fn prepare_and_serve<S, B>(self, options: Options, gate: Arc<Gate>, service: S)
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
        let Self {
            io,
            info,
            at,
            entered,
        } = self;
        let values = &options.settings.values;
        let preparing = options.preparation.prepare(io, info, values.protocols);
        let prepared = tokio::select! {
            biased;
            // It has asked for nothing yet.
            () = gate.told(Order::Drain) => return,
            prepared = timeout_at(at + values.bounds.head, preparing) => prepared,
        };
        let prepared = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => return log(&error),
            Err(_) => return log(&Error::new(ErrorKind::HeadTimeout)),
        };
        let connection = open(prepared, at, &options, &gate, service);
        Task {
            connection,
            entered,
        }
        .await;
    }
}

fn open<IO, S, B>(
    prepared: Prepared<IO>,
    accepted: Instant,
    options: &Options,
    gate: &Arc<Gate>,
    service: S,
) -> Connection<Transport<IO>, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // The service.
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    // Its responses' bodies.
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    let opening = Opening {
        accepted,
        info: prepared.info,
        protocols: prepared.protocols,
        seen: prepared.seen,
        gate: Some(Arc::clone(gate)),
    };
    Connection::new(&options.settings, prepared.transport, opening, service)
}

pin_project! {
    /// One connection's task. An async function would hold the connection twice.
    struct Task<F> {
        #[pin]
        connection: F,
        entered: Entered,
    }
}

impl<F> Future for Task<F>
where
    F: Future<Output = Result<(), Error>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = ready!(self.project().connection.poll(cx));
        if let Err(error) = ended {
            log(&error);
        }
        Poll::Ready(())
    }
}

#[cold]
fn log(error: &Error) {
    let error: &dyn std::error::Error = error;
    tracing::debug!(error, "connection failed");
}

impl Handle {
    /// Tells the server to stop accepting and to drain, for as long as its
    /// [drain timeout](Server::with_drain_timeout) says.
    pub fn shutdown(&self) {
        self.gate.tell(Order::Drain);
    }

    /// Waits until the server drains, whoever has told it to: a handle, or the signal that
    /// [`serve_with_shutdown`](Server::serve_with_shutdown) waits for. Ends as well where the server is dropped.
    ///
    /// For whatever has to learn of it besides connections. A response that goes on for ever learns it of its
    /// connection, by [`Incoming::draining`], which also tells when that has reached its age.
    ///
    /// **Cancellation.** Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.gate.told(Order::Drain).await;
    }

    /// Waits until the server was told to stop, by whomever.
    pub async fn stopping(&self) {
        self.gate.told(Order::Drain).await;
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
