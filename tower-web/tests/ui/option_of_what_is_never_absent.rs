#![allow(unused_variables)]

use tower_web::prelude::*;

#[post("/notes")]
async fn create(note: Option<String>) -> &'static str {
    "created"
}

fn main() {}
