// The queue's worker runs on another thread, so what is behind it must be `Send`.
use std::rc::Rc;
use tower::{BoxError, ServiceBuilder, service_fn};

fn main() {
    let local = Rc::new(7);
    let _ = ServiceBuilder::new().buffer(8).service(service_fn(move |n: u8| {
        let local = Rc::clone(&local);
        async move { Ok::<_, BoxError>(n + *local) }
    }));
}
