use tower_web::prelude::*;

struct Greeter {
    greeting: String,
}

#[resource("/greeting")]
impl Greeter {
    #[get("/")]
    async fn greeting(&self) -> Result<&str, Problem> {
        Ok(&self.greeting)
    }
}

fn main() {}
