use super::*;
use tokio::time::advance;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn request(outcomes: &Outcomes, took: Duration, class: Class) {
    let ticket = outcomes.start();
    advance(took).await;
    ticket.end(class);
}

fn cost_ms(outcomes: &Outcomes) -> f64 {
    outcomes.cost() / 1e6
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_at_once_costs_more_than_one_that_works_slowly() {
    let (failing, working) = (Outcomes::new(), Outcomes::new());
    for _ in 0..100 {
        request(&failing, ms(1), Class::Failure).await;
        request(&working, ms(20), Class::Success).await;
    }
    assert!(cost_ms(&failing) > 900.0, "{}", cost_ms(&failing));
    assert!(cost_ms(&working) < 30.0, "{}", cost_ms(&working));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_forgotten_by_successes_or_time() {
    let outcomes = Outcomes::new();
    request(&outcomes, ms(1), Class::Failure).await;
    let failed = cost_ms(&outcomes);
    advance(ms(60_000)).await;
    assert!(cost_ms(&outcomes) < 0.01 * failed);

    request(&outcomes, ms(1), Class::Failure).await;
    for _ in 0..200 {
        request(&outcomes, ms(1), Class::Success).await;
    }
    assert!(cost_ms(&outcomes) < 0.2 * failed);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_say_more_than_five_among_successes() {
    let (row, among) = (Outcomes::new(), Outcomes::new());
    for _ in 0..5 {
        request(&row, ms(1), Class::Failure).await;
    }
    for _ in 0..5 {
        request(&among, ms(1), Class::Failure).await;
        request(&among, ms(1), Class::Success).await;
    }
    assert!(cost_ms(&row) > 500.0, "{}", cost_ms(&row));
    assert!(cost_ms(&among) < 200.0, "{}", cost_ms(&among));
}

#[tokio::test(start_paused = true)]
async fn one_that_has_failed_is_tried_by_one_request_at_a_time() {
    let outcomes = Outcomes::new();
    for _ in 0..5 {
        request(&outcomes, ms(1), Class::Failure).await;
    }
    advance(ms(60_000)).await;
    assert!(cost_ms(&outcomes) < 10.0, "{}", cost_ms(&outcomes));
    let trial = outcomes.start();
    assert!(cost_ms(&outcomes) > 1600.0, "{}", cost_ms(&outcomes));
    trial.end(Class::Success);
    assert!(cost_ms(&outcomes) < 10.0, "{}", cost_ms(&outcomes));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_in_flight_counts_when_it_is_out_for_longer_than_usual() {
    let outcomes = Outcomes::new().with_default_rtt(ms(10));
    let oldest = outcomes.start();
    advance(ms(200)).await;
    let younger = outcomes.start();
    // 3^0.75.
    assert!((cost_ms(&outcomes) - 200.0 * 2.279_507).abs() < 0.001);
    oldest.end(Class::Ignored);
    // The younger has just begun.
    assert!(cost_ms(&outcomes) < 10.0 * 1.682 + 0.1);
    younger.end(Class::Success);
}

#[tokio::test(start_paused = true)]
async fn one_that_asks_to_be_left_alone_costs_more_than_any_other_until_then() {
    let (asking, failing) = (Outcomes::new(), Outcomes::new());
    let after = Some(ms(5_000));
    request(&asking, ms(1), Class::RejectedBeforeWork { after }).await;
    request(&failing, ms(60_000), Class::Failure).await;
    request(&asking, ms(1), Class::Retryable { after }).await;
    assert!(asking.cost() > failing.cost());
    advance(ms(5_000)).await;
    assert!(asking.cost() < failing.cost());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_alone_for_longer_than_half_a_minute() {
    let outcomes = Outcomes::new();
    let after = Some(Duration::MAX);
    request(&outcomes, ms(1), Class::Retryable { after }).await;
    assert!(outcomes.cost() > FORBIDDING);
    advance(LONGEST).await;
    assert!(outcomes.cost() < FORBIDDING);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_counts_only_if_that_took_long() {
    let outcomes = Outcomes::new().with_default_rtt(ms(10));
    let given_up = outcomes.start();
    advance(ms(1)).await;
    drop(given_up);
    assert!(cost_ms(&outcomes) > 9.9);
    let given_up = outcomes.start();
    advance(ms(500)).await;
    drop(given_up);
    assert!(cost_ms(&outcomes) > 520.0, "{}", cost_ms(&outcomes));
}

#[tokio::test(start_paused = true)]
async fn a_fork_has_seen_nothing_and_a_reset_forgets() {
    let outcomes = Outcomes::new().with_default_rtt(ms(10));
    request(&outcomes, ms(500), Class::Failure).await;
    let new = Outcomes::new().with_default_rtt(ms(10)).cost();
    assert_eq!(outcomes.fork().cost(), new);
    let in_flight = outcomes.start();
    outcomes.reset();
    assert!(outcomes.cost() > 1.5 * new);
    drop(in_flight);
    assert!(outcomes.cost() < 1.1 * new);
}

#[tokio::test(start_paused = true)]
async fn a_service_counts_its_responses_as_they_are_classified() {
    let (service, mut handle) = tower_test::mock::pair::<(), u16>();
    let by_status = |_: &(), result: &Result<u16, _>| match result {
        Ok(500..) | Err(_) => Class::Failure,
        Ok(_) => Class::Success,
    };
    let mut service = OutcomeLoad::new(service).with_classify(by_status);
    let idle = service.load();
    std::future::poll_fn(|cx| service.poll_ready(cx))
        .await
        .unwrap();
    let response = service.call(());
    assert!(service.load() > 1.6 * idle);
    handle.next_request().await.unwrap().1.send_response(503);
    assert_eq!(response.await.unwrap(), 503);
    assert!(service.load() > 1.6 * idle);
}
