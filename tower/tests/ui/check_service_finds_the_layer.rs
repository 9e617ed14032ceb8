// `check_service` between two layers names the place where a bound breaks.
use std::time::Duration;
use tower::{BoxError, ServiceBuilder, service_fn};

fn main() {
    let inner = service_fn(async |n: u8| Ok::<_, BoxError>(n));
    let _ = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .map_response(|n: u8| n.to_string())
        .check_service::<_, u8, u8, BoxError>()
        .service(inner);
}
