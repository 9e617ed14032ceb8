//! What deadlines promise, seen from outside.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_deadline::{
    Carry, Deadline, DeadlineLayer, DeadlineService, Expired, enter_unbounded, inherit, unbounded,
};
use tower_layer::Layer;
use tower_test::{assert_request_eq, contract, mock};

const MS: Duration = Duration::from_millis(1);

type Mock = mock::Mock<u64, u64>;
type Server = mock::Handle<u64, u64>;

/// The request is the time that is left, in milliseconds. Zero is none.
#[derive(Clone)]
struct Millis;

impl Carry<u64> for Millis {
    fn read(&self, req: &u64, now: Instant) -> Option<Deadline> {
        (*req != 0).then(|| Deadline::at(now + *req as u32 * MS))
    }

    fn write(&self, req: &mut u64, deadline: Deadline, now: Instant) {
        *req = deadline.remaining_at(now).as_millis() as u64;
    }
}

fn spawn(layer: DeadlineLayer<Millis>) -> (mock::Spawn<DeadlineService<Mock, Millis>>, Server) {
    mock::spawn_layer(layer)
}

fn layer() -> DeadlineLayer<Millis> {
    DeadlineLayer::new().with_carry(Millis)
}

#[test]
fn keeps_the_contract() {
    contract::check(|inner| DeadlineLayer::new().layer(inner)).assert();
    let bounded = DeadlineLayer::new()
        .with_max(Duration::from_secs(3600))
        .with_min_time(MS);
    contract::check(|inner| bounded.layer(inner)).assert();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_request_is_known_to_the_work_and_sent_along() {
    let (mut service, mut server) = spawn(layer().with_reserve(20 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(100));
    assert_request_eq!(server, 80).send_response(1);
    assert_eq!(assert_ready_ok!(response.poll()), 1);
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_request_task_and_layer_counts() {
    for (request, task_ms, max, expected) in [
        (50, 80, 90, 50),
        (80, 50, 90, 50),
        (90, 80, 50, 50),
        (0, 80, 90, 80),
    ] {
        let (mut service, mut server) = spawn(layer().with_max(max * MS));
        assert_ready_ok!(service.poll_ready());
        let ambient = Deadline::after(task_ms * MS);
        let _response = ambient.enter(|| service.call(request));
        assert_request_eq!(server, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_a_request_passes_as_it_is() {
    let (mut service, mut server) = spawn(layer().with_min_time(MS).with_reserve(MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(0));
    let answer = assert_request_eq!(server, 0);
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(response.poll());
    answer.send_response(7);
    assert_eq!(assert_ready_ok!(response.poll()), 7);
}

#[tokio::test(start_paused = true)]
async fn work_that_cannot_finish_is_refused_before_it_starts() {
    let (mut service, mut server) = spawn(layer().with_min_time(10 * MS));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(10));
    let error = assert_ready_err!(response.poll());
    assert_eq!(error.downcast_ref(), Some(&Expired::before_work()));
    assert_pending!(server.poll_request());

    // What was reserved for it serves the next.
    let _response = service.call(11);
    assert_request_eq!(server, 11);
}

#[tokio::test(start_paused = true)]
async fn work_that_is_overtaken_is_dropped() {
    let (mut service, mut server) = spawn(layer());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(10));
    let answer = assert_request_eq!(server, 10);
    assert_pending!(response.poll());
    advance(9 * MS).await;
    assert_pending!(response.poll());
    advance(MS).await;
    assert!(response.is_woken());
    let error = assert_ready_err!(response.poll());
    assert_eq!(error.downcast_ref(), Some(&Expired::during_work()));
    drop(response);
    answer.send_response(1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_is_delivered_however_late() {
    let (mut service, mut server) = spawn(layer());
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(10));
    assert_pending!(response.poll());
    assert_request_eq!(server, 10).send_response(3);
    advance(50 * MS).await;
    assert_eq!(assert_ready_ok!(response.poll()), 3);
}

#[tokio::test(start_paused = true)]
async fn a_task_knows_of_it_only_where_it_inherits_it() {
    let deadline = Deadline::after(MS);
    let work = async {
        let inherits = tokio::spawn(inherit(async { Deadline::current() }));
        let forgets = tokio::spawn(async { Deadline::current() });
        (inherits.await.unwrap(), forgets.await.unwrap())
    };
    assert_eq!(deadline.scope(work).await, (Some(deadline), None));
}

#[tokio::test(start_paused = true)]
async fn a_scope_does_not_stop_its_future_and_within_does() {
    let start = Instant::now();
    let deadline = Deadline::after(10 * MS);
    deadline.scope(sleep(50 * MS)).await;
    assert_eq!(start.elapsed(), 50 * MS);

    let start = Instant::now();
    let outcome = Deadline::after(10 * MS).within(pending::<()>()).await;
    assert_eq!(outcome, Err(Expired::during_work()));
    assert_eq!(start.elapsed(), 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn futures_polled_in_turn_each_know_of_their_own() {
    let deadlines: Vec<Deadline> = (1..4).map(|n| Deadline::after(n * MS)).collect();
    let mut tasks: Vec<_> = deadlines
        .iter()
        .map(|deadline| {
            task::spawn(deadline.scope(poll_fn(|_| match Deadline::current() {
                Some(seen) if seen.instant() <= Instant::now() => Poll::Ready(seen),
                _ => Poll::Pending,
            })))
        })
        .collect();
    for task in &mut tasks {
        assert_pending!(task.poll());
    }
    advance(3 * MS).await;
    for (task, deadline) in tasks.iter_mut().zip(deadlines) {
        assert_eq!(assert_ready!(task.poll()), deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn shared_work_can_be_kept_from_knowing() {
    let deadline = Deadline::after(MS);
    let seen = deadline
        .scope(async {
            let hidden = unbounded(async { Deadline::current() }).await;
            (
                hidden,
                enter_unbounded(Deadline::current),
                Deadline::current(),
            )
        })
        .await;
    assert_eq!(seen, (None, None, Some(deadline)));
}

#[test]
fn outside_of_a_runtime_it_fails_when_polled_too_late() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut late = pin!(Deadline::at(Instant::now()).within(pending::<()>()));
    assert_eq!(
        late.as_mut().poll(&mut cx),
        Poll::Ready(Err(Expired::during_work()))
    );
    let mut early = pin!(Deadline::after(Duration::MAX).within(pending::<()>()));
    assert!(early.as_mut().poll(&mut cx).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_future_that_uses_up_its_tasks_budget_is_ended_all_the_same() {
    let busy = async {
        loop {
            tokio::task::consume_budget().await;
        }
    };
    let busy = async {
        tokio::join!(busy, sleep(20 * MS));
    };
    // Time goes on only while nobody runs; so that it passes, another task moves it.
    let mover = tokio::spawn(async { advance(20 * MS).await });
    let outcome = Deadline::after(10 * MS).within(busy).await;
    assert_eq!(outcome, Err(Expired::during_work()));
    mover.await.unwrap();
}
