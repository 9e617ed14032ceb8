use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_deadline::Deadline;
use tower_limit::bulkhead::{
    AtCapacity, Bulkhead, BulkheadLayer, GlobalBulkheadLayer, ResponseFuture, WaitElapsed,
};
use tower_service::Service;
use tower_test::mock::{self, Spawn};

use crate::{Handle, Mock};

const MS: Duration = Duration::from_millis(1);

fn spawn(layer: BulkheadLayer) -> (Spawn<Bulkhead<Mock>>, Handle) {
    mock::spawn_layer(layer)
}

fn error<F, T>(response: ResponseFuture<F>) -> Box<dyn std::error::Error + Send + Sync>
where
    F: Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>>,
    T: std::fmt::Debug,
{
    assert_ready_err!(task::spawn(response).poll())
}

#[test]
fn at_capacity_requests_fail_at_once_and_say_what_the_limit_is() {
    let (mut service, mut handle) = spawn(BulkheadLayer::new(1));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("first"));
    assert_ready_ok!(service.poll_ready());
    let refused = error(service.call("second"));
    assert_eq!(refused.downcast_ref::<AtCapacity>().unwrap().limit, 1);
    assert_eq!(refused.to_string(), "at capacity: 1 requests in flight");

    let (request, answer) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!(request, "first");
    answer.send_response("done");
    assert_eq!(assert_ready_ok!(response.poll()), "done");
    drop(response);
    assert_pending!(handle.poll_request());
    assert_ready_ok!(service.poll_ready());
    let _third = service.call("third");
    assert!(handle.poll_request().is_ready());
}

#[test]
fn a_refused_service_holds_no_place_that_a_permit_could_fall_to() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1));
    assert_ready_ok!(service.poll_ready());
    let mut idle = service.clone();
    assert_ready_ok!(idle.poll_ready());
    let mut other = service.clone();
    drop(service);
    // `idle` was refused and lies about; the permit is there for whoever asks.
    assert_ready_ok!(other.poll_ready());
    let _response = other.call("admitted");
    error(idle.call("refused"));
}

#[test]
fn a_refused_service_looks_again_when_polled_again() {
    let (mut service, mut handle) = spawn(BulkheadLayer::new(1));
    assert_ready_ok!(service.poll_ready());
    let mut refused = service.clone();
    assert_ready_ok!(refused.poll_ready());
    drop(service);
    // It never goes back to pending, even if the inner service does.
    handle.allow(0);
    assert_ready_ok!(refused.poll_ready());
    handle.allow(1);
    assert_ready_ok!(refused.poll_ready());
    let _response = refused.call("admitted");
    assert!(handle.poll_request().is_ready());
}

#[test]
fn a_call_without_readiness_needs_a_free_permit() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1));
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    assert!(error(clone.call("unready")).is::<AtCapacity>());
}

#[test]
fn with_a_permit_the_inner_service_is_waited_for() {
    let (mut service, mut handle) = spawn(BulkheadLayer::new(1));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    handle.send_error("broken");
    assert_eq!(
        assert_ready_err!(service.poll_ready()).to_string(),
        "broken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bounded_wait_ends_with_a_permit_or_with_an_error() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1).with_max_wait(10 * MS));
    let mut lucky = service.clone();
    let mut unlucky = service.clone();
    assert_ready_ok!(service.poll_ready());
    let response = service.call("first");
    assert_pending!(lucky.poll_ready());
    assert_pending!(unlucky.poll_ready());
    advance(9 * MS).await;
    assert!(!lucky.is_woken() && !unlucky.is_woken());
    drop(response);
    assert!(lucky.is_woken());
    assert_ready_ok!(lucky.poll_ready());
    advance(MS).await;
    assert!(unlucky.is_woken());
    assert_ready_ok!(unlucky.poll_ready());
    let refused = error(unlucky.call("second"));
    let refused = refused.downcast_ref::<WaitElapsed>().unwrap();
    assert_eq!((refused.limit, refused.max_wait), (1, 10 * MS));
    assert_eq!(
        refused.to_string(),
        "at capacity for 10ms: 1 requests in flight"
    );

    // The next wait is a new one.
    assert_pending!(unlucky.poll_ready());
    advance(9 * MS).await;
    assert_pending!(unlucky.poll_ready());
    drop(lucky);
    assert!(unlucky.is_woken());
    assert_ready_ok!(unlucky.poll_ready());
    let _response = unlucky.call("third");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline_of_the_task() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1).with_max_wait(10 * MS));
    let mut hurried = service.clone();
    assert_ready_ok!(service.poll_ready());
    let deadline = Deadline::after(3 * MS);
    assert_pending!(deadline.enter(|| hurried.poll_ready()));
    advance(3 * MS).await;
    assert!(hurried.is_woken());
    assert_ready_ok!(deadline.enter(|| hurried.poll_ready()));
    assert!(error(hurried.call("second")).is::<WaitElapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_has_elapsed_leaves_the_queue() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1).with_max_wait(10 * MS));
    let mut idle = service.clone();
    let mut other = service.clone();
    assert_ready_ok!(service.poll_ready());
    assert_pending!(idle.poll_ready());
    advance(11 * MS).await;
    assert_ready_ok!(idle.poll_ready());
    drop(service);
    assert_ready_ok!(other.poll_ready());
}

#[test]
fn outside_of_a_runtime_it_does_not_wait() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1).with_max_wait(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    assert_ready_ok!(clone.poll_ready());
    assert!(error(clone.call("second")).is::<AtCapacity>());
}

#[test]
fn a_global_bulkhead_limits_all_services_together() {
    let layer = GlobalBulkheadLayer::new(1).with_max_wait(Duration::ZERO);
    let (mut first, _handle) = mock::spawn_layer::<&str, &str, _>(&layer);
    let (mut second, _handle) = mock::spawn_layer::<&str, &str, _>(&layer);
    assert_ready_ok!(first.poll_ready());
    assert_ready_ok!(second.poll_ready());
    error(second.call("refused"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_clock_is_no_panic() {
    let (mut service, _handle) = spawn(BulkheadLayer::new(1).with_max_wait(Duration::MAX));
    let mut cx = Context::from_waker(Waker::noop());
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone().into_inner();
    assert!(matches!(
        Service::<&'static str>::poll_ready(&mut clone, &mut cx),
        Poll::Pending
    ));
}
