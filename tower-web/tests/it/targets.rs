//! What is fuzzed: functions of any bytes, which panic where tower-web breaks a promise.
//!
//! `corpus.rs` runs them over the files below `tests/corpus`, as they are and mutated, and `fuzz/` under libFuzzer.

use std::time::Duration;

use serde::Deserialize;
use tower_web::headers::types::{ContentType, Range, UserAgent};
use tower_web::prelude::*;
use tower_web::{HeaderName, HeaderValue, Method, Uri};

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

/// Reads `data` as a request (its line, its headers, an empty line, its body), sends it, and judges the answer.
pub(crate) fn request(data: &[u8]) {
    let (head, body) = split(data, b"\n\n");
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let (method, path) = lines
        .next()
        .unwrap_or("")
        .split_once(' ')
        .unwrap_or_default();
    let Ok(method) = method.parse::<Method>() else {
        return;
    };
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    if let Err(broken) = judge(method, path, headers.collect(), body.to_vec()) {
        panic!("{broken}");
    }
}

fn split<'a>(data: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = data
        .windows(separator.len())
        .position(|window| window == separator);
    match at {
        Some(at) => (&data[..at], &data[at + separator.len()..]),
        None => (data, &[]),
    }
}

/// Sends a request, and says what is wrong with the answer. What isn't a path or a header isn't sent.
pub(crate) fn judge(
    method: Method,
    path: &str,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
) -> Result<(), String> {
    if path.parse::<Uri>().is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
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
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                    request.headers_mut().append(name, value);
                }
            }
        });
        let response = tokio::time::timeout(Duration::from_secs(60), request.send()).await;
        let response = response.map_err(|_| "it hangs".to_owned())?;
        let status = response.status();
        if status.is_server_error() && status != 501 {
            return Err(format!("{response:?}"));
        }
        let content_type = response.header("content-type");
        match status.is_client_error() && content_type != Some("application/problem+json") {
            true => Err(format!("not a problem: {response:?}")),
            false => Ok(()),
        }
    })
}

macro_rules! places {
    ($($name:ident $path:literal ($($capture:ident),*))*) => {
        $(#[get($path)]
        async fn $name($($capture: String),*) -> String {
            [$path $(, &$capture)*].join("\n")
        })*

        /// The routes of [`path`], the most literal first.
        const PLACES: &[&str] = &[$($path),*];

        fn places() -> App {
            App::new()$(.route($name))*
        }
    };
}

places! {
    root "/" ()
    literal "/a" ()
    json_by_version "/v{id}.json" (id)
    json_by_id "/{id}.json" (id)
    one "/{id}" (id)
    two_literals "/a/b" ()
    second "/a/{second}" (second)
    first "/{first}/b" (first)
    both "/{first}/{second}" (first, second)
    deep "/a/{second}/c/{rest}" (second, rest)
    rest "/a/{*rest}" (rest)
}

/// Asks for `data` as a path, and compares the route and its captures with what a look at every pattern finds.
pub(crate) fn path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    // Another form of a target than a path isn't the matcher's.
    if path.contains(['?', '#']) || !path.starts_with('/') || path.parse::<Uri>().is_err() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let response = runtime
        .expect("a runtime can be made")
        .block_on(places().test().get(path).send());
    let text = String::from_utf8_lossy(response.bytes()).into_owned();
    match (expected(path), response.status().as_u16()) {
        (Some(Ok(wanted)), status) => assert_eq!((&*text, status), (&*wanted, 200), "{path}"),
        (Some(Err(())), status) => assert_eq!(status, 400, "{path}: {text}"),
        // With a slash more or less at its end it may be a route's, and is redirected.
        (None, status) => assert!(matches!(status, 404 | 308), "{path}: {status} {text}"),
    }
}

/// What is answered: the pattern and its captures, an error where one isn't text, nothing where no pattern fits.
fn expected(path: &str) -> Option<Result<String, ()>> {
    let segments: Vec<&str> = path[1..].split('/').collect();
    PLACES.iter().find_map(|pattern| {
        let mut told = vec![Ok((*pattern).to_owned())];
        let parts: Vec<&str> = pattern[1..].split('/').collect();
        for (at, part) in parts.iter().enumerate() {
            let segment = *segments.get(at)?;
            if *part == "{*rest}" {
                let rest = segments[at..].join("/");
                told.push((!rest.is_empty()).then(|| decode(&rest))?);
                return Some(
                    told.into_iter()
                        .collect::<Result<Vec<_>, ()>>()
                        .map(|told| told.join("\n")),
                );
            }
            match part.split_once('{') {
                None => (*part == segment).then_some(())?,
                Some((prefix, end)) => {
                    let suffix = end.split_once('}').expect("it is closed").1;
                    let capture = segment.strip_prefix(prefix)?.strip_suffix(suffix)?;
                    told.push((!capture.is_empty()).then(|| decode(capture))?);
                }
            }
        }
        let fits = parts.len() == segments.len();
        fits.then(|| {
            told.into_iter()
                .collect::<Result<Vec<_>, ()>>()
                .map(|told| told.join("\n"))
        })
    })
}

fn decode(capture: &str) -> Result<String, ()> {
    let mut bytes = Vec::new();
    let mut rest = capture.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| {
            hex.bytes()
                .all(|byte| byte.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(hex, 16).ok())?
        });
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| ())
}
