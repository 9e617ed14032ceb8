//! reqwest clients, as a service under tower's layers and with them around their connector.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tower::retry::Policy;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::{AMPLE, SHORT, serve, within};

fn get_request(url: String) -> reqwest::Request {
    reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap())
}

/// Tries again for as long as the server is unavailable.
#[derive(Clone)]
struct WhileUnavailable;

impl Policy<reqwest::Request, reqwest::Response, BoxError> for WhileUnavailable {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _: &mut reqwest::Request,
        result: &mut Result<reqwest::Response, BoxError>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        (response.status() == StatusCode::SERVICE_UNAVAILABLE)
            .then(|| Box::pin(std::future::ready(())) as Self::Future)
    }

    fn clone_request(&mut self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }
}

#[tokio::test]
async fn a_client_is_the_service_at_the_bottom_of_a_stack() {
    within(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let handler = {
            let calls = calls.clone();
            move || async move {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    0 | 1 => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::OK,
                }
            }
        };
        let address = serve(Router::new().route("/", get(handler))).await;

        let client = ServiceBuilder::new()
            .buffer(16)
            .load_shed()
            .concurrency_limit(4)
            .retry(WhileUnavailable)
            .timeout(AMPLE)
            .service(reqwest::Client::new());

        let response = client
            .oneshot(get_request(format!("http://{address}/")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    })
    .await;
}

#[tokio::test]
async fn a_timeout_bounds_a_client() {
    within(async {
        let address = serve(Router::new().route("/", get(std::future::pending::<()>))).await;
        let client = ServiceBuilder::new()
            .timeout(SHORT)
            .service(reqwest::Client::new());

        let error = client
            .oneshot(get_request(format!("http://{address}/")))
            .await
            .unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>());
    })
    .await;
}

#[tokio::test]
async fn layers_stand_around_the_connector() {
    within(async {
        let address = serve(Router::new().route("/", get(|| async { "hello" }))).await;
        let client = reqwest::Client::builder()
            .connector_layer(
                ServiceBuilder::new()
                    .buffer(8)
                    .concurrency_limit(2)
                    .layer(TimeoutLayer::new(AMPLE))
                    .into_inner(),
            )
            .build()
            .unwrap();

        let response = client
            .get(format!("http://{address}/"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.text().await.unwrap(), "hello");
    })
    .await;
}

/// reqwest looks for tower's `Elapsed` to tell a timeout from other failures to connect: it and the
/// timeout that it sets have to come from one crate.
#[tokio::test]
async fn an_elapsed_connect_timeout_is_recognised() {
    within(async {
        let stuck = tower::layer::layer_fn(|inner| {
            tower::util::MapFuture::new(inner, |connecting| async move {
                tokio::time::sleep(Duration::from_secs(600)).await;
                connecting.await
            })
        });
        let client = reqwest::Client::builder()
            .connect_timeout(SHORT)
            .connector_layer(stuck)
            .build()
            .unwrap();

        let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert!(error.is_connect(), "{error:?}");
    })
    .await;
}
