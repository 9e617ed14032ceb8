//! Sends a request a second time where the first try takes unusually long.
//!
//! [`Hedge`] is for clients of a service with several replicas whose slowest answers are much slower than the
//! usual ones: a try that has taken longer than, say, 99 % of the last ones is joined by a second, and the
//! first answer wins. Dean and Barroso, "The Tail at Scale" (CACM, 2013), report a 99.9th percentile of 74 ms
//! instead of 1,800 ms for 2 % of extra requests.
//!
//! It goes outside of what picks a replica, so that the second try may go to another one, and inside of
//! retries.
//!
//! # When not to use it
//!
//! - Where a request does harm if it is done twice. The [`Policy`] sees the request and can say so.
//! - Where all replicas are slow at once. More requests make it worse; a [budget](Hedge::with_budget)
//!   bounds the damage.
//! - Where requests are slow because they are large: the second try takes as long.
//!
//! # What it costs
//!
//! Two clock reads, two short locks and a reference count for each request; once there is a delay, also a
//! clone of the request, the policy and the inner service, and a timer if the answer isn't there at the
//! first poll. No allocation. 24 KB for each service, which its clones share.
//!
//! Extra load: a share of `1 − percentile` of the requests, in the long run. Tries that are cancelled because
//! the other won count as slower than they were let, so that the estimate doesn't sink.

use std::fmt;
use std::future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_retry::budget::Budget;
use tower_service::Service;

use self::latency::History;
use self::race::{Clocks, Race, Spare};

mod afforded;
mod latency;
mod race;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type SharedBudget = Arc<dyn Budget + Send + Sync>;

/// Says which requests may be sent twice.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a hedge `Policy` for `{Request}`",
    label = "not a policy for these requests",
    note = "a retry policy (`tower::retry::Policy`) is another trait"
)]
pub trait Policy<Request> {
    /// Copies a request for a second try, or says that there can't be one.
    ///
    /// Asked when the request arrives, provided that enough latencies are known.
    fn clone_request(&self, req: &Request) -> Option<Request>;

    /// Says whether to send the copy `req`, now that the first try has taken long.
    fn can_retry(&self, req: &Request) -> bool;
}

/// Wraps services in [`Hedge`].
///
/// Each service has latencies of its own. A [budget](Self::with_budget) is shared by all.
#[derive(Clone)]
pub struct HedgeLayer<P> {
    policy: P,
    min_data_points: u64,
    latency_percentile: f32,
    period: Duration,
    budget: Option<SharedBudget>,
}

impl<P> HedgeLayer<P> {
    /// Makes a layer; the arguments are those of [`Hedge::new`].
    pub fn new(policy: P, min_data_points: u64, latency_percentile: f32, period: Duration) -> Self {
        Self {
            policy,
            min_data_points,
            latency_percentile,
            period,
            budget: None,
        }
    }

    /// Bounds the second tries of all the layer's services together; see [`Hedge::with_budget`].
    #[must_use]
    pub fn with_budget<B>(mut self, budget: B) -> Self
    where
        B: Budget + Send + Sync + 'static,
    {
        self.budget = Some(Arc::new(budget));
        self
    }
}

impl<P, S> Layer<S> for HedgeLayer<P>
where
    P: Clone,
{
    type Service = Hedge<S, P>;

    fn layer(&self, service: S) -> Self::Service {
        let history = History::new(
            self.latency_percentile,
            self.min_data_points,
            self.period,
            Instant::now(),
        );
        let mut hedge = Hedge::with_history(service, self.policy.clone(), history);
        hedge.0.budget.clone_from(&self.budget);
        hedge
    }
}

impl<P: fmt::Debug> fmt::Debug for HedgeLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("policy", &self.policy)
            .field("min_data_points", &self.min_data_points)
            .field("latency_percentile", &self.latency_percentile)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

/// Sends a request again if it takes longer than a percentile of those before.
///
/// The delay is the percentile of the latencies that were seen in the last full period, if there were at least
/// `min_data_points`; otherwise nothing is hedged. Once the second try is sent the first *success* wins, and
/// the other try is dropped. A first try that fails before that fails the request at once.
///
/// Nothing is sent a second time past the [deadline](tower_deadline::Deadline::current) of the task.
///
/// **Readiness.** That of the inner service, for the first try. The second is made by a clone which, after
/// the delay, is polled to readiness and so reserves nothing until it is needed.
///
/// **Cancellation.** Dropping the response future drops both tries.
///
/// **Errors.** Those of the inner service, boxed. If both tries fail, the first try's.
///
/// Outside a tokio runtime there is no timer and nothing is hedged. A clone shares the latencies, and isn't
/// ready.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_hedge::{HedgeLayer, Policy};
/// use tower_layer::Layer;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// /// Reads may be sent twice.
/// #[derive(Clone)]
/// struct Reads;
///
/// impl Policy<&'static str> for Reads {
///     fn clone_request(&self, request: &&'static str) -> Option<&'static str> {
///         request.starts_with("GET").then_some(*request)
///     }
///
///     fn can_retry(&self, _: &&'static str) -> bool {
///         true
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (mock, mut handle) = mock::pair::<&str, &str>();
/// let mut service = HedgeLayer::new(Reads, 1, 0.9, Duration::from_secs(10)).layer(mock);
///
/// // The first period only watches.
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("GET /"));
/// let (_, answer) = handle.next_request().await.unwrap();
/// tokio::time::sleep(Duration::from_millis(20)).await;
/// answer.send_response("usual");
/// assert_eq!(response.await??, "usual");
///
/// // In the next one a request that takes longer is sent again.
/// tokio::time::sleep(Duration::from_secs(10)).await;
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("GET /"));
/// let (_, _stuck) = handle.next_request().await.unwrap();
/// let (request, answer) = handle.next_request().await.unwrap();
/// assert_eq!(request, "GET /");
/// answer.send_response("second");
/// assert_eq!(response.await??, "second");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Hedge<S, P>(Hedged<S, P>);

