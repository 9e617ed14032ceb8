// The middleware itself is passed where its layer is wanted.
use tower::{BoxError, ServiceBuilder, service_fn};

struct Loud<S> {
    inner: S,
}

fn main() {
    let inner = service_fn(async |n: u8| Ok::<_, BoxError>(n));
    let _ = ServiceBuilder::new()
        .layer(Loud { inner: () })
        .service(inner);
}
