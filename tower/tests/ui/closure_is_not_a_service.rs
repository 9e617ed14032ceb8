// An asynchronous closure is passed where a service is wanted: `service_fn` is missing.
use std::time::Duration;
use tower::{BoxError, ServiceBuilder, ServiceExt};

async fn run() {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(async |name: String| Ok::<_, BoxError>(name));
    let _ = service.oneshot("ann".to_owned()).await;
}

fn main() {
    let _ = run();
}
