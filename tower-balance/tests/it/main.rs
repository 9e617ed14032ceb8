//! The balancer as its callers and its endpoints see it.

mod endpoint;
mod oracle;
mod pool;
mod probing;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use endpoint::{Changes, Control, Endpoint, Status, changes, endpoint};
use futures_util::stream;
use tokio::time::{Instant, advance};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};
use tower_balance::error::{Discover, NoEndpoint};
use tower_balance::{Balance, MakeBalance, MakeBalanceLayer, ResponseFuture};
use tower_discover::{Change, ServiceList};
use tower_load::{Constant, Load};
use tower_rng::SplitMix64;
use tower_service::Service;
use tower_test::mock;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const SECOND: Duration = Duration::from_secs(1);

fn task() -> Spawn<()> {
    spawn(())
}

fn poll<S: Service<()>>(task: &mut Spawn<()>, service: &mut S) -> Poll<Result<(), S::Error>> {
    task.enter(|cx, _| service.poll_ready(cx))
}

/// Makes a balancer over endpoints with these loads, all ready.
fn balance(loads: &[u32]) -> (Balance<Changes, ()>, endpoint::Sender, Vec<Arc<Control>>) {
    let (send, receive) = changes();
    let controls = loads
        .iter()
        .enumerate()
        .map(|(key, &load)| {
            let (service, control) = endpoint(Status::Ready, load);
            send.send(Ok(Change::Insert(key, service))).unwrap();
            control
        })
        .collect();
    (
        Balance::from_rng(receive, SplitMix64::new(1)),
        send,
        controls,
    )
}

/// Resolves a response that is there already.
fn outcome<F>(response: F) -> F::Output
where
    F: Future,
{
    assert_ready!(spawn(response).poll())
}

fn no_endpoint(error: &BoxError) -> NoEndpoint {
    *error.downcast_ref::<NoEndpoint>().expect("a NoEndpoint")
}

#[test]
fn waits_without_endpoints_until_one_is_discovered_and_ready() {
    let (mut balance, send, _) = balance(&[]);
    let mut task = task();
    assert_pending!(poll(&mut task, &mut balance));
    assert!(balance.is_empty());

    let (service, control) = endpoint(Status::Pending, 1);
    send.send(Ok(Change::Insert(0, service))).unwrap();
    assert!(task.is_woken());
    assert_pending!(poll(&mut task, &mut balance));
    assert_eq!(balance.len(), 1);

    control.set(Status::Ready);
    assert!(task.is_woken());
    assert_ready_ok!(poll(&mut task, &mut balance));
    outcome(balance.call(())).unwrap();
    assert_eq!(control.calls(), 1);
}

#[test]
fn the_less_loaded_of_two_takes_every_request() {
    let (mut balance, _send, controls) = balance(&[2, 1]);
    let mut task = task();
    for _ in 0..100 {
        assert_ready_ok!(poll(&mut task, &mut balance));
        outcome(balance.call(())).unwrap();
    }
    assert_eq!((controls[0].calls(), controls[1].calls()), (0, 100));
}

#[test]
fn the_share_of_an_endpoint_follows_from_its_rank_among_random_pairs() {
    let (mut balance, _send, controls) = balance(&[10, 20, 30, 40]);
    let mut task = task();
    for _ in 0..6_000 {
        assert_ready_ok!(poll(&mut task, &mut balance));
        outcome(balance.call(())).unwrap();
    }
    // The best wins 3 of the 6 pairs, the next ones 2 and 1, and the worst none.
    for (control, expected) in controls.iter().zip([3_000, 2_000, 1_000, 0]) {
        assert!(
            control.calls().abs_diff(expected) < 150,
            "{} {expected}",
            control.calls()
        );
    }
}

#[test]
fn endpoints_of_equal_load_get_equal_shares() {
    let (mut balance, _send, controls) = balance(&[7; 10]);
    let mut task = task();
    for _ in 0..10_000 {
        assert_ready_ok!(poll(&mut task, &mut balance));
        outcome(balance.call(())).unwrap();
    }
    for control in controls {
        assert!(control.calls().abs_diff(1_000) < 130, "{}", control.calls());
    }
}

