use tower_web::prelude::*;

#[get]
async fn users() -> &'static str {
    "users"
}

fn main() {}
