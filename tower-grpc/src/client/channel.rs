//! A connection to one address that is made anew when it is lost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_h2::client::Connection;
use tower_h2::{RecvBody, client};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

use super::{ChannelBuilder, InvalidTarget};
use crate::{BoxError, GrpcBody, Status};

/// A connection to one address, which is made when it is needed and made anew when it is lost.
///
/// It is what generated clients usually call over. Clones share the connection, and all of them may call at the same
/// time.
///
/// **Readiness.** It waits for the connection, and for the server to allow one more stream. What listens and
/// doesn't speak HTTP/2 within 20 s (`with_hello_timeout` of `tower_h2`) is no connection. Where none can be
/// made it fails, and fails at once for a while: for about a second after the first try, and up to the time that
/// [`ChannelBuilder::with_max_backoff`] says after many. A handle from [`waiting`](Self::waiting) waits for
/// the next tries instead.
///
/// **Cancellation.** Dropping a response ends the call. When the last clone is dropped the connection ends after
/// the calls that are under way.
///
/// **Errors.** [`Status`]: `UNAVAILABLE` where there is no connection.
///
/// # Example
///
/// ```
/// use tower_grpc::client::Channel;
/// use tower_grpc::health::pb::HealthCheckRequest;
/// use tower_grpc::health::pb::client::HealthClient;
/// use tower_grpc::Code;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Nobody listens on this port, which shows when a call is made.
/// let channel = Channel::lazy("http://127.0.0.1:1")?;
/// let mut client = HealthClient::new(channel);
/// let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
/// assert_eq!(status.code(), Code::Unavailable);
///
/// // Here it shows at once.
/// assert!(Channel::connect("http://127.0.0.1:1").await.is_err());
/// # Ok(())
/// # }
/// ```
pub struct Channel {
    shared: Arc<Shared>,
    /// This handle's hold on the connection.
    state: Hold,
    /// It doesn't fail where the connection can't be made.
    waits: bool,
}

enum Hold {
    None,
    /// The connection is being made.
    Waiting(oneshot::Receiver<Result<Connection<GrpcBody>, Status>>),
    Connected(Connection<GrpcBody>),
    /// The last try has failed, and this handle waits for the time of the next.
    Pausing(Pin<Box<Sleep>>),
}

/// What the clones have in common.
struct Shared {
    dial: Dial,
    link: Mutex<Link>,
    max_backoff: Duration,
}

pub(super) type Dial = Box<dyn Fn() -> Dialing + Send + Sync>;
pub(super) type Dialing =
    Pin<Box<dyn Future<Output = Result<Connection<GrpcBody>, BoxError>> + Send>>;

struct Link {
    state: LinkState,
    /// How many tries have failed since the last that hadn't.
    failures: u32,
    rng: SplitMix64,
}

enum LinkState {
    Idle,
    Connecting {
        waiting: Vec<oneshot::Sender<Result<Connection<GrpcBody>, Status>>>,
        _task: AbortOnDrop,
    },
    Connected(Connection<GrpcBody>),
    /// The last try has failed, and the next isn't made before `until`.
    Failed {
        status: Status,
        until: Instant,
    },
}

/// Ends the task with the channel.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The longest pause after the first failed try; each that fails makes it 1.6 times as long. These, and the jitter
/// of a fifth, are the numbers of gRPC's "Connection Backoff Protocol".
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(120);

impl Channel {
    /// Connects to a server: `http://[::1]:50051`.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for what is no such address, and `UNAVAILABLE` where the connection can't be made.
    pub async fn connect(target: impl AsRef<str>) -> Result<Self, Status> {
        let builder = Self::builder(target)
            .map_err(|error| Status::invalid_argument(error.to_string()).with_source(error))?;
        builder.connect().await
    }

    /// A channel that connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`] for what is no address of a server.
    pub fn lazy(target: impl AsRef<str>) -> Result<Self, InvalidTarget> {
        Self::builder(target)?.lazy()
    }

    /// Says how to connect, where the defaults don't do.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`] for what is no address of a server.
    pub fn builder(target: impl AsRef<str>) -> Result<ChannelBuilder, InvalidTarget> {
        ChannelBuilder::new(target.as_ref())
    }

