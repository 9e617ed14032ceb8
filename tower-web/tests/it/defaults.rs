//! What is on without being asked for.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_deadline::Deadline;
use tower_web::defaults::{Defaults, RequestId, TraceContext};
use tower_web::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

#[get("/")]
async fn index() -> &'static str {
    "hello"
}

#[get("/page")]
async fn page() -> Html<&'static str> {
    Html("<h1>hello</h1>")
}

#[get("/slow/{seconds}")]
async fn slow(seconds: u64) -> &'static str {
    tokio::time::sleep(SECOND * u32::try_from(seconds).unwrap()).await;
    "at last"
}

#[get("/panic")]
async fn panics() -> &'static str {
    panic!("on purpose")
}

#[get("/time")]
async fn time() -> String {
    let left = Deadline::current().map(Deadline::remaining);
    format!("{left:?}")
}

#[get("/who")]
async fn who(id: RequestId, trace: TraceContext) -> String {
    tokio::task::yield_now().await;
    assert_eq!(RequestId::current(), Some(id.clone()));
    format!("{id} {trace}")
}

#[get("/own")]
async fn own() -> impl IntoResponse {
    (
        [
            ("x-content-type-options", "own"),
            ("x-frame-options", "DENY"),
        ],
        Html(""),
    )
}

#[get("/users/{id}")]
async fn user(id: u64) -> Result<String, Problem> {
    Err(Problem::new(StatusCode::NOT_FOUND).with("user", id))
}

#[get("/broken")]
async fn broken() -> Result<String, Problem> {
    Err(Problem::internal("the password is hunter2"))
}

fn app() -> App {
    App::new()
        .route(index)
        .route(page)
        .route(slow)
        .route(panics)
        .route(time)
        .route(who)
        .route(own)
        .route(user)
        .route(broken)
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_a_504() {
    let client = app().test();
    client.get("/slow/29").await.assert_text("at last");
    let began = tokio::time::Instant::now();
    let problem = client.get("/slow/31").await.assert_problem(504);
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(problem["detail"], "the answer took too long");
}

#[get("/patient/{seconds}")]
#[handler_timeout(100 * SECOND)]
async fn patient(seconds: u64) -> String {
    let left = Deadline::current().map(Deadline::remaining);
    tokio::time::sleep(SECOND * u32::try_from(seconds).unwrap()).await;
    format!("{left:?}")
}

#[get("/endless")]
#[handler_timeout(None)]
async fn endless() -> &'static str {
    tokio::time::sleep(3600 * SECOND).await;
    "at last"
}

#[tokio::test(start_paused = true)]
async fn a_route_may_have_another_time() {
    let routes = |app: App| app.route(patient).route(endless).route(slow);
    for app in [App::new(), App::bare()] {
        let client = routes(app).test();
        client.get("/patient/99").await.assert_text("Some(100s)");
        client.get("/patient/101").await.assert_problem(504);
        client.get("/endless").await.assert_text("at last");
    }
    // Behind a layer it isn't known from the beginning.
    let layer = tower_util::MapResponseLayer::new(|response: Response| response);
    let client = routes(App::new()).layer(layer).test();
    client.get("/endless").await.assert_text("at last");
    client.get("/patient/101").await.assert_problem(504);
    client.get("/slow/31").await.assert_problem(504);
}

#[tokio::test(start_paused = true)]
async fn a_handler_knows_how_much_time_it_has() {
    let client = app()
        .defaults(|defaults| defaults.handler_timeout(7 * SECOND))
        .test();
    client.get("/time").await.assert_text("Some(7s)");
    let client = app()
        .defaults(|defaults| defaults.handler_timeout(None))
        .test();
    client.get("/time").await.assert_text("None");
    client.get("/slow/3600").await.assert_text("at last");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_around_an_application_is_never_loosened() {
    let client = app().route(patient).test();
    for (path, told) in [("/time", "Some(5s)"), ("/patient/0", "Some(5s)")] {
        let asked = async { client.get(path).await };
        Deadline::after(5 * SECOND)
            .scope(asked)
            .await
            .assert_text(told);
    }
    let asked = async { client.get("/time").await };
    Deadline::after(50 * SECOND)
        .scope(asked)
        .await
        .assert_text("Some(30s)");
}

#[tokio::test(start_paused = true)]
async fn a_mounted_application_doesnt_count_its_routes_as_the_outer_one_s() {
    let inner = App::new().route(slow).build().unwrap();
    // The first of the outer one has 100 s, and the service that is mounted 30.
    let client = App::new().route(patient).mount("/inner", inner).test();
    client.get("/inner/slow/31").await.assert_problem(504);
    client.get("/patient/31").await.assert_text("Some(100s)");
}

/// Which time a route has isn't known before the layers have passed the request on, and then holds for it from the beginning.
#[tokio::test(start_paused = true)]
async fn the_longest_time_of_any_route_is_not_that_of_the_others_behind_a_layer_that_waits() {
    let client = app().route(patient).layer(Pause).test();
    client.get("/patient/0").await.assert_text("Some(99s)");
    client.get("/time").await.assert_text("Some(29s)");
}

/// A layer that waits for a second before it passes a request on.
struct Pause;

impl<S> tower_layer::Layer<S> for Pause {
    type Service = Paused<S>;

    fn layer(&self, inner: S) -> Paused<S> {
        Paused(inner)
    }
}

#[derive(Clone)]
struct Paused<S>(S);

impl<S, Req> tower_service::Service<Req> for Paused<S>
where
    S: tower_service::Service<Req, Future: Send> + Clone + Send + 'static,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let mut inner = self.0.clone();
        std::mem::swap(&mut inner, &mut self.0);
        Box::pin(async move {
            tokio::time::sleep(SECOND).await;
            inner.call(request).await
        })
    }
}

