//! Which route answers, and what is answered without one.

use std::sync::{Arc, Mutex};

use tower_web::handler::{Handler, Place, RouteSpec, Routes};
use tower_web::prelude::*;
use tower_web::{HeaderMap, Method, TrailingSlash, Uri};

#[get("/")]
async fn index() -> &'static str {
    "index"
}

#[get("/users/{id}")]
async fn user(id: u32) -> String {
    format!("user {id}")
}

#[get("/users/me")]
async fn me() -> &'static str {
    "me"
}

#[get("/users/{id}.json")]
async fn user_json(id: u32) -> String {
    format!("json {id}")
}

#[post("/users/{name}")]
async fn rename(name: String) -> String {
    format!("renamed {name}")
}

#[get("/{*path}")]
async fn rest(path: String) -> String {
    format!("rest {path}")
}

#[get("/panic")]
async fn panics() -> &'static str {
    panic!("as it happens")
}

#[fallback]
async fn lost(uri: Uri) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("lost at {}", uri.path()))
}

#[post("/bytes")]
async fn bytes(body: Vec<u8>) -> String {
    body.len().to_string()
}

#[post("/few")]
#[body_limit(4)]
async fn few(body: Vec<u8>) -> String {
    body.len().to_string()
}

#[tokio::test]
async fn the_most_literal_route_answers() {
    let client = App::new()
        .route(rest)
        .route(user)
        .route(user_json)
        .route(me)
        .route(index)
        .test();
    client.get("/").await.assert_text("index");
    client.get("/users/7").await.assert_text("user 7");
    client.get("/users/me").await.assert_text("me");
    client.get("/users/7.json").await.assert_text("json 7");
    client
        .get("/users/7/more")
        .await
        .assert_text("rest users/7/more");
}

#[tokio::test]
async fn routes_of_one_path_may_name_their_captures_differently() {
    let client = App::new().route(user).route(rename).test();
    client.get("/users/7").await.assert_text("user 7");
    client.post("/users/7").await.assert_text("renamed 7");
}

#[tokio::test]
async fn an_unknown_path_is_a_404_problem() {
    let client = App::new().route(user).test();
    let problem = client.get("/nowhere").await.assert_problem(404);
    assert_eq!(problem["title"], "Not Found");
}

#[tokio::test]
async fn an_unknown_method_is_a_405_problem_with_allow() {
    let client = App::new().route(user).route(rename).test();
    let response = client.delete("/users/7").await;
    response.assert_problem(405);
    response.assert_header("allow", "GET, HEAD, OPTIONS, POST");
}

#[tokio::test]
async fn head_is_answered_by_get_without_its_body() {
    let client = App::new().route(user).test();
    client
        .head("/users/7")
        .await
        .assert_status(200)
        .assert_header("content-length", "6")
        .assert_text("");
}

#[tokio::test]
async fn options_lists_the_methods() {
    let client = App::new().route(user).test();
    client
        .options("/users/7")
        .await
        .assert_status(204)
        .assert_header("allow", "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn options_of_the_server_is_answered() {
    let client = App::new().route(user).test();
    client.options("*").await.assert_status(204);
}

#[tokio::test]
async fn a_malformed_capture_is_a_400_that_names_it() {
    let client = App::new().route(user).test();
    let problem = client.get("/users/seven").await.assert_problem(400);
    assert_eq!(problem["errors"][0]["in"], "path");
    assert_eq!(problem["errors"][0]["name"], "id");
    client.get("/users/%FF").await.assert_problem(400);
}

#[tokio::test]
async fn a_panic_is_a_500_problem_without_its_message() {
    let client = App::new().route(panics).test();
    let response = client.get("/panic").await;
    response.assert_problem(500);
    assert!(!response.text().contains("as it happens"));
}

#[tokio::test]
async fn a_slash_at_the_end_is_redirected_to_the_one_address() {
    let client = App::new().route(user).route(index).test();
    client
        .get("/users/7/?a=b")
        .await
        .assert_status(308)
        .assert_header("location", "/users/7?a=b");
    client.get("/").await.assert_status(200);
    client.get("/nowhere/").await.assert_problem(404);
}

#[tokio::test]
async fn a_redirect_stays_on_this_host() {
    let client = App::new().route(rest).test();
    // `//evil.example/` has the route `/{*path}` itself, and this one has not.
    client
        .get("//evil.example")
        .await
        .assert_text("rest /evil.example");
    let client = App::new().route(two).test();
    let response = client.get("//evil.example/").await;
    assert_eq!(response.header("location"), Some("/evil.example"));
}

#[get("//{host}")]
async fn two(host: String) -> String {
    host
}

#[tokio::test]
async fn a_slash_at_the_end_may_be_ignored_or_matter() {
    let client = App::new()
        .route(user)
        .trailing_slash(TrailingSlash::Ignore)
        .test();
    client.get("/users/7/").await.assert_text("user 7");
    client.post("/users/7/").await.assert_problem(405);
    let client = App::new()
        .route(user)
        .trailing_slash(TrailingSlash::Strict)
        .test();
    client.get("/users/7/").await.assert_problem(404);
}

#[tokio::test]
async fn a_nested_application_answers_below_its_prefix() {
    let inner = App::new().route(index).route(user);
    let client = App::new().route(index).nest("/api", inner).test();
    client.get("/api").await.assert_text("index");
    client.get("/api/users/7").await.assert_text("user 7");
    client.get("/users/7").await.assert_problem(404);
}

#[tokio::test]
async fn a_fallback_answers_below_its_own_prefix_and_the_longest_wins() {
    #[fallback]
    async fn lost_inside(uri: Uri) -> String {
        format!("inside at {}", uri.path())
    }
    #[fallback]
    async fn lost_deep() -> &'static str {
        "deep"
    }
    let deep = App::new().fallback(lost_deep);
    let inner = App::new()
        .route(user)
        .fallback(lost_inside)
        .nest("/deep", deep);
    let client = App::new().fallback(lost).nest("/api", inner).test();
    client
        .get("/x")
        .await
        .assert_status(404)
        .assert_text("lost at /x");
    client.get("/").await.assert_text("lost at /");
    client.get("/apix").await.assert_text("lost at /apix");
    client
        .get("/api/x/y")
        .await
        .assert_text("inside at /api/x/y");
    client.get("/api").await.assert_text("inside at /api");
    client.get("/api/").await.assert_text("inside at /api/");
    client.get("/api/deep/x").await.assert_text("deep");
    // A method that a path doesn't have is a 405 all the same.
    client.post("/api/users/7").await.assert_problem(405);
}

