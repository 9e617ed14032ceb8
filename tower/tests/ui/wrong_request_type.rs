// The service takes a `String`, the caller has a number.
use tower::{BoxError, ServiceExt, service_fn};

async fn greet(name: String) -> Result<String, BoxError> {
    Ok(format!("hello, {name}"))
}

async fn run() {
    let _ = service_fn(greet).oneshot(7).await;
}

fn main() {
    let _ = run();
}
