use tower_web::prelude::*;

struct Note {
    text: String,
}

#[post("/notes")]
async fn create(note: Json<Note>) -> String {
    note.0.text
}

fn main() {}
