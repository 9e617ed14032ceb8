//! tower-test's mock under layers of tower and of tower-http.

use axum::http::{HeaderName, HeaderValue, Request, Response};
use tower::limit::ConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_test::{assert_request_eq, mock};

use super::within;

#[tokio::test]
async fn a_layer_of_tower_http_is_tested_with_the_mock() {
    within(async {
        let name = HeaderName::from_static("x-by");
        let layer = SetResponseHeaderLayer::overriding(name, HeaderValue::from_static("tower"));
        let (mock, mut handle) = mock::pair::<Request<()>, Response<()>>();
        let service = ServiceBuilder::new().layer(layer).service(mock);

        let response = tokio::spawn(service.oneshot(Request::new(())));
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(Response::new(()));
        assert_eq!(response.await.unwrap().unwrap().headers()["x-by"], "tower");
    })
    .await;
}

#[tokio::test]
async fn a_layer_is_tested_with_the_mock() {
    within(async {
        let (mut service, mut handle) = mock::spawn_layer(ConcurrencyLimitLayer::new(1));
        assert!(service.poll_ready::<&str>().is_ready());
        let response = tokio::spawn(service.call("ping"));

        assert!(service.poll_ready::<&str>().is_pending());
        assert_request_eq!(handle, "ping").send_response("pong");
        assert_eq!(response.await.unwrap().unwrap(), "pong");
        assert!(service.is_woken());
        assert!(service.poll_ready::<&str>().is_ready());
    })
    .await;
}
