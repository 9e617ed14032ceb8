use tower_web::prelude::*;

struct Users;

#[resource("/users")]
impl Users {
    #[get("/{id}")]
    async fn fetch(&self, id: u64) -> String {
        id.to_string()
    }
}

fn main() {
    let _ = Users::fetch_path("seven");
}
