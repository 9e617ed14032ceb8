//! The public behaviour of retries, their budgets and backoffs.

use std::future::{Ready, poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_classify::{Class, EveryErrorIsRetryable};
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_retry::backoff::{Backoff, ExponentialBackoffMaker, Jitter, MakeBackoff};
use tower_retry::budget::{Budget, TpsBudget};
use tower_retry::standard::StandardPolicy;
use tower_retry::{Policy, Retry, RetryLayer};
use tower_rng::{HasherRng, SplitMix64};
use tower_service::Service;
use tower_test::{assert_request_eq, mock};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Mock = mock::Mock<&'static str, &'static str>;
type Handle = mock::Handle<&'static str, &'static str>;

const MS: Duration = Duration::from_millis(1);

/// Retries errors a few times, at once, and counts the clones of requests.
#[derive(Clone)]
struct Attempts {
    left: usize,
    copies: Arc<AtomicU32>,
}

fn attempts(left: usize) -> Attempts {
    Attempts {
        left,
        copies: Arc::default(),
    }
}

impl<Res, E> Policy<&'static str, Res, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut &'static str, result: &mut Result<Res, E>) -> Option<Ready<()>> {
        result.as_ref().err()?;
        self.left = self.left.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, req: &&'static str) -> Option<&'static str> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        (*req != "once").then_some(*req)
    }
}

fn spawn<P: Clone>(policy: P) -> (mock::Spawn<Retry<P, Mock>>, Handle) {
    mock::spawn_layer(RetryLayer::new(policy))
}

mod retry {
    use super::*;

    #[tokio::test]
    async fn a_request_is_copied_once_per_try() {
        let policy = attempts(2);
        let (mut service, mut handle) = spawn(policy.clone());
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        for tries in 1..=3 {
            assert_eq!(policy.copies.load(Ordering::Relaxed), tries);
            assert_request_eq!(handle, "hello").send_error(format!("try {tries}"));
            if tries < 3 {
                assert_pending!(response.poll());
            }
        }
        assert_eq!(assert_ready_err!(response.poll()).to_string(), "try 3");
    }

    #[tokio::test]
    async fn the_ready_instance_makes_the_first_try_and_a_clone_waits_for_the_next() {
        let (mut service, mut handle) = spawn(attempts(1));
        handle.allow(1);
        assert_ready_ok!(service.poll_ready());
        // The only permit goes with the call: neither the clone nor the service has it.
        let mut response = task::spawn(service.call("hello"));
        assert_pending!(service.poll_ready());

        assert_request_eq!(handle, "hello").send_error("first");
        assert_pending!(response.poll());
        assert_pending!(handle.poll_request());
        handle.allow(1);
        assert!(response.is_woken());
        assert_pending!(response.poll());
        assert_request_eq!(handle, "hello").send_response("world");
        assert_eq!(assert_ready_ok!(response.poll()), "world");
    }

    #[tokio::test]
    async fn a_clone_that_fails_to_become_ready_fails_the_request() {
        let (mut service, mut handle) = spawn(attempts(9));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        handle.allow(0);
        assert_request_eq!(handle, "hello").send_error("first");
        assert_pending!(response.poll());
        handle.send_error("gone");
        assert_eq!(assert_ready_err!(response.poll()).to_string(), "gone");
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_copied_is_tried_once() {
        let (mut service, mut handle) = spawn(attempts(9));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("once"));
        assert_request_eq!(handle, "once").send_error("failed");
        assert_eq!(assert_ready_err!(response.poll()).to_string(), "failed");
    }

    #[tokio::test]
    async fn dropping_the_response_frees_what_the_clone_reserves() {
        let (mut service, mut handle) = spawn(attempts(9));
        handle.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("hello"));
        assert_request_eq!(handle, "hello").send_error("first");
        assert_pending!(response.poll());
        drop(response);
        handle.allow(1);
        assert_ready_ok!(service.poll_ready());
    }

    #[test]
    fn a_policy_is_object_safe() {
        fn _takes(_: &mut dyn Policy<u8, u8, u8, Future = Ready<()>>) {}
    }

    #[test]
    fn what_is_const_is_const() {
        const RETRY: Retry<(), ()> = Retry::new((), ());
        const LAYER: RetryLayer<u8> = RetryLayer::new(1);
        assert_eq!(RETRY.get_ref(), &());
        assert_eq!(format!("{LAYER:?}"), "RetryLayer { policy: 1 }");
        assert_eq!(format!("{RETRY:?}"), "Retry { policy: (), service: () }");
    }
}

