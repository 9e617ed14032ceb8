// The timeout adds an error of its own, so the service's must convert to `BoxError`; this one doesn't
// implement `Error`.
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt};

#[derive(Debug)]
struct Broken;

async fn run() {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service_fn(async |()| Err::<(), _>(Broken));
    let _ = service.oneshot(()).await;
}

fn main() {
    let _ = run();
}
