//! What `Breaker` promises, seen from outside.

use std::time::Duration;

use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_breaker::{Breaker, BreakerLayer, Handle, Refused, Settings, State};
use tower_classify::{Class, EveryErrorFails};
use tower_layer::Layer;
use tower_rng::SplitMix64;
use tower_test::{assert_request_eq, contract, mock};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Mock = mock::Mock<&'static str, u16>;
type Server = mock::Handle<&'static str, u16>;

const SECOND: Duration = Duration::from_secs(1);

fn one_fault() -> Settings {
    Settings::default().with_faults_in_a_row(1)
}

fn spawn(settings: Settings) -> (mock::Spawn<Breaker<Mock>>, Server, Handle) {
    let handle = Handle::with_rng(settings, SplitMix64::new(1));
    let (service, server) = mock::spawn_layer(BreakerLayer::with_handle(handle.clone()));
    (service, server, handle)
}

async fn fail(service: &mut mock::Spawn<Breaker<Mock>>, server: &mut Server) {
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("fails"));
    assert_request_eq!(server, "fails").send_error("broken");
    assert_eq!(assert_ready_err!(response.poll()).to_string(), "broken");
}

fn refusal(service: &mut mock::Spawn<Breaker<Mock>>) -> Refused {
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("refused"));
    *assert_ready_err!(response.poll()).downcast().unwrap()
}

#[test]
fn keeps_the_contract() {
    // The checker lets dozens of requests fail in a row, and expects an answer to the next: not of a breaker
    // that shuts, as it should, on the way.
    let settings = Settings::default()
        .with_faults_in_a_row(1_000)
        .without_success_rate();
    let layer = BreakerLayer::new(settings);
    contract::check(|inner| layer.layer(inner)).assert();
    let waiting = layer.clone().with_max_wait(SECOND);
    contract::check(|inner| waiting.layer(inner)).assert();
    let pending = layer.clone().with_waiting();
    contract::check(|inner| pending.layer(inner)).assert();
    contract::check(|inner| layer.clone().with_fallback(inner.clone()).layer(inner)).assert();
}

