use tower_web::prelude::*;

#[get("/")]
#[layer("not a layer")]
async fn index() -> &'static str {
    "index"
}

fn main() {}
