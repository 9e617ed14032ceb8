//! What a buffer's callers see.

mod closing;
mod model;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_buffer::{
    AtCapacity, Buffer, BufferLayer, Closed, NoRuntime, Panicked, ResponseFuture, ServiceError,
    Worker,
};
use tower_layer::Layer;
use tower_service::Service;
use tower_test::{assert_request_eq, mock};
use tower_util::{ServiceExt, service_fn};

type BoxError = Box<dyn Error + Send + Sync>;
type MockFuture = mock::future::ResponseFuture<u32>;
type MockBuffer = Buffer<u32, MockFuture>;
type MockHandle = mock::Handle<u32, u32>;
type MockWorker = task::Spawn<Worker<mock::Mock<u32, u32>, u32>>;

/// A buffer over a mock that isn't ready, whose worker waits for work.
fn stuck(bound: usize) -> (MockBuffer, MockWorker, MockHandle) {
    stuck_in(BufferLayer::new(bound))
}

fn stuck_in(layer: BufferLayer<u32>) -> (MockBuffer, MockWorker, MockHandle) {
    let (mock, mut handle) = mock::pair();
    handle.allow(0);
    let (service, worker) = layer.pair(mock);
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    (service, worker, handle)
}

fn poll_ready<S: Service<Req>, Req>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

fn call(service: &mut MockBuffer, req: u32) -> task::Spawn<ResponseFuture<MockFuture>> {
    assert_ready_ok!(poll_ready(service));
    task::spawn(service.call(req))
}

/// Panics at request 13, is ready otherwise.
#[derive(Clone, Default)]
struct Superstitious {
    calls: Arc<AtomicUsize>,
}

impl Service<u32> for Superstitious {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: u32) -> Self::Future {
        assert_ne!(req, 13, "unlucky");
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(req))
    }
}

#[track_caller]
fn assert_panicked(error: &(dyn Error + Send + Sync + 'static)) {
    let error = error
        .downcast_ref::<ServiceError>()
        .expect("a ServiceError");
    let source = error.source().expect("a source");
    let panicked = source.downcast_ref::<Panicked>().expect("a panic");
    assert!(panicked.message().unwrap().contains("unlucky"));
    assert!(source.to_string().contains("unlucky"));
}

#[tokio::test]
async fn a_panic_reaches_every_caller_with_its_cause() {
    let mut service = Buffer::new(Superstitious::default(), 4);
    let mut waiting = service.clone();
    service.ready().await.unwrap();
    waiting.ready().await.unwrap();
    assert_panicked(&*service.call(13).await.unwrap_err());
    assert_panicked(&*waiting.call(1).await.unwrap_err());
    assert_panicked(&*waiting.ready().await.unwrap_err());
    assert_panicked(&*service.clone().oneshot(1).await.unwrap_err());
}

#[test]
fn a_panic_in_the_worker_reaches_those_that_are_queued() {
    let ready = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(&ready);
    let mut calls = 0;
    let inner = Gated {
        gate,
        inner: service_fn(move |_: u32| {
            calls += 1;
            assert_eq!(calls, 1, "unlucky");
            std::future::ready(Ok::<_, Infallible>(1))
        }),
    };
    let (mut service, worker) = Buffer::pair(inner, 2);
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    let mut responses: Vec<_> = (0..3)
        .map(|req| {
            assert_ready_ok!(poll_ready(&mut service));
            task::spawn(service.call(req))
        })
        .collect();
    let mut waiter = service.clone();
    let mut waiting = task::spawn(poll_fn(move |cx| waiter.poll_ready(cx)));
    assert_pending!(waiting.poll());
    ready.store(usize::MAX, Ordering::Relaxed);
    assert_ready!(worker.poll());
    assert_eq!(assert_ready_ok!(responses[0].poll()), 1);
    assert_panicked(&*assert_ready_err!(responses[1].poll()));
    assert_panicked(&*assert_ready_err!(responses[2].poll()));
    assert!(waiting.is_woken());
    assert_panicked(&*assert_ready_err!(waiting.poll()));
}

/// Is ready as often as its gate says.
struct Gated<S> {
    gate: Arc<AtomicUsize>,
    inner: S,
}

impl<S: Service<Req>, Req> Service<Req> for Gated<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.gate.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> S::Future {
        self.gate.fetch_sub(1, Ordering::Relaxed);
        self.inner.call(req)
    }
}