#[test]
fn endpoints_that_are_not_ready_get_no_request() {
    let (mut balance, _send, controls) = balance(&[1, 2, 3]);
    let mut task = task();
    assert_ready_ok!(poll(&mut task, &mut balance));
    controls[0].set(Status::Pending);
    controls[1].set(Status::Pending);
    for _ in 0..10 {
        assert_ready_ok!(poll(&mut task, &mut balance));
        outcome(balance.call(())).unwrap();
    }
    assert_eq!(controls[2].calls(), 10);
    assert_eq!(balance.len(), 3);
}

#[test]
fn an_endpoint_that_fails_is_dropped_and_not_polled_again() {
    let (mut balance, _send, controls) = balance(&[1, 2]);
    let mut task = task();
    assert_ready_ok!(poll(&mut task, &mut balance));
    controls[0].set(Status::Broken);
    assert_ready_ok!(poll(&mut task, &mut balance));
    assert!(controls[0].is_dropped());
    assert_eq!(balance.len(), 1);

    outcome(balance.call(())).unwrap();
    assert_eq!(controls[1].calls(), 1);
}

#[test]
fn polling_again_keeps_the_pick_and_draws_nothing() {
    struct Counted(Arc<Mutex<u32>>);
    impl tower_rng::Rng for Counted {
        fn next_u64(&mut self) -> u64 {
            *self.0.lock().unwrap() += 1;
            0
        }
    }
    let draws = Arc::new(Mutex::new(0));
    let list = ServiceList::new::<()>((0..3).map(|_| endpoint(Status::Ready, 1).0));
    let mut balance = Balance::from_rng(list, Counted(Arc::clone(&draws)));
    for _ in 0..5 {
        assert_ready_ok!(poll(&mut task(), &mut balance));
    }
    assert_eq!(*draws.lock().unwrap(), 1);
    outcome(balance.call(())).unwrap();
    assert_ready_ok!(poll(&mut task(), &mut balance));
    assert_eq!(*draws.lock().unwrap(), 2);
}

#[test]
fn a_seed_replays_the_picks() {
    let run = |seed| {
        let mut controls = Vec::new();
        let list = ServiceList::new::<()>(
            (0..8)
                .map(|_| endpoint(Status::Ready, 1))
                .map(|(service, control)| {
                    controls.push(control);
                    service
                })
                .collect::<Vec<_>>(),
        );
        let mut balance = Balance::from_rng(list, SplitMix64::new(seed));
        let mut task = task();
        for _ in 0..50 {
            assert_ready_ok!(poll(&mut task, &mut balance));
            outcome(balance.call(())).unwrap();
        }
        controls
            .iter()
            .map(|control| control.calls())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

// A balancer that remembers its pick by position alone then calls an endpoint that took the place, or
// none at all (tower #856).
#[test]
fn after_a_removal_the_pick_is_one_that_is_known_and_ready() {
    for removed in 0..4 {
        for seed in 0..50 {
            let (send, receive) = changes();
            let controls: Vec<_> = (0..4)
                .map(|key| {
                    let (service, control) = endpoint(Status::Ready, 1);
                    send.send(Ok(Change::Insert(key, service))).unwrap();
                    control
                })
                .collect();
            let mut balance = Balance::from_rng(receive, SplitMix64::new(seed));
            let mut task = task();
            assert_ready_ok!(poll(&mut task, &mut balance));

            // The one that would take the place of the removed one is not ready.
            send.send(Ok(Change::Remove(removed))).unwrap();
            controls[3].set(Status::Pending);
            assert_ready_ok!(poll(&mut task, &mut balance));
            outcome(balance.call(())).unwrap();
            assert!(controls[removed].is_dropped());
            assert_eq!(controls[removed].calls() + controls[3].calls(), 0);
        }
    }
}

#[test]
fn removing_the_only_endpoint_takes_readiness_back() {
    let (mut balance, send, _) = balance(&[1]);
    let mut task = task();
    assert_ready_ok!(poll(&mut task, &mut balance));
    send.send(Ok(Change::Remove(0))).unwrap();
    assert_pending!(poll(&mut task, &mut balance));
    assert_eq!(
        no_endpoint(&outcome(balance.call(())).unwrap_err()),
        NoEndpoint::NoneKnown
    );
}

#[test]
fn an_insert_under_a_known_key_replaces_the_endpoint_once_the_new_one_is_ready() {
    let (mut balance, send, controls) = balance(&[1]);
    let mut task = task();
    assert_ready_ok!(poll(&mut task, &mut balance));
    let (service, control) = endpoint(Status::Pending, 1);
    send.send(Ok(Change::Insert(0, service))).unwrap();
    assert_ready_ok!(poll(&mut task, &mut balance));
    assert!(!controls[0].is_dropped());

    control.set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut balance));
    assert!(controls[0].is_dropped());
    outcome(balance.call(())).unwrap();
    assert_eq!(control.calls(), 1);
}

