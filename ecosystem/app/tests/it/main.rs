//! Real requests over loopback, through crates that were published against crates.io's tower.
//!
//! A module per crate that tower is used with. Nothing here is special to the patch: the tests pass on
//! crates.io's tower, too. What proves that they ran on ours is `ecosystem/check`.

mod axum;
mod compat;
mod hyper_util;
mod mock;
mod reqwest;
mod tonic;
mod tower_web;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use ::tonic::transport::server::TcpIncoming;
use ::tonic::transport::{Channel, Endpoint, Server};
use ecosystem_app::backend::{self, Ask, Backend};
use ecosystem_app::web::{self, Limits};
use tokio::net::TcpListener;
use tonic_health::pb::health_server::HealthServer;

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

/// A listener on a port of the system's choice, and its address.
async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves `router` for the rest of the test.
async fn serve(router: ::axum::Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move { ::axum::serve(listener, router).await });
    address
}

/// Serves a backend for the rest of the test.
async fn backend() -> Channel {
    let (listener, address) = listen().await;
    let server = Server::builder().add_service(HealthServer::new(Backend::default()));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    endpoint(address).connect_lazy()
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// Serves the whole application for the rest of the test.
async fn application(limits: Limits, ask_deadline: Duration) -> SocketAddr {
    let ask: Ask = backend::ask(backend().await, ask_deadline);
    serve(web::router(ask, limits)).await
}

/// Limits that no test reaches unless it means to.
const GENEROUS: Limits = Limits {
    in_flight: 100,
    deadline: AMPLE,
};
