use tower_web::prelude::*;

struct Users;

#[resource("/users")]
impl Users {
    #[get("/{id}")]
    async fn by_id(&self, id: u64) -> String {
        id.to_string()
    }

    #[get("/{name}")]
    async fn by_name(&self, name: String) -> String {
        name
    }
}

fn main() {}
