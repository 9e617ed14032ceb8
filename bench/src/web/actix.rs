//! The same routes by actix-web, which brings its own server, threads and all.

use actix_web::web::{Json, Path, get, post};
use actix_web::{App, HttpServer, rt};

use crate::peers::{GREETING, Message};

/// Serves until the process ends.
pub fn serve(address: &str, threads: usize) {
    let server = HttpServer::new(|| {
        App::new()
            .route("/", get().to(|| async { "Hello, World!" }))
            .route("/json", get().to(|| async { Json(GREETING) }))
            .route(
                "/users/{id}",
                get().to(|id: Path<u64>| async move { format!("user {id}") }),
            )
            .route(
                "/echo",
                post().to(|message: Json<Message>| async move { message }),
            )
    });
    let server = server.workers(threads).disable_signals();
    let serving = async { server.bind(address).unwrap().run().await.unwrap() };
    rt::System::new().block_on(serving);
}
