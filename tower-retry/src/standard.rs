//! A ready-made policy of classifier, budget, backoff and a number of tries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep};
use tower_classify::{Class, Classify};
use tower_deadline::Deadline;

use crate::Policy;
use crate::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};
use crate::budget::{Budget, TpsBudget};

/// Copies requests, ahead of each try, for another one. Closures from `&Req` to `Option<Req>` do.
pub trait CopyRequest<Req> {
    /// Copies `req`, or says that it can't be tried again.
    fn copy_request(&self, req: &Req) -> Option<Req>;
}

impl<F, Req> CopyRequest<Req> for F
where
    F: Fn(&Req) -> Option<Req>,
{
    fn copy_request(&self, req: &Req) -> Option<Req> {
        self(req)
    }
}

/// Copies every request by `Clone`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClone;

impl<Req> CopyRequest<Req> for ByClone
where
    Req: Clone,
{
    fn copy_request(&self, req: &Req) -> Option<Req> {
        Some(req.clone())
    }
}

/// The [`Policy`] that most clients want: retry what the classifier says, within a budget, after a backoff,
/// a few times, and not past the deadline.
///
/// A request is tried again if all of these hold, asked in this order: it could be copied, its
/// [`Class`] is [retryable](Class::is_retryable), it was tried fewer times than the maximum, the wait ends before
/// the [deadline](Deadline::current) of the task, the budget grants a retry. Then it waits for the backoff, and
/// at least for as long as the service [asked for](Class::retry_after). A [`Class::Success`] is deposited in the
/// budget; a request that can't be copied is never judged, and earns nothing.
///
/// A service may ask for more than a caller has patience for: what asks for more than
/// [`with_max_retry_after`](Self::with_max_retry_after) isn't tried again.
///
/// By default a request is tried three times, the budget is [`TpsBudget::default`] (a fifth of the successes,
/// and ten retries a second in reserve), the backoff doubles from 50 ms with 99 % of jitter, the longest
/// wait that a service may ask for is 30 seconds, and requests are cloned. All clones of a policy share its
/// budget, and each draws its own jitter. One clone serves one request; it costs a reference count.
///
/// Where the backoff can't be made (the default one, outside a tokio runtime) nothing is retried.
///
/// **Timeouts.** How long one try may take is the business of a timeout inside of the retries; how long they
/// may take together, of a [deadline](tower_deadline::DeadlineLayer) around them.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use tower_layer::Layer;
/// use tower_retry::RetryLayer;
/// use tower_retry::backoff::{ExponentialBackoffMaker, Jitter};
/// use tower_retry::budget::TpsBudget;
/// use tower_classify::Class;
/// use tower_retry::standard::StandardPolicy;
/// use tower_rng::HasherRng;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// // Server errors are worth another try, if the method allows for it; what the client did wrong isn't.
/// let classify = |request: &&str, status: &Result<u16, _>| match status {
///     Ok(500..) | Err(_) if request.starts_with("GET") => Class::Retryable { after: None },
///     Ok(500..) | Err(_) => Class::Failure,
///     Ok(400..) => Class::InvalidRequest,
///     Ok(_) => Class::Success,
/// };
///
/// let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
/// let backoff = ExponentialBackoffMaker::new(min, max, 0.0, HasherRng::new())?;
/// // An `Arc` lets other clients draw on the same budget.
/// let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 1, 0.1));
/// let policy = StandardPolicy::new(classify)
///     .with_max_tries(4)
///     .with_budget(budget.clone())
///     .with_backoff(backoff.with_jitter(Jitter::Full));
///
/// let (mock, mut handle) = mock::pair::<&str, u16>();
/// let mut service = RetryLayer::new(policy).layer(mock);
/// std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
/// let response = tokio::spawn(service.call("GET /"));
///
/// for status in [503, 503, 200] {
///     let (request, answer) = handle.next_request().await.unwrap();
///     assert_eq!(request, "GET /");
///     answer.send_response(status);
/// }
/// assert_eq!(response.await??, 200);
/// # Ok(())
/// # }
/// ```
pub struct StandardPolicy<C, B = Arc<TpsBudget>, M = ExponentialBackoffMaker, K = ByClone>
where
    M: MakeBackoff,
{
    settings: Arc<Settings<C, B, M, K>>,
    tries_left: u32,
    /// Begun with the first retry.
    session: Option<M::Backoff>,
}

