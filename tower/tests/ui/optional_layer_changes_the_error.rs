// With the timeout the error is a `BoxError`, without it is the service's.
use std::io;
use std::time::Duration;
use tower::timeout::TimeoutLayer;
use tower::{ServiceBuilder, ServiceExt};

async fn run(limit: Option<Duration>) {
    let service = ServiceBuilder::new()
        .option_layer(limit.map(TimeoutLayer::new))
        .service_fn(async |n: u8| Ok::<_, io::Error>(n));
    let _ = service.oneshot(1).await;
}

fn main() {
    let _ = run(None);
}
