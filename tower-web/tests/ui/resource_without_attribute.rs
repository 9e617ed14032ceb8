use tower_web::prelude::*;

struct Users;

impl Users {
    async fn list(&self) -> &'static str {
        "everybody"
    }
}

fn main() {
    let _ = App::new().resource(Users);
}