    /// A channel whose connections `dial` makes.
    pub(super) fn new(dial: Dial, max_backoff: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                dial,
                link: Mutex::new(Link {
                    state: LinkState::Idle,
                    failures: 0,
                    rng: SplitMix64::from_entropy(),
                }),
                max_backoff,
            }),
            state: Hold::None,
            waits: false,
        }
    }

    /// A handle of the same connection whose calls wait until it is made, however often that fails.
    ///
    /// It is gRPC's "wait for ready", for the calls of one client: others, over a clone that was made before, still
    /// fail at once. A call's deadline bounds the wait; without one it may last for ever.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_grpc::client::Channel;
    /// use tower_grpc::health::pb::HealthCheckRequest;
    /// use tower_grpc::health::pb::client::HealthClient;
    /// use tower_grpc::{Code, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = Channel::lazy("http://127.0.0.1:1")?;
    /// let mut client = HealthClient::new(channel.waiting());
    /// let request = Request::new(HealthCheckRequest::default()).with_timeout(Duration::from_secs(10));
    /// // Nobody listens, and somebody might have after all.
    /// let status = client.check(request).await.unwrap_err();
    /// assert_eq!(status.code(), Code::DeadlineExceeded);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn waiting(&self) -> Self {
        Self {
            waits: true,
            ..self.clone()
        }
    }

    /// Takes the connection that there is, or has one made.
    fn hold(shared: &Arc<Shared>, waits: bool) -> Result<Hold, Status> {
        let mut link = shared.lock();
        match &mut link.state {
            LinkState::Connected(connection) if !connection.is_closed() => {
                return Ok(Hold::Connected(connection.clone()));
            }
            LinkState::Connecting { waiting, .. } => {
                let (sender, receiver) = oneshot::channel();
                // Those who gave up don't stay.
                waiting.retain(|waiting| !waiting.is_closed());
                waiting.push(sender);
                return Ok(Hold::Waiting(receiver));
            }
            LinkState::Failed { status, until } if Instant::now() < *until => {
                return match waits && Handle::try_current().is_ok() {
                    true => Ok(Hold::Pausing(Box::pin(sleep_until(*until)))),
                    false => Err(status.clone()),
                };
            }
            LinkState::Idle | LinkState::Connected(_) | LinkState::Failed { .. } => {}
        }
        let runtime = Handle::try_current().map_err(|error| {
            Status::unavailable("a channel connects within a runtime of tokio").with_source(error)
        })?;
        let task = runtime.spawn(dial(Arc::downgrade(shared), (shared.dial)()));
        let (sender, receiver) = oneshot::channel();
        link.state = LinkState::Connecting {
            waiting: vec![sender],
            _task: AbortOnDrop(task.abort_handle()),
        };
        Ok(Hold::Waiting(receiver))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one connection, and tells all who wait for it.
async fn dial(shared: Weak<Shared>, dialing: Dialing) {
    let outcome = dialing.await;
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let mut link = shared.lock();
    let told = match outcome {
        Ok(connection) => {
            link.failures = 0;
            Ok(connection)
        }
        Err(error) => {
            let message = format!("can't connect: {error}");
            let status = Status::unavailable(message).with_source(error);
            Err((status, Instant::now() + link.backoff(shared.max_backoff)))
        }
    };
    let next = match &told {
        Ok(connection) => LinkState::Connected(connection.clone()),
        Err((status, until)) => LinkState::Failed {
            status: status.clone(),
            until: *until,
        },
    };
    let before = std::mem::replace(&mut link.state, next);
    drop(link);
    // Their wakers are called without the lock.
    if let LinkState::Connecting { waiting, .. } = before {
        for sender in waiting {
            let _ = sender.send(match &told {
                Ok(connection) => Ok(connection.clone()),
                Err((status, _)) => Err(status.clone()),
            });
        }
    }
}

impl Link {
    /// The pause after a try that has failed.
    fn backoff(&mut self, max: Duration) -> Duration {
        let factor = 1.6_f64.powi(i32::try_from(self.failures).unwrap_or(i32::MAX));
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_BACKOFF.as_secs_f64() * factor;
        // At most the fifth more or less.
        let jitter = 0.8 + 0.4 * self.rng.next_f64();
        Duration::from_secs_f64(pause.min(max.as_secs_f64()) * jitter)
    }
}

impl Clone for Channel {
    /// Another handle, without a reservation.
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            state: match &self.state {
                Hold::Connected(connection) => Hold::Connected(connection.clone()),
                Hold::None | Hold::Waiting(_) | Hold::Pausing(_) => Hold::None,
            },
            waits: self.waits,
        }
    }
}

impl Service<http::Request<GrpcBody>> for Channel {
    type Response = http::Response<RecvBody>;
    type Error = Status;
    type Future = ChannelFuture;

    // None -> Waiting, Pausing, Connected; Waiting -> None, Connected; Pausing -> None; Connected -> None.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            match &mut self.state {
                Hold::Connected(connection) => match ready!(connection.poll_ready(cx)) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    // It is lost, and another is made.
                    Err(_) => self.state = Hold::None,
                },
                Hold::None => self.state = Self::hold(&self.shared, self.waits)?,
                Hold::Waiting(receiver) => {
                    let told = ready!(Pin::new(receiver).poll(cx));
                    self.state = Hold::None;
                    match told {
                        Ok(Ok(connection)) => self.state = Hold::Connected(connection),
                        Ok(Err(status)) if !self.waits => return Poll::Ready(Err(status)),
                        Ok(Err(_)) | Err(_) => {}
                    }
                }
                Hold::Pausing(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = Hold::None;
                }
            }
        }
    }

    fn call(&mut self, request: http::Request<GrpcBody>) -> ChannelFuture {
        ChannelFuture {
            state: match &mut self.state {
                Hold::Connected(connection) => Calling::Sent {
                    response: connection.call(request),
                },
                Hold::None | Hold::Waiting(_) | Hold::Pausing(_) => Calling::NotReady,
            },
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            Hold::None => "idle",
            Hold::Waiting(_) => "connecting",
            Hold::Pausing(_) => "waiting for the next try",
            Hold::Connected(_) => "connected",
        };
        f.debug_struct("Channel")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of a [`Channel`].
    ///
    /// **Cancellation.** Dropping it ends the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ChannelFuture {
        #[pin]
        state: Calling,
    }
}

pin_project! {
    #[project = CallingProj]
    enum Calling {
        Sent { #[pin] response: client::ResponseFuture },
        NotReady,
    }
}

impl Future for ChannelFuture {
    type Output = Result<http::Response<RecvBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallingProj::Sent { response } => response.poll(cx).map_err(Status::from_error),
            CallingProj::NotReady => Poll::Ready(Err(Status::unavailable(
                "the channel was called before it was ready",
            ))),
        }
    }
}

impl fmt::Debug for ChannelFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelFuture").finish_non_exhaustive()
    }
}
