use tower_web::prelude::*;

struct Users;

#[resource("/users")]
impl Users {
    #[get("/{id}")]
    async fn fetch(&self, user_id: u64) -> String {
        user_id.to_string()
    }
}

fn main() {}
