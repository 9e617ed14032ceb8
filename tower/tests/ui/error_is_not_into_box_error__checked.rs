// `check_service` names the bound that breaks. The timeout adds an error of its own, so the service's must convert to `BoxError`; this one doesn't
// implement `Error`.
use std::time::Duration;
use tower::ServiceBuilder;
use tower::util::check_service;

#[derive(Debug)]
struct Broken;

fn run() {
    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service_fn(async |()| Err::<(), _>(Broken));
    let _ = check_service::<(), _>(service);
}

fn main() {
    run();
}
