//! What a balancer may rely on.

mod oracle;
mod scripted;

use std::future::Future as _;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use scripted::{Status, scripted};
use tokio_test::task::{Spawn, spawn};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};
use tower_ready_cache::{Failed, ReadyCache};
use tower_service::Service;

type Cache = ReadyCache<&'static str, scripted::Scripted, ()>;

fn task() -> Spawn<()> {
    spawn(())
}

fn poll(task: &mut Spawn<()>, cache: &mut Cache) -> Poll<Result<(), Failed<&'static str>>> {
    task.enter(|cx, _| cache.poll_pending(cx))
}

fn keys(cache: &Cache) -> Vec<&'static str> {
    cache.iter_ready().map(|(key, _)| *key).collect()
}

#[test]
fn services_become_ready_in_the_order_in_which_they_were_pushed() {
    let (mut task, mut cache) = (task(), Cache::default());
    for key in ["a", "b", "c"] {
        cache.push(key, scripted(Status::Ready).0);
    }
    assert_eq!(
        (cache.len(), cache.ready_len(), cache.pending_len()),
        (3, 0, 3)
    );
    assert!(cache.pending_contains(&"b"));

    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(keys(&cache), ["a", "b", "c"]);
    assert_eq!(
        (cache.len(), cache.ready_len(), cache.pending_len()),
        (3, 3, 0)
    );
    assert!(!cache.pending_contains(&"b"));
}

#[test]
fn a_service_that_becomes_ready_wakes_the_task_once() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (service, control) = scripted(Status::Pending);
    cache.push("a", service);
    assert_pending!(poll(&mut task, &mut cache));
    assert!(!task.is_woken());

    control.set(Status::Ready);
    assert!(task.is_woken());
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(control.polls(), 2);
    // Nothing is polled without a reason.
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(control.polls(), 2);
}

#[test]
fn the_last_task_that_polled_is_woken() {
    let (mut first, mut second, mut cache) = (task(), task(), Cache::default());
    let (service, control) = scripted(Status::Pending);
    cache.push("a", service);
    assert_pending!(poll(&mut first, &mut cache));
    assert_pending!(poll(&mut second, &mut cache));
    control.set(Status::Ready);
    assert!(second.is_woken());
    assert!(!first.is_woken());
}

#[test]
fn failures_are_reported_one_at_a_time_and_the_rest_is_still_polled() {
    let (mut task, mut cache) = (task(), Cache::default());
    cache.push("a", scripted(Status::Broken).0);
    cache.push("b", scripted(Status::Ready).0);
    cache.push("c", scripted(Status::Broken).0);

    let failed = assert_ready_err!(poll(&mut task, &mut cache));
    assert_eq!((failed.0, failed.to_string()), ("a", "broken".to_owned()));
    assert_eq!(cache.len(), 2);
    let failed = assert_ready_err!(poll(&mut task, &mut cache));
    assert_eq!(failed.0, "c");
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(keys(&cache), ["b"]);
}

#[test]
fn the_last_ready_service_takes_the_index_of_one_that_leaves() {
    let (mut task, mut cache) = (task(), Cache::default());
    for key in ["a", "b", "c", "d"] {
        cache.push(key, scripted(Status::Ready).0);
    }
    assert_ready_ok!(poll(&mut task, &mut cache));

    assert!(cache.evict(&"a"));
    assert_eq!(keys(&cache), ["d", "b", "c"]);
    assert_eq!(cache.get_ready(&"d").unwrap().0, 0);
    drop(cache.call_ready_index(1, ()));
    assert_eq!(keys(&cache), ["d", "c"]);
    assert_eq!(cache.get_ready_index(1).unwrap().0, &"c");
    assert!(!cache.evict(&"a"));
}

#[test]
fn mutable_access_is_by_index_too() {
    let (mut task, mut cache) = (task(), Cache::default());
    for key in ["a", "b", "c"] {
        cache.push(key, scripted(Status::Ready).0);
    }
    assert_ready_ok!(poll(&mut task, &mut cache));
    cache.evict(&"a");
    let order: Vec<_> = cache.iter_ready_mut().map(|(key, _)| *key).collect();
    assert_eq!(order, ["c", "b"]);
    assert_eq!(cache.get_ready_index_mut(0).unwrap().0, &"c");
    assert_eq!(cache.get_ready_mut(&"b").unwrap().0, 1);
    assert!(cache.get_ready_index_mut(2).is_none());
    assert!(cache.get_ready_mut(&"a").is_none());
}

#[test]
fn a_called_service_is_pending_until_it_is_polled_again() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (service, control) = scripted(Status::Ready);
    cache.push("a", service);
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert!(task.enter(|cx, _| cache.check_ready(cx, &"a")).unwrap());

    drop(cache.call_ready(&"a", ()));
    assert_eq!(control.calls(), 1);
    assert!(cache.pending_contains(&"a"));
    assert!(!task.enter(|cx, _| cache.check_ready(cx, &"a")).unwrap());
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert!(task.enter(|cx, _| cache.check_ready(cx, &"a")).unwrap());
}

