use tower_web::prelude::*;

struct Counter(u64);

#[resource("/counter")]
impl Counter {
    #[post("/")]
    async fn count(&mut self) -> String {
        self.0 += 1;
        self.0.to_string()
    }
}

fn main() {}
