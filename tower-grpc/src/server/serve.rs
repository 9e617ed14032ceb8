//! A server on a socket.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_h2::RecvBody;
use tower_h2::server;
use tower_service::Service;

use super::{GrpcService, Router};

/// A gRPC server on a socket.
///
/// # Example
///
/// ```
/// use tokio::net::TcpListener;
/// use tower_grpc::client::Channel;
/// use tower_grpc::health::pb::{HealthCheckRequest, client::HealthClient};
/// use tower_grpc::health::health_reporter;
/// use tower_grpc::server::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (_reporter, health) = health_reporter();
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let server = Server::builder().add_service(health);
/// let server = tokio::spawn(server.serve_on(listener, async {
///     let _ = stopped.await;
/// }));
///
/// let mut client = HealthClient::new(Channel::connect(format!("http://{address}")).await?);
/// client.check(HealthCheckRequest::default()).await?;
///
/// stop.send(()).unwrap();
/// server.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// A server of no services yet.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            h2: server::Builder::new(),
            router: Router::new(),
            drain_timeout: Duration::from_secs(30),
            max_connections: 16 * 1024,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// What a server serves, and how; see [`Server`].
#[derive(Clone, Debug)]
#[must_use = "a server does nothing before it serves"]
pub struct ServerBuilder {
    h2: server::Builder,
    router: Router<RecvBody>,
    drain_timeout: Duration,
    max_connections: usize,
    #[cfg(feature = "tls")]
    tls: Option<tower_h2::tls::Acceptor>,
}

/// How long to wait after `accept` has failed for want of something: files, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl ServerBuilder {
    /// Adds a generated server.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: GrpcService<RecvBody> + Send + Sync + 'static,
    {
        self.router = self.router.add_service(service);
        self
    }

    /// Serves the services of a router, in the place of those added before.
    pub fn with_router(mut self, router: Router<RecvBody>) -> Self {
        self.router = router;
        self
    }

    /// Changes the settings of HTTP/2: windows, limits, keep-alive, the age of connections.
    pub fn with_http2(mut self, with: impl FnOnce(server::Builder) -> server::Builder) -> Self {
        self.h2 = with(self.h2);
        self
    }

    /// How long calls may take to end once the server is told to; 30 s by default.
    ///
    /// Then what is left is cut off.
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How many connections there may be; 16 384 by default. More wait to be accepted.
    pub fn with_max_connections(mut self, max: usize) -> Self {
        self.max_connections = max.max(1);
        self
    }

    /// Speaks TLS.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, acceptor: tower_h2::tls::Acceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }

    /// Serves on an address until the future is dropped.
    ///
    /// # Errors
    ///
    /// [`io::Error`], where it can't listen.
    pub async fn serve(self, address: impl ToSocketAddrs) -> io::Result<()> {
        self.serve_with_shutdown(address, pending()).await
    }

    /// Serves on an address until `shutdown` is done, and then until the calls that are under way are, too.
    ///
    /// From then on no connection is accepted, and clients are told to begin no more calls. After
    /// [`with_drain_timeout`](Self::with_drain_timeout) what is left is cut off.
    ///
    /// # Errors
    ///
    /// [`io::Error`], where it can't listen.
    pub async fn serve_with_shutdown(
        self,
        address: impl ToSocketAddrs,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        self.serve_on(listener, shutdown).await
    }

    /// As [`serve_with_shutdown`](Self::serve_with_shutdown), on a socket that listens already.
    ///
    /// # Errors
    ///
    /// None as it stands: `accept` is tried again whatever it says.
    pub async fn serve_on(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let router = self.router.clone();
        self.serve_service(listener, router, shutdown).await
    }

    /// As [`serve_on`](Self::serve_on), with a service in the place of those added: a router in layers, for one.
    ///
    /// Each connection has a clone.
    ///
    /// # Errors
    ///
    /// As [`serve_on`](Self::serve_on).
    pub async fn serve_service<S, ResBody>(
        self,
        listener: TcpListener,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        // The service.
        S: Service<http::Request<RecvBody>, Response = http::Response<ResBody>>,
        S: Clone + Send + 'static,
        S::Error: Into<crate::BoxError>,
        S::Future: Send + 'static,
        // Its responses.
        ResBody: http_body::Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<crate::BoxError>,
    {
        let (stop, stopping) = watch::channel(false);
        // Dropping the set ends the connections.
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let has_room = connections.len() < self.max_connections;
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        let connection = self.connection(stream, service.clone(), stopping.clone());
                        connections.spawn(connection);
                    }
                    Err(error) if is_of_one(&error) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        stop.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.drain_timeout, drained).await.is_err() {
            tracing::debug!(left = connections.len(), "connections are cut off");
        }
        Ok(())
    }

    /// Serves one connection to its end.
    fn connection<S, ResBody>(
        &self,
        stream: TcpStream,
        service: S,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        // The service.
        S: Service<http::Request<RecvBody>, Response = http::Response<ResBody>> + Send + 'static,
        S::Error: Into<crate::BoxError>,
        S::Future: Send + 'static,
        // Its responses.
        ResBody: http_body::Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<crate::BoxError>,
    {
        // Small writes aren't held back. Where that can't be, they are slower.
        let _ = stream.set_nodelay(true);
        let h2 = self.h2.clone();
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        async move {
            #[cfg(feature = "tls")]
            if let Some(tls) = tls {
                match tls.accept(stream).await {
                    Ok(stream) => run(h2, stream, service, stopping).await,
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no TLS");
                    }
                }
                return;
            }
            run(h2, stream, service, stopping).await;
        }
    }
}

async fn run<IO, S, ResBody>(
    h2: server::Builder,
    io: IO,
    service: S,
    mut stopping: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin,
    // The service.
    S: Service<http::Request<RecvBody>, Response = http::Response<ResBody>>,
    S::Error: Into<crate::BoxError>,
    S::Future: Send + 'static,
    // Its responses.
    ResBody: http_body::Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<crate::BoxError>,
{
    let mut connection = pin!(h2.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "connection failed"
        );
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Whether `accept` failed for one client, and may be tried for the next at once.
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