mod budget {
    use super::*;

    fn granted(budget: &TpsBudget) -> usize {
        (0..100_000).take_while(|_| budget.withdraw()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn any_share_is_exact() {
        for (share, expected) in [
            (0.6, 60),
            (0.3, 30),
            (0.4, 40),
            (0.01, 1),
            (0.99, 99),
            (1.0, 100),
            (1.5, 150),
            (7.25, 725),
            (1000.0, 100_000),
            (0.0, 0),
        ] {
            let budget = TpsBudget::new(Duration::from_secs(10), 0, share);
            for _ in 0..100 {
                budget.deposit();
            }
            assert_eq!(granted(&budget), expected, "share {share}");
        }
    }

    #[test]
    fn threads_together_get_no_more_than_was_earned() {
        let budget = TpsBudget::new(Duration::from_secs(60), 1, 0.5);
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut granted = 0;
                        for _ in 0..5_000 {
                            budget.deposit();
                            granted += usize::from(budget.withdraw());
                        }
                        granted
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total + granted(&budget), 60 + 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_is_there_without_traffic_unless_set_to_zero() {
        assert_eq!(granted(&TpsBudget::default()), 100);
        assert_eq!(granted(&TpsBudget::new(Duration::from_secs(10), 0, 0.2)), 0);

        // What was drawn from it comes back after the time to live.
        let budget = TpsBudget::new(Duration::from_millis(1_500), 2, 0.0);
        assert_eq!(granted(&budget), 3);
        time::advance(1_400 * MS).await;
        assert_eq!(granted(&budget), 0);
        time::advance(100 * MS).await;
        assert_eq!(granted(&budget), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn deposits_expire_with_their_window() {
        let budget = TpsBudget::new(Duration::from_secs(1), 0, 0.5);
        budget.deposit();
        budget.deposit();
        time::advance(901 * MS).await;
        assert!(budget.withdraw());

        time::advance(2_001 * MS).await;
        budget.deposit();
        time::advance(301 * MS).await;
        budget.deposit();
        time::advance(801 * MS).await;
        budget.deposit();
        // The first has expired; the second and the third make one retry.
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_deposit_after_a_month_takes_no_longer_than_any_other() {
        let idle = TpsBudget::new(Duration::from_secs(1), 0, 1.0);
        budget_round(&idle);
        let longest = |budget: &TpsBudget| {
            let start = std::time::Instant::now();
            budget_round(budget);
            start.elapsed()
        };
        time::advance(Duration::from_secs(30 * 86_400)).await;
        // Walking the 26 million windows in between takes a tenth of a second; this takes a microsecond.
        assert!(longest(&idle) < 20 * MS);
    }

    fn budget_round(budget: &TpsBudget) {
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }

    #[test]
    fn arguments_out_of_range_panic() {
        let new = |ttl, min, share| {
            std::panic::catch_unwind(|| TpsBudget::new(Duration::from_millis(ttl), min, share))
        };
        assert!(new(999, 0, 0.1).is_err());
        assert!(new(60_001, 0, 0.1).is_err());
        assert!(new(1_000, i32::MAX as u32, 0.1).is_err());
        assert!(new(1_000, 0, -0.1).is_err());
        assert!(new(1_000, 0, 1_000.1).is_err());
        assert!(new(1_000, 0, f32::NAN).is_err());
        assert!(new(60_000, i32::MAX as u32 - 1, 1_000.0).is_ok());
    }
}

mod backoff {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn jitter_shows_in_the_deadline_below_a_second() {
        let maker = |seed| {
            let (min, max) = (Duration::from_secs(1), Duration::from_secs(100));
            ExponentialBackoffMaker::new(min, max, 0.5, SplitMix64::new(seed)).unwrap()
        };
        let now = Instant::now();
        let mut micros: Vec<_> = (0..1000)
            .map(|seed| {
                let sleep = maker(seed).make_backoff().next_backoff();
                (sleep.deadline() - now).as_micros()
            })
            .collect();
        assert!(micros.iter().all(|us| (1_000_000..1_500_000).contains(us)));
        micros.sort_unstable();
        micros.dedup();
        assert!(micros.len() > 990);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_sessions_of_one_maker_draw_a_thousand_sequences() {
        let pristine = ExponentialBackoffMaker::default();
        let mut maker = pristine.clone();
        let now = Instant::now();
        let mut deadlines: Vec<_> = (0..1000)
            .map(|_| pristine.clone().make_backoff().next_backoff().deadline() - now)
            .chain((0..1000).map(|_| maker.make_backoff().next_backoff().deadline() - now))
            .collect();
        deadlines.sort_unstable();
        deadlines.dedup();
        assert!(deadlines.len() > 1990, "{}", deadlines.len());
    }

    #[tokio::test(start_paused = true)]
    async fn huge_delays_do_not_overflow_a_timer() {
        let mut maker =
            ExponentialBackoffMaker::new(Duration::MAX, Duration::MAX, 100.0, HasherRng::new())
                .unwrap();
        let mut backoff = maker.make_backoff();
        for _ in 0..3 {
            assert_pending!(task::spawn(backoff.next_backoff()).poll());
        }
    }

    #[test]
    fn outside_a_runtime_there_is_no_delay_rather_than_a_panic() {
        let mut backoff = ExponentialBackoffMaker::default().make_backoff();
        assert!(backoff.try_next_backoff().is_none());
    }
}

mod standard {
    use super::*;

    fn backoff() -> ExponentialBackoffMaker<SplitMix64> {
        ExponentialBackoffMaker::new(100 * MS, 400 * MS, 0.0, SplitMix64::new(1)).unwrap()
    }

    /// What a service that always fails is asked for one request, and when.
    async fn tries<P>(policy: P) -> Vec<u128>
    where
        P: Policy<&'static str, &'static str, BoxError, Future: Send> + Clone + Send + 'static,
    {
        let (mock, mut handle) = mock::pair::<&str, &str>();
        let mut service = RetryLayer::new(policy).layer(mock);
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let start = Instant::now();
        let response = tokio::spawn(service.call("hello"));
        drop(service);
        let mut at = Vec::new();
        while let Some((_, answer)) = handle.next_request().await {
            at.push(start.elapsed().as_millis());
            answer.send_error("down");
        }
        assert!(response.await.unwrap().is_err());
        at
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_bounded_and_backed_off() {
        let policy = StandardPolicy::new(EveryErrorIsRetryable).with_backoff(backoff());
        assert_eq!(tries(policy.clone()).await, [0, 100, 300]);
        let policy = policy.with_max_tries(5);
        assert_eq!(tries(policy.clone()).await, [0, 100, 300, 700, 1100]);
        assert_eq!(tries(policy.clone().with_max_tries(1)).await, [0]);
        assert_eq!(tries(policy.with_max_tries(0)).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_draw_on_one_budget_which_successes_fill() {
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(60), 0, 0.5));
        let policy = StandardPolicy::new(EveryErrorIsRetryable)
            .with_backoff(backoff())
            .with_budget(budget.clone())
            .with_max_tries(10);
        assert_eq!(tries(policy.clone()).await, [0]);

        for _ in 0..6 {
            let mut ok = Ok::<_, BoxError>("fine");
            assert!(policy.clone().retry(&mut "hello", &mut ok).is_none());
        }
        assert_eq!(tries(policy.clone()).await.len(), 1 + 3);
        assert_eq!(tries(policy).await.len(), 1);
        assert!(!budget.withdraw());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_for_good_is_neither_retried_nor_rewarded() {
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(60), 0, 1.0));
        let policy = StandardPolicy::new(|_: &&str, _: &Result<&str, BoxError>| Class::Failure)
            .with_budget(budget.clone());
        assert_eq!(tries(policy).await, [0]);
        assert!(!budget.withdraw());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_copied_is_not_retried() {
        let policy = StandardPolicy::new(EveryErrorIsRetryable).with_copy(|_: &&'static str| None);
        assert_eq!(tries(policy).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_fail_together_come_back_apart() {
        let maker = backoff().with_jitter(Jitter::Full);
        let policy = StandardPolicy::new(EveryErrorIsRetryable).with_backoff(maker);
        let mut deadlines: Vec<_> = (0..50)
            .map(|_| {
                let mut result = Err::<&str, _>("down");
                let delay = policy.clone().retry(&mut "hello", &mut result);
                delay
                    .expect("the reserve allows 100")
                    .into_backoff()
                    .deadline()
            })
            .collect();
        deadlines.sort_unstable();
        deadlines.dedup();
        assert_eq!(deadlines.len(), 50);
    }

    /// What a service asks for with each failure.
    fn asking(
        after: Duration,
    ) -> StandardPolicy<impl Fn(&&'static str, &Result<&'static str, BoxError>) -> Class + Clone>
    {
        let class = Class::Retryable { after: Some(after) };
        StandardPolicy::new(
            move |_: &&'static str, result: &Result<&'static str, BoxError>| match result {
                Ok(_) => Class::Success,
                Err(_) => class,
            },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_service_asks_for_is_the_least_wait() {
        assert_eq!(
            tries(asking(150 * MS).with_backoff(backoff())).await,
            [0, 150, 350]
        );
        assert_eq!(
            tries(asking(Duration::ZERO).with_backoff(backoff())).await,
            [0, 100, 300]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_for_too_much_gives_up() {
        let policy = asking(31_000 * MS).with_backoff(backoff());
        assert_eq!(tries(policy.clone()).await, [0]);
        let policy = policy.with_max_retry_after(31_000 * MS);
        assert_eq!(tries(policy).await, [0, 31_000, 62_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_again_past_the_deadline() {
        for (deadline, expected) in [
            (50, &[0][..]),
            (100, &[0]),
            (101, &[0, 100]),
            (300, &[0, 100]),
        ] {
            let (mock, mut handle) = mock::pair::<&str, &str>();
            let policy = StandardPolicy::new(EveryErrorIsRetryable).with_backoff(backoff());
            let mut service = RetryLayer::new(policy).layer(mock);
            poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
            let start = Instant::now();
            let response = Deadline::after(deadline * MS).scope(service.call("hello"));
            let response = tokio::spawn(response);
            drop(service);
            let mut at = Vec::new();
            while let Some((_, answer)) = handle.next_request().await {
                at.push(start.elapsed().as_millis());
                answer.send_error("down");
            }
            assert!(response.await.unwrap().is_err());
            assert_eq!(at, expected, "{deadline} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_be_left_alone_for_ever_is_past_any_deadline() {
        let classify = |_: &&str, _: &Result<&str, _>| Class::Retryable {
            after: Some(Duration::MAX),
        };
        let policy = StandardPolicy::new(classify).with_max_retry_after(Duration::MAX);
        let (mock, mut handle) = mock::pair::<&str, &str>();
        let mut service = RetryLayer::new(policy).layer(mock);
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let response = Deadline::after(50 * MS).scope(service.call("hello"));
        let response = tokio::spawn(response);
        let (_, answer) = handle.next_request().await.unwrap();
        answer.send_response("not now");
        assert_eq!(response.await.unwrap().unwrap(), "not now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_that_would_come_too_late_costs_no_budget() {
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 1, 0.0));
        let policy = StandardPolicy::new(EveryErrorIsRetryable)
            .with_backoff(backoff())
            .with_budget(budget.clone());
        let mut result = Err::<&str, _>("down");
        let retry = Deadline::after(MS).enter(|| policy.clone().retry(&mut "hello", &mut result));
        assert!(retry.is_none());
        assert!((0..10).all(|_| budget.withdraw()));
    }

    #[test]
    fn outside_a_runtime_the_first_result_stands() {
        let (mock, mut handle) = mock::pair::<&str, &str>();
        let mut service = RetryLayer::new(StandardPolicy::new(EveryErrorIsRetryable)).layer(mock);
        let mut cx = Context::from_waker(Waker::noop());
        assert_ready_ok!(service.poll_ready(&mut cx));
        let mut response = Box::pin(service.call("hello"));
        let Poll::Ready(Some((_, answer))) = handle.poll_request() else {
            panic!("no request");
        };
        answer.send_error("down");
        let error = assert_ready!(response.as_mut().poll(&mut cx)).unwrap_err();
        assert_eq!(error.to_string(), "down");
    }

    #[test]
    fn stacks_over_it_can_be_spawned() {
        fn is<T: Send + Sync + Unpin + Clone + std::fmt::Debug>(_: T) {}
        is(StandardPolicy::new(EveryErrorIsRetryable));
    }
}
