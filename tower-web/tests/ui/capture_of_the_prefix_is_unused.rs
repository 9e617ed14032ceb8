use tower_web::prelude::*;

struct Members;

#[resource("/teams/{team}/members")]
impl Members {
    #[get("/")]
    async fn list(&self) -> &'static str {
        "everybody"
    }
}

fn main() {}
