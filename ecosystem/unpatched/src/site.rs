//! A tower-web application with tower-http's layers, each through tower-compat.

use std::time::Duration;

use tower_compat::FromCratesIo;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_web::prelude::*;
use tower_web::{HeaderName, StatusCode};

#[get("/long")]
async fn long() -> String {
    "all work and no play ".repeat(100)
}

#[post("/echo")]
async fn echo(text: String) -> String {
    text
}

#[get("/never")]
async fn never() -> &'static str {
    std::future::pending().await
}

/// The routes, behind their stack: the layer named first sees a request first.
pub fn app(deadline: Duration) -> App {
    let id = HeaderName::from_static("x-request-id");
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, deadline);
    App::new()
        .route(long)
        .route(echo)
        .route(never)
        .layer(FromCratesIo::new(SetRequestIdLayer::new(
            id.clone(),
            MakeRequestUuid,
        )))
        .layer(FromCratesIo::new(TraceLayer::new_for_http()))
        .layer(FromCratesIo::new(PropagateRequestIdLayer::new(id)))
        .layer(FromCratesIo::new(CorsLayer::permissive()))
        .layer(FromCratesIo::new(CompressionLayer::new()))
        .layer(FromCratesIo::new(RequestBodyLimitLayer::new(1024)))
        .layer(FromCratesIo::new(timeout))
}
