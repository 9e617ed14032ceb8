//! What closing promises, seen from outside.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_close::{AtOnce, Close, DrainLayer, InTurn, IsClosed, NotClosed, Task, closer};
use tower_deadline::Deadline;
use tower_layer::Layer;
use tower_test::{assert_request_eq, contract, mock};

const SECOND: Duration = Duration::from_secs(1);

fn in_seconds(n: u32) -> Deadline {
    Deadline::after(n * SECOND)
}

/// A task that drains for so long and then writes its name down.
fn draining(name: &'static str, seconds: u32, log: &Arc<Mutex<Vec<&'static str>>>) -> Task {
    let log = Arc::clone(log);
    Task::spawn(|mut signal| async move {
        signal.closing().await;
        sleep(seconds * SECOND).await;
        log.lock().unwrap().push(name);
    })
    .unwrap()
}

#[test]
fn drain_keeps_the_contract() {
    contract::check(|inner| DrainLayer::new().layer(inner)).assert();
}

#[tokio::test(start_paused = true)]
async fn a_closed_service_finishes_what_it_has_and_takes_no_more() {
    let layer = DrainLayer::new();
    let (mut service, mut server) = mock::spawn_layer::<&str, &str, _>(layer.clone());
    assert_ready_ok!(service.poll_ready());
    let mut early = task::spawn(service.call("early"));
    let answer = assert_request_eq!(server, "early");
    assert_eq!(service.get_ref().in_flight(), 1);

    let mut closing = task::spawn(layer.close(in_seconds(10)));
    assert_pending!(closing.poll());
    assert_ready_ok!(service.poll_ready());
    let mut late = task::spawn(service.call("late"));
    assert!(assert_ready_err!(late.poll()).is::<IsClosed>());
    assert_pending!(server.poll_request());

    answer.send_response("done");
    assert_eq!(assert_ready_ok!(early.poll()), "done");
    assert!(closing.is_woken());
    assert_ready_ok!(closing.poll());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_stuck_service_is_told_when_it_is_closed() {
    let layer = DrainLayer::new();
    let (mut service, mut server) = mock::spawn_layer::<&str, &str, _>(layer.clone());
    server.allow(0);
    assert_pending!(service.poll_ready());
    assert_pending!(service.poll_ready());
    // It isn't in flight, and closing doesn't wait for it.
    layer.close(in_seconds(10)).await.unwrap();
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let mut late = task::spawn(service.call("late"));
    assert!(assert_ready_err!(late.poll()).is::<IsClosed>());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_dropped_is_not_waited_for() {
    let layer = DrainLayer::new();
    let (mut service, _server) = mock::spawn_layer::<&str, &str, _>(layer.clone());
    assert_ready_ok!(service.poll_ready());
    let response = service.call("given up");
    let mut closing = task::spawn(layer.close(in_seconds(10)));
    assert_pending!(closing.poll());
    drop(response);
    assert_ready_ok!(closing.poll());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_deadline_is_counted() {
    let layer = DrainLayer::new();
    let (mut service, _server) = mock::spawn_layer::<&str, &str, _>(layer.clone());
    let _stuck: Vec<_> = (0..3)
        .map(|_| {
            assert_ready_ok!(service.poll_ready());
            service.call("stuck")
        })
        .collect();
    let end = layer.close(in_seconds(10)).await;
    assert_eq!(end, Err(NotClosed::CutOff { unfinished: 3 }));
}

#[tokio::test(start_paused = true)]
async fn a_task_drains_and_is_waited_for() {
    let log = Arc::default();
    let task = draining("a", 3, &log);
    let start = Instant::now();
    assert_eq!(task.close(in_seconds(10)).await, Ok(()));
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(task.close(in_seconds(10)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_task_is_cut_off_at_the_earliest_deadline_though_nobody_waits() {
    struct OnDrop(Arc<Mutex<Option<Instant>>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(Instant::now());
        }
    }
    let dropped = Arc::new(Mutex::new(None));
    let guard = OnDrop(Arc::clone(&dropped));
    let task = Task::spawn(|_| async move {
        let _guard = guard;
        pending::<()>().await;
    })
    .unwrap();
    let start = Instant::now();
    let patient = task.close(in_seconds(10));
    sleep(SECOND).await;
    drop(task.close(in_seconds(2)));
    drop(task);
    assert_eq!(patient.await, Err(NotClosed::CutOff { unfinished: 1 }));
    assert_eq!(*dropped.lock().unwrap(), Some(start + 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_with_its_owner() {
    let (closer, signal) = closer();
    let task = Task::spawn(|_| async move {
        let _held = signal;
        pending::<()>().await;
    })
    .unwrap();
    drop(task);
    assert_eq!(closer.close(in_seconds(1)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_task_reaches_whoever_closes_it() {
    let task = Task::spawn(|_| async { panic!("on {}", "purpose") }).unwrap();
    let end = task.close(in_seconds(1)).await;
    let message = "on purpose".to_owned();
    assert_eq!(end, Err(NotClosed::Panicked { message }));
    assert_eq!(task.panic_message(), Some("on purpose"));
}

#[test]
fn without_a_runtime_there_is_no_task() {
    assert!(Task::spawn(|_| async {}).is_err());
}

#[tokio::test(start_paused = true)]
async fn members_in_turn_are_closed_each_after_the_other() {
    let log = Arc::default();
    let app = InTurn::new()
        .then(draining("server", 2, &log))
        .then(draining("pool", 1, &log));
    let start = Instant::now();
    assert_eq!(app.close(in_seconds(10)).await, Ok(()));
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(*log.lock().unwrap(), ["server", "pool"]);
}

#[tokio::test(start_paused = true)]
async fn members_at_once_take_as_long_as_the_longest() {
    let log = Arc::default();
    let app = AtOnce::new()
        .and(draining("slow", 2, &log))
        .and(draining("quick", 1, &log));
    let start = Instant::now();
    assert_eq!(app.close(in_seconds(10)).await, Ok(()));
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert_eq!(*log.lock().unwrap(), ["quick", "slow"]);
}

#[tokio::test(start_paused = true)]
async fn none_is_left_open_where_one_takes_all_the_time() {
    let log = Arc::default();
    let (last, mut signal) = closer();
    let app = InTurn::new()
        .then(draining("stuck", 60, &log))
        .then(draining("no time", 1, &log))
        .then(last);
    let start = Instant::now();
    let end = app.close(in_seconds(5)).await;
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(end, Err(NotClosed::CutOff { unfinished: 3 }));
    signal.closing().await;
}

#[tokio::test(start_paused = true)]
async fn members_whose_turn_has_not_come_are_closed_although_nobody_waits_any_more() {
    let log = Arc::default();
    let app = InTurn::new()
        .then(draining("first", 2, &log))
        .then(draining("second", 1, &log));
    let mut closing = task::spawn(app.close(in_seconds(10)));
    assert!(closing.poll().is_pending());
    drop(closing);
    sleep(3 * SECOND).await;
    assert_eq!(*log.lock().unwrap(), ["second", "first"]);
}
