//! Functions as layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_web::Next;
use tower_web::middleware::from_fn;
use tower_web::prelude::*;

async fn stamp(request: Request, next: Next) -> Response {
    let path = request.uri().path().parse().unwrap();
    let mut response = next.run(request).await;
    response.headers_mut().append("x-stamp", path);
    response
}

/// Only those who say so are administrators.
async fn administrators(request: Request, next: Next) -> Result<Response, Problem> {
    match request.headers().contains_key("x-admin") {
        true => Ok(next.run(request).await),
        false => Err(Problem::new(StatusCode::FORBIDDEN)),
    }
}

#[get("/")]
async fn index() -> &'static str {
    "index"
}

#[get("/admin")]
#[layer(from_fn(administrators))]
async fn admin() -> &'static str {
    "secrets"
}

struct Club;

#[resource("/club")]
#[layer(from_fn(administrators))]
impl Club {
    #[get("/")]
    async fn enter(&self) -> &'static str {
        "welcome"
    }
}

#[tokio::test]
async fn a_function_is_a_layer_of_an_application_a_resource_and_a_route() {
    let app = App::new()
        .layer(from_fn(stamp))
        .route(index)
        .route(admin)
        .resource(Club);
    let client = app.test();
    let response = client.get("/").await;
    response.assert_text("index").assert_header("x-stamp", "/");
    for (path, text) in [("/admin", "secrets"), ("/club", "welcome")] {
        let refused = client.get(path).await;
        refused.assert_problem(403);
        // The layer outside sees what the one inside has answered.
        refused.assert_header("x-stamp", path);
        let let_in = client.get(path).header("x-admin", "yes").await;
        let_in.assert_text(text);
    }
    // What no route answers passes by as well.
    client
        .get("/nowhere")
        .await
        .assert_header("x-stamp", "/nowhere");
}

#[tokio::test]
async fn a_closure_keeps_what_its_function_needs() {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = {
        let count = Arc::clone(&count);
        from_fn(move |request: Request, next: Next| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                next.run(request).await
            }
        })
    };
    let client = App::new().layer(counting).route(index).test();
    for _ in 0..3 {
        client.get("/").await.assert_text("index");
    }
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_function_may_answer_by_itself_and_with_whatever_a_handler_may() {
    async fn teapot(request: Request, next: Next) -> Result<Response, (StatusCode, &'static str)> {
        match request.uri().query() {
            Some("tea") => Err((StatusCode::IM_A_TEAPOT, "short and stout")),
            _ => Ok(next.run(request).await),
        }
    }
    let client = App::new().layer(from_fn(teapot)).route(index).test();
    let response = client.get("/?tea").await;
    response.assert_status(418).assert_text("short and stout");
    client.get("/").await.assert_text("index");
}

#[tokio::test]
async fn a_function_hands_on_what_it_has_found_out() {
    #[derive(Clone)]
    struct Caller(String);

    async fn named(mut request: Request, next: Next) -> Response {
        let name = request.headers().get("x-name");
        if let Some(name) = name.and_then(|name| name.to_str().ok()) {
            let caller = Caller(name.to_owned());
            request.extensions_mut().insert(caller);
        }
        next.run(request).await
    }

    #[get("/me")]
    async fn me(caller: Option<Extension<Caller>>) -> Option<String> {
        caller.map(|Extension(caller)| caller.0)
    }

    let client = App::new().layer(from_fn(named)).route(me).test();
    client
        .get("/me")
        .header("x-name", "Ann")
        .await
        .assert_text("Ann");
    client.get("/me").await.assert_problem(404);
}

#[tokio::test]
async fn a_panic_in_a_function_is_a_500() {
    async fn careless(_: Request, _: Next) -> Response {
        panic!("on purpose")
    }
    let client = App::new().layer(from_fn(careless)).route(index).test();
    client.get("/").await.assert_problem(500);
}
