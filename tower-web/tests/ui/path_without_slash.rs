use tower_web::prelude::*;

#[get("users")]
async fn users() -> &'static str {
    "users"
}

fn main() {}
