//! What `Timeout` promises, seen from outside.

use std::convert::Infallible;
use std::future::{Future, Pending, Ready, pending, poll_fn, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::consume_budget;
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::{assert_request_eq, mock};
use tower_timeout::{Elapsed, NoRuntime, Timeout, TimeoutLayer};

const MS: Duration = Duration::from_millis(1);

type Mock = mock::Mock<&'static str, &'static str>;

fn spawn(
    layer: TimeoutLayer,
) -> (
    mock::Spawn<Timeout<Mock>>,
    mock::Handle<&'static str, &'static str>,
) {
    mock::spawn_layer(layer)
}

/// A service made of two functions.
struct Fns<R, C>(R, C);

impl<R, C, F> Service<()> for Fns<R, C>
where
    R: FnMut() -> Poll<()>,
    C: FnMut() -> F,
    F: Future<Output = Result<(), Infallible>>,
{
    type Response = ();
    type Error = Infallible;
    type Future = F;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        (self.0)().map(Ok)
    }

    fn call(&mut self, (): ()) -> F {
        (self.1)()
    }
}

fn always_ready() -> Poll<()> {
    Poll::Ready(())
}

fn answer() -> Ready<Result<(), Infallible>> {
    ready(Ok(()))
}

fn never() -> Pending<Result<(), Infallible>> {
    pending()
}

