// `check_service` names the bound that breaks. An asynchronous closure is passed where a service is wanted: `service_fn` is missing.
use std::time::Duration;
use tower::util::check_service;
use tower::{BoxError, ServiceBuilder};

fn run() {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(async |name: String| Ok::<_, BoxError>(name));
    let _ = check_service::<String, _>(service);
}

fn main() {
    run();
}
