// `check_service` names the bound that breaks. With the timeout the error is a `BoxError`, without it is the service's.
use std::io;
use std::time::Duration;
use tower::timeout::TimeoutLayer;
use tower::ServiceBuilder;
use tower::util::check_service;

fn run(limit: Option<Duration>) {
    let service = ServiceBuilder::new()
        .option_layer(limit.map(TimeoutLayer::new))
        .service_fn(async |n: u8| Ok::<_, io::Error>(n));
    let _ = check_service::<u8, _>(service);
}

fn main() {
    run(None);
}
