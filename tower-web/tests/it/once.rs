//! Requests that are sent twice and done once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{advance, sleep, timeout};
use tower_web::detach::Detach;
use tower_web::idempotency::IdempotencyKeys;
use tower_web::prelude::*;
use tower_web::testing::{TestClient, TestRequest};

#[derive(Default)]
struct Orders {
    done: Arc<AtomicUsize>,
}

#[resource("/orders")]
impl Orders {
    #[post("/")]
    async fn order(&self, what: String) -> (StatusCode, [(&'static str, String); 1], String) {
        sleep(Duration::from_secs(1)).await;
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let place = [("location", format!("/orders/{number}"))];
        (StatusCode::CREATED, place, what)
    }

    #[put("/")]
    async fn replace(&self) -> String {
        self.done.fetch_add(1, Ordering::SeqCst).to_string()
    }

    #[post("/failing")]
    async fn failing(&self) -> StatusCode {
        self.done.fetch_add(1, Ordering::SeqCst);
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn client(keys: IdempotencyKeys) -> TestClient {
    App::new().layer(keys).resource(Orders::default()).test()
}

fn order(client: &TestClient, key: &str, what: &'static str) -> TestRequest {
    let order = client.post("/orders").header("idempotency-key", key);
    order.body(what)
}

#[tokio::test(start_paused = true)]
async fn the_second_try_gets_the_first_one_s_answer() {
    let client = client(IdempotencyKeys::new());
    for replayed in [None, Some("true")] {
        let answer = order(&client, "a", "tea").await;
        answer.assert_status(201).assert_text("tea");
        answer.assert_header("location", "/orders/0");
        assert_eq!(answer.header("idempotency-replayed"), replayed);
    }
    let other = order(&client, "b", "tea").await;
    other.assert_header("location", "/orders/1");
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_key_is_refused() {
    let client = client(IdempotencyKeys::new());
    order(&client, "a", "tea").await.assert_status(201);
    order(&client, "a", "coffee").await.assert_problem(422);
}

#[tokio::test(start_paused = true)]
async fn a_try_while_the_first_is_running_is_refused() {
    let client = client(IdempotencyKeys::new());
    let (first, second) = tokio::join!(
        order(&client, "a", "tea").send(),
        order(&client, "a", "tea").send()
    );
    first.assert_status(201);
    second.assert_problem(409);
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_the_answer_of_another() {
    let client = client(IdempotencyKeys::new());
    for (user, place) in [
        ("ann", "/orders/0"),
        ("bob", "/orders/1"),
        ("ann", "/orders/0"),
    ] {
        let order = order(&client, "a", "tea").header("authorization", user);
        order.await.assert_header("location", place);
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_done_again() {
    let client = client(IdempotencyKeys::new());
    for _ in 0..2 {
        let failing = client
            .post("/orders/failing")
            .header("idempotency-key", "a");
        let answer = failing.await;
        answer.assert_status(503);
        assert_eq!(answer.header("idempotency-replayed"), None);
    }
    order(&client, "b", "tea")
        .await
        .assert_header("location", "/orders/2");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_went_away_was_not_answered() {
    let client = client(IdempotencyKeys::new());
    let soon = Duration::from_millis(500);
    let gone = timeout(soon, order(&client, "a", "tea").send()).await;
    assert!(gone.is_err());
    order(&client, "a", "tea")
        .await
        .assert_header("location", "/orders/0");
}

#[tokio::test(start_paused = true)]
async fn around_it_work_is_finished_and_the_next_try_gets_the_answer() {
    let app = App::new().layer(Detach).layer(IdempotencyKeys::new());
    let client = app.resource(Orders::default()).test();
    let soon = Duration::from_millis(500);
    let gone = timeout(soon, order(&client, "a", "tea").send()).await;
    assert!(gone.is_err());
    order(&client, "a", "tea").await.assert_problem(409);
    advance(Duration::from_secs(1)).await;
    let answer = order(&client, "a", "tea").await;
    answer.assert_header("location", "/orders/0");
    answer.assert_header("idempotency-replayed", "true");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_forgotten_in_the_end() {
    let client = client(IdempotencyKeys::new().with_max_age(Duration::from_secs(60)));
    order(&client, "a", "tea").await.assert_status(201);
    advance(Duration::from_secs(60)).await;
    order(&client, "a", "tea")
        .await
        .assert_header("location", "/orders/1");
}

#[tokio::test(start_paused = true)]
async fn other_methods_and_requests_without_a_key_pass() {
    let client = client(IdempotencyKeys::new());
    for number in ["0", "1"] {
        let replace = client.put("/orders").header("idempotency-key", "a");
        replace.await.assert_text(number);
    }
    for place in ["/orders/2", "/orders/3"] {
        let order = client.post("/orders").body("tea");
        order.await.assert_header("location", place);
    }
}

#[tokio::test]
async fn a_key_that_is_missing_or_malformed_is_told() {
    let client = client(IdempotencyKeys::new().with_required());
    let problem = client.post("/orders").await.assert_problem(400);
    assert_eq!(problem["errors"][0]["name"], "idempotency-key");
    order(&client, "\"", "tea").await.assert_problem(400);
}

#[tokio::test]
async fn a_request_that_is_too_large_to_compare_is_refused() {
    let client = client(IdempotencyKeys::new().with_max_request(3));
    order(&client, "a", "coffee").await.assert_problem(413);
}
