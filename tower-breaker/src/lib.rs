//! Stops asking a service that fails, and tries it again with caution.
//!
//! A caller that goes on sending to a service that is down waits for errors, and keeps the service from
//! getting up. A [`Breaker`] counts what comes back. After too many faults it *shuts*: requests fail at once, with
//! [`Refused::Shut`]. After a wait it lets a trial request through, and opens if that succeeds.
//!
//! ```text
//!          too many faults                    the wait is over
//!  Open ────────────────────▶ Shut ───────────────────────────▶ Limited
//!   ▲                          ▲         a fault: twice the wait  │ │
//!   │                          └──────────────────────────────────┘ │
//!   └───────────────────────────────────────────────────────────────┘
//!                          trials succeed
//! ```
//!
//! The states are those of a gate: *open* lets requests through. (Electricians, and Michael Nygard in "Release
//! It!" (2007), who brought the pattern to software, say *closed* for our [`Open`](State::Open), *half-open*
//! for [`Limited`](State::Limited) and *open* for [`Shut`](State::Shut).) A gate can also be driven from outside,
//! by its [`Handle`]; with [`Settings::manual`] it is driven by nothing else.
//!
//! The rules and their defaults are Finagle's, from its failure accrual: shut after 5 faults in a row, or
//! with fewer than 80 % of the requests of the last 30 s successful (of at least 5), for 5 to 300 s.
//!
//! # Where to put it
//!
//! One around each endpoint, below the balancer. A timeout goes *inside*, since a request that is given up
//! says nothing about the service; a retry goes *outside*. What is a fault, a [`Classify`] says:
//! [`BreakerLayer::new`] takes every error for one.
//!
//! In `tower`'s `ServiceBuilder` it is `.breaker(Settings::default())`, by `tower::resilience::ServiceBuilderExt`.
//!
//! # When not to use it
//!
//! - Around a whole cluster: a few bad endpoints shut off all the good ones.
//! - Where all endpoints may be shut at once, and some answer would be better than none. Let a balancer ignore
//!   the breakers then (Envoy's panic threshold), or [hold](Handle::hold_open) them open.
//! - Against overload that comes and goes: a breaker is all or nothing. Limit concurrency.
//!
//! # What it costs
//!
//! While open and nothing fails: an atomic load to admit a request, and at its end one clock read and an atomic
//! addition; no clock where only faults in a row count. A fault takes a lock for some nanoseconds. No allocation.
//! Refusing allocates the error's box. A bound on waiting allocates a timer for each wait. The some hundred bytes
//! of a breaker's state are kept for the next breaker when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime;
use tokio::time::{Instant, Sleep, sleep};
use tower_classify::{Class, Classify, EveryErrorFails};
use tower_layer::Layer;
use tower_rng::Rng;
use tower_service::Service;

use crate::pass::{Pass, outcome};
use crate::turnstile::Turnstile;

mod circuit;
mod fallback;
mod handle;
mod lent;
mod pass;
mod refused;
mod settings;
mod turnstile;
mod valve;

pub use self::fallback::{Fallback, FallbackFuture, FallbackLayer};
pub use self::handle::{Handle, State};
pub use self::refused::Refused;
pub use self::settings::Settings;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Wraps services in [`Breaker`]s, each with a state of its own unless given a [`Handle`].
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = EveryErrorFails> {
    origin: Origin,
    classify: C,
    max_wait: Option<Duration>,
    waits: bool,
}

#[derive(Clone, Debug)]
enum Origin {
    Each(Settings),
    Shared(Handle),
}

