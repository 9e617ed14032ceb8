//! What pages of other sites may do.

use std::time::Duration;

use tower_web::cors::Cors;
use tower_web::csrf::Csrf;
use tower_web::prelude::*;
use tower_web::testing::TestResponse;
use tower_web::{Method, header};

#[get("/")]
async fn index() -> (StatusCode, [(&'static str, &'static str); 1], &'static str) {
    (StatusCode::OK, [("vary", "accept-encoding")], "hello")
}

#[put("/")]
async fn change() -> &'static str {
    "changed"
}

fn app() -> App {
    App::new().route(index).route(change)
}

fn listed() -> Cors {
    Cors::origins(["https://example.com"]).unwrap()
}

async fn preflight(app: App, origin: &str) -> TestResponse {
    let client = app.test();
    let asked = client
        .options("/")
        .header("origin", origin)
        .header("access-control-request-method", "PUT");
    asked
        .header("access-control-request-headers", "content-type, x-own")
        .await
}

#[tokio::test]
async fn a_preflight_is_answered_before_any_route() {
    let answer = preflight(app().layer(listed()), "https://example.com").await;
    answer
        .assert_status(204)
        .assert_header("access-control-allow-origin", "https://example.com")
        .assert_header(
            "access-control-allow-methods",
            "GET, HEAD, POST, PUT, PATCH, DELETE",
        )
        .assert_header("access-control-allow-headers", "content-type, x-own")
        .assert_header("access-control-max-age", "3600");
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(answer.header("vary").unwrap().contains("origin"));
}

#[tokio::test]
async fn a_preflight_of_another_origin_is_refused_and_says_why() {
    let answer = preflight(app().layer(listed()), "https://example.net").await;
    let problem = answer.assert_problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("origin"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn what_is_narrowed_is_told_as_it_was_said() {
    let cors = listed()
        .with_credentials()
        .with_methods([Method::PUT])
        .with_headers([header::CONTENT_TYPE])
        .with_exposed_headers([header::LOCATION])
        .with_max_age(Duration::from_secs(60));
    let answer = preflight(app().layer(cors.clone()), "https://example.com").await;
    answer
        .assert_header("access-control-allow-methods", "PUT")
        .assert_header("access-control-allow-headers", "content-type")
        .assert_header("access-control-allow-credentials", "true")
        .assert_header("access-control-max-age", "60");
    let client = app().layer(cors).test();
    let answer = client.get("/").header("origin", "https://example.com");
    answer
        .await
        .assert_header("access-control-expose-headers", "location")
        .assert_header("access-control-allow-credentials", "true");
}

#[tokio::test]
async fn an_answer_varies_by_origin_even_where_none_is_told() {
    let client = app().layer(listed()).test();
    let answer = client.get("/").await;
    let vary: Vec<_> = answer.headers().get_all("vary").iter().collect();
    assert_eq!(vary, ["accept-encoding", "origin"]);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn any_origin_needs_no_variation() {
    let client = app().layer(Cors::any_origin()).test();
    let answer = client
        .get("/")
        .header("origin", "https://anywhere.example")
        .await;
    answer.assert_header("access-control-allow-origin", "*");
    answer.assert_header("vary", "accept-encoding");
}

#[tokio::test]
async fn options_without_a_preflight_s_headers_is_the_route_s() {
    let client = app().layer(listed()).test();
    let answer = client
        .options("/")
        .header("origin", "https://example.com")
        .await;
    answer
        .assert_status(204)
        .assert_header("allow", "GET, HEAD, OPTIONS, PUT");
}

#[tokio::test]
async fn errors_can_be_read_by_the_pages_that_may() {
    let client = app().layer(listed()).test();
    let answer = client
        .get("/nothing")
        .header("origin", "https://example.com");
    let answer = answer.await;
    answer.assert_problem(404);
    answer.assert_header("access-control-allow-origin", "https://example.com");
}

#[tokio::test]
async fn a_change_in_a_user_s_name_is_refused_and_a_look_isn_t() {
    let client = app().layer(Csrf::new()).test();
    for (site, status) in [
        ("same-origin", 200),
        ("none", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ] {
        let change = client.put("/").header("sec-fetch-site", site);
        change.await.assert_status(status);
        let look = client.get("/").header("sec-fetch-site", site);
        look.await.assert_status(200);
    }
}

#[tokio::test]
async fn without_fetch_metadata_the_origin_must_be_the_host() {
    let client = app().layer(Csrf::new()).test();
    for (origin, status) in [
        ("http://localhost", 200),
        ("https://LOCALHOST", 200),
        ("http://localhost:8080", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let change = client.put("/").header("origin", origin);
        change.await.assert_status(status);
    }
    // No browser.
    client.put("/").await.assert_status(200);
}

#[tokio::test]
async fn a_trusted_origin_may_change_things() {
    let csrf = Csrf::new()
        .with_trusted_origins(["https://example.com"])
        .unwrap();
    let client = app().layer(csrf).test();
    let change = |origin| {
        let change = client.put("/").header("sec-fetch-site", "cross-site");
        change.header("origin", origin)
    };
    change("https://example.com").await.assert_status(200);
    change("https://example.net").await.assert_problem(403);
}

struct Notes;

#[resource("/notes")]
#[layer(listed())]
impl Notes {
    #[get("/")]
    async fn all(&self) -> &'static str {
        "notes"
    }

    #[delete("/{id}")]
    async fn remove(&self, id: u8) -> NoContent {
        let _ = id;
        NoContent
    }
}

#[post("/open")]
#[layer(listed())]
async fn open() -> &'static str {
    "open"
}

#[post("/closed")]
async fn closed() -> &'static str {
    "closed"
}

#[tokio::test]
async fn a_preflight_is_answered_around_a_resource_a_route_and_a_nested_application() {
    let app = App::new()
        .resource(Notes)
        .route(open)
        .route(closed)
        .nest("/inner", App::new().layer(listed()).route(change));
    let client = app.test();
    let ask = async |path, method, origin| {
        let request = client.options(path).header("origin", origin);
        request
            .header("access-control-request-method", method)
            .await
    };
    let allowed = "access-control-allow-origin";
    let site = "https://example.com";
    for (path, method) in [
        ("/notes", "GET"),
        ("/notes/7", "DELETE"),
        ("/open", "POST"),
        ("/inner", "PUT"),
    ] {
        let told = ask(path, method, site).await;
        told.assert_status(204).assert_header(allowed, site);
        ask(path, method, "https://evil.example")
            .await
            .assert_problem(403);
    }
    // Without such a layer, or for a method that there isn't, it is told the methods as ever.
    for (path, method) in [("/closed", "POST"), ("/notes", "PUT"), ("/open", "x y")] {
        let told = ask(path, method, site).await;
        told.assert_status(204);
        assert!(
            told.header("allow")
                .is_some_and(|allow| allow.contains("OPTIONS"))
        );
        assert_eq!(told.header(allowed), None, "{path}");
    }
    // A handler isn't run by a question.
    client
        .options("/open")
        .await
        .assert_status(204)
        .assert_text("");
}
