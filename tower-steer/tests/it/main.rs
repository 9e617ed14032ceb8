//! The router from outside.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower_service::Service;
use tower_steer::{Picker, Steer};
use tower_test::mock::{self, Mock, Spawn};
use tower_util::ServiceExt;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Handle = mock::Handle<usize, &'static str>;

/// Sends each request to the service whose index it is.
#[derive(Clone, Debug)]
struct Itself;

impl<S> Picker<S, usize> for Itself {
    fn pick(&mut self, request: &usize, _: &[S]) -> usize {
        *request
    }
}

type Router = Spawn<Steer<Mock<usize, &'static str>, Itself, usize>>;

fn router(n: usize) -> (Router, Vec<Handle>) {
    let (mocks, handles): (Vec<_>, Vec<_>) = (0..n).map(|_| mock::pair()).unzip();
    (Spawn::new(Steer::new(mocks, Itself)), handles)
}

#[test]
fn the_picked_service_answers() {
    let (mut steer, mut handles) = router(3);
    assert_ready_ok!(steer.poll_ready());
    let mut response = task::spawn(steer.call(1));
    assert!(handles[0].poll_request().is_pending());
    assert!(handles[2].poll_request().is_pending());
    let (_, send) = assert_ready!(handles[1].poll_request()).unwrap();
    send.send_response("one");
    assert_eq!(assert_ready_ok!(response.poll()), "one");
}

#[test]
fn a_closure_is_a_picker_and_sees_the_services() {
    let (mock, mut handle) = mock::pair::<&str, ()>();
    let last = |_: &&str, services: &[_]| services.len() - 1;
    let mut steer = Spawn::new(Steer::new([mock], last));
    assert_ready_ok!(steer.poll_ready());
    drop(steer.call("hello"));
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, "hello");
}

#[test]
fn it_is_ready_only_when_all_services_are_and_each_of_them_wakes_it() {
    let (mut steer, mut handles) = router(3);
    for handle in &mut handles {
        handle.allow(0);
    }
    assert_pending!(steer.poll_ready());
    for last_first in (1..3).rev() {
        handles[last_first].allow(1);
        assert!(steer.is_woken(), "service {last_first} has no waker");
        assert_pending!(steer.poll_ready());
    }
    handles[0].allow(1);
    assert!(steer.is_woken());
    assert_ready_ok!(steer.poll_ready());
}

#[test]
fn after_a_call_only_the_called_service_has_to_become_ready() {
    let (mut steer, mut handles) = router(2);
    for handle in &mut handles {
        handle.allow(1);
    }
    assert_ready_ok!(steer.poll_ready());
    drop(steer.call(1));
    assert_pending!(steer.poll_ready());
    handles[1].allow(1);
    assert_ready_ok!(steer.poll_ready());
}

#[test]
fn a_clone_of_a_ready_router_is_not_ready() {
    let (mut steer, mut handles) = router(2);
    for handle in &mut handles {
        handle.allow(1);
    }
    assert_ready_ok!(steer.poll_ready());
    let mut clone = steer.clone();
    assert_pending!(clone.poll_ready(), "the clone took over the readiness");
    drop(steer);
    assert!(clone.is_woken());
    assert_ready_ok!(clone.poll_ready());
}

#[test]
fn routers_keep_the_contract_of_services() {
    use tower_test::contract::{Inner, Request, check};

    check(|inner: Inner| Steer::new([inner], |_: &Request, _: &[_]| 0)).assert();
    check(|inner: Inner| {
        let always_ready =
            tower_util::service_fn(|_: Request| ready(Ok::<_, BoxError>(Default::default())));
        let services = [
            always_ready.boxed_clone_unsync(),
            inner.boxed_clone_unsync(),
        ];
        Steer::new(services, |_: &Request, _: &[_]| 1)
    })
    .assert();
}

/// Notes each poll and call; ready from the `ready_at`-th poll after a call.
#[derive(Debug)]
struct Counting {
    ready_at: u32,
    polls: u32,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Service<usize> for Counting {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls += 1;
        self.log.borrow_mut().push("poll");
        if self.polls < self.ready_at {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: usize) -> Self::Future {
        self.polls = 0;
        self.log.borrow_mut().push("call");
        ready(Ok(()))
    }
}

#[test]
fn an_unready_call_is_forwarded_and_repaid_before_the_router_is_ready() {
    let log = Rc::default();
    let service = Counting {
        ready_at: 2,
        polls: 0,
        log: Rc::clone(&log),
    };
    let mut steer = Steer::new([service], Itself);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert_ready_ok!(task::spawn(steer.call(0)).poll());
    }
    assert_pending!(steer.poll_ready(&mut cx));
    assert_ready_ok!(steer.poll_ready(&mut cx));
    // Ready stays ready, without another look.
    assert_ready_ok!(steer.poll_ready(&mut cx));
    assert_eq!(*log.borrow(), ["call", "call", "call", "poll", "poll"]);
}

#[test]
fn a_service_that_fails_fails_the_router() {
    let (mut steer, mut handles) = router(2);
    handles[1].send_error("broken");
    let error = assert_ready!(steer.poll_ready()).unwrap_err();
    assert_eq!(error.to_string(), "broken");
}

#[test]
#[should_panic(expected = "the picker of a Steer chose service 2 of 2")]
fn a_pick_out_of_range_panics_with_the_index_and_the_number_of_services() {
    let (mut steer, _handles) = router(2);
    assert_ready_ok!(steer.poll_ready());
    drop(steer.call(2));
}

#[test]
#[should_panic(expected = "the picker of a Steer chose service 0 of 0")]
fn a_call_with_no_service_panics() {
    let (mut steer, _) = router(0);
    assert_ready_ok!(steer.poll_ready());
    drop(steer.call(0));
}

#[test]
fn it_prints_its_services() {
    let steer: Steer<u8, Itself, ()> = Steer::new([7, 8], Itself);
    assert_eq!(
        format!("{steer:?}"),
        "Steer { picker: Itself, services: [7, 8], not_ready: [0, 1] }"
    );
}

proptest! {
    /// The oracle polls every service that was not ready since its last call, every time.
    #[test]
    fn readiness_is_that_of_the_services_called_since(
        slow in prop::collection::vec(1_u32..4, 1..6),
        steps in prop::collection::vec(prop::option::of(0_usize..6), 0..60),
    ) {
        let log = Rc::default();
        let services = slow.iter().map(|&ready_at| Counting { ready_at, polls: 0, log: Rc::clone(&log) });
        let mut steer = Steer::new(services, Itself);
        // How many polls each service still needs.
        let mut needs = slow.clone();
        let mut cx = Context::from_waker(Waker::noop());
        for step in steps {
            if let Some(pick) = step {
                let pick = pick % needs.len();
                drop(steer.call(pick));
                needs[pick] = slow[pick];
            } else {
                let polls = needs.iter().filter(|&&need| need > 0).count();
                log.borrow_mut().clear();
                let ready = steer.poll_ready(&mut cx).is_ready();
                for need in &mut needs {
                    *need = need.saturating_sub(1);
                }
                prop_assert_eq!(ready, needs.iter().all(|&need| need == 0));
                prop_assert_eq!(log.borrow().len(), polls);
            }
        }
    }
}