/// Refuses requests while the inner service fails. Clones share its state.
///
/// **Readiness.** While shut it is ready, without asking the inner service, and the call fails: a balancer above
/// isn't held up by it, and a caller learns at once what is wrong. Otherwise it is ready when the inner
/// service is, or once that has kept it waiting for the [longest wait](Self::with_max_wait), and then for as long
/// as it isn't ready. Trials are admitted by `call`, so a handle that is ready and isn't called keeps nobody from
/// trying. What the inner service reserved is held until the call it admits, or until this is dropped.
///
/// **Cancellation.** A response that is dropped counts neither way. Was it a trial, another may start. A trial that
/// doesn't end within the shortest backoff no longer keeps another from starting.
///
/// **Errors.** [`Refused`], and the inner service's own. An error of its readiness counts as a fault.
///
/// **Deadlines.** It waits in `poll_ready` alone, before there is a request. A caller that is in a hurry drops its wait, as
/// `tower_deadline::Deadline::within` does, and leaves nothing behind.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use tower_breaker::{BreakerLayer, Refused, Settings, State};
/// use tower_layer::Layer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (mock, mut server) = mock::pair::<&str, &str>();
/// let mut service = BreakerLayer::new(Settings::default().with_faults_in_a_row(1)).layer(mock);
/// let handle = service.handle();
///
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let response = service.call("first");
/// server.next_request().await.unwrap().1.send_error("out of order");
/// response.await.unwrap_err();
/// assert_eq!(handle.state(), State::Shut);
///
/// // The second request doesn't reach the server.
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let error = service.call("second").await.unwrap_err();
/// assert!(error.downcast_ref::<Refused>().unwrap().retry_after().is_some());
///
/// // In ten seconds at the latest, one is let through, and closes the case.
/// tokio::time::sleep(Duration::from_secs(10)).await;
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
/// let response = service.call("third");
/// assert_eq!(handle.state(), State::Limited);
/// server.next_request().await.unwrap().1.send_response("done");
/// assert_eq!(response.await.unwrap(), "done");
/// assert_eq!(handle.state(), State::Open);
/// # }
/// ```
#[derive(Debug)]
pub struct Breaker<S, C = EveryErrorFails> {
    inner: S,
    handle: Handle,
    classify: C,
    max_wait: Option<Duration>,
    readiness: Readiness,
    /// Where requests wait rather than be refused.
    turnstile: Option<Box<Turnstile>>,
}

#[derive(Debug)]
enum Readiness {
    Unknown,
    /// The inner service has a place for the next call.
    Reserved,
    /// The inner service isn't ready; the timer bounds the wait.
    Waiting(Pin<Box<Sleep>>),
    /// The bound has passed, and the inner service hasn't been ready since.
    Overdue,
    /// The next call fails, with no regard to the inner service.
    Shut(Option<Duration>),
    NoRuntime,
}

