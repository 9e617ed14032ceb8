//! The application behind a socket.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use tokio::net::ToSocketAddrs;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tower_hyper::{Accept, ConnectInfo, Server, Tcp, Workers};

use crate::admin::Admin;
use crate::app::App;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead, Requirements};
use crate::handler::Chain;
use crate::problem::Problem;

impl App {
    /// Serves the application at a TCP address, until the process is told to end (`SIGTERM` or Ctrl-C).
    ///
    /// Then it accepts no more, tells the handlers ([`Shutdown`](crate::Shutdown)) and whoever asks `/readyz`, lets requests finish for up
    /// to 30 seconds, and runs the [hooks](App::on_shutdown).
    ///
    /// The environment may say otherwise than the code, about the address and about all [defaults](crate::defaults).
    /// [`serve_on`](Self::serve_on) takes a server that is set up by code alone.
    ///
    /// # Errors
    ///
    /// Fails where the application can't be [built](App::build), the environment has a variable that says nothing
    /// ([`EnvironmentError`](crate::defaults::EnvironmentError)), the address can't be had ([`ListenError`]), or a hook
    /// fails.
    pub async fn serve(mut self, address: impl ToSocketAddrs) -> crate::Result {
        let variables = crate::defaults::variables_of_process();
        let (defaults, orders) = self.current_defaults().clone().with_variables(variables)?;
        self = self.defaults(|_| defaults.clone());
        // Before anything is counted.
        #[cfg(feature = "prometheus")]
        let recorder = defaults
            .admin
            .is_some()
            .then(crate::admin::Recorder::install);
        let service = self.build()?;
        let admin = match &defaults.admin {
            Some(address) => Some(Admin {
                server: bind(address).await?,
                service: service.clone(),
                #[cfg(feature = "prometheus")]
                recorder: recorder.flatten(),
            }),
            None => None,
        };
        let server = match orders.listen {
            Some(listen) => bind(listen).await?,
            None => bind(address).await?,
        };
        let server = defaults.set_up(server);
        if let Ok(address) = server.local_addr() {
            tracing::info!(%address, "listening");
        }
        let serving = serve(service, server, told_to_end());
        match admin {
            None => serving.await,
            // Whoever asks there is answered to the end.
            Some(admin) => tokio::select! {
                biased;
                served = serving => served,
                failed = admin.serve() => failed,
            },
        }
    }

    /// Serves the application on a [`Server`], until the process is told to end (`SIGTERM` or Ctrl-C).
    ///
    /// What the [defaults](crate::defaults) say of connections is the server's own affair;
    /// [`Defaults::set_up`](crate::defaults::Defaults::set_up) tells it to a server.
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

    /// Serves the application on threads of their own, each with a single-threaded runtime and its own way of accepting
    /// connections, until the process is told to end. See [`Workers`] for when that is the faster.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve) does.
    pub async fn serve_on_workers(self, server: Server<Tcp>, workers: Workers) -> crate::Result {
        let service = self.build()?;
        service.start().await?;
        let ending = Ending::of(&service, &server);
        let (sender, receiver) = oneshot::channel();
        let serving = server.serve_on(workers, service.clone(), told(receiver));
        ending.run(told_to_end(), sender, serving).await
    }
}

/// An address can't be listened on. It says which, why, and what to do about it.
pub struct ListenError {
    /// None where they couldn't even be found out.
    addresses: Vec<SocketAddr>,
    source: io::Error,
}

impl ListenError {
    /// The addresses that were tried.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn advice(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there: end it, or listen elsewhere (TOWER_WEB_LISTEN)"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 take a privilege: use a higher one (TOWER_WEB_LISTEN)"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine doesn't have it: 0.0.0.0 stands for all that it has"
            }
            _ => "an address is written as 127.0.0.1:8080",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses.split_first() {
            Some((first, rest)) => {
                write!(f, "can't listen on {first}")?;
                rest.iter()
                    .try_for_each(|address| write!(f, " or {address}"))?;
            }
            None => f.write_str("can't find the address to listen on")?,
        }
        write!(f, " ({})", self.advice())
    }
}

/// In words, since this is what a `main` that returns it prints.
impl fmt::Debug for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}: {}", self.source)
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Makes a server that listens on a TCP address: [`Server::bind`], with an error that says what to do.
///
/// # Errors
///
/// Fails where the address is taken, isn't this machine's, or can't be resolved.
pub async fn bind(address: impl ToSocketAddrs) -> Result<Server<Tcp>, ListenError> {
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(address).await {
        Ok(addresses) => addresses.collect(),
        Err(source) => {
            return Err(ListenError {
                addresses: Vec::new(),
                source,
            });
        }
    };
    match Server::bind(&*addresses).await {
        Ok(server) => Ok(server),
        Err(source) => Err(ListenError { addresses, source }),
    }
}