/// What all clones share.
#[derive(Clone)]
struct Settings<C, B, M, K> {
    max_tries: u32,
    max_retry_after: Duration,
    classify: C,
    budget: B,
    backoff: M,
    copy: K,
}

pin_project! {
    /// The wait before another try: for the backoff, and for as long as the service asked for.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Delay<F> {
        #[pin]
        backoff: F,
        // What the service asked for. Few do, so that it is boxed.
        floor: Option<Pin<Box<Sleep>>>,
    }
}

impl<C> StandardPolicy<C> {
    /// Makes a policy that retries what `classify` says, with the defaults for the rest.
    pub fn new(classify: C) -> Self {
        Self::within(Arc::default(), classify)
    }
}

impl<C, B> StandardPolicy<C, B> {
    /// Makes a policy like [`new`](StandardPolicy::new), within another budget. The classifier needn't be cloned for
    /// that.
    pub fn within(budget: B, classify: C) -> Self {
        Self::from_settings(Settings {
            max_tries: 3,
            max_retry_after: Duration::from_secs(30),
            classify,
            budget,
            backoff: ExponentialBackoffMaker::default(),
            copy: ByClone,
        })
    }
}

impl<C, B, M, K> StandardPolicy<C, B, M, K>
where
    C: Clone,
    B: Clone,
    M: MakeBackoff + Clone,
    K: Clone,
{
    /// Tries each request at most `max_tries` times, the first included. Zero does what one does: no retry.
    #[must_use]
    pub fn with_max_tries(self, max_tries: u32) -> Self {
        let settings = self.into_settings();
        Self::from_settings(Settings {
            max_tries,
            ..settings
        })
    }

    /// Doesn't try again where a service asks to be left alone for longer than `max`.
    #[must_use]
    pub fn with_max_retry_after(self, max: Duration) -> Self {
        let settings = self.into_settings();
        Self::from_settings(Settings {
            max_retry_after: max,
            ..settings
        })
    }

    /// Draws on `budget`: an `Arc` of one, to share it.
    #[must_use]
    pub fn with_budget<B2>(self, budget: B2) -> StandardPolicy<C, B2, M, K>
    where
        B2: Budget,
    {
        let Settings {
            max_tries,
            max_retry_after,
            classify,
            backoff,
            copy,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
            max_retry_after,
            classify,
            budget,
            backoff,
            copy,
        })
    }

    /// Waits between the tries for what `backoff` makes.
    ///
    /// A clone of it makes each session, so its clones must not draw the same jitter.
    #[must_use]
    pub fn with_backoff<M2>(self, backoff: M2) -> StandardPolicy<C, B, M2, K>
    where
        M2: MakeBackoff + Clone,
    {
        let Settings {
            max_tries,
            max_retry_after,
            classify,
            budget,
            copy,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
            max_retry_after,
            classify,
            budget,
            backoff,
            copy,
        })
    }

    /// Copies requests by `copy`, for those that aren't `Clone` or shouldn't all be tried twice.
    #[must_use]
    pub fn with_copy<K2>(self, copy: K2) -> StandardPolicy<C, B, M, K2> {
        let Settings {
            max_tries,
            max_retry_after,
            classify,
            budget,
            backoff,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
            max_retry_after,
            classify,
            budget,
            backoff,
            copy,
        })
    }

    fn into_settings(self) -> Settings<C, B, M, K> {
        Arc::unwrap_or_clone(self.settings)
    }
}

impl<C, B, M, K> StandardPolicy<C, B, M, K>
where
    M: MakeBackoff,
{
    fn from_settings(settings: Settings<C, B, M, K>) -> Self {
        Self::from_shared(Arc::new(settings))
    }

    fn from_shared(settings: Arc<Settings<C, B, M, K>>) -> Self {
        Self {
            tries_left: settings.max_tries.saturating_sub(1),
            settings,
            session: None,
        }
    }
}

