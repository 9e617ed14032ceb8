//! What `LoadShed` promises, seen from outside.

use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_layer::Layer;
use tower_load_shed::{LoadShed, LoadShedLayer, Overloaded};
use tower_test::{assert_request_eq, mock};

type Mock = mock::Mock<&'static str, &'static str>;

#[tokio::test]
async fn forwards_when_ready() {
    let (mut service, mut handle) = mock::spawn_layer(LoadShedLayer::new());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    assert_request_eq!(handle, "hello").send_response("world");
    assert_eq!(assert_ready_ok!(response.poll()), "world");
}

#[tokio::test]
async fn fails_without_calling_when_not_ready() {
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(LoadShedLayer::new());
    handle.allow(0);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert!(assert_ready_err!(response.poll()).is::<Overloaded>());
    assert_pending!(handle.poll_request());
}

#[tokio::test]
async fn the_last_poll_before_the_call_decides() {
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(LoadShedLayer::new());
    handle.allow(0);
    assert_ready_ok!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let _response = service.call("hello");
    assert_request_eq!(handle, "hello").send_response(());
}

#[tokio::test]
async fn a_call_without_readiness_is_shed() {
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(LoadShedLayer::new());
    let mut response = task::spawn(service.call("never polled"));
    assert!(assert_ready_err!(response.poll()).is::<Overloaded>());

    assert_ready_ok!(service.poll_ready());
    let _first = service.call("polled");
    let mut second = task::spawn(service.call("not polled again"));
    assert!(assert_ready_err!(second.poll()).is::<Overloaded>());

    assert_request_eq!(handle, "polled").send_response(());
    assert_pending!(handle.poll_request());
}

#[tokio::test]
async fn a_clone_of_a_ready_service_is_not_ready() {
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(LoadShedLayer::new());
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    let mut response = task::spawn(clone.call("unpolled clone"));
    assert!(assert_ready_err!(response.poll()).is::<Overloaded>());

    let _response = service.call("original");
    assert_request_eq!(handle, "original").send_response(());
}

#[tokio::test]
async fn readiness_errors_pass_and_leave_it_not_ready() {
    let (mut service, mut handle) = mock::spawn_layer::<&str, (), _>(LoadShedLayer::new());
    assert_ready_ok!(service.poll_ready());
    handle.send_error("broken");
    assert_eq!(
        assert_ready_err!(service.poll_ready()).to_string(),
        "broken"
    );
    let mut response = task::spawn(service.call("hello"));
    assert!(assert_ready_err!(response.poll()).is::<Overloaded>());
}

#[tokio::test]
async fn response_errors_pass() {
    let (mut service, mut handle) = mock::spawn_layer::<_, (), _>(LoadShedLayer::new());
    assert_ready_ok!(service.poll_ready());
    let response = service.call("hello");
    assert_request_eq!(handle, "hello").send_error("broken");
    assert_eq!(response.await.unwrap_err().to_string(), "broken");
}

#[test]
fn prints_as_documented() {
    assert_eq!(Overloaded::new().to_string(), "service overloaded");
    assert_eq!(format!("{:?}", Overloaded::default()), "Overloaded");
    assert_eq!(format!("{:?}", LoadShedLayer::new()), "LoadShedLayer");
    let (mock, _handle) = mock::pair::<&'static str, &'static str>();
    let service: LoadShed<Mock> = LoadShedLayer::default().layer(mock);
    assert!(format!("{service:?}").starts_with("LoadShed { inner: Mock"));
}
