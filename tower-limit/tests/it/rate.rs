use std::future::poll_fn;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_layer::Layer;
use tower_limit::rate::{GlobalRateLimitLayer, Rate, RateLimit, RateLimitLayer, Window};
use tower_service::Service;
use tower_test::mock::{self, Spawn};

use crate::{Handle, Mock};

const MS: Duration = Duration::from_millis(1);

fn spawn(num: u64, per: Duration) -> (Spawn<RateLimit<Mock>>, Handle) {
    mock::spawn_layer(RateLimitLayer::new(num, per))
}

/// Makes all the calls that it can, and says how many they were.
fn call_all(service: &mut Spawn<RateLimit<Mock>>) -> usize {
    std::iter::from_fn(|| {
        service
            .poll_ready()
            .is_ready()
            .then(|| drop(service.call("request")))
    })
    .count()
}

#[tokio::test(start_paused = true)]
async fn it_waits_when_the_window_is_used_up() {
    let (mut service, _handle) = spawn(2, 100 * MS);
    assert_eq!(call_all(&mut service), 2);
    advance(99 * MS).await;
    assert!(!service.is_woken());
    assert_pending!(service.poll_ready());
    advance(MS).await;
    assert!(service.is_woken());
    assert_eq!(call_all(&mut service), 2);
}

