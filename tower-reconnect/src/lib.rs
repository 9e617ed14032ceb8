//! Makes a service anew when it fails.
//!
//! [`Reconnect`] is for clients: it holds a connection (any service), the service that makes connections, and
//! the target to give it. When the connection fails to become ready it is dropped and another is made.
//!
//! # When not to use it
//!
//! - Under a balancer that should know that an endpoint is down: this service hides it, and is merely not
//!   ready.
//! - To send failed requests again. The request that finds the connection lost fails; retries are another
//!   middleware's, outside of this one.
//!
//! # What it costs
//!
//! A flag and a match for each request, no allocation, lock or clock read. A [backoff](Reconnect::with_backoff)
//! allocates when it is set and when a connection can't be made.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_deadline::enter_unbounded;
use tower_retry::backoff::{Backoff, MakeBackoff};
use tower_service::Service;
use tracing::{debug, trace};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that is made anew when it fails.
///
/// Connections are made when they are needed: on the first poll of readiness, and on the next one after a
/// failure.
///
/// **Readiness.** Waits for a connection and then for its readiness. If the connection fails to become
/// ready, the next one is made at once. If the connection *can't be made* this says ready, and the next
/// request gets the error; the poll after that starts to connect again, with a
/// [backoff](Self::with_backoff) when it is time.
///
/// **Deadlines.** A connection is made for all requests to come, and so doesn't know of the
/// [deadline](tower_deadline::Deadline) of the one that waits for it: that one gives up, the attempt goes on.
///
/// **Cancellation.** Dropping it drops the connection, or the attempt to make one. Response futures are the
/// connection's own.
///
/// **Errors.** Those of the connection; those of making one, for the first request that comes; those of the
/// maker's readiness, from `poll_ready`; and [`NotReady`] for a `call` without readiness, for which the
/// connection isn't used.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use std::future::{Ready, poll_fn, ready};
/// use std::task::{Context, Poll};
///
/// use tower_reconnect::Reconnect;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # type Connection = mock::Mock<&'static str, String>;
/// /// Takes connections out of a list.
/// struct Connect(Vec<Connection>);
///
/// impl Service<&'static str> for Connect {
///     type Response = Connection;
///     type Error = std::io::Error;
///     type Future = Ready<Result<Connection, std::io::Error>>;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, _target: &'static str) -> Self::Future {
///         ready(self.0.pop().ok_or(std::io::ErrorKind::ConnectionRefused.into()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (second, mut second_server) = mock::pair();
/// let (first, first_server) = mock::pair();
/// let mut service = Reconnect::new(Connect(vec![second, first]), "db.example:5432");
///
/// poll_fn(|cx| service.poll_ready(cx)).await?;
/// drop(first_server); // which fails the first connection …
///
/// poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("hello"));
/// let (_, answer) = second_server.next_request().await.unwrap();
/// answer.send_response("from the second".to_owned());
/// assert_eq!(response.await??, "from the second");
///
/// drop(second_server); // … and the second. There is no third.
/// poll_fn(|cx| service.poll_ready(cx)).await?;
/// let error = service.call("hello").await.unwrap_err();
/// assert!(error.is::<std::io::Error>());
/// # Ok(())
/// # }
/// ```
pub struct Reconnect<M, Target>
where
    M: Service<Target>,
{
    make: M,
    target: Target,
    state: State<M::Future, M::Response, M::Error>,
    backoff: Option<Box<dyn Pause>>,
}

