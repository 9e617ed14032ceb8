//! The web front.

use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{Path, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tonic::{Code, Status};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_http::ServiceBuilderExt;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::MakeRequestUuid;

use crate::backend::Ask;

/// How much the front takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at once; more are turned away.
    pub in_flight: usize,
    /// The time to answer one.
    pub deadline: Duration,
}

/// The front's routes, which ask the backend through `ask`, behind its stack of middleware.
///
/// tower's and tower-http's layers stand in one `ServiceBuilder`, whose methods come from both.
pub fn router(ask: Ask, limits: Limits) -> Router {
    let stack = ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .trace_for_http()
        .propagate_x_request_id()
        .catch_panic()
        .layer(HandleErrorLayer::new(apologise))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(limits.in_flight))
        .timeout(limits.deadline);

    Router::new()
        .route("/", get(|| async { "hello, world\n" }))
        .route("/echo", post(|body: String| async { body }))
        .route("/never", get(std::future::pending::<()>))
        .route("/panic", get(panic))
        .route("/status/{service}", get(status))
        .layer(RequestBodyLimitLayer::new(1024))
        .layer(stack)
        .with_state(ask)
}

async fn panic() {
    panic!("asked to");
}

async fn status(State(ask): State<Ask>, Path(service): Path<String>) -> Response {
    match ask.oneshot(service).await {
        Ok(status) => status.as_str_name().into_response(),
        Err(error) => apologise(error).await,
    }
}

/// The HTTP answer to an error of a middleware or of the backend.
async fn apologise(error: BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        return StatusCode::GATEWAY_TIMEOUT.into_response();
    }
    if error.is::<tower::load_shed::error::Overloaded>() {
        let later = (RETRY_AFTER, HeaderValue::from_static("1"));
        return (StatusCode::SERVICE_UNAVAILABLE, [later]).into_response();
    }
    match error.downcast_ref::<Status>().map(Status::code) {
        Some(Code::NotFound) => StatusCode::NOT_FOUND.into_response(),
        Some(_) => StatusCode::BAD_GATEWAY.into_response(),
        None => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
