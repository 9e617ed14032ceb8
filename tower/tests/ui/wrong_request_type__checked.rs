// `check_service` names the bound that breaks. The service takes a `String`, not a number.
use tower::service_fn;
use tower::util::check_service;

async fn greet(name: String) -> Result<String, tower::BoxError> {
    Ok(format!("hello, {name}"))
}

fn main() {
    let _ = check_service::<u32, _>(service_fn(greet));
}