#[tokio::test(start_paused = true)]
async fn odd_settings_do_no_harm() {
    let lengths = [Duration::ZERO, SECOND, Duration::MAX / 2, Duration::MAX];
    for window in lengths {
        for min_share in [0.0, 1.0, 2.0, -1.0, f64::NAN, f64::INFINITY] {
            for backoff in lengths {
                let settings = Settings::default()
                    .with_success_rate(min_share, window, 0)
                    .with_faults_in_a_row(u32::MAX)
                    .with_backoff(backoff, SECOND);
                let (mut service, mut server, _handle) = spawn(settings);
                for _ in 0..10 {
                    assert_ready_ok!(service.poll_ready());
                    let mut response = task::spawn(service.call("fails"));
                    if response.poll().is_pending() {
                        assert_request_eq!(server, "fails").send_error("broken");
                        assert_ready_err!(response.poll());
                    }
                    advance(SECOND).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shuts_after_five_faults_in_a_row() {
    let (mut service, mut server, handle) = spawn(Settings::default().without_success_rate());
    for _ in 0..4 {
        fail(&mut service, &mut server).await;
    }
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("works"));
    assert_request_eq!(server, "works").send_response(200);
    assert_ready_ok!(response.poll());
    for _ in 0..4 {
        fail(&mut service, &mut server).await;
    }
    assert_eq!(handle.state(), State::Open);
    fail(&mut service, &mut server).await;
    assert_eq!(handle.state(), State::Shut);

    let wait = refusal(&mut service).retry_after().unwrap();
    assert!((5 * SECOND..10 * SECOND).contains(&wait), "{wait:?}");
    assert_pending!(server.poll_request());
}

#[tokio::test(start_paused = true)]
async fn one_trial_is_let_through_after_the_wait_and_opens_it() {
    let (mut service, mut server, handle) = spawn(one_fault());
    let mut states = handle.watch();
    fail(&mut service, &mut server).await;
    assert_eq!(*states.borrow_and_update(), State::Shut);

    advance(10 * SECOND).await;
    assert_ready_ok!(service.poll_ready());
    let mut trial = task::spawn(service.call("trial"));
    assert_eq!(handle.state(), State::Limited);
    assert!(states.has_changed().unwrap());
    assert!(matches!(refusal(&mut service), Refused::Shut { .. }));

    assert_request_eq!(server, "trial").send_response(200);
    assert_eq!(assert_ready_ok!(trial.poll()), 200);
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_fails_doubles_the_wait() {
    let (mut service, mut server, _) = spawn(one_fault());
    for (low, high) in [(5, 10), (10, 20), (20, 40), (40, 80), (80, 160), (150, 300)] {
        fail(&mut service, &mut server).await;
        let wait = refusal(&mut service).retry_after().unwrap();
        assert!((low * SECOND..=high * SECOND).contains(&wait), "{wait:?}");
        advance(wait).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_given_up_makes_way_for_another() {
    let (mut service, mut server, handle) = spawn(one_fault());
    fail(&mut service, &mut server).await;
    advance(10 * SECOND).await;
    assert_ready_ok!(service.poll_ready());
    drop(service.call("given up"));
    assert_eq!(handle.state(), State::Limited);
    assert_ready_ok!(service.poll_ready());
    let _trial = service.call("another");
    let _ = server.next_request().await;
    assert_request_eq!(server, "another").send_response(200);
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_state_and_other_services_of_the_layer_do_not() {
    let layer = BreakerLayer::new(one_fault());
    let (mock, mut server) = mock::pair::<&str, u16>();
    let other = layer.layer(mock.clone());
    let mut service = mock::Spawn::new(layer.layer(mock));
    let mut clone = service.clone();
    fail(&mut service, &mut server).await;
    assert!(matches!(refusal(&mut clone), Refused::Shut { .. }));
    assert_eq!(other.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_began_before_it_shut_does_not_open_it() {
    let (mut service, mut server, handle) = spawn(one_fault());
    assert_ready_ok!(service.poll_ready());
    let mut old = task::spawn(service.call("old"));
    let answer = assert_request_eq!(server, "old");
    fail(&mut service, &mut server).await;
    answer.send_response(200);
    assert_ready_ok!(old.poll());
    assert_eq!(handle.state(), State::Shut);
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_driven_from_outside() {
    let (mut service, mut server, handle) = spawn(Settings::manual());
    handle.hold_shut();
    let refused = Refused::Shut { retry_after: None };
    assert_eq!(refusal(&mut service), refused);

    handle.hold_limited(1);
    assert_eq!(handle.state(), State::Limited);
    assert_ready_ok!(service.poll_ready());
    let first = service.call("first");
    assert_eq!(refusal(&mut service), refused);
    drop(first);
    assert_ready_ok!(service.poll_ready());
    let _second = service.call("second");

    handle.hold_open();
    let _ = server.next_request().await;
    let _ = server.next_request().await;
    for _ in 0..100 {
        fail(&mut service, &mut server).await;
    }
    handle.release();
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn responses_are_faults_if_the_classifier_says_so() {
    let classify = |_: &(), result: &Result<u16, BoxError>| match result {
        Ok(503) => Class::Retryable {
            after: Some(60 * SECOND),
        },
        Err(_) => Class::Ignored,
        Ok(_) => Class::Success,
    };
    let layer = BreakerLayer::new(one_fault()).with_classify(classify);
    let (mut service, mut server) = mock::spawn_layer::<&str, u16, _>(layer);
    assert_ready_ok!(service.poll_ready());
    let mut ignored = task::spawn(service.call("ignored"));
    assert_request_eq!(server, "ignored").send_error("cancelled");
    assert_ready_err!(ignored.poll());
    assert_ready_ok!(service.poll_ready());
    let mut busy = task::spawn(service.call("busy"));
    assert_request_eq!(server, "busy").send_response(503);
    assert_eq!(assert_ready_ok!(busy.poll()), 503);

    assert_ready_ok!(service.poll_ready());
    let error = service.call("refused").await.unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.retry_after(), Some(60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn fails_fast_once_the_service_is_overdue_and_until_it_is_ready() {
    let (mock, mut server) = mock::pair::<&str, u16>();
    server.allow(0);
    let breaker = Breaker::new(mock, Handle::new(one_fault()), EveryErrorFails);
    let mut service = mock::Spawn::new(breaker.with_max_wait(SECOND));
    assert_pending!(service.poll_ready());
    advance(SECOND / 2).await;
    assert_pending!(service.poll_ready());
    advance(SECOND).await;
    assert!(service.is_woken());
    assert_eq!(refusal(&mut service), Refused::Overdue);
    assert_eq!(refusal(&mut service), Refused::Overdue);

    server.allow(1);
    assert_ready_ok!(service.poll_ready());
    let _response = service.call("served");
    assert_request_eq!(server, "served").send_response(200);
}

#[test]
fn a_bounded_wait_outside_of_a_runtime_fails_with_a_typed_error() {
    let layer = BreakerLayer::new(one_fault()).with_max_wait(SECOND);
    let (mock, mut server) = mock::pair::<&'static str, u16>();
    server.allow(0);
    let mut service = mock::Spawn::new(layer.layer(mock));
    assert_eq!(refusal(&mut service), Refused::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_readiness_is_refused() {
    let (mut service, mut server, _) = spawn(one_fault());
    let mut response = task::spawn(service.call("never polled"));
    let error = assert_ready_err!(response.poll());
    assert_eq!(error.downcast_ref::<Refused>().unwrap(), &Refused::NotReady);
    assert_pending!(server.poll_request());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_a_fault() {
    let (mut service, mut server, handle) = spawn(one_fault());
    server.send_error("broken");
    assert_ready_err!(service.poll_ready());
    assert_eq!(handle.state(), State::Shut);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_a_row_of_faults_whatever_began_it() {
    let settings = Settings::default()
        .with_faults_in_a_row(2)
        .without_success_rate();
    let (mut service, mut server, handle) = spawn(settings);
    for _ in 0..3 {
        work(&mut service, &mut server).await;
        server.send_error("not now");
        assert!(service.poll_ready().is_ready());
        server.allow(1_000);
    }
    assert_eq!(handle.state(), State::Open);
}

async fn work(service: &mut mock::Spawn<Breaker<Mock>>, server: &mut Server) {
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("works"));
    assert_request_eq!(server, "works").send_response(200);
    assert_ready_ok!(response.poll());
}

#[tokio::test(start_paused = true)]
async fn successes_count_against_later_faults_whenever_they_came() {
    let settings = Settings::default()
        .without_faults_in_a_row()
        .with_success_rate(0.5, 10 * SECOND, 5);
    let (mut service, mut server, handle) = spawn(settings);
    // Fewer than half of 21 have failed, then fewer than half of those that aren't too old have worked.
    for _ in 0..11 {
        work(&mut service, &mut server).await;
        advance(SECOND / 10).await;
    }
    for _ in 0..10 {
        fail(&mut service, &mut server).await;
    }
    assert_eq!(handle.state(), State::Open);
    advance(9 * SECOND).await;
    fail(&mut service, &mut server).await;
    assert_eq!(handle.state(), State::Shut);
}

#[tokio::test(start_paused = true)]
async fn what_outlives_its_breaker_has_no_say_in_the_next() {
    let mut late = Vec::new();
    for _ in 0..50 {
        let (mut service, mut server, handle) = spawn(one_fault());
        assert_ready_ok!(service.poll_ready());
        let response = task::spawn(service.call("late"));
        let answer = assert_request_eq!(server, "late");
        drop((service, handle));
        late.push((response, answer));
    }
    let next: Vec<Handle> = (0..60).map(|_| Handle::new(one_fault())).collect();
    for (mut response, answer) in late {
        answer.send_error("broken");
        assert_ready_err!(response.poll());
    }
    assert!(next.iter().all(|handle| handle.state() == State::Open));
}

fn spawn_waiting(settings: Settings) -> (mock::Spawn<Breaker<Mock>>, Server, Handle) {
    let handle = Handle::with_rng(settings, SplitMix64::new(1));
    let layer = BreakerLayer::with_handle(handle.clone()).with_waiting();
    let (service, server) = mock::spawn_layer(layer);
    (service, server, handle)
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_not_ready_until_the_backoff_is_over() {
    let (mut service, mut server, handle) = spawn_waiting(one_fault());
    fail(&mut service, &mut server).await;
    assert_eq!(handle.state(), State::Shut);
    assert_pending!(service.poll_ready());
    tokio::time::sleep(10 * SECOND).await;
    assert!(service.is_woken());
    work(&mut service, &mut server).await;
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_woken_by_who_opens_it() {
    let (mut service, _server, handle) = spawn_waiting(Settings::manual());
    handle.hold_shut();
    assert_pending!(service.poll_ready());
    handle.hold_limited(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_take_turns_where_few_are_let_through() {
    let (mut service, mut server, handle) = spawn_waiting(Settings::manual());
    handle.hold_limited(1);
    let mut other = mock::Spawn::new(service.get_ref().clone());
    assert_ready_ok!(service.poll_ready());
    assert_pending!(other.poll_ready());
    let mut response = task::spawn(service.call("first"));
    assert_request_eq!(server, "first").send_response(200);
    assert_pending!(other.poll_ready());
    assert_ready_ok!(response.poll());
    assert!(other.is_woken());
    assert_ready_ok!(other.poll_ready());
    // Nor does one keep its turn that is dropped.
    assert_pending!(service.poll_ready());
    drop(other);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_goes_to_the_fallback_and_counts_for_nothing() {
    let handle = Handle::with_rng(one_fault(), SplitMix64::new(1));
    let (cache, mut cache_server) = mock::pair::<&'static str, u16>();
    let layer = BreakerLayer::with_handle(handle.clone()).with_fallback(cache);
    let (mut service, mut server) = mock::spawn_layer::<&'static str, u16, _>(layer);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call("fails"));
    assert_request_eq!(server, "fails").send_error("broken");
    assert_ready_err!(response.poll());
    assert_eq!(handle.state(), State::Shut);

    for answer in [Ok(203), Err("cold")] {
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call("cached"));
        let request = assert_request_eq!(cache_server, "cached");
        match answer {
            Ok(status) => {
                request.send_response(status);
                assert_eq!(assert_ready_ok!(response.poll()), status);
            }
            Err(error) => {
                request.send_error(error);
                assert_eq!(assert_ready_err!(response.poll()).to_string(), error);
            }
        }
    }
    assert_pending!(server.poll_request());
    tokio::time::sleep(10 * SECOND).await;
    assert_ready_ok!(service.poll_ready());
    let _response = service.call("trial");
    assert_request_eq!(server, "trial");
}