#[tokio::test(start_paused = true)]
async fn a_window_begins_with_its_first_request() {
    let (mut service, _handle) = spawn(2, 100 * MS);
    sleep(70 * MS).await;
    assert_ready_ok!(service.poll_ready());
    sleep(70 * MS).await;
    drop(service.call("first"));
    sleep(99 * MS).await;
    assert_eq!(call_all(&mut service), 1);
    sleep(MS).await;
    assert_eq!(call_all(&mut service), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_waited_for_before_the_inner_service() {
    let (mut service, mut handle) = spawn(1, 100 * MS);
    assert_eq!(call_all(&mut service), 1);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert!(!service.is_woken(), "the inner service wasn't polled yet");
    advance(100 * MS).await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_limit() {
    let (mut service, _handle) = spawn(3, 100 * MS);
    assert_ready_ok!(service.poll_ready());
    drop(service.call("before the clone"));
    let mut clone = service.clone();
    assert_ready_ok!(clone.poll_ready());
    drop(clone.call("by the clone"));
    let mut clone_of_clone = clone.clone();
    assert_eq!(call_all(&mut clone_of_clone), 1);
    assert_pending!(service.poll_ready());
    assert_pending!(clone.poll_ready());
    advance(100 * MS).await;
    let total = call_all(&mut service) + call_all(&mut clone) + call_all(&mut clone_of_clone);
    assert_eq!(total, 3);
}

#[tokio::test(start_paused = true)]
async fn two_clones_cannot_both_be_ready_for_the_last_start() {
    let (mut service, _handle) = spawn(1, 100 * MS);
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    assert_pending!(clone.poll_ready());
    // Nor in a later window, as long as the start is reserved.
    advance(500 * MS).await;
    assert_pending!(clone.poll_ready());

    // When it is used, there is a time to wait for …
    drop(service.call("late"));
    assert!(clone.is_woken());
    assert_pending!(clone.poll_ready());
    advance(100 * MS).await;
    assert!(clone.is_woken());
    assert_ready_ok!(clone.poll_ready());

    // … and when it is given back, nothing is.
    assert_pending!(service.poll_ready());
    drop(clone);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_leaves_no_waker_behind() {
    let (mut service, _handle) = spawn(1, 100 * MS);
    assert_ready_ok!(service.poll_ready());
    let mut waiter = service.clone().into_inner();
    let mut task = task::spawn(());
    task.enter(|cx, _| assert_pending!(waiter.poll_ready(cx)));
    assert_eq!(task.waker_ref_count(), 2);
    drop(waiter);
    assert_eq!(task.waker_ref_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_under_many_clones() {
    let rate = Rate::new(10, 100 * MS);
    let (mock, mut handle) = mock::pair::<&str, &str>();
    let service = RateLimit::new(mock, rate).with_window(Window::Sliding);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move {
                let mut starts = Vec::new();
                for _ in 0..10 {
                    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                    starts.push(Instant::now());
                    drop(service.call("request"));
                    tokio::task::yield_now().await;
                }
                starts
            })
        })
        .collect();
    drop(service);
    let begin = Instant::now();
    let mut starts = Vec::new();
    for task in tasks {
        starts.extend(task.await.unwrap());
    }
    starts.sort();
    assert_eq!(starts.len(), 200);
    for (first, last) in starts.iter().zip(&starts[10..]) {
        assert!(*last - *first >= 100 * MS);
    }
    // 20 windows of 10, and nobody idled: each wait ends at most a tick late.
    assert!(begin.elapsed() <= 19 * 101 * MS, "{:?}", begin.elapsed());
    let mut served = 0;
    while handle.next_request().await.is_some() {
        served += 1;
    }
    assert_eq!(served, 200);
}

#[tokio::test(start_paused = true)]
async fn a_layer_makes_a_limit_for_each_service_and_a_global_layer_one_for_all() {
    let layer = RateLimitLayer::new(1, 100 * MS);
    let (mut first, _handle) = mock::spawn_layer::<(), (), _>(&layer);
    let (mut second, _handle) = mock::spawn_layer::<(), (), _>(&layer);
    assert_ready_ok!(first.poll_ready());
    assert_ready_ok!(second.poll_ready());

    let layer = GlobalRateLimitLayer::new(1, 100 * MS);
    let (mut first, _handle) = mock::spawn_layer::<(), (), _>(&layer);
    let (mut second, _handle) = mock::spawn_layer::<(), (), _>(layer.clone());
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());
    drop(first.call(()));
    assert_pending!(second.poll_ready());
    advance(100 * MS).await;
    assert_ready_ok!(second.poll_ready());
}

/// Tries to start a request every millisecond, and gives the most that start within one second.
async fn most_within_a_second(mut service: Spawn<RateLimit<Mock>>) -> usize {
    // A single request opens the first window long before the burst at its end.
    drop((service.poll_ready(), service.call("first")));
    sleep(990 * MS).await;
    let mut starts = Vec::new();
    for _ in 0..2_000 {
        for _ in 0..call_all(&mut service) {
            starts.push(Instant::now());
        }
        sleep(MS).await;
    }
    let within = |from: Instant| {
        let after = starts.iter().filter(|&&start| start >= from);
        after.filter(|&&start| start - from < 1000 * MS).count()
    };
    starts.iter().map(|&start| within(start)).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_sliding_window_has_no_edge_at_which_the_limit_is_exceeded() {
    let layer = RateLimitLayer::new(100, 1000 * MS);
    let (fixed, _handle) = mock::spawn_layer(&layer);
    let (sliding, _handle2) = mock::spawn_layer(layer.with_window(Window::Sliding));
    assert_eq!(most_within_a_second(sliding).await, 100);
    // The default, as documented.
    assert_eq!(most_within_a_second(fixed).await, 199);
}

/// Is always ready, and counts.
#[derive(Clone, Debug, Default)]
struct Count(u64);

impl Service<()> for Count {
    type Response = ();
    type Error = ();
    type Future = std::future::Ready<Result<(), ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> std::task::Poll<Result<(), ()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0 += 1;
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn calls_without_readiness_are_forwarded_and_repaid() {
    for window in [Window::Fixed, Window::Sliding] {
        let rate = Rate::new(2, 100 * MS);
        let mut service = RateLimit::new(Count::default(), rate).with_window(window);
        for _ in 0..5 {
            service.call(()).await.unwrap();
        }
        assert_eq!(service.get_ref().0, 5);
        let mut service = Spawn::new(service);
        let started = Instant::now();
        poll_fn(|cx| service.get_mut().poll_ready(cx))
            .await
            .unwrap();
        // Two at once, and for the other three there are two windows to wait.
        let waited = match window {
            Window::Fixed => 200 * MS,
            // All five started at once, and so none counts any more once the period is over.
            _ => 100 * MS,
        };
        assert_eq!(started.elapsed(), waited);
    }
}

#[test]
fn outside_of_a_runtime_it_asks_to_be_polled_again() {
    let rate = Rate::new(1, 5 * MS);
    let mut service = Spawn::new(RateLimit::new(Count::default(), rate));
    assert_ready_ok!(service.poll_ready());
    drop(service.call(()));
    let mut polls = 0_u64;
    while service.poll_ready().is_pending() {
        assert!(service.is_woken());
        polls += 1;
        assert!(polls < 1_000_000_000);
    }
}

#[test]
fn a_wait_outlives_its_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let mut cx = Context::from_waker(Waker::noop());
    let mut service = RateLimit::new(Count::default(), Rate::new(1, MS));
    runtime().block_on(async {
        assert_ready_ok!(service.poll_ready(&mut cx));
        service.call(()).await.unwrap();
        assert_pending!(service.poll_ready(&mut cx));
    });
    runtime().block_on(async { poll_fn(|cx| service.poll_ready(cx)).await.unwrap() });
}

#[tokio::test(start_paused = true)]
async fn a_period_beyond_the_clock_is_no_panic() {
    let (mut service, _handle) = spawn(1, Duration::MAX);
    assert_eq!(call_all(&mut service), 1);
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_clone_made_while_waiting_starts_none_of_its_own() {
    let (mut service, _handle) = spawn(1, 100 * MS);
    assert_eq!(call_all(&mut service), 1);
    let mut clone = service.clone();
    assert_pending!(clone.poll_ready());
    advance(100 * MS).await;
    assert!(service.is_woken() && clone.is_woken());
    assert_ready_ok!(service.poll_ready());
    assert_pending!(clone.poll_ready());
    drop(service);
    assert!(clone.is_woken());
    assert_ready_ok!(clone.poll_ready());
}

#[test]
#[should_panic(expected = "assertion failed: num > 0")]
fn a_rate_of_nothing_panics() {
    let _ = Rate::new(0, MS);
}

#[test]
#[should_panic(expected = "assertion failed: per")]
fn a_rate_without_a_period_panics() {
    let _ = Rate::new(1, Duration::ZERO);
}

#[test]
fn the_auto_traits_are_those_of_the_inner_service() {
    fn auto<T: Send + Sync + Unpin>(_: &T) {}
    const LAYER: RateLimitLayer = RateLimitLayer::new(1, MS);
    let mut service = LAYER.layer(1_u8);
    auto(&service);
    auto(&LAYER);
    auto(&GlobalRateLimitLayer::new(1, MS));
    *service.get_mut() += 1;
    assert_eq!((*service.get_ref(), service.clone().into_inner()), (2, 2));
    assert_eq!(
        format!("{service:?}"),
        "RateLimit { inner: 2, rate: Rate { num: 1, per: 1ms }, .. }"
    );
    let mut response = task::spawn(RateLimit::new(Count(0), Rate::new(1, MS)).call(()));
    assert_ready_ok!(response.poll());
}