#[test]
fn a_service_that_is_no_longer_ready_becomes_pending_and_wakes_the_task_later() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (service, control) = scripted(Status::Ready);
    cache.push("a", service);
    assert_ready_ok!(poll(&mut task, &mut cache));

    control.set(Status::Pending);
    assert!(!task.enter(|cx, _| cache.check_ready_index(cx, 0)).unwrap());
    assert!(cache.pending_contains(&"a"));
    control.set(Status::Ready);
    assert!(task.is_woken());
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(keys(&cache), ["a"]);
}

#[test]
fn a_ready_service_that_fails_its_check_leaves() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (service, control) = scripted(Status::Ready);
    cache.push("a", service);
    assert_ready_ok!(poll(&mut task, &mut cache));
    control.set(Status::Broken);
    let failed = task
        .enter(|cx, _| cache.check_ready_index(cx, 0))
        .unwrap_err();
    assert_eq!(failed.0, "a");
    assert!(cache.is_empty());
    assert!(!cache.evict(&"a"));
}

#[test]
fn a_push_replaces_the_pending_service_of_the_key_at_once() {
    let mut cache = Cache::default();
    let (old, old_control) = scripted(Status::Ready);
    let (new, new_control) = scripted(Status::Ready);
    cache.push("a", old);
    cache.push("a", new);
    assert!(old_control.is_dropped());
    assert!(!new_control.is_dropped());
    assert_eq!(cache.len(), 1);
    assert_ready_ok!(poll(&mut task(), &mut cache));
    assert_eq!((old_control.polls(), new_control.polls()), (0, 1));
}

#[test]
fn a_ready_service_stays_until_its_successor_is_ready_and_passes_on_its_index() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (old, old_control) = scripted(Status::Ready);
    cache.push("a", old);
    cache.push("b", scripted(Status::Ready).0);
    assert_ready_ok!(poll(&mut task, &mut cache));

    let (new, new_control) = scripted(Status::Pending);
    cache.push("a", new);
    assert_pending!(poll(&mut task, &mut cache));
    assert_eq!((cache.ready_len(), cache.pending_len()), (2, 1));
    assert!(cache.pending_contains(&"a"));
    assert_eq!(cache.get_ready(&"a").unwrap().0, 0);

    new_control.set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert!(old_control.is_dropped());
    assert_eq!(keys(&cache), ["a", "b"]);
}

#[test]
fn a_ready_service_with_a_successor_is_dropped_after_its_last_call() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (old, old_control) = scripted(Status::Ready);
    cache.push("a", old);
    assert_ready_ok!(poll(&mut task, &mut cache));
    let (new, new_control) = scripted(Status::Pending);
    cache.push("a", new);

    drop(cache.call_ready(&"a", ()));
    assert_eq!(old_control.calls(), 1);
    assert!(old_control.is_dropped());
    assert!(!new_control.is_dropped());
    assert_eq!((cache.ready_len(), cache.pending_len()), (0, 1));
}

#[test]
fn evicting_drops_the_ready_and_the_pending_service_of_a_key() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (old, old_control) = scripted(Status::Ready);
    cache.push("a", old);
    assert_ready_ok!(poll(&mut task, &mut cache));
    let (new, new_control) = scripted(Status::Pending);
    cache.push("a", new);
    assert!(cache.evict(&"a"));
    assert!(old_control.is_dropped() && new_control.is_dropped());
    assert!(cache.is_empty());
}

#[test]
fn a_wake_for_a_service_that_was_evicted_is_harmless() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (old, old_control) = scripted(Status::Pending);
    cache.push("a", old);
    assert_pending!(poll(&mut task, &mut cache));
    cache.evict(&"a");
    // Likely to get the slot of the one before.
    let (new, new_control) = scripted(Status::Pending);
    cache.push("b", new);
    assert_pending!(poll(&mut task, &mut cache));

    old_control.set(Status::Ready);
    assert_pending!(poll(&mut task, &mut cache));
    new_control.set(Status::Ready);
    assert!(task.is_woken());
    assert_ready_ok!(poll(&mut task, &mut cache));
    old_control.set(Status::Pending);
    old_control.set(Status::Ready);
    assert_ready_ok!(poll(&mut task, &mut cache));
    assert_eq!(keys(&cache), ["b"]);
}

#[test]
fn a_wake_of_a_ready_service_does_not_swallow_a_later_one() {
    let (mut task, mut cache) = (task(), Cache::default());
    let (service, control) = scripted(Status::Ready);
    cache.push("a", service);
    // Another one is pending, so that the cache looks at the wakes.
    cache.push("b", scripted(Status::Pending).0);
    assert_pending!(poll(&mut task, &mut cache));
    control.wake_for_nothing();
    assert_pending!(poll(&mut task, &mut cache));

    control.set(Status::Pending);
    assert!(!task.enter(|cx, _| cache.check_ready(cx, &"a")).unwrap());
    assert_pending!(poll(&mut task, &mut cache));
    control.set(Status::Ready);
    assert!(task.is_woken());
    assert_pending!(poll(&mut task, &mut cache));
    assert_eq!(keys(&cache), ["a"]);
}

