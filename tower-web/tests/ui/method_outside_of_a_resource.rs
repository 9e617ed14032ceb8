use tower_web::prelude::*;

struct Users;

impl Users {
    #[get("/users")]
    async fn list(&self) -> &'static str {
        "everybody"
    }
}

fn main() {}
