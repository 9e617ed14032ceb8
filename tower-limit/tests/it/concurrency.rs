use std::cell::Cell;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_limit::concurrency::{
    ConcurrencyLimit, ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer,
};
use tower_service::Service;
use tower_test::mock::{self, Spawn};

use crate::{Handle, Mock};

type Limit = Spawn<ConcurrencyLimit<Mock>>;

/// Runs a check over both kinds of permits.
fn over_both(max: usize, check: impl Fn(Limit, Handle)) {
    let (service, handle) = mock::spawn_layer(ConcurrencyLimitLayer::new(max));
    check(service, handle);
    let semaphore = Arc::new(Semaphore::new(max));
    let (service, handle) =
        mock::spawn_with(|mock| ConcurrencyLimit::with_semaphore(mock, semaphore.clone()));
    check(service, handle);
    assert_eq!(semaphore.available_permits(), max, "all permits come back");
}

fn answer(handle: &mut Handle) {
    let (_, answer) = assert_ready!(handle.poll_request()).unwrap();
    answer.send_response("done");
}

#[test]
fn at_capacity_it_waits_until_a_response_future_is_gone() {
    over_both(2, |mut service, mut handle| {
        assert_ready_ok!(service.poll_ready());
        let mut first = task::spawn(service.call("first"));
        assert_ready_ok!(service.poll_ready());
        let second = service.call("second");
        assert_pending!(service.poll_ready());

        assert_pending!(first.poll());
        answer(&mut handle);
        assert_ready_ok!(first.poll());
        assert!(
            !service.is_woken(),
            "complete, but its future is still there"
        );
        drop(first);
        assert!(service.is_woken());
        assert_ready_ok!(service.poll_ready());
        let third = service.call("third");
        assert_pending!(service.poll_ready());
        drop(second);
        drop(third);
        assert!(service.is_woken());
    });
}

#[test]
fn a_clone_inherits_no_permit_and_no_place() {
    over_both(1, |mut service, _handle| {
        assert_ready_ok!(service.poll_ready());
        let mut clone = service.clone();
        assert_pending!(clone.poll_ready());
        let mut clone_of_waiter = clone.clone();
        drop(service);
        assert!(clone.is_woken());
        assert_pending!(clone_of_waiter.poll_ready());
        assert_ready_ok!(clone.poll_ready());
    });
}

#[test]
fn waiters_are_served_in_order_and_nobody_overtakes_them() {
    over_both(1, |mut service, _handle| {
        let mut first = service.clone();
        let mut second = service.clone();
        assert_ready_ok!(service.poll_ready());
        assert_pending!(first.poll_ready());
        assert_pending!(second.poll_ready());

        drop(service.call("served"));
        assert!(first.is_woken());
        assert!(!second.is_woken());
        // Back again at once, and yet behind the two.
        assert_pending!(service.poll_ready());
        assert_pending!(second.poll_ready());
        assert_ready_ok!(first.poll_ready());
        drop(first);
        assert!(second.is_woken());
        assert!(!service.is_woken());
        assert_ready_ok!(second.poll_ready());
    });
}

#[test]
fn a_permit_granted_to_a_service_that_is_dropped_is_passed_on() {
    over_both(1, |mut service, _handle| {
        let mut first = service.clone();
        let mut second = service.clone();
        assert_ready_ok!(service.poll_ready());
        assert_pending!(first.poll_ready());
        assert_pending!(second.poll_ready());
        drop(service);
        assert!(first.is_woken());
        drop(first);
        assert!(second.is_woken());
        assert_ready_ok!(second.poll_ready());
    });
}

#[test]
fn a_waiter_that_moves_to_another_task_is_woken_there() {
    over_both(1, |mut service, _handle| {
        assert_ready_ok!(service.poll_ready());
        let mut waiter = service.clone().into_inner();
        let (mut here, mut there) = (task::spawn(()), task::spawn(()));
        here.enter(|cx, _| assert_pending!(waiter.poll_ready(cx)));
        there.enter(|cx, _| assert_pending!(waiter.poll_ready(cx)));
        there.enter(|cx, _| assert_pending!(waiter.poll_ready(cx)));
        drop(service);
        assert!(there.is_woken() && !here.is_woken());
        there.enter(|cx, _| assert_ready_ok!(waiter.poll_ready(cx)));
    });
}

#[test]
fn ready_twice_takes_one_permit() {
    over_both(2, |mut service, _handle| {
        assert_ready_ok!(service.poll_ready());
        assert_ready_ok!(service.poll_ready());
        let mut clone = service.clone();
        assert_ready_ok!(clone.poll_ready());
        assert_pending!(service.clone().poll_ready());
    });
}

#[test]
fn the_permit_is_kept_while_the_inner_service_is_pending() {
    over_both(1, |mut service, mut handle| {
        handle.allow(0);
        assert_pending!(service.poll_ready());
        let mut clone = service.clone();
        assert_pending!(clone.poll_ready());
        handle.allow(2);
        assert!(service.is_woken() && !clone.is_woken());
        assert_ready_ok!(service.poll_ready());
    });
}

