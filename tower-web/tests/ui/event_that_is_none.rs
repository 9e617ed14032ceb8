use tower_web::prelude::*;

struct Ticks;

#[resource("/ticks")]
impl Ticks {
    #[get("/")]
    async fn ticks(&self) -> Sse<futures_util::stream::Empty<String>> {
        Sse::new(futures_util::stream::empty())
    }
}

fn main() {}