impl<C, B, M, K, Req, Res, E> Policy<Req, Res, E> for StandardPolicy<C, B, M, K>
where
    C: Classify<Req, Res, E>,
    B: Budget,
    M: MakeBackoff + Clone,
    K: CopyRequest<Req>,
{
    type Future = Delay<<M::Backoff as Backoff>::Future>;

    fn retry(&mut self, req: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        let settings = &*self.settings;
        let class = settings.classify.classify(req, result);
        if class == Class::Success {
            settings.budget.deposit();
            return None;
        }
        if !class.is_retryable() {
            return None;
        }
        let delay = self.delay(class.retry_after());
        #[cfg(feature = "metrics")]
        match &delay {
            Ok(_) => metrics::counter!("tower_retry_retries_total").increment(1),
            Err(reason) => {
                metrics::counter!("tower_retry_given_up_total", "reason" => *reason).increment(1);
            }
        }
        delay.ok()
    }

    fn clone_request(&mut self, req: &Req) -> Option<Req> {
        self.settings.copy.copy_request(req)
    }
}

impl<C, B, M, K> StandardPolicy<C, B, M, K>
where
    B: Budget,
    M: MakeBackoff + Clone,
{
    /// The wait before another try of what may be tried again, or why there is none.
    fn delay(
        &mut self,
        asked: Option<Duration>,
    ) -> Result<Delay<<M::Backoff as Backoff>::Future>, &'static str> {
        let settings = &*self.settings;
        self.tries_left = self.tries_left.checked_sub(1).ok_or("tries")?;
        let asked = asked.filter(|asked| !asked.is_zero());
        if asked.is_some_and(|asked| asked > settings.max_retry_after) {
            return Err("retry_after");
        }
        // A try that nobody waits for only adds to the load.
        let deadline = Deadline::current().map(Deadline::instant);
        let is_late = |by| {
            let earliest = Instant::now().checked_add(asked.unwrap_or_default());
            // What is past the end of time is past any deadline.
            earliest.is_none_or(|earliest| earliest >= by)
        };
        if deadline.is_some_and(is_late) {
            return Err("deadline");
        }
        let floor = match asked {
            None => None,
            // Without a runtime there is no timer.
            Some(asked) => match Handle::try_current() {
                Ok(_) => Some(Box::pin(sleep(asked))),
                Err(_) => return Err("no_runtime"),
            },
        };
        let session = self
            .session
            .get_or_insert_with(|| settings.backoff.clone().make_backoff());
        let backoff = match deadline {
            None => session.try_next_backoff().ok_or("no_runtime")?,
            Some(by) => session.try_next_backoff_before(by).ok_or("deadline")?,
        };
        // The budget comes last, as its answer is spent.
        match settings.budget.withdraw() {
            true => Ok(Delay { backoff, floor }),
            false => Err("budget"),
        }
    }
}

impl<F> Delay<F> {
    /// The backoff alone.
    pub fn into_backoff(self) -> F {
        self.backoff
    }
}

impl<F> Future for Delay<F>
where
    F: Future<Output = ()>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if let Some(floor) = this.floor {
            ready!(floor.as_mut().poll(cx));
            *this.floor = None;
        }
        this.backoff.poll(cx)
    }
}

impl<C, B, M, K> Clone for StandardPolicy<C, B, M, K>
where
    M: MakeBackoff,
{
    /// A clone is for another request: it has all its tries, and a session of its own.
    fn clone(&self) -> Self {
        Self::from_shared(Arc::clone(&self.settings))
    }
}

impl<C, B, M, K> fmt::Debug for StandardPolicy<C, B, M, K>
where
    B: fmt::Debug,
    M: MakeBackoff + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardPolicy")
            .field("max_tries", &self.settings.max_tries)
            .field("tries_left", &self.tries_left)
            .field("budget", &self.settings.budget)
            .field("backoff", &self.settings.backoff)
            .finish_non_exhaustive()
    }
}
