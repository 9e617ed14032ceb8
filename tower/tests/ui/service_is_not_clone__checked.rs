// `check_service` names the bound that breaks. A retry needs a clone of the service, and a boxed service has none: it should be `boxed_clone`.
use std::future::Ready;
use tower::retry::Policy;
use tower::util::BoxService;
use tower::util::check_service;
use tower::{BoxError, ServiceBuilder};

#[derive(Clone)]
struct Never;

impl Policy<u8, u8, BoxError> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u8, _: &mut Result<u8, BoxError>) -> Option<Ready<()>> {
        None
    }

    fn clone_request(&mut self, request: &u8) -> Option<u8> {
        Some(*request)
    }
}

fn run(inner: BoxService<u8, u8, BoxError>) {
    let service = ServiceBuilder::new().retry(Never).service(inner);
    let _ = check_service::<u8, _>(service);
}

fn main() {
    let _ = run;
}
