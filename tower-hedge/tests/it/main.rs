//! The public behaviour of hedges.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_deadline::Deadline;
use tower_hedge::{Hedge, HedgeLayer, Policy};
use tower_layer::Layer;
use tower_retry::budget::{Budget, TpsBudget};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;
use tower_test::{assert_request_eq, mock};

type Mock = mock::Mock<&'static str, &'static str>;
type Handle = mock::Handle<&'static str, &'static str>;

const MS: Duration = Duration::from_millis(1);

/// Sends everything twice but what says otherwise, and counts what it is asked.
#[derive(Clone, Debug, Default)]
struct Any {
    copies: Arc<AtomicU32>,
}

impl<R: Clone + PartialEq + From<&'static str>> Policy<R> for Any {
    fn clone_request(&self, req: &R) -> Option<R> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        (*req != R::from("uncopied")).then(|| req.clone())
    }

    fn can_retry(&self, req: &R) -> bool {
        *req != R::from("once")
    }
}

/// A hedge that is due after 10 ms.
fn hedge(service: Mock) -> Hedge<Mock, Any> {
    let seen = [1, 1, 1, 1, 1, 1, 1, 1, 10, 10];
    let period = Duration::from_secs(60);
    Hedge::new_with_mock_latencies(service, Any::default(), 10, 0.9, period, &seen)
}

fn spawn() -> (mock::Spawn<Hedge<Mock, Any>>, Handle) {
    mock::spawn_with(hedge)
}

