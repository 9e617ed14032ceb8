//! Rate, errors and duration of requests.

use std::future::Future as _;
use std::task::Poll;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower_web::prelude::*;

#[get("/users/{id}")]
async fn user(id: u64) -> String {
    tokio::time::sleep(Duration::from_secs(id)).await;
    String::new()
}

/// A recorder of this thread's, and what it has recorded.
fn recorded() -> (PrometheusHandle, metrics::LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (
        recorder.handle(),
        metrics::set_default_local_recorder(recorder),
    )
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_their_route_and_not_by_their_path() {
    let (handle, _recorder) = recorded();
    let client = App::new().route(user).test();
    for id in 0..3 {
        client.get(&format!("/users/{id}")).await.assert_status(200);
    }
    client.get("/users/x").await.assert_status(400);
    client.get("/users/99").await.assert_status(504);
    client.get("/a").await.assert_status(404);
    client.get("/b").await.assert_status(404);
    for made_up in ["BREW", "STIR"] {
        let method = tower_web::Method::from_bytes(made_up.as_bytes()).unwrap();
        client.request(method, "/users/1").await.assert_status(405);
    }
    let text = handle.render();
    for line in [
        r#"http_requests_total{method="GET",route="/users/{id}",status="2xx"} 3"#,
        r#"http_requests_total{method="GET",route="/users/{id}",status="4xx"} 1"#,
        r#"http_requests_total{method="GET",route="/users/{id}",status="5xx"} 1"#,
        r#"http_requests_total{method="GET",route="(none)",status="4xx"} 2"#,
        r#"http_requests_total{method="other",route="(none)",status="4xx"} 2"#,
        r#"http_request_duration_seconds_sum{method="GET",route="/users/{id}",status="2xx"} 3"#,
        "http_requests_in_flight 0",
    ] {
        assert!(text.contains(line), "{line} isn't in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_answered_is_counted_until_it_is_not() {
    let (handle, _recorder) = recorded();
    let client = App::new().route(user).test();
    let mut waiting = Box::pin(client.get("/users/5").send());
    std::future::poll_fn(|cx| {
        assert!(waiting.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(handle.render().contains("http_requests_in_flight 1"));
    drop(waiting);
    assert!(handle.render().contains("http_requests_in_flight 0"));
}
