//! Real requests over loopback: a server of axum's and a client of hyper-util's, each with our layers, and
//! no patch.

mod tower_web;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleError;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use ecosystem_unpatched::router;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower::make::Shared;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_compat::{FromCratesIo, ToCratesIo};

/// Long enough for any step on a busy machine.
const AMPLE: Duration = Duration::from_secs(30);

/// Short enough to wait for it to pass.
const SHORT: Duration = Duration::from_millis(50);

/// Runs a test to its end, or fails it if it hangs.
async fn within<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(2 * AMPLE, test)
        .await
        .expect("the test hangs")
}

/// Serves `router` for the rest of the test.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn get(address: SocketAddr, path: &str) -> Request {
    Request::get(format!("http://{address}{path}"))
        .body(Body::empty())
        .unwrap()
}

/// hyper-util's client, at the bottom of our stack.
fn client() -> impl Service<Request, Response = Response<Incoming>, Error = BoxError, Future: Send>
{
    let hyper: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    ServiceBuilder::new()
        .buffer(16)
        .concurrency_limit(4)
        .timeout(AMPLE)
        .service(FromCratesIo::new(hyper))
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn our_layers_protect_a_router() {
    within(async {
        let address = serve(router(100, SHORT)).await;
        let response = client().oneshot(get(address, "/")).await.unwrap();
        assert_eq!(response.headers()["x-by"], "tower");
        assert_eq!(text(response).await, "hello, world\n");

        let response = client().oneshot(get(address, "/never")).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()["x-by"], "tower");
    })
    .await;
}

#[tokio::test]
async fn what_is_over_the_limit_is_shed_until_there_is_room_again() {
    within(async {
        let address = serve(router(1, AMPLE)).await;
        let status = async || {
            let response = client().oneshot(get(address, "/")).await.unwrap();
            response.status()
        };

        // Fill the only place. When the server has taken the request nobody can say, so ask until it shows.
        let held = tokio::spawn(client().oneshot(get(address, "/never")));
        let shed = loop {
            match status().await {
                StatusCode::OK => {}
                other => break other,
            }
        };
        assert_eq!(shed, StatusCode::SERVICE_UNAVAILABLE);

        // A caller that leaves gives its place back.
        held.abort();
        while status().await != StatusCode::OK {}
    })
    .await;
}

#[tokio::test]
async fn a_router_is_the_service_at_the_bottom_of_our_stack() {
    within(async {
        let stack = ServiceBuilder::new()
            .buffer(16)
            .timeout(AMPLE)
            .service(FromCratesIo::new(router(100, AMPLE)));
        // axum's own error handling, around ours seen as crates.io's.
        let refuse = |error: BoxError| async move { error.to_string() };
        let service = HandleError::new(ToCratesIo::new(stack), refuse);
        let make_service = ToCratesIo::new(Shared::new(service));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, make_service).await });

        let response = client().oneshot(get(address, "/")).await.unwrap();
        assert_eq!(text(response).await, "hello, world\n");
    })
    .await;
}
