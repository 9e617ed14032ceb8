//! The filters from outside.

use std::future::{Ready, ready};
use std::task::Poll;

use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower_filter::{AsyncFilter, AsyncFilterLayer, Filter, FilterLayer};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::mock;

type Mock = mock::Mock<u32, u32>;

fn even(number: u32) -> Result<u32, &'static str> {
    if number % 2 == 0 {
        Ok(number)
    } else {
        Err("odd")
    }
}

fn even_later(number: u32) -> Ready<Result<u32, &'static str>> {
    ready(even(number))
}

#[test]
fn an_admitted_request_is_sent_on_as_the_predicate_made_it() {
    let (mut service, mut handle) = mock::spawn_with(|mock: mock::Mock<usize, u32>| {
        Filter::new(mock, |text: &'static str| Ok::<_, &'static str>(text.len()))
    });
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("four"));
    assert_pending!(response.poll());

    let (request, send) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!(request, 4);
    send.send_response(8);
    assert_eq!(assert_ready_ok!(response.poll()), 8);
}

#[test]
fn a_rejection_resolves_at_once_and_leaves_the_service_ready() {
    let (mut service, mut handle) = mock::spawn_layer::<u32, u32, _>(FilterLayer::new(even));
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    let error = assert_ready!(response.poll()).unwrap_err();
    assert_eq!(error.to_string(), "odd");
    assert!(handle.poll_request().is_pending());

    // The allowance of one is still there for the next request.
    assert_ready_ok!(service.poll_ready());
    drop(service.call(2));
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 2);
}

#[test]
fn an_error_of_the_inner_service_comes_through() {
    let (mut service, mut handle) = mock::spawn_layer::<u32, u32, _>(FilterLayer::new(even));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(2));
    assert_ready!(handle.poll_request())
        .unwrap()
        .1
        .send_error("broken");
    let error = assert_ready!(response.poll()).unwrap_err();
    assert_eq!(error.to_string(), "broken");

    handle.send_error("gone");
    let error = assert_ready!(service.poll_ready()).unwrap_err();
    assert_eq!(error.to_string(), "gone");
}

#[test]
fn the_instance_that_was_polled_ready_takes_the_request_and_not_a_fresh_clone() {
    // The mock panics where a handle of it is called that was not polled ready.
    let (mut service, mut handle) =
        mock::spawn_layer::<u32, u32, _>(AsyncFilterLayer::new(even_later));
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(2));
    assert_pending!(response.poll());
    assert_pending!(service.poll_ready(), "the clone inherited the reservation");

    let (request, send) = assert_ready!(handle.poll_request()).unwrap();
    send.send_response(request + 1);
    assert_eq!(assert_ready_ok!(response.poll()), 3);
}

#[test]
fn the_inner_service_is_called_only_when_the_predicate_has_decided() {
    let (decide, decision) = tokio::sync::oneshot::channel::<u32>();
    let mut decision = Some(decision);
    let (mock, mut handle) = mock::pair::<u32, u32>();
    let mut service = mock::Spawn::new(AsyncFilter::new(mock, move |(): ()| {
        decision.take().unwrap()
    }));
    assert_ready_ok!(service.poll_ready::<()>());
    let mut response = task::spawn(service.call(()));
    assert_pending!(response.poll());
    assert!(handle.poll_request().is_pending());

    decide.send(5).unwrap();
    assert!(response.is_woken());
    assert_pending!(response.poll());
    assert_ready!(handle.poll_request())
        .unwrap()
        .1
        .send_response(6);
    assert_eq!(assert_ready_ok!(response.poll()), 6);
}

#[test]
fn a_request_cancelled_while_the_predicate_decides_frees_its_reservation() {
    let (mock, mut handle) = mock::pair::<u32, u32>();
    let never = |_: u32| std::future::pending::<Result<u32, &'static str>>();
    let mut service = mock::Spawn::new(AsyncFilter::new(mock, never));
    handle.allow(1);
    assert_ready_ok!(service.poll_ready::<u32>());
    let mut response = task::spawn(service.call(2));
    assert_pending!(response.poll());
    assert_pending!(service.poll_ready::<u32>());

    drop(response);
    assert_ready_ok!(service.poll_ready::<u32>());
}

#[test]
fn an_asynchronous_rejection_keeps_the_request_from_the_inner_service() {
    let (mut service, mut handle) =
        mock::spawn_layer::<u32, u32, _>(AsyncFilterLayer::new(even_later));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    assert_eq!(
        assert_ready!(response.poll()).unwrap_err().to_string(),
        "odd"
    );
    drop(response);
    drop(service);
    assert!(matches!(handle.poll_request(), Poll::Ready(None)));
}

#[tokio::test]
async fn a_predicate_can_be_asked_without_a_call() {
    let (mock, _handle) = mock::pair::<u32, u32>();
    let mut sync: Filter<Mock, _> = Filter::new(mock.clone(), even);
    assert_eq!(sync.check(2).unwrap(), 2);
    assert_eq!(sync.check(3).unwrap_err().to_string(), "odd");

    let mut later: AsyncFilter<Mock, _> = AsyncFilter::new(mock, even_later);
    assert_eq!(later.check(2).await.unwrap(), 2);
    assert_eq!(later.check(3).await.unwrap_err().to_string(), "odd");
    let _: &Mock = later.get_ref();
    let _: &mut Mock = later.get_mut();
    let _: Mock = later.into_inner();
}

#[test]
fn the_asynchronous_filters_layer_makes_synchronous_ones() {
    // An oddity that callers may rely on.
    let layer: FilterLayer<_> = AsyncFilter::<Mock, _>::layer(even);
    let (mock, _handle) = mock::pair::<u32, u32>();
    let _: Filter<Mock, _> = layer.layer(mock);
}

#[test]
fn a_response_future_prints() {
    let (mut service, _handle) = mock::spawn_layer::<u32, u32, _>(FilterLayer::new(even));
    assert_ready_ok!(service.poll_ready());
    assert_eq!(format!("{:?}", service.call(2)), "ResponseFuture { .. }");
}

#[test]
fn readiness_and_calls_need_no_runtime() {
    let mut service = Filter::new(tower_util::service_fn(even_later), even);
    assert_eq!(
        assert_ready_ok!(task::spawn(Service::call(&mut service, 2)).poll()),
        2
    );
}

#[test]
fn filters_keep_the_contract_of_services() {
    use tower_test::contract::{Request, check};

    check(|inner| Filter::new(inner, |req: Request| Ok::<_, &str>(req))).assert();
    check(|inner| AsyncFilter::new(inner, |req: Request| ready(Ok::<_, &str>(req)))).assert();
    check(|inner| {
        AsyncFilter::new(inner, |req: Request| async move {
            tokio::task::yield_now().await;
            Ok::<_, &str>(req)
        })
    })
    .assert();
}
