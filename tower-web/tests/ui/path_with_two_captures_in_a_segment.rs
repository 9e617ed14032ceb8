use tower_web::prelude::*;

#[get("/{from}-{to}")]
async fn range(from: u64, to: u64) -> String {
    format!("{from} to {to}")
}

fn main() {}
