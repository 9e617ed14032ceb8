//! A buffer that is closed while it has handles.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower_buffer::{Buffer, Closed};
use tower_close::{Close, NotClosed};
use tower_deadline::Deadline;
use tower_service::Service as _;
use tower_util::ServiceExt as _;

use super::{Superstitious, call, poll_ready, stuck};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_served_and_no_more_is_taken() {
    let (mut service, mut worker, mut handle) = stuck(4);
    let mut queued = [call(&mut service, 1), call(&mut service, 2)];
    let mut reserved = service.clone();
    assert_ready_ok!(poll_ready(&mut reserved));

    let mut closing = task::spawn(service.close(soon()));
    assert_pending!(closing.poll());
    assert!(assert_ready_err!(poll_ready(&mut service)).is::<Closed>());
    // Not even for what was reserved before.
    let mut late = task::spawn(reserved.call(3));
    assert!(assert_ready_err!(late.poll()).is::<Closed>());

    assert!(worker.is_woken());
    assert_pending!(worker.poll());
    handle.allow(2);
    assert!(worker.is_woken());
    assert_ready!(worker.poll());
    drop(worker);
    for (request, response) in (1..).zip(&mut queued) {
        assert_pending!(response.poll());
        let (asked, answer) = handle.next_request().await.unwrap();
        assert_eq!(asked, request);
        answer.send_response(request * 10);
        assert_eq!(assert_ready_ok!(response.poll()), request * 10);
    }
    assert_eq!(assert_ready!(closing.poll()), Ok(()));
    // The service is dropped, although there is a handle.
    assert!(handle.next_request().await.is_none());
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_slot_is_told() {
    let (mut service, _worker, _handle) = stuck(1);
    let _first = call(&mut service, 1);
    let _second = call(&mut service, 2);
    let mut waiting = service.clone();
    let mut ready = task::spawn(waiting.ready());
    assert_pending!(ready.poll());
    let _closing = service.close(soon());
    assert!(ready.is_woken());
    assert!(assert_ready_err!(ready.poll()).is::<Closed>());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_deadline_fails_although_nobody_waits_for_the_end() {
    let (mut service, mut worker, _handle) = stuck(1);
    let mut left = call(&mut service, 1);
    let closing = service.close(soon());
    drop(closing);
    assert_pending!(worker.poll());
    advance(Duration::from_secs(9)).await;
    assert_pending!(left.poll());
    advance(Duration::from_secs(1)).await;
    assert!(worker.is_woken());
    assert_ready!(worker.poll());
    assert!(assert_ready_err!(left.poll()).is::<Closed>());
    drop(worker);
    // It is closed already.
    assert_eq!(service.close(soon()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_counts_and_being_cut_off_is_told() {
    let (mut service, worker, _handle) = stuck(1);
    let mut left = call(&mut service, 1);
    let worker = tokio::spawn(worker.into_inner());
    let _later = service.close(soon());
    let sooner = service.close(Deadline::after(Duration::from_secs(1)));
    assert_eq!(sooner.await, Err(NotClosed::CutOff { unfinished: 1 }));
    worker.await.unwrap();
    assert!(assert_ready_err!(left.poll()).is::<Closed>());
}

#[tokio::test(start_paused = true)]
async fn its_task_ends_although_handles_stay() {
    let mut service = Buffer::new(Superstitious::default(), 4);
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    service.close(soon()).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    assert!(service.ready().await.unwrap_err().is::<Closed>());
}

#[tokio::test(start_paused = true)]
async fn taking_back_the_last_request_ends_it() {
    let (mut service, mut worker, _handle) = stuck(1);
    let last = call(&mut service, 1);
    let _closing = service.close(soon());
    assert_pending!(worker.poll());
    drop(last);
    assert!(worker.is_woken());
    assert_ready!(worker.poll());
}
