use tower_web::prelude::*;

async fn index() -> &'static str {
    "index"
}

fn main() {
    let _ = App::new().route(index);
}
