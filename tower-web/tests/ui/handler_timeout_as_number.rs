use tower_web::prelude::*;

#[get("/")]
#[handler_timeout(5)]
async fn slow() {}

fn main() {}
