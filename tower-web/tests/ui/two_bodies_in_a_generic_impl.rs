#![allow(unused_variables)]

use serde::de::DeserializeOwned;
use tower_web::prelude::*;

struct Notes<T>(T);

#[resource("/notes")]
impl<T: DeserializeOwned + Send + Sync + garde::Validate<Context = ()>> Notes<T> {
    #[post("/")]
    async fn create(&self, note: Json<T>, again: Json<Vec<T>>) -> &'static str {
        "created"
    }
}

fn main() {}
