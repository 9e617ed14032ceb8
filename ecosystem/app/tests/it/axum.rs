//! axum servers with tower's and tower-http's layers, called by reqwest.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleError;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::routing::get;
use ecosystem_app::web::Limits;
use tower::steer::Steer;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, filter, make::Shared};
use tower_http::normalize_path::NormalizePathLayer;
use tower_http::timeout::TimeoutLayer;

use super::{AMPLE, GENEROUS, SHORT, application, listen, serve, within};

#[tokio::test]
async fn a_request_passes_the_whole_application() {
    within(async {
        let address = application(GENEROUS, AMPLE).await;

        let response = reqwest::get(format!("http://{address}/status/steady"))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(response.text().await.unwrap(), "SERVING");

        let response = reqwest::get(format!("http://{address}/status/nobody"))
            .await
            .unwrap();
        assert_eq!(response.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn a_retry_hides_a_backend_that_fails_now_and_then() {
    within(async {
        let address = application(GENEROUS, AMPLE).await;
        for _ in 0..3 {
            let response = reqwest::get(format!("http://{address}/status/flaky"))
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_the_backend() {
    within(async {
        let address = application(GENEROUS, SHORT).await;
        let response = reqwest::get(format!("http://{address}/status/slow"))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_the_front() {
    within(async {
        let limits = Limits {
            deadline: SHORT,
            ..GENEROUS
        };
        let address = application(limits, AMPLE).await;
        let response = reqwest::get(format!("http://{address}/never"))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    })
    .await;
}

#[tokio::test]
async fn what_is_over_the_limit_is_shed_until_there_is_room_again() {
    within(async {
        let limits = Limits {
            in_flight: 1,
            ..GENEROUS
        };
        let address = application(limits, AMPLE).await;
        let root = format!("http://{address}/");

        // Fill the only place. When the server has taken the request nobody can say, so ask until it shows.
        let held = tokio::spawn(reqwest::get(format!("http://{address}/never")));
        let shed = loop {
            let response = reqwest::get(&root).await.unwrap();
            if response.status() != 200 {
                break response;
            }
        };
        assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(shed.headers()[RETRY_AFTER], "1");

        // A caller that leaves gives its place back.
        held.abort();
        while reqwest::get(&root).await.unwrap().status() != 200 {}
    })
    .await;
}

#[tokio::test]
async fn layers_of_tower_http_stand_among_ours() {
    within(async {
        let address = application(GENEROUS, AMPLE).await;
        let client = reqwest::Client::new();

        let response = reqwest::get(format!("http://{address}/panic"))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);

        let echo = format!("http://{address}/echo");
        let request = client.post(&echo).header("x-request-id", "mine").body("hi");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "mine");
        assert_eq!(response.text().await.unwrap(), "hi");

        let response = client
            .post(&echo)
            .body("x".repeat(2000))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    })
    .await;
}

#[tokio::test]
async fn a_router_is_the_service_at_the_bottom_of_a_stack() {
    within(async {
        let router = Router::new().route("/here", get(|| async { "found" }));
        let service = ServiceBuilder::new()
            .layer(NormalizePathLayer::trim_trailing_slash())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                AMPLE,
            ))
            .option_layer(None::<tower_layer::Identity>)
            .service(router);

        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, Shared::new(service)).await });

        let response = reqwest::get(format!("http://{address}/here/"))
            .await
            .unwrap();
        assert_eq!(response.text().await.unwrap(), "found");
    })
    .await;
}

#[tokio::test]
async fn requests_are_steered_between_routers() {
    within(async {
        let one = Router::new().route("/", get(|| async { "one" }));
        let two = Router::new().route("/", get(|| async { "two" }));
        let pick =
            |request: &Request, _: &[_]| usize::from(request.headers().contains_key("x-two"));
        let steer = Steer::new([one, two], pick);

        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, Shared::new(steer)).await });

        let client = reqwest::Client::new();
        let root = format!("http://{address}/");
        let response = client.get(&root).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "one");
        let response = client.get(&root).header("x-two", "").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "two");
    })
    .await;
}

#[tokio::test]
async fn a_route_has_layers_of_its_own() {
    within(async {
        let only_known =
            |request: Request<Body>| match request.headers().contains_key("authorization") {
                true => Ok(request),
                false => Err(BoxError::from("who are you?")),
            };
        let guarded = ServiceBuilder::new()
            .buffer(8)
            .rate_limit(100, Duration::from_secs(1))
            .layer(filter::FilterLayer::new(only_known))
            .service(tower::service_fn(|_| async {
                Ok::<_, BoxError>("welcome".to_owned())
            }))
            .map_response(|body| axum::response::Response::new(Body::from(body)));
        let refuse = |error: BoxError| async move { (StatusCode::FORBIDDEN, error.to_string()) };

        let router = Router::new()
            .route_service("/guarded", HandleError::new(guarded, refuse))
            .route("/open", get(|| async { "open" }));
        let address = serve(router).await;

        let client = reqwest::Client::new();
        let guarded = format!("http://{address}/guarded");
        let response = client.get(&guarded).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.text().await.unwrap(), "who are you?");
        let response = client
            .get(&guarded)
            .header("authorization", "me")
            .send()
            .await
            .unwrap();
        assert_eq!(response.text().await.unwrap(), "welcome");
    })
    .await;
}

#[tokio::test]
async fn a_router_is_called_without_a_socket() {
    let router = Router::new().route("/", get(|| async { "in memory" }));
    let layered = tower::layer::layer_fn(|inner| inner).layer(router);
    let request = Request::builder().uri("/").body(Body::empty()).unwrap();
    let response = layered.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
