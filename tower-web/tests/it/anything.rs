//! Whatever a client sends: every extractor takes it or refuses it, with a problem, and none panics or hangs.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::Deserialize;
use tower_web::headers::types::{ContentType, Range, UserAgent};
use tower_web::prelude::*;
use tower_web::{HeaderValue, Method};

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only read from requests")]
struct Fields {
    #[serde(default)]
    many: Vec<u8>,
    one: Option<bool>,
}

#[get("/head/{id}/{name}")]
async fn head(
    id: u32,
    name: String,
    query: Option<Query<Fields>>,
    agent: Option<Header<UserAgent>>,
    range: Option<Header<Range>>,
    content_type: Option<Header<ContentType>>,
    last: Option<LastEventId>,
) -> String {
    format!("{id} {name} {query:?} {agent:?} {range:?} {content_type:?} {last:?}")
}

#[get("/credentials")]
async fn credentials(
    cookies: Cookies,
    bearer: Option<Bearer>,
    basic: Option<Basic>,
    key: Option<ApiKey>,
) -> String {
    format!("{cookies:?} {bearer:?} {basic:?} {key:?}")
}

#[post("/form")]
async fn form(form: Option<Form<Fields>>) -> String {
    format!("{form:?}")
}

#[post("/json")]
async fn json(json: Option<Json<Fields>>) -> String {
    format!("{json:?}")
}

#[post("/multipart")]
async fn multipart(mut form: Multipart) -> Result<String, Problem> {
    let mut told = String::new();
    while let Some(field) = form.next_field().await? {
        told.push_str(&format!("{field:?}"));
        told.push_str(&field.text().await?);
    }
    Ok(told)
}

#[get("/websocket")]
async fn websocket(upgrade: Option<WebSocketUpgrade>) -> Response {
    match upgrade {
        None => "none".into_response(),
        Some(upgrade) => upgrade.with_protocols(["a"]).on_upgrade(|_| async {}),
    }
}

#[get("/file")]
async fn file() -> File {
    File::new("a.txt", "0123456789")
}

/// Sends a request, and judges the answer.
fn answered(
    method: Method,
    path: &str,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let app = App::new()
            .route(head)
            .route(credentials)
            .route(form)
            .route(json)
            .route(multipart);
        let client = app.route(websocket).route(file).test();
        let request = client.request(method, path).body(body).map(|request| {
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request.headers_mut().append(name, value);
                }
            }
        });
        let response = tokio::time::timeout(Duration::from_secs(60), request.send()).await;
        let response = response.expect("it hangs");
        prop_assert!(
            !response.status().is_server_error() || response.status() == 501,
            "{response:?}"
        );
        if response.status().is_client_error() {
            prop_assert_eq!(
                response.header("content-type"),
                Some("application/problem+json")
            );
        }
        Ok(())
    })
}

/// What stands in headers, by chance or by malice.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        "(Bearer|basic|Basic|BEARER) ?[ -~]{0,20}".prop_map(String::into_bytes),
        "bytes=[0-9,\\- ]{0,20}".prop_map(String::into_bytes),
        "(W/)?\"[a-z\",*]{0,10}".prop_map(String::into_bytes),
        "[a-z%0-9=; ,]{0,30}".prop_map(String::into_bytes),
        "(Mon|Sun), [0-9]{2} (Nov|Feb) [0-9]{1,5} [0-9:]{5,8} GMT".prop_map(String::into_bytes),
        "(keep-alive, )?(Upgrade|websocket|13|close)".prop_map(String::into_bytes),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = proptest::sample::select(vec![
        "authorization",
        "x-api-key",
        "cookie",
        "user-agent",
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "accept-encoding",
        "content-type",
        "last-event-id",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "origin",
    ]);
    proptest::collection::vec((name, value()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_head(id in "[0-9%a-f]{1,5}", name in "[a-z%0-9]{1,8}", query in "[a-z%0-9=&+]{0,20}", headers in headers()) {
        answered(Method::GET, &format!("/head/{id}/{name}?{query}"), headers, Vec::new())?;
    }

    #[test]
    fn credentials_of_all_kinds(headers in headers()) {
        answered(Method::GET, "/credentials", headers, Vec::new())?;
    }

    #[test]
    fn a_websocket_s_handshake(headers in headers()) {
        answered(Method::GET, "/websocket", headers, Vec::new())?;
    }

    #[test]
    fn a_file_s_conditions(headers in headers()) {
        answered(Method::GET, "/file", headers, Vec::new())?;
    }

    #[test]
    fn a_form(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "(many|one)=[0-9a-z%&=]{0,20}".prop_map(String::into_bytes),
    ]) {
        let urlencoded = || vec![("content-type", b"application/x-www-form-urlencoded".to_vec())];
        answered(Method::POST, "/form", urlencoded(), body)?;
    }

    #[test]
    fn a_document(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "[\\[\\]{}\":,a-z0-9 ]{0,40}".prop_map(String::into_bytes),
        "\\{\"(many|one)\": ?[\\[\\]0-9a-z,\"]{0,10}\\}".prop_map(String::into_bytes),
    ]) {
        answered(Method::POST, "/json", vec![("content-type", b"application/json".to_vec())], body)?;
    }

    #[test]
    fn a_form_with_files(boundary in "[x\"; =]{0,4}", body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "(--x\r\n|--x--|\r\n|content-disposition: form-data; |name=|filename=|\"|a|content-type: text/plain){0,20}".prop_map(String::into_bytes),
    ]) {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        answered(Method::POST, "/multipart", vec![("content-type", content_type.into_bytes())], body)?;
    }
}
