//! What an orchestrator asks: whether the process lives, and whether it wants requests.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::BoxError;
use crate::layered::BoxFuture;
use crate::problem::Problem;
use crate::respond::{IntoResponse, Response};
use crate::shutdown::ShutdownSource;

/// Whether the process lives: always, if it answers.
pub(crate) const LIVE: &str = "/livez";
/// Whether it wants requests.
pub(crate) const READY: &str = "/readyz";

/// How long a result is given again. Whoever asks more often asks nothing of what is checked.
const FRESH: Duration = Duration::from_secs(1);
/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question to something that the application needs.
pub(crate) type Check = Box<dyn Fn() -> BoxFuture<Result<(), BoxError>> + Send + Sync>;

pub(crate) struct Health {
    checks: Vec<(String, Check)>,
    /// When the checks were run, and which have failed. It is locked while they run, so that they run once for all who ask.
    last: Mutex<Option<(Instant, Vec<String>)>>,
    shutdown: ShutdownSource,
    has_live: bool,
    has_ready: bool,
}

impl Health {
    /// `is_taken` tells whether the application has a route of its own for a path.
    pub(crate) fn new(
        checks: Vec<(String, Check)>,
        shutdown: ShutdownSource,
        is_taken: impl Fn(&str) -> bool,
    ) -> Self {
        Self {
            checks,
            last: Mutex::new(None),
            shutdown,
            has_live: !is_taken(LIVE),
            has_ready: !is_taken(READY),
        }
    }

    /// Whether it answers this path.
    #[inline]
    pub(crate) fn answers(&self, path: &str) -> bool {
        // One comparison for nearly all requests.
        path.ends_with("yz") && self.is_ready_path(path)
            || path.ends_with("ez") && self.has_live && path == LIVE
    }

    fn is_ready_path(&self, path: &str) -> bool {
        self.has_ready && path == READY
    }

    /// Answers it.
    #[cold]
    pub(crate) fn answer(self: &Arc<Self>, method: &Method, path: &str) -> BoxFuture<Response> {
        if method != Method::GET && method != Method::HEAD {
            let refused = Problem::new(StatusCode::METHOD_NOT_ALLOWED)
                .with_header(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Box::pin(std::future::ready(refused.into_response()));
        }
        if path == LIVE {
            return Box::pin(std::future::ready(fine()));
        }
        let health = Arc::clone(self);
        Box::pin(async move { health.ready().await })
    }

    async fn ready(&self) -> Response {
        if self.shutdown.is_draining() {
            return not_ready("the application shuts down", &[]);
        }
        let mut last = self.last.lock().await;
        let failed = match &*last {
            Some((at, failed)) if at.elapsed() < FRESH => failed.clone(),
            _ => {
                let failed = self.check().await;
                *last = Some((Instant::now(), failed.clone()));
                failed
            }
        };
        match failed.is_empty() {
            true => fine(),
            false => not_ready("something that it needs isn't there", &failed),
        }
    }

    /// Runs all checks at once, and says which have failed.
    async fn check(&self) -> Vec<String> {
        let mut running: Vec<_> = self
            .checks
            .iter()
            .map(|(name, check)| (name, Box::pin(run(check)), None))
            .collect();
        std::future::poll_fn(|cx| {
            let mut are_done = true;
            for (_, check, result) in &mut running {
                if result.is_none() {
                    match check.as_mut().poll(cx) {
                        Poll::Ready(done) => *result = Some(done),
                        Poll::Pending => are_done = false,
                    }
                }
            }
            match are_done {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let failed = running.into_iter().filter_map(|(name, _, result)| {
            let error = result?.err()?;
            tracing::warn!(check = name.as_str(), %error, "not ready");
            Some(name.clone())
        });
        failed.collect()
    }
}

async fn run(check: &Check) -> Result<(), BoxError> {
    let mut checking: Pin<Box<dyn Future<Output = _> + Send>> =
        catch_unwind(AssertUnwindSafe(check)).map_err(|_| "the check panicked")?;
    let checking = std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| checking.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err("the check panicked".into())))
    });
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::time::timeout(PATIENCE, checking).await?,
        Err(_) => checking.await,
    }
}

fn fine() -> Response {
    ([(CACHE_CONTROL, NO_STORE)], "ok\n").into_response()
}

/// What is wrong in particular is in the log.
fn not_ready(detail: &'static str, failed: &[String]) -> Response {
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .with_title("not ready")
        .with_detail(detail)
        .with_header(CACHE_CONTROL, NO_STORE);
    if !failed.is_empty() {
        problem = problem.with("failed", failed);
    }
    problem.into_response()
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
