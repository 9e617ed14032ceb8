//! An axum application that uses our tower without a patch.
//!
//! axum and tower-http are built against crates.io's tower. `tower` here is the one in this repository, and
//! tower-compat stands between: [`ToCratesIo`] around what axum is given, [`FromCratesIo`] around what
//! comes from axum and tower-http.

pub mod site;

use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::get;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, ServiceBuilder};
use tower_compat::{FromCratesIo, ToCratesIo};
use tower_http::set_header::SetResponseHeaderLayer;

/// A router behind a stack of ours, in which layers of axum and tower-http have their places.
pub fn router(in_flight: usize, deadline: Duration) -> Router {
    let by = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-by"),
        HeaderValue::from_static("tower"),
    );
    let stack = ServiceBuilder::new()
        .layer(FromCratesIo::new(by))
        .layer(FromCratesIo::new(HandleErrorLayer::new(apologise)))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(in_flight))
        .timeout(deadline);

    Router::new()
        .route("/", get(|| async { "hello, world\n" }))
        .route("/never", get(std::future::pending::<()>))
        .layer(ToCratesIo::new(stack))
}

/// The HTTP answer to an error of one of our layers.
async fn apologise(error: BoxError) -> StatusCode {
    if error.is::<tower::timeout::error::Elapsed>() {
        StatusCode::GATEWAY_TIMEOUT
    } else if error.is::<tower::load_shed::error::Overloaded>() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}
