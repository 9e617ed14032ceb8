//! Under the patch, both of tower-compat's traits are one: the wrappers adapt nothing, and still work.

use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::StatusCode;
use axum::routing::get;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_compat::{FromCratesIo, ToCratesIo};

use super::{serve, within};

#[tokio::test]
async fn both_wrappers_work_under_the_patch() {
    within(async {
        let apologise = |_: BoxError| async { StatusCode::GATEWAY_TIMEOUT };
        let layers = ServiceBuilder::new()
            .layer(FromCratesIo::new(HandleErrorLayer::new(apologise)))
            .timeout(Duration::from_millis(50))
            .into_inner();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/never", get(std::future::pending::<()>))
            .layer(ToCratesIo::new(layers));
        let address = serve(router).await;

        let client = ToCratesIo::new(FromCratesIo::new(reqwest::Client::new()));
        let get = |path| {
            let url = format!("http://{address}{path}").parse().unwrap();
            client
                .clone()
                .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
        };
        assert_eq!(get("/").await.unwrap().text().await.unwrap(), "hello");
        assert_eq!(
            get("/never").await.unwrap().status(),
            StatusCode::GATEWAY_TIMEOUT
        );
    })
    .await;
}

/// With two traits, a wrapped service of crates.io's would not be one of crates.io's itself.
#[test]
fn both_traits_are_one() {
    fn both<S: tower_service::Service<u8> + tower::Service<u8>>(_: S) {}
    let service = tower::service_fn(async |n: u8| Ok::<_, BoxError>(n));
    both(ToCratesIo::new(service));
    both(FromCratesIo::new(service));
}
