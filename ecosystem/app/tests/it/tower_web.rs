//! A tower-web application whose layers are tower-http's, with nothing in between.

use std::sync::mpsc;
use std::time::Duration;

use ecosystem_app::site;
use tower_http::trace::TraceLayer;

use super::{AMPLE, SHORT, within};

#[tokio::test]
async fn every_answer_carries_a_request_id_and_allows_other_origins() {
    within(async {
        let client = site::app(AMPLE).test();
        for (path, status) in [("/long", 200), ("/nowhere", 404)] {
            let response = client.get(path).header("origin", "https://a.example").await;
            response
                .assert_status(status)
                .assert_header("access-control-allow-origin", "*");
            assert!(response.header("x-request-id").is_some(), "{response:?}");
        }
        let response = client.get("/long").header("x-request-id", "mine").await;
        response.assert_header("x-request-id", "mine");
    })
    .await;
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_layer() {
    within(async {
        site::app(AMPLE)
            .test()
            .options("/long")
            .header("origin", "https://a.example")
            .header("access-control-request-method", "GET")
            .await
            .assert_status(200)
            .assert_header("access-control-allow-methods", "*");
    })
    .await;
}

#[tokio::test]
async fn a_response_is_compressed_for_who_asks() {
    within(async {
        let client = site::app(AMPLE).test();
        let response = client.get("/long").header("accept-encoding", "gzip").await;
        response
            .assert_status(200)
            .assert_header("content-encoding", "gzip");
        assert!(response.bytes().len() < 200);

        let plain = client.get("/long").await;
        assert_eq!(plain.header("content-encoding"), None);
        plain.assert_text("all work and no play ".repeat(100));
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    within(async {
        let client = site::app(AMPLE).test();
        client
            .post("/echo")
            .body("short")
            .await
            .assert_text("short");
        let long = "x".repeat(1025);
        client.post("/echo").body(long).await.assert_status(413);
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_a_handler() {
    within(async {
        let client = site::app(SHORT).test();
        client.get("/never").await.assert_status(504);
    })
    .await;
}

#[tokio::test]
async fn a_trace_sees_the_status_of_each_response() {
    within(async {
        let (seen, statuses) = mpsc::channel();
        let trace = TraceLayer::new_for_http().on_response(
            move |response: &http::Response<_>, _: Duration, _: &tracing::Span| {
                seen.send(response.status().as_u16()).unwrap();
            },
        );
        let client = site::app(AMPLE).layer(trace).test();
        client.get("/long").await.assert_status(200);
        client.get("/nowhere").await.assert_status(404);
        assert_eq!(statuses.try_iter().collect::<Vec<_>>(), [200, 404]);
    })
    .await;
}
