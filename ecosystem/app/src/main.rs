//! Runs the backend and the front on ports of loopback, and says where: `cargo run`.

use std::time::Duration;

use ecosystem_app::backend::{self, Backend};
use ecosystem_app::web::{self, Limits};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::health_server::HealthServer;
use tower::BoxError;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let grpc = TcpListener::bind("127.0.0.1:0").await?;
    let channel = Endpoint::from_shared(format!("http://{}", grpc.local_addr()?))?.connect_lazy();
    tokio::spawn(
        Server::builder()
            .concurrency_limit_per_connection(64)
            .add_service(HealthServer::new(Backend::default()))
            .serve_with_incoming(TcpIncoming::from(grpc)),
    );

    let ask = backend::ask(channel, Duration::from_secs(1));
    let limits = Limits {
        in_flight: 100,
        deadline: Duration::from_secs(5),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!(
        "try: curl -i http://{}/status/flaky",
        listener.local_addr()?
    );
    axum::serve(listener, web::router(ask, limits)).await?;
    Ok(())
}