#[test]
fn a_readiness_error_frees_the_permit() {
    over_both(1, |mut service, mut handle| {
        assert_ready_ok!(service.poll_ready());
        let mut clone = service.clone();
        assert_pending!(clone.poll_ready());
        handle.send_error("broken");
        assert_ready_err!(service.poll_ready());
        assert!(clone.is_woken());
        assert_ready_ok!(clone.poll_ready());
    });
}

/// Counts how many of its futures run at once; each takes three polls.
#[derive(Clone, Default)]
struct Gauge {
    running: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
}

impl Service<()> for Gauge {
    type Response = ();
    type Error = ();
    type Future = Pin<Box<dyn Future<Output = Result<(), ()>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let gauge = self.clone();
        Box::pin(async move {
            gauge.running.set(gauge.running.get() + 1);
            gauge.most.set(gauge.most.get().max(gauge.running.get()));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            gauge.running.set(gauge.running.get() - 1);
            Ok(())
        })
    }
}

#[tokio::test]
async fn calls_without_readiness_wait_for_a_permit_and_keep_the_limit() {
    for with_semaphore in [false, true] {
        let gauge = Gauge::default();
        let mut service = if with_semaphore {
            ConcurrencyLimit::with_semaphore(gauge.clone(), Arc::new(Semaphore::new(2)))
        } else {
            ConcurrencyLimit::new(gauge.clone(), 2)
        };
        let local = tokio::task::LocalSet::new();
        for _ in 0..10 {
            // Its permit goes with its future, as it would if readiness had been waited for.
            let response = service.call(());
            local.spawn_local(async move { response.await.unwrap() });
        }
        local.await;
        assert_eq!((gauge.most.get(), gauge.running.get()), (2, 0));
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    }
}

#[test]
fn a_call_of_a_service_that_waits_takes_its_place_along() {
    over_both(1, |mut service, mut handle| {
        assert_ready_ok!(service.poll_ready());
        let in_flight = service.call("in flight");
        let mut first = service.clone();
        let mut second = service.clone();
        assert_pending!(first.poll_ready());
        assert_pending!(second.poll_ready());
        // The mock panics when it is called unready, so make it ready behind the limit's back.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let inner = first.get_mut().get_mut();
        assert_ready_ok!(inner.poll_ready(&mut cx));
        let mut response = task::spawn(first.call("early"));
        assert_pending!(response.poll());
        drop(in_flight);
        assert!(response.is_woken() && !second.is_woken());
        assert_pending!(response.poll());
        drop(handle.poll_request());
        answer(&mut handle);
        assert_ready_ok!(response.poll());
        drop(response);
        assert!(second.is_woken());
    });
}

#[test]
fn a_limit_of_zero_is_never_ready() {
    over_both(0, |mut service, _handle| {
        assert_pending!(service.poll_ready());
    });
}

#[test]
fn a_limit_beyond_any_semaphore_does_not_panic() {
    let (mut service, _handle) =
        mock::spawn_layer::<(), (), _>(ConcurrencyLimitLayer::new(usize::MAX));
    assert_ready_ok!(service.poll_ready());
    let layer = GlobalConcurrencyLimitLayer::new(usize::MAX);
    let (mut service, _handle) = mock::spawn_layer::<(), (), _>(layer);
    assert_ready_ok!(service.poll_ready());
}

#[test]
fn a_closed_semaphore_gives_no_permits_and_no_panic() {
    let semaphore = Arc::new(Semaphore::new(1));
    let (mut service, _handle) = mock::spawn_with::<&str, &str, _, _>(|mock| {
        ConcurrencyLimit::with_semaphore(mock, semaphore.clone())
    });
    let mut waiting = service.clone();
    assert_ready_ok!(service.poll_ready());
    assert_pending!(waiting.poll_ready());
    semaphore.close();
    assert_pending!(waiting.poll_ready());
    let mut response = task::spawn(service.call("had its permit"));
    assert_pending!(response.poll());
    assert_pending!(service.poll_ready());
}

#[test]
fn a_call_without_readiness_over_a_closed_semaphore_never_runs() {
    for closed_before in [true, false] {
        let semaphore = Arc::new(Semaphore::new(0));
        let gauge = Gauge::default();
        let mut service = ConcurrencyLimit::with_semaphore(gauge.clone(), semaphore.clone());
        if closed_before {
            semaphore.close();
        }
        let mut response = task::spawn(service.call(()));
        assert_pending!(response.poll());
        semaphore.close();
        for _ in 0..3 {
            assert_pending!(response.poll());
        }
        assert_eq!(gauge.most.get(), 0);
    }
}

#[test]
fn a_global_layer_limits_all_services_together() {
    for layer in [
        GlobalConcurrencyLimitLayer::new(1),
        GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(Semaphore::new(1))),
    ] {
        let (mut first, _handle) = mock::spawn_layer::<(), (), _>(&layer);
        let (mut second, _handle) = mock::spawn_layer::<(), (), _>(layer.clone());
        assert_ready_ok!(first.poll_ready());
        assert_pending!(second.poll_ready());
        drop(first);
        assert_ready_ok!(second.poll_ready());
    }
    let layer = ConcurrencyLimitLayer::new(1);
    let (mut first, _handle) = mock::spawn_layer::<(), (), _>(&layer);
    let (mut second, _handle) = mock::spawn_layer::<(), (), _>(&layer);
    assert_ready_ok!(first.poll_ready());
    assert_ready_ok!(second.poll_ready());
}

