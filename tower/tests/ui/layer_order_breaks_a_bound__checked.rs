// `check_service` names the bound that breaks. The policy looks for `io::Error`, but inside of it the timeout has made the error a `BoxError`: the
// layers are in the wrong order for this policy.
use std::future::Ready;
use std::io;
use std::time::Duration;
use tower::retry::Policy;
use tower::ServiceBuilder;
use tower::util::check_service;

#[derive(Clone)]
struct RetryIo;

impl Policy<u8, u8, io::Error> for RetryIo {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u8, _: &mut Result<u8, io::Error>) -> Option<Ready<()>> {
        None
    }

    fn clone_request(&mut self, request: &u8) -> Option<u8> {
        Some(*request)
    }
}

fn run() {
    let service = ServiceBuilder::new()
        .retry(RetryIo)
        .timeout(Duration::from_secs(1))
        .service_fn(async |n: u8| Ok::<_, io::Error>(n));
    let _ = check_service::<u8, _>(service);
}

fn main() {
    run();
}