#[tokio::test]
async fn a_rebuilt_service_goes_on_after_a_panic() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let make = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Superstitious::default()
    };
    let mut service = Buffer::rebuilding(make, 4);
    for _ in 0..3 {
        assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 7);
        assert_panicked(&*service.ready().await.unwrap().call(13).await.unwrap_err());
    }
    assert_eq!(service.ready().await.unwrap().call(8).await.unwrap(), 8);
    assert_eq!(made.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_service_that_cannot_be_rebuilt_fails_for_good() {
    let mut left = 1;
    let make = move || {
        assert!(left > 0, "unlucky: no more parts");
        left -= 1;
        Superstitious::default()
    };
    let mut service = Buffer::rebuilding(make, 4);
    assert_panicked(&*service.ready().await.unwrap().call(13).await.unwrap_err());
    assert_panicked(&*service.ready().await.unwrap_err());
}

#[test]
fn a_dropped_response_frees_its_slot_at_once() {
    let (mut service, _worker, _handle) = stuck(2);
    let responses: Vec<_> = (0..3).map(|req| call(&mut service, req)).collect();
    let mut waiting = task::spawn({
        let mut service = service.clone();
        poll_fn(move |cx| service.poll_ready(cx))
    });
    assert_pending!(waiting.poll());
    // The worker isn't polled, and the inner service doesn't wake.
    drop(responses);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
    assert_ready_ok!(poll_ready(&mut service));
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Is never ready for bombs.
struct Wary;

impl Service<Option<Bomb>> for Wary {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Option<Bomb>) -> Self::Future {
        ready(Ok(()))
    }
}

#[test]
fn a_request_that_panics_when_dropped_passes_its_slot_on() {
    let (mut service, worker) = Buffer::pair(Wary, 1);
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    assert_ready_ok!(poll_ready(&mut service));
    let _next = service.call(None);
    assert_ready_ok!(poll_ready(&mut service));
    let bomb = service.call(Some(Bomb));

    let mut waiting = task::spawn(service.clone());
    assert_pending!(waiting.enter(|cx, mut service| service.poll_ready(cx)));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(bomb)));
    assert!(dropped.is_err(), "the panic is its caller's");
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.enter(|cx, mut service| service.poll_ready(cx)));
}

#[test]
fn requests_that_panic_when_dropped_dont_keep_the_buffer_from_closing() {
    let (mut service, worker) = Buffer::pair(Wary, 2);
    let responses = [(); 2].map(|()| {
        assert_ready_ok!(poll_ready(&mut service));
        task::spawn(service.call(Some(Bomb)))
    });
    drop(worker);
    for mut response in responses {
        assert!(assert_ready_err!(response.poll()).is::<Closed>());
    }
}

#[test]
fn an_unwanted_response_that_panics_when_dropped_is_nobody_elses() {
    type Response = ResponseFuture<Leaving>;

    /// Has its response future drop itself, while it makes the response.
    #[derive(Clone, Default)]
    struct Leaver {
        leaving: Arc<Mutex<Option<Response>>>,
    }

    struct Leaving(#[allow(dead_code, reason = "held, to be dropped")] Option<Bomb>);

    impl Future for Leaving {
        type Output = Result<(), Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(()))
        }
    }

    impl Service<()> for Leaver {
        type Response = ();
        type Error = Infallible;
        type Future = Leaving;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Leaving {
            Leaving(self.leaving.lock().unwrap().take().map(|_| Bomb))
        }
    }

    let leaver = Leaver::default();
    let (mut service, worker) = Buffer::pair(leaver.clone(), 2);
    assert_ready_ok!(poll_ready(&mut service));
    *leaver.leaving.lock().unwrap() = Some(service.call(()));
    assert_ready_ok!(poll_ready(&mut service));
    let mut other = task::spawn(service.call(()));
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    assert_ready_ok!(other.poll());
}

