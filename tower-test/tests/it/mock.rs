//! The mock service and its handle.

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_layer::layer_fn;
use tower_service::Service;
use tower_test::mock::{self, Mock};
use tower_test::{assert_request_eq, mock::error::Closed};

#[tokio::test]
async fn a_request_reaches_the_handle_and_its_answer_the_caller() {
    let (mut service, mut handle) = mock::spawn::<&str, &str>();
    assert_pending!(handle.poll_request());

    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());

    assert_request_eq!(handle, "hello").send_response("world");
    assert!(response.is_woken());
    assert_eq!(assert_ready_ok!(response.poll()), "world");
}

#[tokio::test]
#[should_panic(expected = "the wrong one: 7")]
async fn a_different_request_fails_the_assertion_with_its_message() {
    let (mut service, mut handle) = mock::spawn::<&str, ()>();
    assert_ready_ok!(service.poll_ready());
    let _response = service.call("hello");
    assert_request_eq!(handle, "goodbye", "the wrong one: {}", 7).send_response(());
}

#[test]
#[should_panic(expected = "service not ready; poll_ready must be called first")]
fn a_call_without_readiness_panics() {
    let (mut service, _handle) = mock::pair::<_, ()>();
    drop(service.call("hello"));
}

#[test]
#[should_panic(expected = "service not ready; poll_ready must be called first")]
fn a_clone_of_a_ready_mock_is_not_ready() {
    let (mut service, _handle) = mock::spawn::<_, ()>();
    assert_ready_ok!(service.poll_ready());
    drop(service.clone().call("hello"));
}

#[test]
fn an_allowance_is_used_up_by_readiness_and_renewed() {
    let (mut service, mut handle) = mock::spawn::<_, ()>();
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    assert_ready_ok!(service.poll_ready());
    drop(service.call("hello"));
    assert_pending!(service.poll_ready());
    assert!(!service.is_woken());

    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[test]
fn clones_wait_in_places_of_their_own() {
    let (mut first, mut handle) = mock::spawn::<(), ()>();
    handle.allow(0);
    let mut second = first.clone();
    assert_pending!(first.poll_ready());
    assert_pending!(second.poll_ready());

    handle.allow(1);
    assert!(first.is_woken() && second.is_woken());
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());
}

#[test]
fn dropping_a_ready_mock_gives_its_place_to_a_waiting_one() {
    let (mut first, mut handle) = mock::spawn::<(), ()>();
    handle.allow(1);
    let mut second = first.clone();
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready());

    drop(first);
    assert!(second.is_woken());
    assert_ready_ok!(second.poll_ready());
}

#[test]
fn a_place_from_an_earlier_allowance_is_not_given_back_to_the_next() {
    let (mut first, mut handle) = mock::spawn::<(), ()>();
    let mut second = first.clone();
    assert_ready_ok!(first.poll_ready());
    handle.allow(0);
    drop(first);
    assert_pending!(second.poll_ready());
}

#[test]
fn an_error_of_readiness_is_seen_once() {
    let (mut service, mut handle) = mock::spawn::<(), ()>();
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.send_error("down");
    assert!(service.is_woken());
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "down");
    assert_pending!(service.poll_ready());
}

#[tokio::test]
async fn an_error_of_a_response_reaches_the_caller() {
    let (mut service, mut handle) = mock::spawn::<_, ()>();
    assert_ready_ok!(service.poll_ready());
    let response = service.call("hello");
    let (_, send) = handle.next_request().await.unwrap();
    send.send_error("no");
    assert_eq!(response.await.unwrap_err().to_string(), "no");
}

#[tokio::test]
async fn dropping_the_handle_closes_everything() {
    let (mut service, mut handle) = mock::spawn::<_, ()>();
    assert_ready_ok!(service.poll_ready());
    let response = service.call("hello");
    handle.allow(0);
    assert_pending!(service.poll_ready());

    drop(handle);
    assert!(service.is_woken());
    let error = assert_ready_err!(service.poll_ready());
    assert!(error.is::<Closed>());
    assert_eq!(error.to_string(), "service closed");
    assert!(response.await.unwrap_err().is::<Closed>());
    assert!(service.call("late").await.unwrap_err().is::<Closed>());
}

#[tokio::test]
async fn dropping_the_answer_fails_the_response() {
    let (mut service, mut handle) = mock::spawn::<_, ()>();
    assert_ready_ok!(service.poll_ready());
    let response = service.call("hello");
    drop(handle.next_request().await);
    assert!(response.await.unwrap_err().is::<Closed>());
}

#[tokio::test]
async fn requests_end_when_every_mock_is_gone() {
    let (service, mut handle) = mock::pair::<(), ()>();
    let clone = service.clone();
    drop(service);
    assert_pending!(handle.poll_request());
    drop(clone);
    assert!(assert_ready!(handle.poll_request()).is_none());
    assert!(handle.next_request().await.is_none());
}

#[test]
fn a_layer_or_a_function_is_spawned_over_the_mock() {
    let (mut service, mut handle) = mock::spawn_layer(layer_fn(|mock: Mock<u8, u8>| Some(mock)));
    drop(service.get_ref().clone());
    let inner = service.get_mut().as_mut().unwrap();
    let mut inner = mock::Spawn::new(inner);
    assert_ready_ok!(inner.poll_ready());
    drop(inner.into_inner().call(1));
    assert!(handle.poll_request().is_ready());

    let (mut service, _handle) = mock::spawn_with(|mock: Mock<u8, u8>| Box::new(mock));
    assert_ready_ok!(service.poll_ready());
}

#[test]
fn a_waiting_mock_holds_one_waker_until_it_is_woken() {
    let (mut service, mut handle) = mock::spawn::<(), ()>();
    handle.allow(0);
    let before = service.waker_ref_count();
    assert_pending!(service.poll_ready());
    assert_eq!(service.waker_ref_count(), before + 1);
    handle.allow(1);
    assert_eq!(service.waker_ref_count(), before);
}
