use tower_web::prelude::*;

#[get("/")]
unsafe fn index() -> &'static str {
    "index"
}

fn main() {}