#[test]
fn a_service_that_wakes_itself_when_polled_leaves_the_others_their_turn() {
    struct Restless(u32);
    impl Service<()> for Restless {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            if self.0 == 0 {
                return Poll::Ready(Ok(()));
            }
            self.0 -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    let (mut task, mut cache) = (task(), ReadyCache::default());
    cache.push("restless", Restless(2));
    cache.push("calm", Restless(0));
    assert_pending!(task.enter(|cx, _| cache.poll_pending(cx)));
    assert_eq!(cache.ready_len(), 1);
    assert!(task.is_woken());
    assert_pending!(task.enter(|cx, _| cache.poll_pending(cx)));
    assert!(task.is_woken());
    assert_ready!(task.enter(|cx, _| cache.poll_pending(cx))).unwrap();
}

#[test]
fn a_service_that_panics_is_polled_again_after_the_others() {
    /// Panics at the first poll.
    struct Touchy {
        polls: usize,
    }

    impl Service<u8> for Touchy {
        type Response = u8;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<u8, std::io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            self.polls += 1;
            assert!(self.polls > 1, "at the first poll");
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, req: u8) -> Self::Future {
            std::future::ready(Ok(req))
        }
    }

    let mut cache = ReadyCache::default();
    cache.push("touchy", Touchy { polls: 0 });
    cache.push("calm", Touchy { polls: 1 });
    let mut cx = Context::from_waker(std::task::Waker::noop());

    let polled = std::panic::AssertUnwindSafe(|| cache.poll_pending(&mut cx).is_ready());
    assert!(std::panic::catch_unwind(polled).is_err());
    assert_eq!(cache.len(), 2);

    assert!(cache.poll_pending(&mut cx).is_ready());
    let ready: Vec<_> = cache.iter_ready().map(|(key, _)| *key).collect();
    assert_eq!(ready, ["calm", "touchy"]);
}

#[test]
fn calls_of_services_that_are_not_ready_give_the_request_back() {
    let mut cache = ReadyCache::<&str, tower_test::mock::Mock<u8, ()>, u8>::default();
    let not_ready = cache.try_call_ready(&"a", 7).unwrap_err();
    assert_eq!(not_ready.to_string(), "no ready service to call");
    assert_eq!(not_ready.0, 7);
    assert_eq!(cache.try_call_ready_index(0, 8).unwrap_err().0, 8);

    let (service, mut handle) = tower_test::mock::pair();
    handle.allow(1);
    cache.push("a", service);
    assert_ready_ok!(task().enter(|cx, _| cache.poll_pending(cx)));
    let _response = cache.try_call_ready(&"a", 9).unwrap();
    assert_eq!(cache.try_call_ready(&"a", 9).unwrap_err().0, 9);
}

#[test]
#[should_panic(expected = "check_ready was not called")]
fn calling_a_key_that_is_not_ready_panics_as_documented() {
    drop(Cache::default().call_ready(&"a", ()));
}

#[test]
#[should_panic(expected = "check_ready_index was not called")]
fn calling_an_index_that_is_not_ready_panics_as_documented() {
    drop(Cache::default().call_ready_index(0, ()));
}

// The cache of upstream panicked here (tower #415).
#[tokio::test(flavor = "current_thread")]
async fn services_that_use_up_the_budget_of_the_task_delay_the_cache_and_no_more() {
    struct Costly;
    impl Service<()> for Costly {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            pin!(tokio::task::coop::consume_budget()).poll(cx).map(Ok)
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    let mut cache = ReadyCache::default();
    for round in 0..1_000_u32 {
        // One key is replaced over and over, and some are evicted before they were polled.
        cache.push(0, Costly);
        cache.push(round, Costly);
        if round % 3 == 0 {
            cache.evict(&round);
        }
    }
    let expected = cache.len();
    poll_fn(|cx| cache.poll_pending(cx)).await.unwrap();
    assert_eq!(cache.ready_len(), expected);

    for _ in 0..expected {
        drop(cache.call_ready_index(0, ()));
    }
    poll_fn(|cx| cache.poll_pending(cx)).await.unwrap();
    assert_eq!(cache.ready_len(), expected);
}

#[test]
fn debug_shows_which_services_are_ready_and_which_are_pending() {
    #[derive(Debug)]
    struct Unit;
    impl Service<()> for Unit {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }
    let mut cache = ReadyCache::<_, _, ()>::default();
    cache.push(1, Unit);
    assert_ready_ok!(task().enter(|cx, _| cache.poll_pending(cx)));
    cache.push(2, Unit);
    assert_eq!(
        format!("{cache:?}"),
        "ReadyCache { ready: {1: Unit}, pending: {2: Unit} }"
    );
}
