use tower_web::prelude::*;

#[resource("/users")]
struct Users;

fn main() {}
