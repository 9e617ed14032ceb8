use tower_web::prelude::*;

struct Users;

#[resource(path = "/users")]
impl Users {}

fn main() {}