impl<S, P> Hedge<S, P> {
    /// Makes a service that sends requests to `service` a second time.
    ///
    /// - `policy` says which.
    /// - `min_data_points`: how many answers a period needs for its latencies to count.
    /// - `latency_percentile`: the share of the tries, between 0 and 1, that is quick enough not to be hedged.
    ///   0.99 hedges one request in a hundred.
    /// - `period`: how long latencies are gathered before they replace those of the period before.
    pub fn new<Request>(
        service: S,
        policy: P,
        min_data_points: u64,
        latency_percentile: f32,
        period: Duration,
    ) -> Self
    where
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
        P: Policy<Request> + Clone,
    {
        let now = Instant::now();
        let history = History::new(latency_percentile, min_data_points, period, now);
        Self::with_history(service, policy, history)
    }

    /// Like [`new`](Self::new), and as if the latencies given, in milliseconds, had been seen in a period before.
    pub fn new_with_mock_latencies<Request>(
        service: S,
        policy: P,
        min_data_points: u64,
        latency_percentile: f32,
        period: Duration,
        latencies_ms: &[u64],
    ) -> Self
    where
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
        P: Policy<Request> + Clone,
    {
        let now = Instant::now();
        let mut history = History::new(latency_percentile, min_data_points, period, now);
        history.assume(latencies_ms);
        Self::with_history(service, policy, history)
    }

    /// Bounds the second tries by `budget`: each request deposits, each second try withdraws.
    ///
    /// The percentile bounds them in the long run. The budget does also while the service has just become slow,
    /// when a period's worth of requests might be sent twice. Where it has denied some, the next period asks for no
    /// more than were granted of late, for the slowest of the requests: a percentile that is too low for its budget does
    /// as well as one that isn't. And a request that was denied asks again each time it has taken twice as long. With `tower_retry::budget::TpsBudget`,
    /// `TpsBudget::new(Duration::from_secs(10), 1, 0.05)` allows one for every twenty requests.
    #[must_use]
    pub fn with_budget<B>(mut self, budget: B) -> Self
    where
        B: Budget + Send + Sync + 'static,
    {
        self.0.budget = Some(Arc::new(budget));
        self
    }

    fn with_history(service: S, policy: P, history: History) -> Self {
        Self(Hedged {
            service,
            policy,
            history: Arc::new(Mutex::new(history)),
            budget: None,
        })
    }
}

impl<S, P, Request> Service<Request> for Hedge<S, P>
where
    S: Service<Request> + Clone,
    S::Error: Into<BoxError>,
    P: Policy<Request> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Future<Hedged<S, P>, Request>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        Future {
            inner: self.0.call(request),
        }
    }
}

pin_project! {
    /// The response of a [`Hedge`]: that of the first try to succeed.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Future<S, Request>
    where
        S: Service<Request>,
    {
        #[pin]
        inner: S::Future,
    }
}

impl<S, Request> future::Future for Future<S, Request>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(Into::into)
    }
}

/// What [`Hedge`] is made of. Public as its name is a part of the response future's.
#[doc(hidden)]
#[derive(Clone)]
pub struct Hedged<S, P> {
    service: S,
    policy: P,
    history: SharedHistory,
    budget: Option<SharedBudget>,
}

type SharedHistory = Arc<Mutex<History>>;

/// No code of others runs under the lock, and what a panic might leave behind are numbers.
fn lock(history: &SharedHistory) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S, P, Request> Service<Request> for Hedged<S, P>
where
    S: Service<Request> + Clone,
    S::Error: Into<BoxError>,
    P: Policy<Request> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Race<S, P, Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let now = Instant::now();
        let delay = lock(&self.history).delay(now);
        let due = delay.and_then(|delay| now.checked_add(delay));
        // A second try that nobody waits for is no more than load.
        let by = Deadline::current().map(|by| by.instant());
        let due = due.filter(|due| by.is_none_or(|by| *due < by));
        let spare = due.and_then(|due| self.spare(&request, by).map(|spare| (due, spare)));
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        let clocks = Clocks::new(Arc::clone(&self.history), now);
        Race::new(self.service.call(request), spare, clocks)
    }
}

impl<S, P> Hedged<S, P>
where
    S: Clone,
    P: Clone,
{
    fn spare<Request>(&self, request: &Request, by: Option<Instant>) -> Option<Spare<S, P, Request>>
    where
        P: Policy<Request>,
    {
        let request = self.policy.clone_request(request)?;
        Some(Spare {
            request,
            service: self.service.clone(),
            policy: self.policy.clone(),
            budget: self.budget.clone(),
            by,
        })
    }
}

impl<S: fmt::Debug, P: fmt::Debug> fmt::Debug for Hedged<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedged")
            .field("service", &self.service)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
