// `check_service` between two layers names the place where a bound breaks.
use std::time::Duration;
use tower::util::BoxService;
use tower::{BoxError, ServiceBuilder};

fn main() {
    let _ = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .map_response(|n: u8| n.to_string())
        .check_service::<BoxService<u8, u8, BoxError>, u8, u8, BoxError>();
}