/// How long after the deadline what was cut may take to notice.
const AFTERMATH: Duration = Duration::from_millis(250);

async fn serve<L, F>(service: crate::AppService, server: Server<L>, signal: F) -> crate::Result
where
    L: Accept,
    F: Future<Output = ()>,
{
    service.start().await?;
    let ending = Ending::of(&service, &server);
    let (sender, receiver) = oneshot::channel();
    let serving = server.serve_with_shutdown(service.clone(), told(receiver));
    ending.run(signal, sender, serving).await
}

/// Waits to be told.
async fn told(receiver: oneshot::Receiver<()>) {
    if receiver.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How an application ends, and its server with it.
struct Ending {
    service: crate::AppService,
    handle: tower_hyper::Handle,
    drain_timeout: Duration,
}

impl Ending {
    fn of<L>(service: &crate::AppService, server: &Server<L>) -> Self {
        Self {
            service: service.clone(),
            handle: server.handle(),
            drain_timeout: server.drain_timeout(),
        }
    }

    /// Serves until it is time to end, tells everybody who has to know, and cleans up: one deadline for all of it.
    async fn run<F, S>(
        self,
        signal: F,
        tell_server: oneshot::Sender<()>,
        serving: S,
    ) -> crate::Result
    where
        F: Future<Output = ()>,
        S: Future<Output = Result<(), tower_hyper::Error>>,
    {
        let watching = async {
            tokio::select! {
                () = signal => {
                    self.service.drain();
                    let delay = self.service.drain_delay();
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                }
                // Whoever has a handle of the server tells it only.
                () = self.handle.stopping() => {}
            }
            self.begin();
            // It may know already.
            let _ = tell_server.send(());
            std::future::pending().await
        };
        let served = tokio::select! {
            biased;
            never = watching => never,
            served = serving => served,
        };
        // However it has ended, what the application holds is to be given back.
        self.begin();
        self.wait_for_tasks().await;
        let stopped = self.service.stop().await;
        served?;
        stopped
    }

    fn begin(&self) {
        self.service
            .begin_shutdown_by(Instant::now() + self.drain_timeout);
    }

    /// Connections that have left HTTP behind, as WebSockets, aren't the server's any more.
    async fn wait_for_tasks(&self) {
        let Some(deadline) = self.service.shutdown_deadline() else {
            return;
        };
        let released = self.service.released();
        if timeout_at(deadline + AFTERMATH, released).await.is_err() {
            tracing::warn!("a task that was told of the shutdown hasn't ended");
        }
    }
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

/// How long what blocks a thread may go on when all else has ended: reading from a terminal, say, which can't be
/// interrupted.
const BLOCKED: Duration = Duration::from_secs(1);

/// Runs a future on a multi-threaded runtime: what `#[tower_web::main]` makes of `main`.
///
/// # Panics
///
/// Panics where the operating system gives no threads to the runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives no threads");
    let output = runtime.block_on(future);
    runtime.shutdown_timeout(BLOCKED);
    output
}

/// What the `main` of a program may return, under `#[tower_web::main]`: nothing, an [`ExitCode`], or a `Result` of them with any error.
#[diagnostic::on_unimplemented(
    message = "`main` can't return `{Self}`",
    label = "not an outcome of a program",
    note = "return `tower_web::Result`, or nothing"
)]
pub trait Outcome {
    /// What the process ends with, and what it says before, if anything.
    fn outcome(self) -> Result<ExitCode, crate::BoxError>;
}

impl Outcome for () {
    fn outcome(self) -> Result<ExitCode, crate::BoxError> {
        Ok(ExitCode::SUCCESS)
    }
}

impl Outcome for ExitCode {
    fn outcome(self) -> Result<ExitCode, crate::BoxError> {
        Ok(self)
    }
}

impl<T: Outcome, E: Into<crate::BoxError>> Outcome for Result<T, E> {
    fn outcome(self) -> Result<ExitCode, crate::BoxError> {
        self.map_err(Into::into)?.outcome()
    }
}

/// Ends a program's `main`: an error is told in words, with its causes.
pub fn exit(outcome: impl Outcome) -> ExitCode {
    match outcome.outcome() {
        Ok(code) => code,
        Err(error) => {
            let error: &(dyn Error + 'static) = &*error;
            // Where nobody can be told, nothing can be done about it.
            let _ = writeln!(io::stderr(), "error: {}", Chain(error));
            ExitCode::FAILURE
        }
    }
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
