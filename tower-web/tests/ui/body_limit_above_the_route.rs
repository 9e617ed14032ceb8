use tower_web::prelude::*;

#[body_limit(1024)]
#[post("/notes")]
async fn create(note: String) -> String {
    note
}

fn main() {}
