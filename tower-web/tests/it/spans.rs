//! Each line of the log says which request it is about.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use tower_web::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Lines, each with the fields of the spans that it is in.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

/// A span's fields, written out.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        values.record(extensions.get_mut::<Fields>().unwrap());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Fields(format!("{} ", event.metadata().level()));
        for span in context.event_scope(event).into_iter().flatten() {
            line.0 += &span.extensions().get::<Fields>().unwrap().0;
        }
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

#[get("/users/{id}")]
async fn user(id: u64) -> Result<String, Problem> {
    tracing::info!("looking for somebody");
    tokio::task::yield_now().await;
    tracing::info!("looking on");
    Err(Problem::internal(format!("nobody has {id}")))
}

#[get("/panic")]
async fn panics() -> &'static str {
    panic!("on purpose")
}

/// What is logged while this client asks for a path.
async fn logged(client: &tower_web::testing::TestClient, path: &str) -> Vec<String> {
    let lines = Lines::default();
    let _subscribed =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    client.get(path).header("x-request-id", "order-7").await;
    let lines = lines.0.lock().unwrap();
    lines.clone()
}

#[tokio::test]
async fn each_line_has_the_request_s_id_and_route() {
    let client = App::new().route(user).route(panics).test();
    let lines = logged(&client, "/users/7?token=secret").await;
    for said in [
        "looking for somebody",
        "looking on",
        "nobody has 7",
        "answered",
    ] {
        let line = lines.iter().find(|line| line.contains(said));
        let line = line.unwrap_or_else(|| panic!("{said}: {lines:#?}"));
        assert!(line.contains("request_id=order-7 "), "{line}");
        assert!(line.contains("method=GET "), "{line}");
        // Not the path, which has a user's data.
        assert!(line.contains("route=\"/users/{id}\" "), "{line}");
        assert!(
            !line.contains("/users/7") && !line.contains("secret"),
            "{line}"
        );
    }
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("DEBUG") && last.contains("status=500"),
        "{last}"
    );
}

#[tokio::test]
async fn a_route_is_known_behind_layers_too() {
    let layer = tower_util::MapResponseLayer::new(|response: Response| response);
    let client = App::new().route(user).layer(layer).test();
    let lines = logged(&client, "/users/7").await;
    let line = lines
        .iter()
        .find(|line| line.contains("looking for"))
        .unwrap();
    assert!(line.contains("route=\"/users/{id}\" "), "{line}");
}

#[get("/refused")]
async fn refused() -> Result<String, Problem> {
    Err(Problem::new(StatusCode::CONFLICT).with_source("somebody was faster"))
}

#[tokio::test]
async fn a_cause_is_told_at_error_where_the_service_failed_and_at_warn_where_the_client_did() {
    let client = App::new().route(user).route(refused).test();
    for (path, level, cause) in [
        ("/users/7", Level::ERROR, "nobody has 7"),
        ("/refused", Level::WARN, "somebody was faster"),
    ] {
        let lines = logged(&client, path).await;
        let line = lines.iter().find(|line| line.contains(cause)).unwrap();
        assert!(line.starts_with(level.as_str()), "{line}");
    }
}

#[fallback]
async fn lost() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// The lines that tell of an answer, while this client asks for a path.
async fn answered(client: &tower_web::testing::TestClient, path: &str) -> String {
    let mut lines = logged(client, path).await;
    lines.retain(|line| line.contains("answered"));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

#[tokio::test]
async fn each_request_is_told_at_info_where_that_is_asked_for() {
    let app = || App::new().route(user).route(panics);
    let line = answered(&app().test(), "/users/7").await;
    assert!(line.starts_with("DEBUG"), "{line}");
    for is_span_on in [true, false] {
        let app = app().defaults(|defaults| defaults.access_log(true).span(is_span_on));
        let line = answered(&app.test(), "/users/7").await;
        let fields = [
            "method=GET ",
            "route=\"/users/{id}\" ",
            "request_id=order-7 ",
            "status=500 ",
            "elapsed=",
        ];
        assert!(line.starts_with("INFO"), "{line}");
        for field in fields {
            assert!(line.contains(field), "{field}: {line}");
        }
    }
}

#[tokio::test]
async fn whoever_tries_paths_is_told_at_debug_only() {
    let app = || App::new().route(user);
    let with_log = || app().defaults(|defaults| defaults.access_log(true));
    for app in [app(), with_log(), with_log().fallback(lost)] {
        let client = app.test();
        for path in ["/.env", "/wp-login.php", "/livez", "/"] {
            for line in logged(&client, path).await {
                assert!(line.starts_with("DEBUG"), "{path}: {line}");
            }
        }
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(lines.clone());
        let _subscribed = tracing::subscriber::set_default(subscriber);
        client.post("/users/7").await.assert_status(405);
        let lines = lines.0.lock().unwrap();
        assert!(
            lines.iter().all(|line| line.starts_with("DEBUG")),
            "{lines:#?}"
        );
    }
}

#[tokio::test]
async fn refusals_and_panics_are_told_with_the_id() {
    let client = App::new().route(user).route(panics).test();
    let lines = logged(&client, "/users/seven").await;
    let refused = lines
        .iter()
        .find(|line| line.contains("request refused"))
        .unwrap();
    assert!(refused.starts_with(Level::WARN.as_str()), "{refused}");
    assert!(refused.contains("request_id=order-7 "), "{refused}");
    assert!(refused.contains("field=\"id\""), "{refused}");
    assert!(refused.contains("route=\"/users/{id}\" "), "{refused}");
    let lines = logged(&client, "/panic").await;
    let panicked = lines
        .iter()
        .find(|line| line.contains("on purpose"))
        .unwrap();
    assert!(panicked.contains("request_id=order-7 "), "{panicked}");
}

#[tokio::test]
async fn a_cause_is_logged_once_however_many_functions_hand_the_problem_on() {
    use tower_web::Next;
    use tower_web::middleware::from_fn;

    async fn hand_on(request: Request, next: Next) -> Response {
        next.run(request).await
    }
    async fn fail(_: Request, _: Next) -> Result<Response, Problem> {
        Err(Problem::internal("the gate is stuck"))
    }

    let causes = async |client: &tower_web::testing::TestClient, path| {
        let mut lines = logged(client, path).await;
        lines.retain(|line| line.contains("cause="));
        lines
    };
    let layers = || App::new().layer(from_fn(hand_on)).layer(from_fn(hand_on));
    let client = layers().route(user).test();
    let told = causes(&client, "/users/7").await;
    assert!(
        matches!(&told[..], [line] if line.contains("nobody has 7")),
        "{told:?}"
    );
    let client = layers().layer(from_fn(fail)).route(user).test();
    let told = causes(&client, "/users/7").await;
    assert!(
        matches!(&told[..], [line] if line.contains("the gate is stuck")),
        "{told:?}"
    );
}
