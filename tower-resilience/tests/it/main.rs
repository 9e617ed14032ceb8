//! What the preset promises, seen from outside.

#[cfg(feature = "metrics")]
mod numbers;

use std::future::{Ready, poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, advance};
use tower_breaker::{BreakerLayer, Settings};
use tower_classify::{EveryErrorFails, EveryErrorIsRetryable};
use tower_deadline::{Deadline, DeadlineLayer, Expired};
use tower_layer::{Identity, Layer};
use tower_limit::bulkhead::{AtCapacity, BulkheadLayer};
use tower_resilience::{KnownErrors, resilient};
use tower_retry::RetryLayer;
use tower_retry::backoff::ExponentialBackoffMaker;
use tower_retry::budget::TpsBudget;
use tower_retry::standard::StandardPolicy;
use tower_rng::SplitMix64;
use tower_service::Service;
use tower_test::contract::{self, Checker};
use tower_test::mock;
use tower_timeout::{Elapsed, TimeoutLayer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn call<S>(service: &mut S) -> Result<S::Response, S::Error>
where
    S: Service<u32>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(1).await
}

fn policy<C>(classify: C) -> StandardPolicy<C, Arc<TpsBudget>, ExponentialBackoffMaker<SplitMix64>>
where
    C: Clone,
{
    let backoff = ExponentialBackoffMaker::new(100 * MS, SECOND, 0.0, SplitMix64::new(1));
    StandardPolicy::new(classify).with_backoff(backoff.unwrap())
}

#[test]
fn keeps_the_contract() {
    contract::check(|inner| resilient(EveryErrorFails).layer(inner)).assert();
    Checker::new()
        .masks_errors()
        .check(|inner| resilient(EveryErrorIsRetryable).layer(inner))
        .assert();
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_leaves_time_for_others_and_all_together_end_at_the_deadline() {
    let (mock, mut server) = mock::pair::<u32, u32>();
    let mut service = resilient(EveryErrorIsRetryable)
        .with_retry(RetryLayer::new(
            policy(KnownErrors(EveryErrorIsRetryable)).with_max_tries(100),
        ))
        .layer(mock);
    let start = Instant::now();
    let response = tokio::spawn(async move { call(&mut service).await });
    let (mut stuck, mut at) = (Vec::new(), Vec::new());
    while let Some((_, answer)) = server.next_request().await {
        stuck.push(answer);
        at.push(start.elapsed().as_millis());
    }
    assert_eq!(at, [0, 2_100, 4_300, 6_700, 9_500]);
    let error = response.await.unwrap().unwrap_err();
    assert!(error.is::<Expired>());
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_caller_s_deadline_counts_if_it_is_sooner() {
    let (mock, _server) = mock::pair::<u32, u32>();
    let mut service = resilient(EveryErrorIsRetryable).layer(mock);
    let start = Instant::now();
    let error = Deadline::after(500 * MS).scope(call(&mut service)).await;
    assert!(error.unwrap_err().is::<Expired>());
    assert_eq!(start.elapsed(), 500 * MS);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_is_refused_and_not_tried_again() {
    let (mock, _server) = mock::pair::<u32, u32>();
    let mut service = resilient(EveryErrorIsRetryable)
        .with_limit(BulkheadLayer::new(1))
        .layer(mock);
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let _first = service.call(1);
    let start = Instant::now();
    let error = call(&mut service).await.unwrap_err();
    assert!(error.is::<AtCapacity>());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_s_refusal_is_tried_again_when_it_says() {
    let (mock, mut server) = mock::pair::<u32, u32>();
    let settings = Settings::default()
        .with_faults_in_a_row(1)
        .with_backoff(SECOND, SECOND);
    let breaker = BreakerLayer::new(settings).layer(mock);
    let mut service = resilient(EveryErrorFails).layer(breaker);
    let start = Instant::now();
    let first = tokio::spawn({
        let mut service = service.clone();
        async move { call(&mut service).await }
    });
    server
        .next_request()
        .await
        .unwrap()
        .1
        .send_error("out of order");
    assert!(first.await.unwrap().is_err());

    let second = tokio::spawn(async move { call(&mut service).await });
    let (_, answer) = server.next_request().await.unwrap();
    assert!(
        (SECOND..=1_100 * MS).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    answer.send_response(2);
    assert_eq!(second.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_gets_a_fifth_of_the_last_second_s_successes_and_ten_retries() {
    let fails = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(AtomicUsize::new(0));
    let mut service = resilient(EveryErrorIsRetryable).layer(Counted {
        fails: Arc::clone(&fails),
        tries: Arc::clone(&tries),
    });
    // Successes that are long past, and 100 that count.
    for _ in 0..1000 {
        call(&mut service).await.unwrap();
    }
    advance(2 * SECOND).await;
    for _ in 0..100 {
        call(&mut service).await.unwrap();
    }
    fails.store(true, Relaxed);
    tries.store(0, Relaxed);
    let all = (0..100).map(|_| {
        let mut service = service.clone();
        tokio::spawn(async move { call(&mut service).await })
    });
    for response in all.collect::<Vec<_>>() {
        assert!(response.await.unwrap().is_err());
    }
    assert_eq!(tries.load(Relaxed), 100 + 20 + 10);
}

/// Counts its tries, and answers or fails at once.
#[derive(Clone)]
struct Counted {
    fails: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
}

impl Service<u32> for Counted {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        self.tries.fetch_add(1, Relaxed);
        ready(match self.fails.load(Relaxed) {
            true => Err("out of order".into()),
            false => Ok(request),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn every_part_can_be_left_out_or_replaced() {
    let (mock, _server) = mock::pair::<u32, u32>();
    let mut bare = resilient(EveryErrorFails)
        .with_deadline(Identity::new())
        .with_limit(Identity::new())
        .with_retry(Identity::new())
        .with_hedge(Identity::new())
        .with_try_timeout(TimeoutLayer::new(SECOND))
        .layer(mock);
    let start = Instant::now();
    let error = call(&mut bare).await.unwrap_err();
    assert!(error.is::<Elapsed>());
    assert_eq!(start.elapsed(), SECOND);

    let (mock, _server) = mock::pair::<u32, u32>();
    let mut short = resilient(EveryErrorFails)
        .with_deadline(DeadlineLayer::new().with_max(50 * MS))
        .layer(mock);
    let start = Instant::now();
    assert!(call(&mut short).await.unwrap_err().is::<Expired>());
    assert_eq!(start.elapsed(), 50 * MS);
}