enum State<F, S, E> {
    /// There is no connection. With a backoff, the next may have to wait.
    Idle,
    /// One is being made.
    Connecting(F),
    /// It couldn't be made, which the next request is told.
    Failed(E),
    Connected {
        service: S,
        phase: Phase,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Was never ready.
    New,
    /// Was ready once.
    Proven,
    /// Is ready for the next call: the reservation.
    Ready,
}

impl<M, Target> Reconnect<M, Target>
where
    M: Service<Target>,
{
    /// Makes a service that connects to `target` by `make` when it is first polled.
    pub const fn new(make: M, target: Target) -> Self {
        Self::with_state(State::Idle, make, target)
    }

    /// Makes a service that has a connection already, and makes the next ones by `make`.
    pub const fn with_connection(connection: M::Response, make: M, target: Target) -> Self {
        let state = State::Connected {
            service: connection,
            phase: Phase::Proven,
        };
        Self::with_state(state, make, target)
    }

    const fn with_state(
        state: State<M::Future, M::Response, M::Error>,
        make: M,
        target: Target,
    ) -> Self {
        Self {
            make,
            target,
            state,
            backoff: None,
        }
    }

    /// Waits before it connects again, each time that this has failed.
    ///
    /// A session of `backoff` starts with the first failure and ends as soon as a connection is ready. A
    /// connection that fails before it was ever ready counts as one that couldn't be made. One that was ready
    /// and fails later is made anew at once.
    ///
    /// While it waits it isn't ready; the first request after a failure gets the error at once all the
    /// same. Where the backoff can't be made (the exponential one, outside a tokio runtime) it doesn't wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_reconnect::Reconnect;
    /// use tower_retry::backoff::{ExponentialBackoffMaker, Jitter};
    /// use tower_rng::HasherRng;
    ///
    /// # type Connection = tower_test::mock::Mock<u8, u8>;
    /// # type Connect = tower_test::mock::Mock<&'static str, Connection>;
    /// # fn f(connect: Connect) -> Result<Reconnect<Connect, &'static str>, tower_retry::backoff::InvalidBackoff> {
    /// let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
    /// let backoff = ExponentialBackoffMaker::new(min, max, 0.0, HasherRng::new())?;
    /// let service = Reconnect::new(connect, "db.example:5432")
    ///     .with_backoff(backoff.with_jitter(Jitter::Full));
    /// # Ok(service)
    /// # }
    /// ```
    #[must_use]
    pub fn with_backoff<B>(mut self, backoff: B) -> Self
    where
        B: MakeBackoff + Send + Sync + 'static,
        B::Backoff: Send + Sync,
        <B::Backoff as Backoff>::Future: Send + Sync,
    {
        self.backoff = Some(Box::new(Pausing {
            maker: backoff,
            session: None,
            pause: None,
        }));
        self
    }

    /// Notes that a connection couldn't be made or was never of use.
    fn failed(&mut self) {
        if let Some(backoff) = &mut self.backoff {
            backoff.failed();
        }
    }

    fn poll_backoff(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.backoff {
            Some(backoff) => backoff.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<M, Target, S, Request> Service<Request> for Reconnect<M, Target>
where
    M: Service<Target, Response = S>,
    S: Service<Request>,
    M::Future: Unpin,
    BoxError: From<M::Error> + From<S::Error>,
    Target: Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, M::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut made = false;
        loop {
            match &mut self.state {
                // To `Connecting`.
                State::Idle => {
                    ready!(self.poll_backoff(cx));
                    let make = &mut self.make;
                    ready!(enter_unbounded(|| make.poll_ready(cx)))?;
                    trace!("connecting");
                    let target = self.target.clone();
                    self.state = State::Connecting(enter_unbounded(|| make.call(target)));
                }
                // To `Connected` or `Failed`.
                State::Connecting(future) => match ready!(connecting(future, cx)) {
                    Ok(service) => {
                        debug!("connected");
                        made = true;
                        self.state = State::Connected {
                            service,
                            phase: Phase::New,
                        };
                    }
                    Err(error) => {
                        debug!("failed to connect");
                        self.failed();
                        self.state = State::Failed(error);
                    }
                },
                // The next call takes the error.
                State::Failed(_) => return Poll::Ready(Ok(())),
                // Stays, or to `Idle` if the connection is lost.
                State::Connected { service, phase } => match ready!(service.poll_ready(cx)) {
                    Ok(()) => {
                        *phase = Phase::Ready;
                        if let Some(backoff) = &mut self.backoff {
                            backoff.reset();
                        }
                        return Poll::Ready(Ok(()));
                    }
                    Err(_) => {
                        debug!("lost the connection");
                        if *phase == Phase::New {
                            self.failed();
                        }
                        self.state = State::Idle;
                        if made {
                            // One made in no time that fails in no time would be made anew for ever, and the
                            // task never yield.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                },
            }
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = match &mut self.state {
            State::Connected { service, phase } if *phase == Phase::Ready => {
                *phase = Phase::Proven;
                let future = service.call(request);
                Inner::Response { future }
            }
            State::Failed(_) => match mem::replace(&mut self.state, State::Idle) {
                State::Failed(error) => Inner::Failed { error: Some(error) },
                _ => Inner::NotReady,
            },
            _ => Inner::NotReady,
        };
        ResponseFuture { inner }
    }
}

/// Polls a future that makes a connection. It outlives the request that happens to wait for it, and so knows
/// nothing of that one's deadline.
fn connecting<F>(future: &mut F, cx: &mut Context<'_>) -> Poll<F::Output>
where
    F: Future + Unpin,
{
    enter_unbounded(|| Pin::new(future).poll(cx))
}

impl<M, Target> fmt::Debug for Reconnect<M, Target>
where
    M: Service<Target> + fmt::Debug,
    M::Future: fmt::Debug,
    M::Response: fmt::Debug,
    Target: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("make", &self.make)
            .field("target", &self.target)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<F: fmt::Debug, S: fmt::Debug, E> fmt::Debug for State<F, S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Connecting(future) => f.debug_tuple("Connecting").field(future).finish(),
            // Errors need not be `Debug`.
            Self::Failed(_) => f.write_str("Failed"),
            Self::Connected { service, .. } => f.debug_tuple("Connected").field(service).finish(),
        }
    }
}

pin_project! {
    /// The response of a [`Reconnect`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<F, E> {
        #[pin]
        inner: Inner<F, E>,
    }
}

pin_project! {
    #[project = InnerProj]
    #[derive(Debug)]
    enum Inner<F, E> {
        Response { #[pin] future: F },
        // There was no connection to be made.
        Failed { error: Option<E> },
        NotReady,
    }
}

impl<F, T, E, ME> Future for ResponseFuture<F, ME>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    ME: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().inner.project() {
            InnerProj::Response { future } => future.poll(cx).map_err(Into::into),
            InnerProj::Failed { error } => {
                let error = error.take().expect("polled after completion");
                Poll::Ready(Err(error.into()))
            }
            InnerProj::NotReady => Poll::Ready(Err(NotReady(()).into())),
        }
    }
}

/// A [`Reconnect`] was called that hadn't been polled to readiness.
#[derive(Debug)]
pub struct NotReady(());

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service not ready; poll_ready must be called first")
    }
}

impl std::error::Error for NotReady {}

/// A backoff of whatever type. It keeps `Reconnect` to two type parameters.
trait Pause: Send + Sync {
    /// Starts the next wait.
    fn failed(&mut self);

    /// Waits.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends the session.
    fn reset(&mut self);
}

struct Pausing<B>
where
    B: MakeBackoff,
{
    maker: B,
    session: Option<B::Backoff>,
    pause: Option<Pin<Box<<B::Backoff as Backoff>::Future>>>,
}

impl<B> Pause for Pausing<B>
where
    B: MakeBackoff + Send + Sync,
    B::Backoff: Send + Sync,
    <B::Backoff as Backoff>::Future: Send + Sync,
{
    fn failed(&mut self) {
        let session = self
            .session
            .get_or_insert_with(|| self.maker.make_backoff());
        self.pause = session.try_next_backoff().map(Box::pin);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    #[inline]
    fn reset(&mut self) {
        self.session = None;
    }
}