#[tokio::test]
async fn a_request_has_an_id_in_the_response_and_in_its_problem() {
    let client = app().test();
    let response = client.get("/").await;
    let made = response.header("x-request-id").unwrap();
    assert_eq!(made.len(), 32);
    let other = client.get("/").await;
    assert_ne!(other.header("x-request-id"), Some(made));

    let given = client
        .get("/users/7")
        .header("x-request-id", "mine-1")
        .await;
    given.assert_header("x-request-id", "mine-1");
    assert_eq!(given.assert_problem(404)["request_id"], "mine-1");
}

#[tokio::test]
async fn an_id_that_is_not_sane_is_replaced() {
    let client = app().test();
    for odd in ["", "a b", "a\"b", &"x".repeat(200)] {
        let response = client.get("/").header("x-request-id", odd).await;
        assert_eq!(response.header("x-request-id").unwrap().len(), 32, "{odd}");
    }
}

#[tokio::test]
async fn every_error_is_a_problem_with_the_id() {
    let client = app()
        .layer(tower_util::MapResponseLayer::new(|response: Response| {
            response
        }))
        .test();
    for (path, status) in [
        ("/nowhere", 404),
        ("/users/seven", 400),
        ("/users/7", 404),
        ("/panic", 500),
        ("/broken", 500),
    ] {
        let response = client.get(path).header("x-request-id", "i").await;
        let problem = response.assert_problem(status);
        assert_eq!(problem["request_id"], "i", "{path}");
        assert!(!response.text().contains("hunter2"));
        assert!(!response.text().contains("on purpose"));
    }
    let response = client.post("/").header("x-request-id", "i").await;
    assert_eq!(response.assert_problem(405)["request_id"], "i");
    response.assert_header("allow", "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn a_bare_status_of_a_layer_becomes_a_problem() {
    let refuse = |mut response: Response| {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        *response.body_mut() = Body::empty();
        response.headers_mut().clear();
        response
            .headers_mut()
            .insert("www-authenticate", "Basic".parse().unwrap());
        response
    };
    let client = app()
        .layer(tower_util::MapResponseLayer::new(refuse))
        .test();
    let response = client.get("/").await;
    response.assert_problem(401);
    response.assert_header("www-authenticate", "Basic");
}

#[tokio::test]
async fn what_a_layer_has_made_of_a_problem_stays() {
    let rewrite = |_: Response| (StatusCode::NOT_FOUND, Html("nothing here")).into_response();
    let client = app()
        .layer(tower_util::MapResponseLayer::new(rewrite))
        .test();
    client.get("/nowhere").await.assert_text("nothing here");
}

#[tokio::test(start_paused = true)]
async fn one_hook_writes_all_problems() {
    let app = app()
        .defaults(|defaults| defaults.handler_timeout(SECOND))
        .on_problem(|problem, request| {
            let text = format!(
                "{} {} {} {:?}",
                problem.status().as_u16(),
                request.method,
                request.path,
                request.route
            );
            (problem.status(), [("x-hook", "ran")], text)
        });
    let client = app.test();
    let cases = [
        ("/nowhere", "404 GET /nowhere None"),
        ("/users/x", "400 GET /users/x Some(\"/users/{id}\")"),
        ("/panic", "500 GET /panic Some(\"/panic\")"),
        ("/slow/3", "504 GET /slow/3 Some(\"/slow/{seconds}\")"),
    ];
    for (path, text) in cases {
        let response = client.get(path).await;
        response.assert_text(text).assert_header("x-hook", "ran");
    }
    let refused = client.post("/").await;
    refused.assert_status(405).assert_text("405 POST / None");
    refused.assert_header("allow", "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn a_hook_that_panics_is_done_without() {
    let client = app()
        .on_problem(|_, _| -> StatusCode { panic!("on purpose") })
        .test();
    client.get("/nowhere").await.assert_problem(404);
}

#[tokio::test(start_paused = true)]
async fn what_comes_on_top_is_shed_and_health_is_not() {
    let client = app().defaults(|defaults| defaults.max_in_flight(2)).test();
    let mut first = Box::pin(client.get("/slow/5").send());
    let mut second = Box::pin(client.get("/slow/5").send());
    for waiting in [&mut first, &mut second] {
        std::future::poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    let refused = client.get("/").await;
    refused.assert_problem(503);
    refused.assert_header("retry-after", "1");
    client.get("/livez").await.assert_status(200);
    client.get("/readyz").await.assert_status(200);
    // Who goes away makes room.
    drop(first);
    client.get("/").await.assert_status(200);
    second.await.assert_text("at last");
}

#[tokio::test]
async fn responses_are_protected() {
    let client = app().test();
    let text = client.get("/").await;
    text.assert_header("x-content-type-options", "nosniff");
    text.assert_header("referrer-policy", "strict-origin-when-cross-origin");
    assert_eq!(text.header("x-frame-options"), None);
    let page = client.get("/page").await;
    page.assert_header("x-frame-options", "SAMEORIGIN");
    page.assert_header("content-security-policy", "frame-ancestors 'self'");
    let own = client.get("/own").await;
    own.assert_header("x-content-type-options", "own");
    own.assert_header("x-frame-options", "DENY");
    assert_eq!(own.headers().get_all("x-frame-options").iter().count(), 1);
}

#[tokio::test]
async fn a_trace_is_gone_on_with() {
    let client = app().test();
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = client
        .get("/who")
        .header("traceparent", caller)
        .await
        .text();
    assert!(
        text.starts_with("4bf92f3577b34da6a3ce929d0e0e4736 00-4bf92f3577b34da6a3ce929d0e0e4736-"),
        "{text}"
    );
    assert!(!text.contains("00f067aa0ba902b7"));
    let text = client
        .get("/who")
        .header("traceparent", "00-bad")
        .await
        .text();
    let (id, context) = text.split_once(' ').unwrap();
    assert!(context.starts_with(&format!("00-{id}-")), "{text}");
}

#[tokio::test]
async fn a_bare_application_has_none_of_it() {
    let client = App::bare().route(index).route(time).route(user).test();
    let response = client.get("/").await;
    let names: Vec<_> = response.headers().keys().collect();
    assert_eq!(names, ["content-type"]);
    client.get("/time").await.assert_text("None");
    client.get("/livez").await.assert_problem(404);
    let problem = client.get("/users/7").await.assert_problem(404);
    assert_eq!(problem.get("request_id"), None);
    assert_eq!(RequestId::current(), None);
}

#[tokio::test]
async fn a_mounted_application_is_within_the_shell_of_the_outer() {
    let inner = app()
        .defaults(|defaults| defaults.max_in_flight(1))
        .build()
        .unwrap();
    let client = App::new().mount("/inner", inner).test();
    let text = client.get("/inner/who").header("x-request-id", "i").await;
    assert!(text.text().starts_with("i 00-"));
    assert_eq!(text.headers().get_all("x-request-id").iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_asks_what_it_was_told_to_once_a_second() {
    let asked = Arc::new(Semaphore::new(0));
    let counter = Arc::clone(&asked);
    let client = app()
        .ready_check("db", move || {
            counter.add_permits(1);
            std::future::ready(Ok(()))
        })
        .ready_check("cache", || async { Err("no route to 10.0.0.7".into()) })
        .ready_check("stuck", std::future::pending)
        .ready_check("panics", || -> std::future::Ready<_> {
            panic!("on purpose")
        })
        .test();
    let response = client.get("/readyz").await;
    let problem = response.assert_problem(503);
    assert_eq!(
        problem["failed"],
        serde_json::json!(["cache", "stuck", "panics"])
    );
    assert!(!response.text().contains("10.0.0.7"));
    response.assert_header("cache-control", "no-store");
    client.get("/readyz").await.assert_problem(503);
    assert_eq!(asked.available_permits(), 1);
    tokio::time::advance(SECOND).await;
    client.get("/readyz").await.assert_problem(503);
    assert_eq!(asked.available_permits(), 2);
}

#[tokio::test]
async fn readiness_ends_with_the_shutdown_and_liveness_does_not() {
    let client = app().test();
    client.get("/readyz").await.assert_text("ok\n");
    client.head("/livez").await.assert_text("");
    client.post("/livez").await.assert_problem(405);
    client.service().begin_shutdown();
    client.get("/readyz").await.assert_problem(503);
    client.get("/livez").await.assert_text("ok\n");
}

#[get("/livez")]
async fn own_livez() -> &'static str {
    "mine"
}

#[tokio::test]
async fn a_route_of_the_application_wins_over_health() {
    let client = app().route(own_livez).test();
    client.get("/livez").await.assert_text("mine");
    client.get("/readyz").await.assert_text("ok\n");
    let off = app().defaults(|defaults| defaults.health(false)).test();
    off.get("/livez").await.assert_problem(404);
}

#[test]
fn each_default_can_be_turned_off() {
    let off = Defaults::new()
        .handler_timeout(None)
        .max_in_flight(None)
        .request_id(false)
        .trace_context(false)
        .span(false)
        .security_headers(false)
        .compression(false)
        .metrics(false)
        .health(false)
        .max_connections(None)
        .idle_timeout(None)
        .body_timeout(None)
        .write_timeout(None)
        .host_check(false);
    assert_eq!(off, Defaults::none());
}
