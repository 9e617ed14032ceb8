use std::rc::Rc;

use tower_web::prelude::*;

struct Users;

#[resource("/users")]
impl Users {
    #[get("/")]
    async fn list(&self) -> &'static str {
        let count = Rc::new(7);
        std::future::ready(()).await;
        drop(count);
        "everybody"
    }
}

fn main() {}