pin_project! {
    /// The response of [`Breaker`]: the inner service's, or [`Refused`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture<F, C = EveryErrorFails> {
        #[pin]
        state: ResponseState<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum ResponseState<F, C> {
        Called { #[pin] future: F, pass: Pass, classify: C },
        Refused { error: Refused },
    }
}

impl BreakerLayer {
    /// Makes a layer whose breakers take every error for a fault, each with a state of its own.
    pub const fn new(settings: Settings) -> Self {
        Self {
            origin: Origin::Each(settings),
            classify: EveryErrorFails,
            max_wait: None,
            waits: false,
        }
    }

    /// Makes a layer whose breakers take every error for a fault, and share the state of `handle`.
    pub const fn with_handle(handle: Handle) -> Self {
        Self {
            origin: Origin::Shared(handle),
            classify: EveryErrorFails,
            max_wait: None,
            waits: false,
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Lets `classify` say what is a fault. It is cloned for each request.
    #[must_use]
    pub fn with_classify<C2>(self, classify: C2) -> BreakerLayer<C2> {
        BreakerLayer {
            origin: self.origin,
            classify,
            max_wait: self.max_wait,
            waits: self.waits,
        }
    }

    /// See [`Breaker::with_waiting`].
    #[must_use]
    pub fn with_waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// See [`Breaker::with_max_wait`].
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }
}

impl<S, C> Layer<S> for BreakerLayer<C>
where
    C: Clone,
{
    type Service = Breaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let handle = match &self.origin {
            Origin::Each(settings) => Handle::new(*settings),
            Origin::Shared(handle) => handle.clone(),
        };
        Breaker {
            max_wait: self.max_wait,
            turnstile: self.waits.then(Box::default),
            ..Breaker::new(inner, handle, self.classify.clone())
        }
    }
}

impl<S, C> Breaker<S, C> {
    /// Guards `inner` by the state of `handle`, which goes by what `classify` says.
    pub const fn new(inner: S, handle: Handle, classify: C) -> Self {
        Self {
            inner,
            handle,
            classify,
            max_wait: None,
            readiness: Readiness::Unknown,
            turnstile: None,
        }
    }

    /// Isn't ready while it is shut, instead of being ready and refusing.
    ///
    /// For what picks among several services by their readiness, and for callers that rather wait: for the end of
    /// the backoff, a trial's turn, or to be opened by its [`Handle`]. A request is admitted by `poll_ready` then,
    /// and a handle that is ready and isn't called holds its trial's place until the shortest backoff has passed. Outside
    /// of a tokio runtime, where nothing ends the wait for a backoff, it refuses.
    #[must_use]
    pub fn with_waiting(mut self) -> Self {
        self.turnstile = Some(Box::default());
        self
    }

    /// Fails requests with [`Refused::Overdue`] once the inner service has not been ready for `max_wait`, and until
    /// it is.
    ///
    /// Each handle counts from the first time it was told to wait. Without a tokio runtime it can't count, and
    /// requests fail at once with [`Refused::NoRuntime`]; in one whose timers are disabled, this panics.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }

    /// The state, to watch and to drive.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Admits a request, or says why not. The reservation is used up, or stays where it is.
    fn admit(&mut self) -> Result<Pass, Refused> {
        match self.admit_open() {
            Some(pass) => Ok(pass),
            None => self.admit_few(),
        }
    }

    /// Admits a request where nothing stands in its way. Apart, so that this is short.
    #[inline]
    fn admit_open(&mut self) -> Option<Pass> {
        let lent = self.handle.lent;
        if !matches!(self.readiness, Readiness::Reserved) {
            return None;
        }
        let epoch = lent.valve.open_epoch()?;
        self.readiness = Readiness::Unknown;
        Some(Pass {
            lent,
            epoch: Some(epoch),
        })
    }

    #[cold]
    #[inline(never)]
    fn call_few<Req>(&mut self, req: Req) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
        C: Clone,
    {
        let admitted = self.admit_few();
        self.send(admitted, req)
    }

    #[cold]
    fn admit_few(&mut self) -> Result<Pass, Refused> {
        let waited = self
            .turnstile
            .as_mut()
            .and_then(|turnstile| turnstile.take());
        let error = match self.readiness {
            Readiness::Reserved => match waited.map_or_else(|| self.handle.admit(), Ok) {
                Ok(pass) => {
                    self.readiness = Readiness::Unknown;
                    return Ok(pass);
                }
                // The reservation stays, for the next call that is polled ready.
                Err(retry_after) => Refused::Shut { retry_after },
            },
            Readiness::Shut(retry_after) => Refused::Shut { retry_after },
            Readiness::Overdue => Refused::Overdue,
            Readiness::NoRuntime => Refused::NoRuntime,
            Readiness::Unknown | Readiness::Waiting(_) => Refused::NotReady,
        };
        #[cfg(feature = "metrics")]
        metrics::counter!("tower_breaker_refused_total", "reason" => error.name()).increment(1);
        // The time it has been waiting goes on counting.
        if !matches!(self.readiness, Readiness::Waiting(_) | Readiness::Overdue) {
            self.readiness = Readiness::Unknown;
        }
        Err(error)
    }

    /// Whether the next call will fail, whatever the inner service's readiness.
    #[cold]
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(turnstile) = &mut self.turnstile {
            if ready!(turnstile.poll(&self.handle, cx)).is_ok() {
                return Poll::Ready(false);
            }
        }
        let refused = self.handle.lent.valve.refuses(Instant::now);
        if let Some(retry_after) = refused {
            self.readiness = Readiness::Shut(retry_after);
        }
        Poll::Ready(refused.is_some())
    }

    /// Whether a call may be refused that is made now.
    fn may_refuse(&self) -> bool {
        !matches!(self.readiness, Readiness::Reserved)
            || self.handle.lent.valve.open_epoch().is_none()
    }

    /// Sends what was admitted.
    #[inline]
    fn send<Req>(
        &mut self,
        admitted: Result<Pass, Refused>,
        req: Req,
    ) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
        C: Clone,
    {
        let state = match admitted {
            Ok(pass) => ResponseState::Called {
                future: self.inner.call(req),
                pass,
                classify: self.classify.clone(),
            },
            Err(error) => ResponseState::Refused { error },
        };
        ResponseFuture { state }
    }

    /// The inner service has failed without a request.
    #[cold]
    fn observe(&mut self, class: Class) {
        self.readiness = Readiness::Unknown;
        let (outcome, now) = (outcome(class), Instant::now());
        self.handle.change(|circuit, rng| {
            circuit.observe(outcome, now, || rng.next_f64());
        });
    }

    /// Waits on, or gives up.
    #[cold]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(max_wait) = self.max_wait else {
            self.readiness = Readiness::Unknown;
            return Poll::Pending;
        };
        match &self.readiness {
            Readiness::Waiting(_) | Readiness::Overdue => {}
            // Reserved | Unknown | Shut | NoRuntime → Waiting | NoRuntime
            _ => match runtime::Handle::try_current() {
                Ok(_) => self.readiness = Readiness::Waiting(Box::pin(sleep(max_wait))),
                Err(_) => self.readiness = Readiness::NoRuntime,
            },
        }
        // Waiting → Waiting | Overdue
        if let Readiness::Waiting(timer) = &mut self.readiness {
            ready!(timer.as_mut().poll(cx));
            self.readiness = Readiness::Overdue;
        }
        Poll::Ready(())
    }
}

