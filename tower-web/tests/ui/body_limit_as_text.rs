use tower_web::prelude::*;

#[post("/")]
#[body_limit("2MB")]
async fn upload(body: String) -> String {
    body
}

fn main() {}
