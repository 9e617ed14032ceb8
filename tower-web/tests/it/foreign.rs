//! Layers that are written against crates.io's tower, as tower-http's are, unpatched. With the patch, the same code compiles,
//! and needs no wrapper.

use std::time::Duration;

use tower_compat::FromCratesIo;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_web::prelude::*;
use tower_web::{HeaderName, HeaderValue, header};

#[get("/long")]
async fn long() -> String {
    "all work and no play ".repeat(100)
}

#[post("/length")]
async fn length(text: String) -> String {
    text.len().to_string()
}

#[get("/slow")]
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(60)).await;
    "slow"
}

#[get("/own")]
#[layer(FromCratesIo::new(CompressionLayer::new()))]
async fn own() -> String {
    "all work and no play ".repeat(100)
}

fn app() -> App {
    App::new().route(long).route(length).route(slow).route(own)
}

#[tokio::test]
async fn responses_are_compressed() {
    let client = app()
        .layer(FromCratesIo::new(CompressionLayer::new()))
        .test();
    let response = client.get("/long").header("accept-encoding", "gzip").await;
    response
        .assert_status(200)
        .assert_header("content-encoding", "gzip");
    assert!(response.bytes().len() < 200);
    client
        .get("/long")
        .await
        .assert_text("all work and no play ".repeat(100));
    // A single route's layer, too.
    let app = app().defaults(|defaults| defaults.compression(false));
    let client = app.test();
    client
        .get("/own")
        .header("accept-encoding", "gzip")
        .await
        .assert_header("content-encoding", "gzip");
    let plain = client.get("/long").header("accept-encoding", "gzip").await;
    assert_eq!(plain.header("content-encoding"), None);
}

#[tokio::test]
async fn bodies_are_limited() {
    let client = app()
        .layer(FromCratesIo::new(RequestBodyLimitLayer::new(4)))
        .test();
    client.post("/length").body("four").await.assert_text("4");
    client
        .post("/length")
        .body("seven")
        .await
        .assert_status(413);
    let chunks = tokio_stream::iter(["12", "34", "56"].map(Ok::<_, std::io::Error>));
    client
        .post("/length")
        .body(Body::from_stream(chunks))
        .await
        .assert_problem(413);
}

#[tokio::test(start_paused = true)]
async fn responses_are_timed() {
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(1));
    let client = app().layer(FromCratesIo::new(timeout)).test();
    client.get("/slow").await.assert_status(504);
}

#[tokio::test]
async fn a_stack_of_many_serves_routes_and_refusals_alike() {
    let id = HeaderName::from_static("x-request-id");
    let client = app()
        .layer(FromCratesIo::new(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
        ])))
        .layer(FromCratesIo::new(SetRequestIdLayer::new(
            id.clone(),
            MakeRequestUuid,
        )))
        .layer(FromCratesIo::new(PropagateRequestIdLayer::new(id)))
        .layer(FromCratesIo::new(TraceLayer::new_for_http()))
        .layer(FromCratesIo::new(CorsLayer::permissive()))
        .layer(FromCratesIo::new(SetResponseHeaderLayer::overriding(
            header::SERVER,
            HeaderValue::from_static("tower"),
        )))
        .test();
    for (path, status) in [("/long", 200), ("/nowhere", 404)] {
        let response = client
            .get(path)
            .header("origin", "https://example.org")
            .await;
        response.assert_status(status);
        response.assert_header("server", "tower");
        response.assert_header("access-control-allow-origin", "*");
        assert!(response.header("x-request-id").is_some(), "{response:?}");
    }
    client
        .options("/long")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "GET")
        .await
        .assert_status(200)
        .assert_header("access-control-allow-methods", "*");
}

#[tokio::test]
async fn a_service_of_crates_io_is_mounted() {
    let service = upstream::service_fn(|request: Request| async move {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(
            request.uri().to_string(),
        )))
    });
    let client = app().mount("/theirs", FromCratesIo::new(service)).test();
    client.get("/theirs/a?b").await.assert_text("/a?b");
}
