//! The adapters keep the contract in both directions, alone, as layers, and nested.
//!
//! `upstream` is crates.io's tower 0.5; `tower_compat_relay` has its two traits. Everything else is ours.

use std::future::poll_fn;
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_compat::{FromCratesIo, ToCratesIo};
use tower_compat_relay::{Layer as TheirLayer, Service as TheirService};
use tower_layer::{Layer, layer_fn};
use tower_limit::concurrency::ConcurrencyLimitLayer;
use tower_service::Service;
use tower_test::mock::{self, Mock};
use tower_timeout::TimeoutLayer;

type Request = &'static str;
type Response = &'static str;

/// Our mock, as crates.io's service.
type Theirs = ToCratesIo<Mock<Request, Response>>;

/// Our mock, as crates.io's service, as ours again: what a user of `FromCratesIo` has.
type RoundTrip = FromCratesIo<Theirs>;

fn theirs() -> (Theirs, mock::Handle<Request, Response>) {
    let (mock, handle) = mock::pair();
    (ToCratesIo::new(mock), handle)
}

fn round_trip() -> (RoundTrip, mock::Handle<Request, Response>) {
    let (theirs, handle) = theirs();
    (FromCratesIo::new(theirs), handle)
}

/// Waits until crates.io's service is ready, and calls it.
async fn call_theirs<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: TheirService<R>,
{
    poll_fn(|cx| TheirService::poll_ready(service, cx)).await?;
    TheirService::call(service, request).await
}

/// Waits until our service is ready, and calls it.
async fn call_ours<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| Service::poll_ready(service, cx)).await?;
    Service::call(service, request).await
}

/// Answers the next request of `handle` with `response`.
async fn answer(
    handle: &mut mock::Handle<Request, Response>,
    expected: Request,
    response: Response,
) {
    let (request, send) = handle.next_request().await.expect("a request");
    assert_eq!(request, expected);
    send.send_response(response);
}

#[test]
fn readiness_and_its_waker_are_forwarded() {
    let (mut service, mut handle) = round_trip();
    handle.allow(0);

    let mut ready = task::spawn(poll_fn(|cx| service.poll_ready(cx)));
    assert_pending!(ready.poll());
    assert!(!ready.is_woken());

    handle.allow(1);
    assert!(ready.is_woken());
    assert_ready_ok!(ready.poll());
}

#[test]
fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let (mut service, mut handle) = round_trip();
    handle.allow(0);

    let mut first = task::spawn(());
    let mut last = task::spawn(());
    assert_pending!(first.enter(|cx, _| service.poll_ready(cx)));
    assert_pending!(last.enter(|cx, _| service.poll_ready(cx)));

    handle.allow(1);
    assert!(last.is_woken());
    assert!(!first.is_woken());
}

#[test]
fn an_error_of_readiness_is_forwarded() {
    let (mut service, mut handle) = round_trip();
    handle.send_error("the disk is full");

    let mut ready = task::spawn(poll_fn(|cx| service.poll_ready(cx)));
    let error = assert_ready_err!(ready.poll());
    assert_eq!(error.to_string(), "the disk is full");
}

