#![allow(unused_variables)]

use tower_web::prelude::*;

struct Settings;

#[get("/")]
async fn index(settings: Settings) -> &'static str {
    "index"
}

fn main() {}