#[tokio::test]
async fn a_resource_may_have_a_fallback_of_its_own() {
    struct Teams;
    #[resource("/teams/{team}")]
    impl Teams {
        #[get("/")]
        async fn show(&self, team: String) -> String {
            team
        }
        #[fallback]
        async fn lost(&self) -> (StatusCode, &'static str) {
            (StatusCode::NOT_FOUND, "no such thing in a team")
        }
    }
    let client = App::new().resource(Teams).test();
    client.get("/teams/a").await.assert_text("a");
    client
        .get("/teams/a/b/c")
        .await
        .assert_text("no such thing in a team");
    client.get("/nowhere").await.assert_problem(404);
}

#[tokio::test]
async fn requests_may_be_rewritten_before_a_route_is_sought() {
    let client = App::new()
        .route(user)
        .rewrite(|parts| {
            if let Some(rest) = parts.uri.path().strip_prefix("/old") {
                parts.uri = rest.parse().unwrap();
            }
        })
        .test();
    client.get("/old/users/7").await.assert_text("user 7");
    // A panic of it is no one's end.
    client.get("/old").await.assert_problem(500);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_problem() {
    let client = App::new().route(bytes).test();
    client
        .post("/bytes")
        .body(vec![0; 2 * 1024 * 1024])
        .await
        .assert_text("2097152");
    client
        .post("/bytes")
        .body(vec![0; 2 * 1024 * 1024 + 1])
        .await
        .assert_problem(413);
    let client = App::new().route(bytes).route(few).body_limit(8).test();
    client
        .post("/bytes")
        .body("12345678")
        .await
        .assert_text("8");
    client
        .post("/bytes")
        .body("123456789")
        .await
        .assert_problem(413);
    client.post("/few").body("1234").await.assert_text("4");
    client.post("/few").body("12345").await.assert_problem(413);
    let chunks = || {
        Body::from_stream(tokio_stream::iter(
            (0..3).map(|_| Ok::<_, std::io::Error>("123")),
        ))
    };
    client
        .post("/bytes")
        .body(chunks())
        .await
        .assert_problem(413);
}

#[test]
fn all_conflicts_are_told_with_both_places() {
    let error = App::new()
        .route(user)
        .route(user)
        .route(rename)
        .route(rename)
        .fallback(lost)
        .fallback(lost)
        .build()
        .unwrap_err();
    assert_eq!(error.faults().len(), 3, "{error}");
    let first = &error.faults()[0];
    assert!(
        first.starts_with("GET `/users/{id}` is answered by `user` ("),
        "{first}"
    );
    assert_eq!(first.matches("routes.rs:").count(), 2, "{first}");
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn a_path_that_is_none_is_told() {
    struct Wrong;
    impl Handler for Wrong {
        fn register(routes: &mut Routes<()>) {
            let place = Place::new("Wrong", file!(), line!());
            let spec = RouteSpec::new(Method::GET, "/{a}-{b}", place);
            routes.add(spec, |_, mut call| async move { call.respond(()) });
        }
    }
    let error = App::new()
        .route(Wrong)
        .nest("no-slash", App::new())
        .build()
        .unwrap_err();
    assert_eq!(error.faults().len(), 2, "{error}");
}

#[derive(Clone)]
struct Tenant(&'static str);

#[get("/tenant")]
async fn tenant(tenant: Extension<Tenant>) -> &'static str {
    tenant.0.0
}

#[get("/maybe")]
async fn maybe(tenant: Option<Extension<Tenant>>) -> &'static str {
    tenant.map_or("nobody", |tenant| tenant.0.0)
}

#[tokio::test]
async fn an_extension_is_provided_or_the_application_isnt_built() {
    let error = App::new().route(tenant).build().unwrap_err();
    assert!(error.to_string().contains("Tenant"), "{error}");
    assert!(error.to_string().contains("`tenant` ("), "{error}");

    let client = App::new()
        .route(tenant)
        .route(maybe)
        .provide::<Tenant>()
        .test();
    client
        .get("/tenant")
        .extension(Tenant("acme"))
        .await
        .assert_text("acme");
    client
        .get("/maybe")
        .extension(Tenant("acme"))
        .await
        .assert_text("acme");
    client.get("/maybe").await.assert_text("nobody");
    client.get("/tenant").await.assert_problem(500);
}

#[tokio::test]
async fn hooks_run_once_at_the_start_and_backwards_at_the_end() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move || async move {
            log.lock().unwrap().push(what);
            Ok(())
        }
    };
    let client = App::new()
        .route(index)
        .on_start(note("first"))
        .on_start(note("second"))
        .on_shutdown(note("last"))
        .on_shutdown(note("last but one"))
        .test();
    client.get("/").await.assert_status(200);
    client.get("/").await.assert_status(200);
    assert_eq!(*log.lock().unwrap(), ["first", "second"]);
    client.service().stop().await.unwrap();
    client.service().stop().await.unwrap();
    assert_eq!(
        *log.lock().unwrap(),
        ["first", "second", "last but one", "last"]
    );
}