#[tokio::test]
async fn requests_and_responses_are_forwarded() {
    let (mut service, mut handle) = round_trip();
    let (response, ()) = tokio::join!(
        call_ours(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");
}

#[tokio::test]
async fn an_error_of_the_response_is_forwarded() {
    let (mut service, mut handle) = round_trip();
    let (response, ()) = tokio::join!(call_ours(&mut service, "ping"), async {
        let (_, send) = handle.next_request().await.unwrap();
        send.send_error("no route");
    });
    assert_eq!(response.unwrap_err().to_string(), "no route");
}

#[test]
fn the_waker_of_the_response_is_forwarded() {
    let (mut service, mut handle) = round_trip();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_ready_ok!(service.poll_ready(&mut cx));

    let mut response = task::spawn(service.call("ping"));
    assert_pending!(response.poll());

    let mut next = task::spawn(handle.next_request());
    let (_, send) = assert_ready!(next.poll()).unwrap();
    send.send_response("pong");
    assert!(response.is_woken());
    assert_eq!(assert_ready_ok!(response.poll()), "pong");
}

#[test]
fn a_clone_inherits_no_reservation() {
    let (mock, mut handle) = mock::pair::<Request, Response>();
    handle.allow(2);
    let limit = ConcurrencyLimitLayer::new(1);
    let mut service = FromCratesIo::new(ToCratesIo::new(limit.layer(mock)));

    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_ready_ok!(service.poll_ready(&mut cx));

    let mut clone = service.clone();
    let mut waiting = task::spawn(());
    assert_pending!(waiting.enter(|cx, _| clone.poll_ready(cx)));

    drop(service);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.enter(|cx, _| clone.poll_ready(cx)));
}

#[tokio::test(start_paused = true)]
async fn our_layer_decorates_their_service() {
    let (service, mut handle) = theirs();
    let timeout = TimeoutLayer::new(Duration::from_secs(1));
    let mut service = TheirLayer::layer(&ToCratesIo::new(timeout), service);

    let (response, ()) = tokio::join!(
        call_theirs(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");

    let error = call_theirs(&mut service, "ping").await.unwrap_err();
    assert!(error.is::<tower_timeout::Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn their_layer_decorates_our_service() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let timeout = upstream::timeout::TimeoutLayer::new(Duration::from_secs(1));
    let mut service = FromCratesIo::new(timeout).layer(service);

    let (response, ()) = tokio::join!(
        call_ours(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");

    let error = call_ours(&mut service, "ping").await.unwrap_err();
    assert!(error.is::<upstream::timeout::error::Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn layers_of_both_stand_in_one_stack_of_ours() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let mut service = (
        TimeoutLayer::new(Duration::from_secs(1)),
        FromCratesIo::new(upstream::limit::ConcurrencyLimitLayer::new(1)),
        ConcurrencyLimitLayer::new(1),
    )
        .layer(service);

    let (response, ()) = tokio::join!(
        call_ours(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");

    // Both limits gave their only permit back.
    let error = call_ours(&mut service, "ping").await.unwrap_err();
    assert!(error.is::<tower_timeout::Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn layers_of_both_stand_in_one_stack_of_theirs() {
    let (service, mut handle) = theirs();
    let mut service = upstream::ServiceBuilder::new()
        .layer(ToCratesIo::new(TimeoutLayer::new(Duration::from_secs(1))))
        .concurrency_limit(1)
        .layer(ToCratesIo::new(ConcurrencyLimitLayer::new(1)))
        .service(service);

    let (response, ()) = tokio::join!(
        call_theirs(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");

    let error = call_theirs(&mut service, "ping").await.unwrap_err();
    assert!(error.is::<tower_timeout::Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_layer_makes_the_round_trip() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let timeout = TimeoutLayer::new(Duration::from_secs(1));
    let mut service = FromCratesIo::new(ToCratesIo::new(timeout)).layer(service);

    let (response, ()) = tokio::join!(
        call_ours(&mut service, "ping"),
        answer(&mut handle, "ping", "pong"),
    );
    assert_eq!(response.unwrap(), "pong");

    let error = call_ours(&mut service, "ping").await.unwrap_err();
    assert!(error.is::<tower_timeout::Elapsed>());
}

#[test]
fn a_layer_decorates_any_number_of_services() {
    let layer = ToCratesIo::new(layer_fn(|inner| (inner, "decorated")));
    let one = TheirLayer::layer(&layer, 1);
    let two = TheirLayer::layer(&layer.clone(), 2);
    assert_eq!(one.get_ref().0.into_inner(), 1);
    assert_eq!(two.into_inner().0.into_inner(), 2);
}

#[test]
fn the_wrapped_is_reached_and_taken_out() {
    let mut to = ToCratesIo::new(1);
    *to.get_mut() += 1;
    assert_eq!(*to.get_ref(), 2);
    assert_eq!(to.into_inner(), 2);

    let mut from = FromCratesIo::new(1);
    *from.get_mut() += 1;
    assert_eq!(*from.get_ref(), 2);
    assert_eq!(from.into_inner(), 2);
}

/// The future that comes out is the wrapped service's own (so that dropping it cancels), and a wrapper
/// takes no room.
#[test]
fn the_wrappers_cost_nothing() {
    fn same_future<A, B>()
    where
        A: Service<Request>,
        B: Service<Request, Future = A::Future>,
    {
    }
    same_future::<Mock<Request, Response>, RoundTrip>();

    type Ours = Mock<Request, Response>;
    assert_eq!(size_of::<Ours>(), size_of::<Theirs>());
    assert_eq!(size_of::<Ours>(), size_of::<RoundTrip>());
    assert_eq!(size_of::<ToCratesIo<()>>(), 0);
    assert_eq!(size_of::<FromCratesIo<()>>(), 0);
}

#[test]
fn the_wrappers_are_send_sync_clone_as_what_they_wrap() {
    fn check<T: Send + Sync + Unpin + Clone + Copy + Default + std::fmt::Debug>() {}
    check::<ToCratesIo<()>>();
    check::<FromCratesIo<()>>();
}
