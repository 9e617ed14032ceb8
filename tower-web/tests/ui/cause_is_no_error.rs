use tower_web::prelude::*;

#[derive(Debug, Problem)]
enum Error {
    #[problem(status = 500, hide)]
    Db(#[from] String),
}

#[get("/")]
async fn index() -> Result<String, Error> {
    Err(Error::Db("gone".into()))
}

fn main() {}