#[test]
fn an_error_of_discovery_fails_readiness_and_leaves_the_balancer_usable() {
    let (mut balance, send, controls) = balance(&[1]);
    let mut task = task();
    assert_ready_ok!(poll(&mut task, &mut balance));
    send.send(Err("no such name")).unwrap();
    let error = assert_ready_err!(poll(&mut task, &mut balance));
    assert_eq!(
        error.to_string(),
        "load balancer discovery error: no such name"
    );
    let discover: &Discover = error.downcast_ref().unwrap();
    assert_eq!(
        std::error::Error::source(discover).unwrap().to_string(),
        "no such name"
    );

    assert_ready_ok!(poll(&mut task, &mut balance));
    outcome(balance.call(())).unwrap();
    assert_eq!(controls[0].calls(), 1);
}

#[test]
fn a_discovery_that_has_ended_is_not_polled_again() {
    let mut polls = 0;
    let once = stream::poll_fn(move |_| {
        polls += 1;
        match polls {
            1 => Poll::Ready(Some(Ok::<_, BoxError>(Change::Insert(
                0,
                endpoint(Status::Ready, 1).0,
            )))),
            2 => Poll::Ready(None),
            _ => panic!("polled after its end"),
        }
    });
    let mut balance = Balance::new(once);
    for _ in 0..3 {
        assert_ready_ok!(poll(&mut task(), &mut balance));
        outcome(balance.call(())).unwrap();
    }
}

#[test]
fn over_a_finished_empty_discovery_it_waits_by_default() {
    let mut balance = Balance::<_, ()>::new(ServiceList::new::<()>(Vec::<Endpoint>::new()));
    assert_pending!(poll(&mut task(), &mut balance));
}

#[test]
fn over_a_finished_empty_discovery_it_can_fail_fast() {
    let mut balance =
        Balance::<_, ()>::new(ServiceList::new::<()>(Vec::<Endpoint>::new())).with_fail_fast();
    let error = assert_ready_err!(poll(&mut task(), &mut balance));
    assert_eq!(no_endpoint(&error), NoEndpoint::Finished);
    assert_eq!(
        error.to_string(),
        "no endpoint is left, and discovery has finished"
    );
}

