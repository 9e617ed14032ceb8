#![allow(unused_variables)]

use tower_web::prelude::*;

struct Notes;

#[resource("/notes")]
impl Notes {
    #[post("/")]
    async fn create(&self, note: Json<String>, method: tower_web::Method, raw: String) -> &'static str {
        "created"
    }
}

fn main() {}
