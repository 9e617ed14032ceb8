//! A ready-made policy of classifier, budget, backoff and a number of tries.

use std::fmt;
use std::sync::Arc;

use crate::Policy;
use crate::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};
use crate::budget::{Budget, TpsBudget};

/// What a result means for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request succeeded. It earns a part of a retry.
    Success,
    /// The request failed, and another try may succeed: a connection was refused, a server overloaded.
    Retry,
    /// The request failed, and another try would fail, too, or do harm. It earns nothing and isn't retried.
    Fail,
}

/// Judges results. Closures from `(&Req, &Result<Res, E>)` to a [`Verdict`] do.
pub trait Classify<Req, Res, E> {
    /// Says what `result` means.
    fn classify(&self, req: &Req, result: &Result<Res, E>) -> Verdict;
}

impl<F, Req, Res, E> Classify<Req, Res, E> for F
where
    F: Fn(&Req, &Result<Res, E>) -> Verdict,
{
    fn classify(&self, req: &Req, result: &Result<Res, E>) -> Verdict {
        self(req, result)
    }
}

/// Retries every error.
///
/// For requests that do no harm if they are done twice, to a service whose errors are those of the
/// transport.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryError;

impl<Req, Res, E> Classify<Req, Res, E> for EveryError {
    fn classify(&self, _: &Req, result: &Result<Res, E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(_) => Verdict::Retry,
        }
    }
}

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
/// a few times.
///
/// A request is tried again if all of these hold, asked in this order: it could be copied, the classifier
/// says [`Verdict::Retry`], it was tried fewer times than the maximum, the budget grants a retry. Then it waits
/// for the backoff. A [`Verdict::Success`] is deposited in the budget; a request that can't be copied is
/// never judged, and earns nothing.
///
/// By default a request is tried three times, the budget is [`TpsBudget::default`] (a fifth of the successes,
/// and ten retries a second in reserve), the backoff doubles from 50 ms with 99 % of jitter, and
/// requests are cloned. All clones of a policy share its budget, and each draws its own jitter. One clone
/// serves one request; it costs a reference count.
///
/// Where the backoff can't be made (the default one, outside a tokio runtime) nothing is retried.
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
/// use tower_retry::standard::{StandardPolicy, Verdict};
/// use tower_rng::HasherRng;
/// use tower_service::Service;
/// use tower_test::mock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// // Server errors are worth another try, if the method allows for it; what the client did wrong isn't.
/// let classify = |request: &&str, status: &Result<u16, _>| match status {
///     Ok(500..) | Err(_) if request.starts_with("GET") => Verdict::Retry,
///     Ok(400..) | Err(_) => Verdict::Fail,
///     Ok(_) => Verdict::Success,
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
    classify: C,
    budget: B,
    backoff: M,
    copy: K,
}

impl<C> StandardPolicy<C> {
    /// Makes a policy that retries what `classify` says, with the defaults for the rest.
    pub fn new(classify: C) -> Self {
        Self::from_settings(Settings {
            max_tries: 3,
            classify,
            budget: Arc::default(),
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

    /// Draws on `budget`: an `Arc` of one, to share it.
    #[must_use]
    pub fn with_budget<B2>(self, budget: B2) -> StandardPolicy<C, B2, M, K>
    where
        B2: Budget,
    {
        let Settings {
            max_tries,
            classify,
            backoff,
            copy,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
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
            classify,
            budget,
            copy,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
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
            classify,
            budget,
            backoff,
            ..
        } = self.into_settings();
        StandardPolicy::from_settings(Settings {
            max_tries,
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
    type Future = <M::Backoff as Backoff>::Future;

    fn retry(&mut self, req: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        let settings = &*self.settings;
        match settings.classify.classify(req, result) {
            Verdict::Success => {
                settings.budget.deposit();
                return None;
            }
            Verdict::Fail => return None,
            Verdict::Retry => {}
        }
        self.tries_left = self.tries_left.checked_sub(1)?;
        if !settings.budget.withdraw() {
            return None;
        }
        self.session
            .get_or_insert_with(|| settings.backoff.clone().make_backoff())
            .try_next_backoff()
    }

    fn clone_request(&mut self, req: &Req) -> Option<Req> {
        self.settings.copy.copy_request(req)
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