#[test]
fn failing_fast_waits_while_there_may_still_be_an_endpoint() {
    let (balance, send, _) = balance(&[]);
    let mut balance = balance.with_fail_fast();
    let mut task = task();
    assert_pending!(poll(&mut task, &mut balance));

    let (service, control) = endpoint(Status::Pending, 1);
    send.send(Ok(Change::Insert(0, service))).unwrap();
    drop(send);
    assert_pending!(poll(&mut task, &mut balance));
    control.set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut balance));
    control.set(Status::Broken);
    let error = assert_ready_err!(poll(&mut task, &mut balance));
    assert_eq!(no_endpoint(&error), NoEndpoint::Finished);
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_ends_in_an_error_that_says_why() {
    let (balance, send, _) = balance(&[]);
    let mut balance = balance.with_max_wait(SECOND);
    let mut task = task();
    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND / 2).await;
    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND / 2).await;
    assert!(task.is_woken());
    assert_ready_ok!(poll(&mut task, &mut balance));
    let error = outcome(balance.call(())).unwrap_err();
    assert_eq!(no_endpoint(&error), NoEndpoint::NoneKnown);
    assert_eq!(error.to_string(), "no endpoint is known");

    // The next wait begins anew, and ends sooner when an endpoint gets ready.
    let (service, control) = endpoint(Status::Pending, 1);
    send.send(Ok(Change::Insert(0, service))).unwrap();
    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND).await;
    assert_ready_ok!(poll(&mut task, &mut balance));
    let error = outcome(balance.call(())).unwrap_err();
    assert!(matches!(
        no_endpoint(&error),
        NoEndpoint::NoneReady { known: 1, .. }
    ));
    assert_eq!(error.to_string(), "none of 1 known endpoints is ready");

    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND / 2).await;
    control.set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut balance));
    outcome(balance.call(())).unwrap();
    control.set(Status::Pending);
    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND / 2).await;
    assert_pending!(
        poll(&mut task, &mut balance),
        "the wait that ended doesn't count"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_gets_ready_after_the_longest_wait_takes_the_call() {
    let (balance, _send, controls) = balance(&[1]);
    controls[0].set(Status::Pending);
    let mut balance = balance.with_max_wait(SECOND);
    let mut task = task();
    assert_pending!(poll(&mut task, &mut balance));
    advance(SECOND).await;
    assert_ready_ok!(poll(&mut task, &mut balance));
    controls[0].set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut balance));
    outcome(balance.call(())).unwrap();
}

#[test]
fn the_longest_wait_is_kept_outside_of_a_runtime() {
    let (balance, _send, _) = balance(&[]);
    let mut balance = balance.with_max_wait(Duration::from_millis(1));
    let mut task = task();
    while poll(&mut task, &mut balance).is_pending() {
        assert!(task.is_woken());
    }
    let error = outcome(balance.call(())).unwrap_err();
    assert_eq!(no_endpoint(&error), NoEndpoint::NoneKnown);

    let (balance, _send, _) = self::balance(&[]);
    let mut endless = balance.with_max_wait(Duration::MAX);
    assert_pending!(poll(&mut task, &mut endless));
}

#[test]
fn the_longest_wait_is_kept_on_a_runtime_after_the_one_on_which_it_began() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (balance, _send, _) = balance(&[]);
    let mut balance = balance.with_max_wait(SECOND);
    let mut task = task();
    runtime().block_on(async { assert_pending!(poll(&mut task, &mut balance)) });
    let ready = async { std::future::poll_fn(|cx| balance.poll_ready(cx)).await };
    runtime().block_on(ready).unwrap();
    let error = outcome(balance.call(())).unwrap_err();
    assert_eq!(no_endpoint(&error), NoEndpoint::NoneKnown);
}

#[test]
fn a_call_without_readiness_resolves_to_an_error_that_says_why() {
    let (mut balance, _send, controls) = balance(&[1]);
    controls[0].set(Status::Pending);
    assert_eq!(
        no_endpoint(&outcome(balance.call(())).unwrap_err()),
        NoEndpoint::NoneKnown
    );
    assert_pending!(poll(&mut task(), &mut balance));
    let error = outcome(balance.call(())).unwrap_err();
    assert!(matches!(
        no_endpoint(&error),
        NoEndpoint::NoneReady { known: 1, .. }
    ));

    let mut finished = Balance::<_, ()>::new(ServiceList::new::<()>(Vec::<Endpoint>::new()));
    assert_pending!(poll(&mut task(), &mut finished));
    assert_eq!(
        no_endpoint(&outcome(finished.call(())).unwrap_err()),
        NoEndpoint::Finished
    );
}

