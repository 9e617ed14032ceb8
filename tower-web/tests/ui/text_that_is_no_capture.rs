use tower_web::prelude::*;

#[get("/hello")]
async fn hello(name: &str) -> String {
    format!("hello, {name}")
}

fn main() {}