impl<S, C, Req> Service<Req> for Breaker<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<(), S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.handle.lent.valve.open_epoch().is_none() && ready!(self.poll_refused(cx)) {
            return Poll::Ready(Ok(()));
        }
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.readiness = Readiness::Reserved;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                let result = Err(error);
                self.observe(self.classify.classify(&(), &result));
                Poll::Ready(result.map(|_| ()).map_err(Into::into))
            }
            Poll::Pending => self.poll_wait(cx).map(Ok),
        }
    }

    #[inline]
    fn call(&mut self, req: Req) -> Self::Future {
        match self.admit_open() {
            Some(pass) => ResponseFuture {
                state: ResponseState::Called {
                    future: self.inner.call(req),
                    pass,
                    classify: self.classify.clone(),
                },
            },
            None => self.call_few(req),
        }
    }
}

impl<S, C> Clone for Breaker<S, C>
where
    S: Clone,
    C: Clone,
{
    fn clone(&self) -> Self {
        Self {
            max_wait: self.max_wait,
            // Its turn is its own.
            turnstile: self.turnstile.as_ref().map(|_| Box::default()),
            ..Self::new(
                self.inner.clone(),
                self.handle.clone(),
                self.classify.clone(),
            )
        }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<(), Res, E>,
{
    type Output = Result<Res, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called {
                future,
                pass,
                classify,
            } => {
                let result = ready!(future.poll(cx));
                pass.report(outcome(classify.classify(&(), &result)));
                Poll::Ready(result.map_err(Into::into))
            }
            StateProj::Refused { error } => Poll::Ready(Err((*error).into())),
        }
    }
}