#[test]
fn release_while_pending_lets_clones_have_the_permit_of_a_stuck_service() {
    let layer = GlobalConcurrencyLimitLayer::new(1).release_while_pending();
    let (mut stuck, mut stuck_handle) = mock::spawn_layer::<&str, &str, _>(&layer);
    let (mut service, mut handle) = mock::spawn_layer::<&str, &str, _>(&layer);
    stuck_handle.allow(0);
    assert_pending!(stuck.poll_ready());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("not starved"));
    assert_pending!(response.poll());

    // The limit still holds: the stuck service, come loose, waits for the permit again.
    stuck_handle.allow(1);
    assert!(stuck.is_woken());
    assert_pending!(stuck.poll_ready());
    let (_, answer) = assert_ready!(handle.poll_request()).unwrap();
    answer.send_response("done");
    assert_ready_ok!(response.poll());
    drop(response);
    assert!(stuck.is_woken());
    assert_ready_ok!(stuck.poll_ready());
}

/// Tries twice, acquiring its service anew for the second time, as a retry does.
#[derive(Clone)]
struct TryTwice<S>(S);

impl<S> Service<()> for TryTwice<S>
where
    S: Service<(), Response = (), Error = ()> + Clone + 'static,
{
    type Response = ();
    type Error = ();
    type Future = Pin<Box<dyn Future<Output = Result<(), ()>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let first = self.0.call(());
        let mut service = self.0.clone();
        Box::pin(async move {
            let _ = first.await;
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(()).await
        })
    }
}

/// A queue of one slot, which a request leaves as soon as it is first polled.
#[derive(Clone)]
struct Immediate;

impl Service<()> for Immediate {
    type Response = ();
    type Error = ();
    type Future = Ready<Result<(), ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

/// Plays limit(2) over a retry over a queue of one slot, with three callers, and says how many got
/// through.
fn served(
    limit: impl Fn(
        TryTwice<ConcurrencyLimit<Immediate>>,
    ) -> ConcurrencyLimit<TryTwice<ConcurrencyLimit<Immediate>>>,
) -> usize {
    let service = limit(TryTwice(ConcurrencyLimit::new(Immediate, 1)));
    let mut callers: Vec<_> = (0..3)
        .map(|_| {
            let mut service = service.clone();
            task::spawn(async move {
                poll_fn(|cx| service.poll_ready(cx)).await?;
                let response = service.call(());
                drop(service);
                // Everyone asks for readiness before anyone's request goes on.
                tokio::task::yield_now().await;
                response.await
            })
        })
        .collect();
    let mut done = [false; 3];
    for _ in 0..20 {
        for (caller, done) in callers.iter_mut().zip(&mut done) {
            if !*done {
                *done = caller.poll().is_ready();
            }
        }
    }
    done.into_iter().filter(|&done| done).count()
}

#[tokio::test]
async fn a_limit_over_a_retry_over_one_slot_deadlocks_only_with_release_while_pending() {
    assert_eq!(served(|inner| ConcurrencyLimit::new(inner, 2)), 3);
    // As documented. If this ever gets through, the documentation can be relaxed.
    assert_eq!(
        served(|inner| ConcurrencyLimit::new(inner, 2).release_while_pending()),
        0
    );
}

#[test]
fn the_auto_traits_are_those_of_the_inner_service() {
    fn auto<T: Send + Sync + Unpin>(_: &T) {}
    let mut service = ConcurrencyLimitLayer::new(1).layer(1_u8);
    auto(&service);
    auto(&GlobalConcurrencyLimitLayer::new(1));
    *service.get_mut() += 1;
    assert_eq!((*service.get_ref(), service.clone().into_inner()), (2, 2));
    let mut service = ConcurrencyLimit::new(Immediate, 1);
    auto(&service.call(()));
    assert_eq!(
        format!("{service:?}", service = ConcurrencyLimit::new(7, 3)),
        "ConcurrencyLimit { inner: 7, pool: Permits { available: 3, .. }, claim: None, .. }"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_deadline_that_was_set_around_it_and_its_place_is_free() {
    let limit = ConcurrencyLimitLayer::new(1);
    let (mut service, _handle) = mock::spawn_layer::<&str, &str, _>(limit);
    let mut hurried = service.get_ref().clone();
    assert_ready_ok!(service.poll_ready());
    let first = service.call("first");

    let soon = Deadline::after(Duration::from_millis(3));
    let waited = soon.within(poll_fn(|cx| hurried.poll_ready(cx))).await;
    assert!(waited.unwrap_err().was_started());
    drop(hurried);
    drop(first);
    assert_ready_ok!(service.poll_ready());
}
