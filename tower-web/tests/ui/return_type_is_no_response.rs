use tower_web::prelude::*;

struct User;

struct Users;

#[resource("/users")]
impl Users {
    #[get("/")]
    async fn first(&self) -> User {
        User
    }
}

fn main() {}
