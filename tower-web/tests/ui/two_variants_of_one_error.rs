use tower_web::prelude::*;
use std::io;

#[derive(Debug, Problem)]
enum Error {
    #[problem(status = 500, hide)]
    Disk(#[from] io::Error),
    #[problem(status = 502, hide)]
    Upstream(#[from] io::Error),
}

fn main() {}
