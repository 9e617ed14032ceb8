//! What the callers of a `SpawnReady` see.

use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_close::Close;
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_service::Service;
use tower_spawn_ready::{
    Aborted, Closed, NoRuntime, NotReady, Panicked, ResponseFuture, SpawnReady, SpawnReadyLayer,
};
use tower_test::mock;
use tracing::Instrument;

type Mock = mock::Mock<u32, u32>;

fn stuck() -> (mock::Spawn<SpawnReady<Mock>>, mock::Handle<u32, u32>) {
    let (service, mut handle) = mock::spawn_layer(SpawnReady::<()>::layer());
    handle.allow(0);
    (service, handle)
}

/// Pending once, then whatever `then` says.
struct Slow<F> {
    polls: u32,
    then: F,
}

impl<F: FnMut() -> Result<(), Infallible>> Service<()> for Slow<F> {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls += 1;
        if self.polls == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready((self.then)())
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn slow<F>(then: F) -> mock::Spawn<SpawnReady<Slow<F>>> {
    mock::Spawn::new(SpawnReadyLayer::new().layer(Slow { polls: 0, then }))
}

#[tokio::test]
async fn a_service_becomes_ready_though_nobody_polls() {
    let (mut service, mut handle) = stuck();
    assert_pending!(service.poll_ready());
    yield_now().await;
    handle.allow(1);
    yield_now().await;
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1));
    let (req, send) = assert_ready!(handle.poll_request()).unwrap();
    send.send_response(req + 1);
    assert_eq!(assert_ready_ok!(response.poll()), 2);
}

#[test]
fn a_ready_service_needs_no_runtime() {
    let (mut service, mut handle) = mock::spawn_layer(SpawnReadyLayer::new());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(1_u32));
    assert_ready!(handle.poll_request())
        .unwrap()
        .1
        .send_response(2_u32);
    assert_eq!(assert_ready_ok!(response.poll()), 2);
}

#[test]
fn without_a_runtime_it_fails_with_a_typed_error() {
    let (mut service, mut handle) = stuck();
    assert!(assert_ready_err!(service.poll_ready()).is::<NoRuntime>());
    // The service is kept.
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test]
async fn a_call_without_readiness_never_reaches_the_service() {
    let (mut service, mut handle) = stuck();
    let assert_refused = |response| {
        let mut response = task::spawn::<ResponseFuture<_, _>>(response);
        let error: Box<dyn std::error::Error + Send + Sync> = assert_ready_err!(response.poll());
        assert!(error.is::<NotReady>());
    };
    // Never polled.
    assert_refused(service.call(1));
    // On its task.
    assert_pending!(service.poll_ready());
    assert_refused(service.call(2));
    // Called already.
    handle.allow(1);
    let ready = poll_fn(|cx| service.get_mut().poll_ready(cx));
    ready.await.unwrap();
    drop(service.call(3));
    assert_refused(service.call(4));
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 3);
    assert_pending!(handle.poll_request());
}

#[tokio::test]
async fn a_panic_on_the_task_reaches_the_caller_with_its_cause() {
    let mut service = slow(|| panic!("out of {}", "luck"));
    assert_pending!(service.poll_ready());
    yield_now().await;
    for _ in 0..2 {
        let error = assert_ready_err!(service.poll_ready());
        let panicked = error.downcast_ref::<Panicked>().expect("a panic");
        assert_eq!(panicked.message(), Some("out of luck"));
        assert_eq!(error.to_string(), "service panicked: out of luck");
    }
    let mut response = task::spawn(service.call(()));
    assert!(assert_ready_err!(response.poll()).is::<NotReady>());
}

#[tokio::test]
async fn a_readiness_error_is_passed_on_and_the_service_kept() {
    let (mut service, mut handle) = stuck();
    assert_pending!(service.poll_ready());
    yield_now().await;
    handle.send_error("foobar");
    yield_now().await;
    assert_eq!(
        assert_ready_err!(service.poll_ready()).to_string(),
        "foobar"
    );
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test]
async fn dropping_it_ends_the_task() {
    let (mut service, mut handle) = stuck();
    assert_pending!(service.poll_ready());
    yield_now().await;
    assert_pending!(handle.poll_request());
    drop(service);
    yield_now().await;
    assert!(
        assert_ready!(handle.poll_request()).is_none(),
        "the mock is dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn closing_it_ends_the_task_though_it_is_kept() {
    let (mut service, mut handle) = stuck();
    assert_pending!(service.poll_ready());
    yield_now().await;
    let soon = Deadline::after(std::time::Duration::from_secs(1));
    service.get_ref().close(soon).await.unwrap();
    // The service is dropped with its task.
    assert!(handle.next_request().await.is_none());
    assert!(assert_ready_err!(service.poll_ready()).is::<Closed>());
    let mut response = task::spawn(service.call(1));
    assert!(assert_ready_err!(response.poll()).is::<Closed>());
    // Once more, it is closed already.
    service.get_ref().close(soon).await.unwrap();
}

#[test]
fn a_shut_down_runtime_is_a_typed_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (mut service, _handle) = stuck();
    runtime.block_on(async { assert_pending!(service.poll_ready()) });
    drop(runtime);
    assert!(assert_ready_err!(service.poll_ready()).is::<Aborted>());
}

#[tokio::test]
async fn the_task_runs_in_the_span_of_the_caller() {
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry());
    let seen = Arc::new(Mutex::new(None));
    let record = Arc::clone(&seen);
    let mut service = SpawnReady::new(Slow {
        polls: 0,
        then: move || {
            *record.lock().unwrap() = tracing::Span::current().id();
            Ok(())
        },
    });
    let span = tracing::info_span!("caller");
    let ready = poll_fn(|cx| service.poll_ready(cx));
    ready.instrument(span.clone()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), span.id());
    assert!(span.id().is_some());
}

#[tokio::test]
async fn a_service_that_is_unready_again_is_driven_again() {
    let (mut service, mut handle) = stuck();
    for round in 0..3 {
        assert_pending!(service.poll_ready());
        handle.allow(1);
        yield_now().await;
        assert_ready_ok!(service.poll_ready());
        drop(service.call(round));
        assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, round);
    }
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
fn a_response_that_is_there_no_longer_holds_what_the_service_gave_it() {
    let held = Arc::default();
    let mut service = mock::Spawn::new(SpawnReady::new(Holding(Arc::clone(&held))));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(()));
    assert_eq!(Arc::strong_count(&held), 3);
    assert_ready_ok!(response.poll());
    assert_eq!(Arc::strong_count(&held), 2, "it is not kept until the drop");
}

#[test]
fn auto_traits_are_those_of_the_parts() {
    fn both<T: Send + Sync + Unpin>() {}
    both::<SpawnReady<u32>>();
    both::<SpawnReadyLayer>();
    // The error's own traits don't count.
    both::<ResponseFuture<Ready<()>, std::rc::Rc<()>>>();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(
        SpawnReady::new(Slow {
            polls: 1,
            then: || Ok(())
        })
        .poll_ready(&mut cx)
        .is_ready()
    );
}