#[tokio::test(start_paused = true)]
async fn a_response_in_time_is_delivered() {
    let (mut service, mut handle) = spawn(TimeoutLayer::new(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    advance(9 * MS).await;
    assert_pending!(response.poll());
    assert_request_eq!(handle, "hello").send_response("world");
    assert!(response.is_woken());
    assert_eq!(assert_ready_ok!(response.poll()), "world");
}

#[tokio::test(start_paused = true)]
async fn a_late_response_fails_with_elapsed() {
    let (mut service, _handle) = spawn(TimeoutLayer::new(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let started = Instant::now();
    let error = service.call("hello").await.unwrap_err();
    assert!(error.is::<Elapsed>());
    assert_eq!(started.elapsed(), 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn the_clock_starts_in_call_not_at_the_first_poll() {
    let (mut service, _handle) = spawn(TimeoutLayer::new(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    advance(11 * MS).await;
    assert!(assert_ready_err!(response.poll()).is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_there_wins_over_the_deadline() {
    let (mut service, mut handle) = spawn(TimeoutLayer::new(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    assert_request_eq!(handle, "hello").send_response("world");
    advance(20 * MS).await;
    assert_eq!(assert_ready_ok!(response.poll()), "world");
}

#[tokio::test(start_paused = true)]
async fn a_zero_timeout_still_delivers_what_is_ready() {
    let mut service = Timeout::new(Fns(always_ready, answer), Duration::ZERO);
    service.call(()).await.unwrap();
    let mut service = Timeout::new(Fns(always_ready, never), Duration::ZERO);
    assert!(service.call(()).await.unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_duration_beyond_the_clock_is_no_bound() {
    let layer = TimeoutLayer::new(Duration::MAX)
        .with_readiness_timeout(Duration::MAX)
        .with_total_timeout(Duration::MAX);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(response.poll());
    assert_request_eq!(handle, "hello").send_response("world");
    assert_ready_ok!(response.poll());
}

#[test]
fn nothing_panics_outside_of_a_runtime() {
    let mut cx = Context::from_waker(Waker::noop());

    let mut service = Timeout::new(Fns(always_ready, answer), MS);
    assert!(Service::poll_ready(&mut service, &mut cx).is_ready());
    let mut response = task::spawn(service.call(()));
    assert_ready_ok!(response.poll(), "a ready response needs no timer");

    let mut service = Timeout::new(Fns(always_ready, never), MS);
    let mut response = task::spawn(service.call(()));
    assert!(assert_ready_err!(response.poll()).is::<NoRuntime>());

    let mut service = Timeout::new(Fns(|| Poll::Pending, never), MS).with_readiness_timeout(MS);
    assert!(assert_ready_err!(service.poll_ready(&mut cx)).is::<NoRuntime>());
}

#[test]
fn call_may_be_made_outside_of_the_runtime_that_polls() {
    let mut service = Timeout::new(Fns(always_ready, never), MS);
    let response = service.call(());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    assert!(runtime.block_on(response).unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_uses_up_the_cooperative_budget_is_stopped_all_the_same() {
    // Pending only because the budget is spent, and woken at once: the task never rests.
    let glutton = || {
        poll_fn(|cx: &mut Context<'_>| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::<Result<(), Infallible>>::Pending
        })
    };
    let mut service = Timeout::new(Fns(always_ready, glutton), 10 * MS);
    let response = tokio::spawn(service.call(()));
    tokio::task::yield_now().await;
    advance(11 * MS).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(response.is_finished());
    assert!(response.await.unwrap().unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn readiness_is_unbounded_by_default() {
    let (mut service, mut handle) = spawn(TimeoutLayer::new(MS));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    advance(Duration::from_secs(1)).await;
    assert!(!service.is_woken());
    assert_pending!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_readiness_timeout_covers_the_wait_for_readiness() {
    let layer = TimeoutLayer::new(MS).with_readiness_timeout(10 * MS);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    advance(20 * MS).await;
    assert_pending!(service.poll_ready(), "the wait begins at the first poll");
    advance(9 * MS).await;
    assert_pending!(service.poll_ready());
    advance(MS).await;
    assert!(service.is_woken());
    assert!(assert_ready_err!(service.poll_ready()).is::<Elapsed>());

    // It isn't the end of the service: the next wait is a new one.
    assert_pending!(service.poll_ready());
    advance(9 * MS).await;
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());

    // The response has all of its own time.
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    assert_request_eq!(handle, "hello").send_response("world");
    assert_ready_ok!(response.poll());
}

#[tokio::test(start_paused = true)]
async fn readiness_that_is_there_wins_over_the_readiness_timeout() {
    let layer = TimeoutLayer::new(MS).with_readiness_timeout(10 * MS);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    advance(20 * MS).await;
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_clone_starts_a_wait_of_its_own() {
    let layer = TimeoutLayer::new(MS).with_readiness_timeout(10 * MS);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    advance(9 * MS).await;
    let mut clone = service.clone();
    assert_pending!(clone.poll_ready());
    advance(MS).await;
    assert!(assert_ready_err!(service.poll_ready()).is::<Elapsed>());
    assert_pending!(clone.poll_ready());
    advance(9 * MS).await;
    assert!(assert_ready_err!(clone.poll_ready()).is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_takes_the_wait_from_the_response() {
    let layer = TimeoutLayer::new(100 * MS).with_total_timeout(10 * MS);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    advance(6 * MS).await;
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    // What the caller does with a ready service is not the service's time.
    advance(50 * MS).await;
    assert_ready_ok!(service.poll_ready());
    let called = Instant::now();
    let error = service.call("hello").await.unwrap_err();
    assert!(error.is::<Elapsed>());
    assert_eq!(called.elapsed(), 4 * MS);

    // The next request has the whole of it again.
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let called = Instant::now();
    service.call("hello").await.unwrap_err();
    assert_eq!(called.elapsed(), 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn the_response_timeout_holds_within_a_longer_total() {
    let (mut service, _handle) = spawn(TimeoutLayer::new(10 * MS).with_total_timeout(100 * MS));
    assert_ready_ok!(service.poll_ready());
    let called = Instant::now();
    service.call("hello").await.unwrap_err();
    assert_eq!(called.elapsed(), 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_bounds_the_wait_for_readiness_too() {
    let layer = TimeoutLayer::new(100 * MS).with_total_timeout(10 * MS);
    let (mut service, mut handle) = spawn(layer);
    handle.allow(0);
    let waited = Instant::now();
    let error = poll_fn(|cx| service.get_mut().poll_ready(cx)).await;
    assert!(error.unwrap_err().is::<Elapsed>());
    assert_eq!(waited.elapsed(), 10 * MS);

    // Ready, but with no time left to use it.
    assert_pending!(service.poll_ready());
    advance(20 * MS).await;
    handle.allow(1);
    assert!(assert_ready_err!(service.poll_ready()).is::<Elapsed>());
    assert_ready_ok!(service.poll_ready());
}

#[test]
fn a_bounded_wait_outlives_its_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let mut service = Timeout::new(Fns(|| Poll::Pending, never), MS).with_readiness_timeout(MS);
    let mut cx = Context::from_waker(Waker::noop());
    runtime().block_on(async { assert_pending!(service.poll_ready(&mut cx)) });
    let error = runtime().block_on(poll_fn(|cx| service.poll_ready(cx)));
    assert!(error.unwrap_err().is::<Elapsed>());
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_pass() {
    let layer = TimeoutLayer::new(MS).with_readiness_timeout(MS);
    let (mut service, mut handle) = spawn(layer);
    assert_ready_ok!(service.poll_ready());
    let response = service.call("hello");
    assert_request_eq!(handle, "hello").send_error("broken");
    assert_eq!(response.await.unwrap_err().to_string(), "broken");
    handle.send_error("gone");
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "gone");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_response_future_drops_the_request() {
    let (mut service, mut handle) = spawn(TimeoutLayer::new(MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("hello"));
    assert_pending!(response.poll());
    drop(response);
    let (_, answer) = assert_ready!(handle.poll_request()).unwrap();
    answer.send_response("nobody listens");
    sleep(10 * MS).await;
}

#[test]
fn prints_as_documented() {
    assert_eq!(Elapsed::new().to_string(), "request timed out");
    assert_eq!(format!("{:>20}", Elapsed::new()), "   request timed out");
    assert_eq!(format!("{:?}", Elapsed::default()), "Elapsed(())");
}

#[test]
fn the_auto_traits_are_those_of_the_inner_service() {
    const fn auto<T: Send + Sync + Unpin>(_: &T) {}
    const TIMEOUT: Timeout<u8> = Timeout::new(7, MS);
    auto(&TIMEOUT);
    let mut service = TimeoutLayer::new(MS).layer(1_u8);
    *service.get_mut() += 1;
    assert_eq!((*service.get_ref(), service.into_inner()), (2, 2));
    fn future<T: Send + Sync>(_: &T) {}
    let mut service = Timeout::new(Fns(always_ready, never), MS);
    let response = service.call(());
    future(&response);
}