mod race {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_try_is_sent_after_the_delay_and_not_before() {
        let (mut service, mut handle) = spawn();
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let _first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(9 * MS).await;
        assert_pending!(response.poll());
        assert_pending!(handle.poll_request());
        time::advance(MS).await;
        assert!(response.is_woken());
        assert_pending!(response.poll());
        assert_request_eq!(handle, "hello").send_response("second");
        assert_eq!(assert_ready_ok!(response.poll()), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_a_second_time_past_the_deadline() {
        // The last is polled late, by a busy thread.
        for (deadline, polled_at, tries) in [(9, 12, 1), (10, 12, 1), (13, 12, 2), (13, 50, 1)] {
            let (mut service, mut handle) = spawn();
            assert_ready_ok!(service.poll_ready());
            let call = Deadline::after(deadline * MS).enter(|| service.call("hello"));
            let mut response = task::spawn(call);
            let _first = assert_request_eq!(handle, "hello");
            assert_pending!(response.poll());
            time::advance(polled_at * MS).await;
            assert_pending!(response.poll());
            let second = handle.poll_request();
            assert_eq!(1 + i32::from(second.is_ready()), tries, "{deadline} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clone_that_becomes_ready_past_the_deadline_sends_nothing() {
        let (mut service, mut handle) = spawn();
        handle.allow(1);
        assert_ready_ok!(service.poll_ready());
        let call = Deadline::after(20 * MS).enter(|| service.call("hello"));
        let mut response = task::spawn(call);
        let _first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(12 * MS).await;
        assert_pending!(response.poll());
        time::advance(12 * MS).await;
        handle.allow(1);
        assert_pending!(response.poll());
        assert_pending!(handle.poll_request());
    }

    /// Denies what it is asked but for the last, and counts.
    struct Grants {
        nth: u32,
        asked: AtomicU32,
    }

    impl Budget for Grants {
        fn deposit(&self) {}

        fn withdraw(&self) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= self.nth
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_try_that_was_denied_is_asked_for_again_whenever_it_has_taken_twice_as_long() {
        // Denied after 10, 20 and 40 ms. What won't be sent before the deadline isn't asked for.
        for (deadline, sent) in [(1000, true), (80, false)] {
            let budget = Arc::new(Grants {
                nth: 4,
                asked: AtomicU32::new(0),
            });
            let (mut service, mut handle) =
                mock::spawn_with(|mock| hedge(mock).with_budget(Arc::clone(&budget)));
            assert_ready_ok!(service.poll_ready());
            let call = Deadline::after(deadline * MS).enter(|| service.call("hello"));
            let mut response = task::spawn(call);
            let _first = assert_request_eq!(handle, "hello");
            assert_pending!(response.poll());
            for (ms, asked) in [(9, 0), (1, 1), (9, 1), (1, 2), (19, 2), (1, 3), (39, 3)] {
                time::advance(ms * MS).await;
                assert_pending!(response.poll());
                assert_eq!(budget.asked.load(Ordering::Relaxed), asked);
            }
            assert_pending!(handle.poll_request());
            time::advance(MS).await;
            assert_pending!(response.poll());
            assert_eq!(handle.poll_request().is_ready(), sent);
            assert_eq!(budget.asked.load(Ordering::Relaxed), 3 + u32::from(sent));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_try_that_answers_in_time_is_alone() {
        let (mut service, mut handle) = spawn();
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(10 * MS).await;
        // The tie is the first's.
        first.send_response("first");
        assert_eq!(assert_ready_ok!(response.poll()), "first");
        assert_pending!(handle.poll_request());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_the_policy_excludes_are_sent_once() {
        for request in ["once", "uncopied"] {
            let (mut service, mut handle) = spawn();
            assert_ready_ok!(service.poll_ready());
            let mut response = task::spawn(service.call(request));
            let first = assert_request_eq!(handle, request);
            assert_pending!(response.poll());
            time::advance(20 * MS).await;
            assert_pending!(response.poll());
            assert_pending!(handle.poll_request());
            first.send_response("first");
            assert_eq!(assert_ready_ok!(response.poll()), "first");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_copied_before_enough_is_known() {
        let policy = Any::default();
        let (mut service, mut handle) = mock::spawn_with(|mock: Mock| {
            Hedge::new(mock, policy.clone(), 2, 0.9, Duration::from_secs(1))
        });
        for answered in 0..4 {
            assert_ready_ok!(service.poll_ready());
            let mut response = task::spawn(service.call("hello"));
            assert_request_eq!(handle, "hello").send_response("world");
            assert_ready_ok!(response.poll());
            assert_eq!(policy.copies.load(Ordering::Relaxed), 0, "{answered}");
        }
        time::advance(Duration::from_secs(1)).await;
        assert_ready_ok!(service.poll_ready());
        drop(service.call("hello"));
        assert_eq!(policy.copies.load(Ordering::Relaxed), 1);
    }

    /// Two tries under way, and how the request ends if they end so.
    async fn both() -> (
        task::Spawn<<Hedge<Mock, Any> as Service<&'static str>>::Future>,
        mock::SendResponse<&'static str>,
        mock::SendResponse<&'static str>,
    ) {
        let (mut service, mut handle) = spawn();
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(11 * MS).await;
        assert_pending!(response.poll());
        let second = assert_request_eq!(handle, "hello");
        // What was sent stays under way without the handle.
        (response, first, second)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_try_that_fails_leaves_the_first_alone() {
        let (mut response, first, second) = both().await;
        second.send_error("second failed");
        assert_pending!(response.poll());
        first.send_response("first");
        assert_eq!(assert_ready_ok!(response.poll()), "first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_try_that_fails_leaves_the_second_to_answer() {
        let (mut response, first, second) = both().await;
        first.send_error("first failed");
        assert_pending!(response.poll());
        second.send_response("second");
        assert_eq!(assert_ready_ok!(response.poll()), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_fails_when_both_have_failed_with_the_first_try_s_error() {
        let (mut response, first, second) = both().await;
        first.send_error("first failed");
        assert_pending!(response.poll());
        second.send_error("second failed");
        let error = assert_ready_err!(response.poll());
        assert_eq!(error.to_string(), "first failed");

        let (mut response, first, second) = both().await;
        second.send_error("second failed");
        assert_pending!(response.poll());
        first.send_error("first failed");
        let error = assert_ready_err!(response.poll());
        assert_eq!(error.to_string(), "first failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_try_that_fails_before_the_second_is_sent_fails_at_once() {
        let (mut service, mut handle) = spawn();
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(5 * MS).await;
        first.send_error("refused");
        assert_eq!(assert_ready_err!(response.poll()).to_string(), "refused");
        assert_pending!(handle.poll_request());
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_try_reserves_nothing_until_it_is_due_and_waits_for_its_readiness() {
        let (mut service, mut handle) = spawn();
        handle.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let _first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(11 * MS).await;
        assert_pending!(response.poll());
        assert_pending!(handle.poll_request());
        handle.allow(1);
        assert!(response.is_woken());
        assert_pending!(response.poll());
        assert_request_eq!(handle, "hello").send_response("second");
        assert_eq!(assert_ready_ok!(response.poll()), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clone_that_fails_to_become_ready_leaves_the_first_alone() {
        let (mut service, mut handle) = spawn();
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        let first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        handle.send_error("gone");
        time::advance(11 * MS).await;
        assert_pending!(response.poll());
        first.send_response("first");
        assert_eq!(assert_ready_ok!(response.poll()), "first");
    }

    #[tokio::test(start_paused = true)]
    async fn the_loser_is_dropped_when_the_race_is_over() {
        let inner = Held::default();
        let dropped = inner.dropped.clone();
        let period = Duration::from_secs(60);
        let mut service =
            Hedge::new_with_mock_latencies(inner, Any::default(), 1, 0.9, period, &[10]);
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let mut response = task::spawn(service.call("hello"));
        assert_pending!(response.poll());
        time::advance(11 * MS).await;
        assert_eq!(assert_ready_ok!(response.poll()), 2);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    /// Answers the second request only, and counts the futures dropped.
    #[derive(Clone, Default)]
    struct Held {
        calls: Arc<AtomicU32>,
        dropped: Arc<AtomicU32>,
    }

    struct Count(Arc<AtomicU32>);

    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Service<&'static str> for Held {
        type Response = u32;
        type Error = &'static str;
        type Future = Pin<Box<dyn Future<Output = Result<u32, &'static str>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: &'static str) -> Self::Future {
            let count = Count(self.dropped.clone());
            let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                let _count = count;
                if number == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(number)
            })
        }
    }

    #[test]
    fn outside_a_runtime_nothing_is_hedged() {
        let (mock, mut handle) = mock::pair();
        let mut service = hedge(mock);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut response = task::spawn(service.call("hello"));
        let Poll::Ready(Some((_, first))) = handle.poll_request() else {
            panic!("no request");
        };
        assert_pending!(response.poll());
        first.send_response("first");
        assert_eq!(assert_ready_ok!(response.poll()), "first");
    }

    #[test]
    fn its_future_can_be_spawned() {
        fn is<T: Send + Sync>(_: T) {}
        let (mock, _handle) = mock::pair();
        let mut service = hedge(mock);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        is(service.call("hello"));
        is(service);
    }
}

/// Services whose latencies are drawn at random.
mod load {
    use super::*;

    type Draw = fn(&mut SplitMix64) -> f64;

    /// Answers after as many milliseconds as `draw` says.
    #[derive(Clone)]
    struct Random {
        draw: Draw,
        rng: Arc<Mutex<SplitMix64>>,
        calls: Arc<AtomicU32>,
    }

    impl Service<&'static str> for Random {
        type Response = ();
        type Error = &'static str;
        type Future = Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: &'static str) -> Self::Future {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let millis = (self.draw)(&mut self.rng.lock().unwrap());
            Box::pin(async move {
                time::sleep(Duration::from_secs_f64(millis / 1000.0)).await;
                Ok(())
            })
        }
    }

    fn exponential(rng: &mut SplitMix64) -> f64 {
        -100.0 * (1.0 - rng.next_f64()).ln()
    }

    fn bimodal(rng: &mut SplitMix64) -> f64 {
        let slow = rng.next_f64() < 0.05;
        let (low, width) = if slow { (500.0, 1000.0) } else { (10.0, 90.0) };
        low + width * rng.next_f64()
    }

    fn constant(_: &mut SplitMix64) -> f64 {
        25.0
    }

    const PERIODS: u32 = 20;

    /// The share of extra requests in each period but the first, and what all of them make.
    async fn extra(
        draw: Draw,
        layer: impl Fn(Random) -> Hedge<Random, Any>,
        n: u32,
    ) -> (f64, Vec<f64>) {
        let inner = Random {
            draw,
            rng: Arc::new(Mutex::new(SplitMix64::new(42))),
            calls: Arc::default(),
        };
        let calls = inner.calls.clone();
        let mut service = layer(inner);
        let mut before = 0;
        let mut shares = Vec::new();
        let gap = Duration::from_secs(100) / n;
        for period in 0..PERIODS {
            for _ in 0..n {
                poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                tokio::spawn(service.call("hello"));
                time::sleep(gap).await;
            }
            let now = calls.load(Ordering::Relaxed);
            if period > 0 {
                shares.push(f64::from(now - before) / f64::from(n) - 1.0);
            }
            before = now;
        }
        (shares.iter().sum::<f64>() / shares.len() as f64, shares)
    }

    fn layer(percentile: f32) -> impl Fn(Random) -> Hedge<Random, Any> {
        let layer = HedgeLayer::new(Any::default(), 10, percentile, Duration::from_secs(100));
        move |inner| layer.layer(inner)
    }

    #[tokio::test(start_paused = true)]
    async fn the_extra_load_is_that_of_the_percentile() {
        for (name, draw, percentile, nominal, n) in [
            ("exponential", exponential as Draw, 0.9, 0.1, 1000),
            ("exponential", exponential, 0.99, 0.01, 1000),
            ("bimodal", bimodal, 0.99, 0.01, 1000),
            ("bimodal", bimodal, 0.99, 0.01, 300),
            ("bimodal", bimodal, 0.9, 0.1, 1000),
        ] {
            let (mean, shares) = extra(draw, layer(percentile), n).await;
            let within = nominal * 0.7..=nominal * 1.2;
            assert!(
                within.contains(&mean),
                "{name} {percentile}: {mean} {shares:.3?}"
            );
            // Nor does it rise.
            let late = shares[10..].iter().sum::<f64>() / 9.0;
            assert!(
                late <= nominal * 1.3,
                "{name} {percentile}: {late} {shares:.3?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_constant_latency_is_not_hedged() {
        let (mean, _) = extra(constant, layer(0.9), 200).await;
        assert!(mean.abs() < 1e-9, "{mean}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_caps_the_second_tries_of_a_service_that_has_become_slow() {
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(60), 0, 0.05));
        let slow = move |inner| {
            Hedge::new_with_mock_latencies(
                inner,
                Any::default(),
                1,
                0.9,
                Duration::from_secs(1_000_000),
                &[1],
            )
            .with_budget(budget.clone())
        };
        let (mean, _) = extra(exponential, slow, 1000).await;
        assert!((0.045..=0.0501).contains(&mean), "{mean}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_makes_services_that_hedge_by_their_own_latencies_and_one_budget() {
        let budget = TpsBudget::new(Duration::from_secs(60), 0, 0.0);
        let free = HedgeLayer::new(Any::default(), 1, 0.9, Duration::from_secs(1));
        let bound = free.clone().with_budget(budget);
        for (layer, hedges) in [(free, true), (bound, false)] {
            let (mut seasoned, mut handle) = mock::spawn_layer(&layer);
            let (mut fresh, mut fresh_handle) = mock::spawn_layer(&layer);

            // The first period only watches, and only one of the two has something to see.
            assert_ready_ok!(seasoned.poll_ready());
            let mut response = task::spawn(seasoned.call("hello"));
            let first = assert_request_eq!(handle, "hello");
            assert_pending!(response.poll());
            time::advance(10 * MS).await;
            first.send_response("usual");
            assert_eq!(assert_ready_ok!(response.poll()), "usual");
            time::advance(Duration::from_secs(1)).await;

            for (service, handle, hedges) in [
                (&mut seasoned, &mut handle, hedges),
                (&mut fresh, &mut fresh_handle, false),
            ] {
                assert_ready_ok!(service.poll_ready());
                let mut response = task::spawn(service.call("hello"));
                let _first = assert_request_eq!(handle, "hello");
                assert_pending!(response.poll());
                time::advance(11 * MS).await;
                assert_pending!(response.poll());
                assert_eq!(handle.poll_request().is_ready(), hedges);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clones_share_what_they_know() {
        let (mock, mut handle) = mock::pair();
        let first = hedge(mock);
        let mut second = mock::Spawn::new(first.clone());
        drop(first);
        assert_ready_ok!(second.poll_ready());
        let mut response = task::spawn(second.call("hello"));
        let _first = assert_request_eq!(handle, "hello");
        assert_pending!(response.poll());
        time::advance(11 * MS).await;
        assert_pending!(response.poll());
        let _second = assert_request_eq!(handle, "hello");
    }
}
