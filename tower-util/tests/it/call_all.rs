//! `call_all`, ordered and not.

use std::pin::Pin;
use std::task::Poll;

use futures_util::stream::{self, StreamExt};
use tokio_test::{assert_pending, assert_ready, task};
use tower_test::mock::{self, Mock};
use tower_util::{CallAll, CallAllUnordered, ServiceExt};

fn next<T>(poll: Poll<Option<Result<&'static str, T>>>) -> Option<&'static str>
where
    T: std::fmt::Debug,
{
    assert_ready!(poll).map(Result::unwrap)
}

#[test]
fn requests_run_together_and_responses_keep_their_order() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1, 2])));
    assert_pending!(responses.poll_next());
    let (first, send_first) = assert_ready!(handle.poll_request()).unwrap();
    let (second, send_second) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!((first, second), (1, 2));

    send_second.send_response("two");
    assert_pending!(responses.poll_next());
    send_first.send_response("one");
    assert!(responses.is_woken());
    assert_eq!(next(responses.poll_next()), Some("one"));
    assert_eq!(next(responses.poll_next()), Some("two"));
    assert_eq!(next(responses.poll_next()), None);
    assert_eq!(next(responses.poll_next()), None);
}

#[test]
fn unordered_responses_come_as_they_are_sent() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1, 2])).unordered());
    assert_pending!(responses.poll_next());
    let (_, send_first) = assert_ready!(handle.poll_request()).unwrap();
    let (_, send_second) = assert_ready!(handle.poll_request()).unwrap();

    send_second.send_response("two");
    assert_eq!(next(responses.poll_next()), Some("two"));
    assert_pending!(responses.poll_next());
    send_first.send_response("one");
    assert_eq!(next(responses.poll_next()), Some("one"));
    assert_eq!(next(responses.poll_next()), None);
}

#[test]
fn one_request_waits_for_readiness_and_the_others_in_their_stream() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    handle.allow(0);
    let (requests, stream) = tokio::sync::mpsc::unbounded_channel();
    for n in 1..=3 {
        requests.send(n).unwrap();
    }
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
    let mut responses = task::spawn(mock.call_all(stream));
    assert_pending!(responses.poll_next());
    assert!(handle.poll_request().is_pending());

    handle.allow(1);
    assert!(responses.is_woken());
    assert_pending!(responses.poll_next());
    assert_eq!(assert_ready!(handle.poll_request()).unwrap().0, 1);
    assert!(handle.poll_request().is_pending());
}

#[test]
fn a_stream_without_requests_reserves_nothing() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    handle.allow(1);
    let mut idle = task::spawn(mock.clone().call_all(stream::pending()));
    assert_pending!(idle.poll_next());

    let mut other = task::spawn(mock.oneshot(1));
    assert_pending!(other.poll());
    assert!(
        handle.poll_request().is_ready(),
        "the idle one holds the permit"
    );
}

#[test]
fn a_failed_response_is_an_item_and_the_stream_goes_on() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1, 2])));
    assert_pending!(responses.poll_next());
    assert_ready!(handle.poll_request())
        .unwrap()
        .1
        .send_error("broken");
    assert_ready!(handle.poll_request())
        .unwrap()
        .1
        .send_response("two");
    let error = assert_ready!(responses.poll_next()).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert_eq!(next(responses.poll_next()), Some("two"));
    assert_eq!(next(responses.poll_next()), None);
}

#[test]
fn an_error_of_readiness_is_an_item_at_once_and_ends_the_requests() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    handle.allow(1);
    let mut responses = task::spawn(mock.call_all(stream::iter([1, 2, 3])));
    assert_pending!(responses.poll_next());
    let (_, send) = assert_ready!(handle.poll_request()).unwrap();

    handle.send_error("gone");
    assert!(responses.is_woken());
    let error = assert_ready!(responses.poll_next()).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "gone");

    handle.allow(9);
    assert_pending!(responses.poll_next());
    assert!(handle.poll_request().is_pending());
    send.send_response("one");
    assert_eq!(next(responses.poll_next()), Some("one"));
    assert_eq!(next(responses.poll_next()), None);
}

#[test]
fn the_service_comes_back_and_what_is_due_is_still_given() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1])));
    assert_pending!(responses.poll_next());
    let (_, send) = assert_ready!(handle.poll_request()).unwrap();
    let _: Mock<_, _> = Pin::new(&mut *responses).take_service();
    send.send_response("one");
    assert_eq!(next(responses.poll_next()), Some("one"));
    assert_eq!(next(responses.poll_next()), None);
}

#[test]
fn the_service_comes_back_out_of_both_before_any_request() {
    let (mock, _handle) = mock::pair::<u8, &'static str>();
    let mock = CallAll::new(mock, stream::iter([1])).into_inner();
    let mock = CallAllUnordered::new(mock, stream::iter([1])).into_inner();
    let mut responses = CallAllUnordered::new(mock, stream::iter([1]));
    let _: Mock<_, _> = Pin::new(&mut responses).take_service();
}

#[test]
#[should_panic(expected = "Service already taken")]
fn the_service_comes_back_once() {
    let (mock, _handle) = mock::pair::<u8, &'static str>();
    let mut responses = mock.call_all(stream::iter([1]));
    let _ = Pin::new(&mut responses).take_service();
    let _ = Pin::new(&mut responses).take_service();
}

#[test]
#[should_panic(expected = "Using CallAll after extracting inner Service")]
fn a_request_after_the_service_was_taken_panics() {
    let (mock, _handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1])));
    let _ = Pin::new(&mut *responses).take_service();
    let _ = responses.poll_next();
}

#[test]
#[should_panic(expected = "after requests were taken")]
fn the_order_is_chosen_before_the_first_request() {
    let (mock, _handle) = mock::pair::<u8, &'static str>();
    let mut responses = mock.call_all(stream::iter([1]));
    assert_pending!(task::spawn(&mut responses).poll_next());
    let _ = responses.unordered();
}

#[test]
fn dropping_the_stream_cancels_the_requests() {
    let (mock, mut handle) = mock::pair::<u8, &'static str>();
    let mut responses = task::spawn(mock.call_all(stream::iter([1])));
    assert_pending!(responses.poll_next());
    drop(responses);
    assert!(handle.poll_request().is_ready());
    assert!(matches!(handle.poll_request(), Poll::Ready(None)));
}

#[tokio::test]
async fn a_thousand_requests_are_answered_in_order() {
    let later = tower_util::service_fn(|n: u64| async move {
        for _ in 0..n % 7 {
            tokio::task::yield_now().await;
        }
        Ok::<_, ()>(n)
    });
    let ordered: Vec<_> = later.call_all(stream::iter(0..1_000)).collect().await;
    assert_eq!(ordered, (0..1_000).map(Ok).collect::<Vec<_>>());

    let unordered = later.call_all(stream::iter(0..1_000)).unordered();
    let mut unordered: Vec<_> = unordered.collect().await;
    assert_ne!(unordered, ordered);
    unordered.sort_unstable();
    assert_eq!(unordered, ordered);
}