#[test]
fn a_second_call_goes_to_another_ready_endpoint_and_one_too_many_fails() {
    let (mut balance, _send, controls) = balance(&[1, 2]);
    assert_ready_ok!(poll(&mut task(), &mut balance));
    outcome(balance.call(())).unwrap();
    outcome(balance.call(())).unwrap();
    assert_eq!((controls[0].calls(), controls[1].calls()), (1, 1));
    let error = outcome(balance.call(())).unwrap_err();
    assert!(matches!(
        no_endpoint(&error),
        NoEndpoint::NoneReady { known: 2, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn both_loads_of_a_pick_are_read_as_of_the_same_moment() {
    struct Timed(Arc<Mutex<Vec<Instant>>>);
    impl Load for Timed {
        type Metric = u8;
        fn load(&self) -> u8 {
            panic!("the clock would be read for each")
        }
        fn load_at(&self, now: Instant) -> u8 {
            self.0.lock().unwrap().push(now);
            0
        }
    }
    impl Service<()> for Timed {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = ServiceList::new::<()>((0..3).map(|_| Timed(Arc::clone(&seen))).collect::<Vec<_>>());
    let mut balance = Balance::new(list);
    assert_ready_ok!(poll(&mut task(), &mut balance));
    assert_eq!(*seen.lock().unwrap(), [Instant::now(); 2]);
}

#[tokio::test]
async fn errors_of_an_endpoint_are_its_own() {
    let (service, mut handle) = mock::pair::<(), ()>();
    let mut balance = Balance::new(ServiceList::new::<()>([Constant::new(service, 1)]));
    assert_ready_ok!(poll(&mut task(), &mut balance));
    let response = balance.call(());
    handle.next_request().await.unwrap().1.send_error("refused");
    assert_eq!(response.await.unwrap_err().to_string(), "refused");
}

#[tokio::test]
async fn a_maker_makes_balancers_of_what_is_discovered() {
    let (mut make, mut handle) =
        mock::spawn_layer::<&str, ServiceList<Vec<Endpoint>>, _>(MakeBalanceLayer::<_, ()>::new());
    assert_ready_ok!(make.poll_ready());
    let made = make.call("somewhere");
    let (target, send) = handle.next_request().await.unwrap();
    assert_eq!(target, "somewhere");
    let (service, control) = endpoint(Status::Ready, 1);
    send.send_response(ServiceList::new::<()>(vec![service]));

    let mut balance = made.await.unwrap();
    assert_ready_ok!(poll(&mut task(), &mut balance));
    outcome(balance.call(())).unwrap();
    assert_eq!(control.calls(), 1);
}

#[test]
fn debug_needs_no_more_than_discovery_keys_and_services_that_have_it() {
    #[derive(Debug)]
    struct Unit;
    impl Service<()> for Unit {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }
    let mut balance = Balance::new(ServiceList::new::<()>([Constant::new(Unit, 1)]));
    assert!(
        balance
            .poll_ready(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    let debug = format!("{balance:?}");
    assert!(
        debug.contains("ready: {0: Constant { inner: Unit, load: 1 }}"),
        "{debug}"
    );

    struct NotDebug;
    assert_eq!(
        format!("{:?}", MakeBalance::<_, NotDebug>::new(1)),
        "MakeBalance { inner: 1 }"
    );
    assert_eq!(
        format!("{:?}", MakeBalanceLayer::<NotDebug, NotDebug>::new()),
        "MakeBalanceLayer"
    );
}

/// Answers at once, with a future that holds what a permit would be.
struct Holding(Arc<()>);

impl Service<()> for Holding {
    type Response = ();
    type Error = Infallible;
    type Future = Holds;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Holds {
        Holds(Arc::clone(&self.0))
    }
}

struct Holds(#[expect(dead_code, reason = "it is held for its count")] Arc<()>);

impl Future for Holds {
    type Output = Result<(), Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_response_that_is_there_no_longer_holds_what_the_endpoint_gave_it() {
    let held = Arc::default();
    let endpoint = Constant::new(Holding(Arc::clone(&held)), 1);
    let mut service = Balance::new(ServiceList::new::<()>(vec![endpoint]));
    assert_ready_ok!(poll(&mut task(), &mut service));
    let mut response = spawn(service.call(()));
    assert_eq!(Arc::strong_count(&held), 3);
    assert_ready_ok!(response.poll());
    assert_eq!(Arc::strong_count(&held), 2, "it is not kept until the drop");
}

#[test]
fn auto_traits_follow_what_is_inside() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Balance<ServiceList<Vec<Endpoint>>, ()>>();
    check::<ResponseFuture<std::future::Ready<()>>>();
    check::<MakeBalance<(), *const ()>>();
    check::<MakeBalanceLayer<*const (), *const ()>>();
    check::<tower_balance::MakeFuture<(), *const ()>>();
    check::<Discover>();
    check::<NoEndpoint>();
}