#[test]
fn each_of_the_queued_can_be_dropped() {
    for dropped in 0..3 {
        let (mut service, mut worker, mut handle) = stuck(2);
        let mut responses: Vec<_> = (0..3).map(|req| call(&mut service, req)).collect();
        assert_pending!(poll_ready(&mut service));
        drop(responses.remove(dropped));
        assert_ready_ok!(poll_ready(&mut service));

        handle.allow(10);
        assert_pending!(worker.poll());
        let mut seen = Vec::new();
        while let Poll::Ready(Some((req, _))) = handle.poll_request() {
            seen.push(req as usize);
        }
        assert_eq!(seen, (0..3).filter(|&i| i != dropped).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn sheds_only_at_capacity_whatever_the_cooperative_budget() {
    let (mut service, _worker, _handle) = stuck(10_000);
    let mut responses = Vec::new();
    // All in one poll of one task, which is when tokio's budget would run out.
    for req in 0..10_001 {
        assert_ready_ok!(poll_ready(&mut service), "shed request {req}");
        responses.push(service.call(req));
    }
    assert_pending!(poll_ready(&mut service));
}

#[test]
fn outside_of_a_runtime_it_fails_with_a_typed_error() {
    let mut service = Buffer::new(Superstitious::default(), 4);
    assert!(assert_ready_err!(poll_ready(&mut service)).is::<NoRuntime>());
    let mut response = task::spawn(service.call(1));
    assert!(assert_ready_err!(response.poll()).is::<NoRuntime>());
    let mut service = BufferLayer::new(1).layer(Superstitious::default());
    assert!(assert_ready_err!(poll_ready(&mut service)).is::<NoRuntime>());
}

#[test]
fn a_call_without_readiness_takes_a_free_slot_or_fails() {
    let (mut service, mut worker, mut handle) = stuck(1);
    let mut first = task::spawn(service.call(1));
    let mut second = task::spawn(service.call(2));
    let mut third = task::spawn(service.call(3));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert!(assert_ready_err!(third.poll()).is::<AtCapacity>());

    // Nor does it take a slot from those that wait for it.
    let mut waiter = service.clone();
    let mut waiting = task::spawn(poll_fn(move |cx| waiter.poll_ready(cx)));
    assert_pending!(waiting.poll());
    handle.allow(1);
    assert_pending!(worker.poll());
    let mut fourth = task::spawn(service.call(4));
    assert!(assert_ready_err!(fourth.poll()).is::<AtCapacity>());
    assert_ready_ok!(waiting.poll());
}

#[test]
fn a_call_while_waiting_leaves_the_line() {
    let (mut service, _worker, _handle) = stuck(1);
    let (_first, second) = (call(&mut service, 1), call(&mut service, 2));
    let mut other = service.clone();
    assert_pending!(poll_ready(&mut service));
    assert_pending!(poll_ready(&mut other));
    let mut response = task::spawn(service.call(3));
    assert!(assert_ready_err!(response.poll()).is::<AtCapacity>());
    drop(second);
    assert_ready_ok!(poll_ready(&mut other));
}

#[test]
fn a_clone_has_no_reservation_and_a_dropped_handle_frees_its_own() {
    let (mut service, _worker, _handle) = stuck(1);
    assert_ready_ok!(poll_ready(&mut service));
    assert_ready_ok!(poll_ready(&mut service));
    let mut clone = service.clone();
    assert_pending!(poll_ready(&mut clone));
    drop(service);
    assert_ready_ok!(poll_ready(&mut clone));
}

#[test]
fn slots_are_given_in_the_order_of_asking() {
    let (mut service, _worker, _handle) = stuck(1);
    assert_ready_ok!(poll_ready(&mut service));
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut service = service.clone();
            let mut waiting = task::spawn(poll_fn(move |cx| service.poll_ready(cx)));
            assert_pending!(waiting.poll());
            waiting
        })
        .collect();
    // A waiter that gives up doesn't hold up the others.
    drop(waiting.remove(1));
    drop(service);
    assert!(waiting[0].is_woken() && !waiting[1].is_woken());
    assert_ready_ok!(waiting[0].poll());
    drop(waiting.remove(0));
    assert!(waiting[0].is_woken());
    assert_ready_ok!(waiting[0].poll());
}

#[tokio::test]
async fn requests_in_flight_are_bounded_until_their_responses_are_there_or_dropped() {
    let (mock, mut handle) = mock::pair::<u32, u32>();
    let layer = BufferLayer::new(8).with_in_flight_limit(2);
    let mut service = layer.layer(mock);
    let mut first = task::spawn(service.ready().await.unwrap().call(1));
    let second = task::spawn(service.ready().await.unwrap().call(2));
    let mut ready = task::spawn(poll_fn(|cx| service.poll_ready(cx)));
    assert_pending!(ready.poll());

    assert_request_eq!(handle, 1).send_response(10);
    assert_eq!(assert_ready_ok!(first.poll()), 10);
    assert!(
        ready.is_woken(),
        "a response makes room, though its future lives"
    );
    assert_ready_ok!(ready.poll());
    drop(ready);
    let third = service.call(3);

    let mut ready = task::spawn(poll_fn(|cx| service.poll_ready(cx)));
    assert_pending!(ready.poll());
    drop(second);
    assert!(ready.is_woken(), "so does giving up");
    assert_ready_ok!(ready.poll());
    drop((ready, third));
}

#[test]
fn a_reservation_counts_as_in_flight() {
    let (mut service, _worker, _handle) = stuck_in(BufferLayer::new(8).with_in_flight_limit(1));
    assert_ready_ok!(poll_ready(&mut service));
    let mut other = service.clone();
    assert_pending!(poll_ready(&mut other));
    let mut response = task::spawn(other.call(1));
    assert!(assert_ready_err!(response.poll()).is::<AtCapacity>());
    assert_pending!(poll_ready(&mut other));
    drop(service);
    assert_ready_ok!(poll_ready(&mut other));
}

#[test]
fn what_is_queued_is_served_after_the_last_handle_is_dropped() {
    let (mut service, mut worker, mut handle) = stuck(2);
    let mut first = call(&mut service, 1);
    let second = call(&mut service, 2);
    drop(service);
    assert!(worker.is_woken());
    assert_pending!(worker.poll());
    handle.allow(1);
    assert_pending!(worker.poll());
    let (req, send) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!(req, 1);
    send.send_response(10);
    assert_eq!(assert_ready_ok!(first.poll()), 10);
    // The last request is given up: the worker learns that it is done, and drops the service.
    drop(second);
    assert!(worker.is_woken());
    assert_ready!(worker.poll());
    assert!(assert_ready!(handle.poll_request()).is_none());
}

#[test]
fn the_service_is_polled_only_if_there_is_a_request() {
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let (mut service, worker) = Buffer::pair(Polled(count), 2);
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    assert_ready_ok!(poll_ready(&mut service));
    assert_pending!(worker.poll());
    assert_eq!(polls.load(Ordering::Relaxed), 0);
    let response = service.call(());
    assert_pending!(worker.poll());
    drop(response);
    let before = polls.load(Ordering::Relaxed);
    assert!(before > 0);
    assert_pending!(worker.poll());
    assert_eq!(polls.load(Ordering::Relaxed), before);
}

/// Counts its polls, and is never ready.
struct Polled(Arc<AtomicUsize>);

impl Service<()> for Polled {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[tokio::test]
async fn a_service_that_calls_its_own_buffer_queues() {
    type Reply = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;
    let own: Arc<Mutex<Option<Buffer<u32, Reply>>>> = Arc::default();
    let slot = Arc::clone(&own);
    let inner = service_fn(move |req: u32| -> Reply {
        if req == 0 {
            return Box::pin(ready(Ok(0)));
        }
        let mut own = slot.lock().unwrap().clone().unwrap();
        assert!(poll_ready(&mut own).is_ready());
        let response = own.call(req - 1);
        Box::pin(async move { Ok(response.await? + 1) })
    });
    let mut service = Buffer::new(inner, 4);
    *own.lock().unwrap() = Some(service.clone());
    tokio::task::yield_now().await;
    assert_eq!(service.ready().await.unwrap().call(3).await.unwrap(), 3);
    *own.lock().unwrap() = None;
}

#[test]
fn the_service_runs_on_the_workers_runtime_whoever_calls() {
    let home = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let away = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let here =
        service_fn(|(): ()| ready(Ok::<_, Infallible>(tokio::runtime::Handle::current().id())));
    let mut service = home.block_on(async {
        let service = Buffer::new(here, 4);
        tokio::task::yield_now().await;
        service
    });
    let expected = home.handle().id();
    for _ in 0..2 {
        assert_eq!(
            away.block_on(service.clone().oneshot(())).unwrap(),
            expected
        );
        let spawned = away.spawn(service.clone().oneshot(()));
        assert_eq!(away.block_on(spawned).unwrap().unwrap(), expected);
        let spawned = home.spawn(service.clone().oneshot(()));
        assert_eq!(home.block_on(spawned).unwrap().unwrap(), expected);
        // Nor does a handle that has been used at home forget to go there.
        assert_ready_ok!(poll_ready(&mut service));
        let mut response = task::spawn(service.call(()));
        assert_eq!(assert_ready_ok!(response.poll()), expected);
    }
}

#[tokio::test]
async fn a_shut_down_runtime_closes_the_buffer() {
    let (mut service, worker, _handle) = stuck(1);
    let mut response = call(&mut service, 1);
    drop(worker);
    assert!(assert_ready_err!(response.poll()).is::<Closed>());
    assert!(assert_ready_err!(poll_ready(&mut service)).is::<Closed>());
    let mut late = task::spawn(service.call(2));
    assert!(assert_ready_err!(late.poll()).is::<Closed>());
}

#[test]
fn a_bound_of_zero_is_one() {
    let (mut service, _worker, _handle) = stuck(0);
    let _first = call(&mut service, 1);
    let _second = call(&mut service, 2);
    assert_pending!(poll_ready(&mut service));
}

#[test]
fn errors_say_what_happened() {
    let (mut service, _worker, mut handle) = stuck(1);
    handle.send_error("foobar");
    let error = assert_ready_err!(call(&mut service, 1).poll());
    assert_eq!(error.to_string(), "buffered service failed: foobar");
    assert_eq!(error.source().unwrap().to_string(), "foobar");

    let (mut service, worker, _handle) = stuck(1);
    drop(worker);
    let error = assert_ready_err!(poll_ready(&mut service));
    assert_eq!(error.to_string(), "buffer's worker closed unexpectedly");
    assert_eq!(format!("{error:?}"), "Closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_on_many_threads_are_all_served() {
    let inner = Superstitious::default();
    let calls = Arc::clone(&inner.calls);
    let service = Buffer::new(inner, 8);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move {
                for req in 100..300 {
                    let response = service.ready().await.unwrap().call(req);
                    if req % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                    assert_eq!(response.await.unwrap(), req);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(calls.load(Ordering::Relaxed), 64 * 200);
}

#[test]
fn auto_traits_are_those_of_the_parts() {
    fn both<T: Send + Sync + Unpin>() {}
    both::<MockBuffer>();
    both::<BufferLayer<std::rc::Rc<()>>>();
    both::<ServiceError>();
    both::<Worker<mock::Mock<u32, u32>, u32>>();
    both::<ResponseFuture<Ready<()>>>();
}

#[test]
fn a_request_is_served_in_the_span_of_its_caller() {
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry());
    let gate = Arc::new(AtomicUsize::new(0));
    let inner = Gated {
        gate: Arc::clone(&gate),
        inner: service_fn(|(): ()| ready(Ok::<_, Infallible>(tracing::Span::current().id()))),
    };
    let (mut service, worker) = Buffer::pair(inner, 4);
    let mut worker = task::spawn(worker);
    assert_pending!(worker.poll());
    let mut call_in = |span: &tracing::Span| {
        let _entered = span.enter();
        assert_ready_ok!(poll_ready(&mut service));
        task::spawn(service.call(()))
    };
    let spans = ["a", "b"].map(|name| tracing::info_span!("caller", name));
    let mut queued = spans.each_ref().map(&mut call_in);
    gate.store(10, Ordering::Relaxed);
    assert_pending!(worker.poll());
    for (span, response) in spans.iter().zip(&mut queued) {
        assert_eq!(assert_ready_ok!(response.poll()), span.id());
    }
    assert_eq!(assert_ready_ok!(call_in(&spans[0]).poll()), spans[0].id());
}

mod deadlines {
    use super::*;
    use std::time::Duration;
    use tower_deadline::{Deadline, Expired};

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_deadline_has_passed_in_the_queue_is_not_begun() {
        let (mut service, mut worker, mut handle) = stuck(2);
        let deadline = Deadline::after(Duration::from_millis(10));
        let mut hurried = deadline.enter(|| call(&mut service, 1));
        let mut patient = call(&mut service, 2);
        assert_pending!(hurried.poll());
        assert_pending!(patient.poll());
        tokio::time::advance(Duration::from_millis(10)).await;
        handle.allow(1);
        assert_pending!(worker.poll());
        let error = assert_ready_err!(hurried.poll());
        assert_eq!(error.downcast_ref(), Some(&Expired::before_work()));
        assert_request_eq!(handle, 2).send_response(2);
        assert_eq!(assert_ready_ok!(patient.poll()), 2);
    }

    #[test]
    fn a_request_is_served_under_its_own_deadline_whoever_serves_it() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&seen);
        let is_busy = Arc::new(AtomicUsize::new(1));
        let busy = Arc::clone(&is_busy);
        let service = service_fn(move |_: u32| {
            noting.lock().unwrap().push(Deadline::current());
            ready(Ok::<_, Infallible>(()))
        });
        let gated = Gated(service, busy);
        let (mut service, worker) = Buffer::pair(gated, 3);
        let mut worker = task::spawn(worker);
        assert_pending!(worker.poll());
        let own = Deadline::after(Duration::from_secs(60));
        let responses: Vec<_> = [Some(own), None]
            .into_iter()
            .map(|deadline| {
                assert_ready_ok!(poll_ready(&mut service));
                match deadline {
                    Some(deadline) => deadline.enter(|| service.call(0)),
                    None => service.call(0),
                }
            })
            .collect();
        is_busy.store(0, Ordering::Relaxed);
        let others = Deadline::after(Duration::from_secs(30));
        others.enter(|| assert_pending!(worker.poll()));
        assert_eq!(*seen.lock().unwrap(), [Some(own), None]);
        drop(responses);
    }

    /// Isn't ready while it is busy.
    struct Gated<S>(S, Arc<AtomicUsize>);

    impl<S: Service<u32>> Service<u32> for Gated<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            match self.1.load(Ordering::Relaxed) {
                0 => self.0.poll_ready(cx),
                _ => Poll::Pending,
            }
        }

        fn call(&mut self, req: u32) -> S::Future {
            self.0.call(req)
        }
    }
}
