// The cases, written once and included twice: once where `tower` is crates.io's, once where it is ours.
// Everything is made by default constructors.

use std::future::{Future, Ready, poll_fn, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream;
use tokio::sync::Semaphore;
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::{Change, ServiceList};
use tower::filter::Filter;
use tower::limit::rate::Rate;
use tower::limit::{ConcurrencyLimit, RateLimit};
use tower::load::{CompleteOnResponse, Constant, PeakEwma};
use tower::load_shed::LoadShed;
use tower::retry::{Policy, Retry};
use tower::timeout::Timeout;
use tower::util::{BoxCloneService, BoxService};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

/// The bare service: answers at once.
#[derive(Clone, Debug)]
struct Leaf;

impl Service<u64> for Leaf {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: u64) -> Self::Future {
        ready(Ok(black_box(req)))
    }
}

/// A service whose response is pending at the first poll and ready at the second, as one that another task
/// completes in between.
#[derive(Clone, Debug)]
struct Deferred;

#[derive(Debug)]
struct Second {
    polled: bool,
    value: u64,
}

impl Future for Second {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if black_box(self.polled) {
            Poll::Ready(Ok(self.value))
        } else {
            self.polled = true;
            Poll::Pending
        }
    }
}

impl Service<u64> for Deferred {
    type Response = u64;
    type Error = BoxError;
    type Future = Second;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, value: u64) -> Second {
        Second {
            polled: false,
            value,
        }
    }
}

#[derive(Clone, Debug)]
struct Never;

impl Policy<u64, u64, BoxError> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, BoxError>) -> Option<Ready<()>> {
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, req: &u64) -> Option<u64> {
        Some(*req)
    }
}

/// Makes `n` calls one after the other, and says how long they took.
async fn drive<S>(mut service: S, n: u64) -> Duration
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    // The cooperative budget would make every 128th poll of a tokio resource a fake `Pending`.
    tokio::task::unconstrained(async {
        // The first call sets things up.
        for i in 0..2 {
            poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
            service.call(i).await.unwrap();
        }
        let start = Instant::now();
        for i in 0..n {
            poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
            black_box(service.call(i).await.unwrap());
        }
        start.elapsed()
    })
    .await
}

/// Makes `n` calls whose response takes exactly two polls.
async fn drive_two_polls<S>(mut service: S, n: u64) -> Duration
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    tokio::task::unconstrained(async {
        let start = Instant::now();
        for i in 0..n {
            poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
            let mut response = pin!(service.call(i));
            let first = poll_fn(|cx| Poll::Ready(response.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            black_box(response.await.unwrap());
        }
        start.elapsed()
    })
    .await
}

fn constant_endpoints(n: u64) -> impl futures_util::Stream<Item = Result<Change<u64, Constant<Leaf, u64>>, BoxError>> + Unpin {
    stream::iter((0..n).map(|i| Ok(Change::Insert(i, Constant::new(Leaf, i % 7)))))
}

async fn many_callers(service: Buffer<u64, Ready<Result<u64, BoxError>>>, n: u64) -> Duration {
    const TASKS: u64 = 256;
    let start = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move {
                for i in 0..n / TASKS {
                    let response = service.ready().await.unwrap().call(i);
                    black_box(response.await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    start.elapsed()
}

/// Runs `n` calls of the case and says how long they took; `None` where there is no such case.
pub async fn run(case: &str, n: u64) -> Option<Duration> {
    const HOUR: Duration = Duration::from_secs(3600);
    Some(match case {
        "bare" => drive(Leaf, n).await,
        "bare, two polls" => drive_two_polls(Deferred, n).await,
        "timeout, ready" => drive(Timeout::new(Leaf, HOUR), n).await,
        "timeout, two polls" => drive_two_polls(Timeout::new(Deferred, HOUR), n).await,
        "concurrency limit" => drive(ConcurrencyLimit::new(Leaf, 100), n).await,
        "concurrency limit, semaphore" => {
            let semaphore = Arc::new(Semaphore::new(100));
            drive(ConcurrencyLimit::with_semaphore(Leaf, semaphore), n).await
        }
        "rate limit" => {
            let rate = Rate::new(1_000_000_000, Duration::from_secs(1));
            drive(RateLimit::new(Leaf, rate), n).await
        }
        "load shed" => drive(LoadShed::new(Leaf), n).await,
        "filter" => drive(Filter::new(Leaf, Ok::<u64, BoxError>), n).await,
        "map_request" => drive(Leaf.map_request(|n: u64| n + 1), n).await,
        "map_response" => drive(Leaf.map_response(|n: u64| n + 1), n).await,
        "map_err" => drive(Leaf.map_err(|e: BoxError| e), n).await,
        "map_result" => drive(Leaf.map_result(|r: Result<u64, BoxError>| r), n).await,
        "retry" => drive(Retry::new(Never, Leaf), n).await,
        "boxed" => drive(BoxService::new(Leaf), n).await,
        "boxed clone" => drive(BoxCloneService::new(Leaf), n).await,
        "buffer, one caller" => drive(Buffer::new(Leaf, 100), n).await,
        "buffer, 256 tasks" => many_callers(Buffer::new(Leaf, 1024), n).await,
        "p2c, 10 endpoints" => drive(Balance::new(constant_endpoints(10)), n).await,
        "p2c, 10000 endpoints" => drive(Balance::new(constant_endpoints(10_000)), n).await,
        "p2c, peak ewma" => {
            let ms = Duration::from_millis(1);
            let endpoints =
                (0..10).map(|_| PeakEwma::new(Leaf, ms, 1e9, CompleteOnResponse::default()));
            drive(Balance::new(ServiceList::new::<u64>(endpoints)), n).await
        }
        "shed + limit + retry + timeout" => {
            let stack = ServiceBuilder::new()
                .load_shed()
                .concurrency_limit(100)
                .retry(Never)
                .timeout(HOUR)
                .service(Leaf);
            drive(stack, n).await
        }
        _ => return None,
    })
}
