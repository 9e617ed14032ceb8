#![allow(unused_variables)]

use tower_web::prelude::*;

#[get("/users/{ids}")]
async fn fetch(ids: Vec<u64>) -> &'static str {
    "some"
}

fn main() {}
