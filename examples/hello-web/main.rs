//! The smallest web service: one function, one line to serve it.
//!
//! ```sh
//! cargo run --example hello-web
//! curl http://127.0.0.1:8080/hello/world
//! ```

use tower_web::prelude::*;

#[get("/hello/{name}")]
async fn hello(name: String) -> String {
    format!("hello, {name}\n")
}

pub(crate) fn app() -> App {
    App::new().route(hello)
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    println!("try: curl http://127.0.0.1:8080/hello/world");
    app().serve("127.0.0.1:8080").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_greets() {
        app()
            .test()
            .get("/hello/world")
            .await
            .assert_text("hello, world\n");
    }
}
