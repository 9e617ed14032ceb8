//! The application behind a socket.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use tokio::net::ToSocketAddrs;
use tower_hyper::{Accept, ConnectInfo, Server, Tcp, Workers};

use crate::app::App;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead, Requirements};
use crate::problem::Problem;

impl App {
    /// Serves the application at a TCP address, until the process is told to end (`SIGTERM` or Ctrl-C).
    ///
    /// Then it accepts no more, tells the handlers ([`Shutdown`](crate::Shutdown)), lets requests finish for up to 30 seconds, and runs
    /// the [hooks](App::on_shutdown). [`serve_on`](Self::serve_on) takes a server that is set up otherwise.
    ///
    /// # Errors
    ///
    /// Fails where the application can't be [built](App::build), the address can't be had, or a hook fails.
    pub async fn serve(self, address: impl ToSocketAddrs) -> crate::Result {
        let service = self.build()?;
        let server = Server::bind(address).await?;
        #[cfg(feature = "websocket")]
        let server = server.with_settings(websockets_over_http2());
        if let Ok(address) = server.local_addr() {
            tracing::info!(%address, "listening");
        }
        serve(service, server, told_to_end()).await
    }

    /// Serves the application on a [`Server`], until the process is told to end (`SIGTERM` or Ctrl-C).
    ///
    /// WebSockets over HTTP/2 need a server whose HTTP/2 has
    /// [extended CONNECT](tower_h2::server::Builder::with_extended_connect).
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve) does.
    pub async fn serve_on<L: Accept>(self, server: Server<L>) -> crate::Result {
        serve(self.build()?, server, told_to_end()).await
    }

    /// Serves the application on a [`Server`], until `signal` is ready.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve) does.
    pub async fn serve_until<L, F>(self, server: Server<L>, signal: F) -> crate::Result
    where
        L: Accept,
        F: Future<Output = ()>,
    {
        serve(self.build()?, server, signal).await
    }
}

impl App {
    /// Serves the application on threads of their own, each with a single-threaded runtime and its own way of accepting
    /// connections, until the process is told to end. See [`Workers`] for when that is the faster.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve) does.
    pub async fn serve_on_workers(self, server: Server<Tcp>, workers: Workers) -> crate::Result {
        let service = self.build()?;
        service.start().await?;
        let signal = told(service.clone(), told_to_end());
        let served = server.serve_on(workers, service.clone(), signal).await;
        end(service, served).await
    }
}

/// RFC 8441: browsers open a WebSocket on the connection that they have.
#[cfg(feature = "websocket")]
fn websockets_over_http2() -> tower_hyper::Settings {
    let http2 = tower_h2::server::Builder::new().with_extended_connect();
    tower_hyper::Settings::new().with_http2(http2)
}

/// How long tasks that know of the shutdown may take to end, after the last connection has.
const FAREWELL: Duration = Duration::from_secs(10);

async fn serve<L, F>(service: crate::AppService, server: Server<L>, signal: F) -> crate::Result
where
    L: Accept,
    F: Future<Output = ()>,
{
    service.start().await?;
    let signal = told(service.clone(), signal);
    let served = server.serve_with_shutdown(service.clone(), signal).await;
    end(service, served).await
}

/// Waits for the signal, and passes it on to the handlers.
async fn told(service: crate::AppService, signal: impl Future<Output = ()>) {
    signal.await;
    service.begin_shutdown();
}

async fn end(service: crate::AppService, served: Result<(), tower_hyper::Error>) -> crate::Result {
    // However it has ended, what the application holds is to be given back.
    service.begin_shutdown();
    // Connections that have left HTTP behind, as WebSockets, aren't the server's any more.
    if tokio::time::timeout(FAREWELL, service.released())
        .await
        .is_err()
    {
        tracing::warn!("a task that was told of the shutdown hasn't ended");
    }
    let stopped = service.stop().await;
    served?;
    stopped
}

/// Waits until the process is told to end.
async fn told_to_end() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
    tracing::info!("told to end");
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM can't be waited for");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending::<()>().await;
}

/// Runs a future on a multi-threaded runtime: what `#[tower_web::main]` makes of `main`.
///
/// # Panics
///
/// Panics where the operating system gives no threads to the runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives no threads")
        .block_on(future)
}

impl Extract for ConnectInfo {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(head: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        match head.extensions.get::<Self>() {
            Some(info) => Ok(info.clone()),
            None => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .with_source("the request came by no connection: take `Option<ConnectInfo>`")),
        }
    }

    fn require(requirements: &mut Requirements) {
        requirements.connect_info();
    }
}

/// `None` for a request that came by no connection, as in a test.
impl OptionalExtract for ConnectInfo {
    async fn extract_optional(head: &mut RequestHead, _: ()) -> Result<Option<Self>, Problem> {
        Ok(head.extensions.get::<Self>().cloned())
    }
}
