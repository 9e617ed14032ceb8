use tower_web::prelude::*;

#[get("/{value}")]
async fn show<T: std::fmt::Display>(value: T) -> String {
    value.to_string()
}

fn main() {}