#[tokio::test]
async fn handlers_hear_of_the_shutdown() {
    #[get("/wait")]
    async fn wait(mut shutdown: Shutdown) -> &'static str {
        shutdown.wait().await;
        "over"
    }
    let client = App::new().route(wait).test();
    let begin = async {
        tokio::task::yield_now().await;
        client.service().begin_shutdown();
    };
    let (response, ()) = tokio::join!(client.get("/wait").send(), begin);
    response.assert_text("over");
}

#[tokio::test]
async fn any_error_in_a_handler_is_a_500_that_tells_nothing() {
    #[get("/parse/{text}")]
    async fn parse(text: String) -> Result<String, Problem> {
        let number: u8 = text.parse()?;
        Ok(number.to_string())
    }
    let client = App::new().route(parse).test();
    client.get("/parse/7").await.assert_text("7");
    let response = client.get("/parse/x").await;
    response.assert_problem(500);
    assert!(!response.text().contains("digit"), "{response:?}");
}

#[tokio::test]
async fn a_refusal_may_be_taken_by_the_handler() {
    #[post("/lenient")]
    async fn lenient(body: Result<Json<u32>, tower_web::Rejection>) -> String {
        match body {
            Ok(Json(number)) => number.to_string(),
            Err(rejection) => format!("never mind: {}", rejection.status()),
        }
    }
    let client = App::new().route(lenient).test();
    client.post("/lenient").json(&7).await.assert_text("7");
    client
        .post("/lenient")
        .body("7")
        .await
        .assert_text("never mind: 415 Unsupported Media Type");
}

#[tokio::test]
async fn an_optional_body_is_none_only_where_there_is_none() {
    #[post("/optional")]
    async fn optional(number: Option<Json<u32>>) -> String {
        format!("{:?}", number.map(Json::into_inner))
    }
    let client = App::new().route(optional).test();
    client.post("/optional").await.assert_text("None");
    client
        .post("/optional")
        .json(&7)
        .await
        .assert_text("Some(7)");
    client
        .post("/optional")
        .json(&"x")
        .await
        .assert_problem(422);
    client
        .post("/optional")
        .header("content-type", "application/json")
        .await
        .assert_problem(400);
    client.post("/optional").body("7").await.assert_problem(415);
}

#[tokio::test]
async fn headers_of_a_request_dont_come_back_in_its_response() {
    #[get("/quiet")]
    async fn quiet(headers: HeaderMap) -> String {
        headers.len().to_string()
    }
    for (app, own) in [(App::bare(), 1), (App::new(), 4)] {
        let client = app.route(quiet).test();
        let response = client.get("/quiet").header("x-secret", "1").await;
        response.assert_text("2");
        assert_eq!(response.headers().len(), own, "{response:?}");
    }
}
