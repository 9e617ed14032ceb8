//! What RFC 9110 and RFC 9112 ask of a server, a request at a time.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tower_hyper::{Incoming, Settings};
use tower_util::service_fn;

use crate::support::{Body, full, serve_service};

/// Greets, gives a body back with its trailers, or answers with the status that the path names.
async fn app(request: Request<Incoming>) -> Result<Response<Body>, String> {
    if let Some(status) = request.uri().path().strip_prefix("/status/") {
        let mut response = full("");
        *response.status_mut() = status.parse::<StatusCode>().unwrap();
        return Ok(response);
    }
    if *request.method() == Method::HEAD || *request.method() == Method::GET {
        return Ok(full("hello"));
    }
    let host = request.headers().get("host").cloned();
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    let trailer = body
        .trailers()
        .and_then(|trailers| trailers.get("x").cloned());
    let mut response = full([body.to_bytes(), Bytes::from_static(b"!")].concat());
    if let Some(trailer) = trailer {
        response.headers_mut().insert("x-trailer", trailer);
    }
    if let Some(host) = host {
        response.headers_mut().insert("x-host", host);
    }
    Ok(response)
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Open,
    Closed,
}

use Then::{Closed, Open};

/// Sends a request, and gives all that comes, and whether the server closes after it.
async fn exchange(request: &[u8]) -> (String, Then) {
    let (mut client, _server) = serve_service(Settings::new(), service_fn(app));
    client.write_all(request).await.unwrap();
    let mut received = Vec::new();
    let end = timeout(Duration::from_secs(1), client.read_to_end(&mut received)).await;
    let then = if end.is_ok() { Closed } else { Open };
    (String::from_utf8(received).unwrap(), then)
}

/// The statuses in order. No body of this service has such a line.
fn statuses(received: &str) -> Vec<u16> {
    received
        .split("HTTP/1.")
        .skip(1)
        .map(|response| response[2..5].parse().unwrap())
        .collect()
}

#[track_caller]
fn assert_answer(
    (name, request): (&str, &str),
    (received, then): &(String, Then),
    wanted: (&[u16], Then),
) {
    let answer = (&statuses(received)[..], *then);
    assert_eq!(answer, wanted, "{name}: {request:?} got {received:?}");
}

type Case = (&'static str, &'static str, &'static [u16], Then);

/// Requests whose head is about what it is.
const HEADS: &[Case] = &[
    (
        "a plain request",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "blank lines before it",
        "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "line feeds alone",
        "GET / HTTP/1.1\nhost: a\n\n",
        &[200],
        Open,
    ),
    (
        "white space around a value",
        "GET / HTTP/1.1\r\nhost: \t a \t\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "an empty value",
        "GET / HTTP/1.1\r\nhost: a\r\nx:\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "bytes beyond ASCII in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: \u{e9}\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "a folded line",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "white space before the first field",
        "GET / HTTP/1.1\r\n host: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "white space before a colon",
        "GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a name with a space",
        "GET / HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a field without a name",
        "GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a field without a colon",
        "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a bare CR in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a NUL in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a NUL in the target",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a bare CR in the request line",
        "GET /\rx HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "no target",
        "GET HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    ("no version", "GET /\r\nhost: a\r\n\r\n", &[400], Closed),
    (
        "a space in the target",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a version that isn't one",
        "GET / HTTP/x.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a version in lower case",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a version with two digits",
        "GET / HTTP/1.10\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    // Methods are told apart by case (RFC 9110, section 9.1): it is another method, and the service's to refuse.
    (
        "a method in lower case",
        "get / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "a method that isn't a token",
        "G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    ("no host", "GET / HTTP/1.1\r\n\r\n", &[400], Closed),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a host that isn't one",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an empty host",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "no host in HTTP/1.0",
        "GET / HTTP/1.0\r\n\r\n",
        &[200],
        Closed,
    ),
    (
        "HTTP/1.0 kept alive",
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "close",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        &[200],
        Closed,
    ),
    (
        "close in a list",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\n",
        &[200],
        Closed,
    ),
    (
        "an absolute target",
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "an absolute target without a host",
        "GET http://b/ HTTP/1.1\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an authority for GET",
        "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an asterisk for GET",
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an asterisk for OPTIONS",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "a fragment",
        "GET /#a HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a target without a slash",
        "GET a HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a path for CONNECT",
        "CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "no port for CONNECT",
        "CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    ("TRACE", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Open),
    (
        "an upgrade that nobody takes up",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "HTTP/2 by an upgrade",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        &[200],
        Open,
    ),
];

/// Requests with bodies, or that say how they come.
const BODIES: &[Case] = &[
    (
        "a length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        &[200],
        Open,
    ),
    (
        "no length and no body",
        "POST / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "a body for GET",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        &[200],
        Open,
    ),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        &[200],
        Open,
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        &[400],
        Closed,
    ),
    (
        "two lengths in one field",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
        &[400],
        Closed,
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a length with a plus sign",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        &[400],
        Closed,
    ),
    (
        "a length in hexadecimal",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc",
        &[400],
        Closed,
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "chunks in another case",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "chunk extensions",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "trailers",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
        &[200],
        Open,
    ),
    (
        "chunked, then identity",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an encoding like chunked",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an encoding of HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a length beside chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "an unknown expectation",
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 3\r\n\r\n",
        &[417],
        Closed,
    ),
    (
        "a body after its expectation",
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
        &[100, 200],
        Open,
    ),
    (
        "two requests",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200, 200],
        Open,
    ),
    (
        "a request after one that closes",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[200],
        Closed,
    ),
    (
        "a request after a bad one",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "a request after garbage",
        "\x01\x02\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[400],
        Closed,
    ),
];

#[tokio::test(start_paused = true)]
async fn heads_are_taken_or_refused_as_rfc_9112_has_it() {
    for (name, request, statuses, then) in HEADS {
        let answer = exchange(request.as_bytes()).await;
        assert_answer((name, request), &answer, (statuses, *then));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_framed_as_rfc_9112_has_it() {
    for (name, request, statuses, then) in BODIES {
        let answer = exchange(request.as_bytes()).await;
        assert_answer((name, request), &answer, (statuses, *then));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_is_malformed_is_not_taken() {
    for chunk in [
        "10000000000000000\r\nabc\r\n",
        "x\r\nabc\r\n",
        "\r\nabc\r\n",
        "-3\r\nabc\r\n",
        "3\r\nabcd\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let (received, then) = exchange(request.as_bytes()).await;
        assert!(!received.contains(" 200 "), "{chunk:?}: {received}");
        assert_eq!(then, Closed, "{chunk:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_told_so() {
    let target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(17_000));
    let field = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(70_000)
    );
    let fields = format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    let longer = format!("GET /{}", "x".repeat(70_000));
    for (request, status) in [(target, 414), (longer, 414), (field, 431), (fields, 431)] {
        let (received, then) = exchange(request.as_bytes()).await;
        assert_eq!((&statuses(&received)[..], then), (&[status][..], Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_100_gets_it_before_it_sends_the_body() {
    let (mut client, _server) = serve_service(Settings::new(), service_fn(app));
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    client.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").await.unwrap();
    let response = crate::support::read_response(&mut client, "abc!").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_content_has_none() {
    for (request, length) in [
        ("HEAD / HTTP/1.1", Some("5")),
        ("GET /status/204 HTTP/1.1", None),
        ("GET /status/304 HTTP/1.1", None),
        ("HEAD /status/204 HTTP/1.1", None),
    ] {
        let request = format!("{request}\r\nhost: a\r\n\r\n");
        let (received, then) = exchange(request.as_bytes()).await;
        assert!(received.ends_with("\r\n\r\n"), "{request:?}: {received}");
        assert_eq!(received.matches("\r\n\r\n").count(), 1, "{received}");
        assert!(!received.contains("transfer-encoding"), "{received}");
        let wanted = length.map(|length| format!("content-length: {length}\r\n"));
        match wanted {
            Some(wanted) => assert!(received.contains(&wanted), "{received}"),
            // A 304 may say how long the body would be, which this service doesn't know.
            None => assert!(
                !received.contains("content-length") || received.contains(" 304 "),
                "{received}"
            ),
        }
        assert_eq!(then, Open, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_reach_the_service_and_an_absolute_target_is_the_host() {
    let request = "POST http://b:1/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n";
    let (received, _) = exchange(request.as_bytes()).await;
    assert!(received.contains("x-trailer: y\r\n"), "{received}");
    assert!(received.contains("x-host: b:1\r\n"), "{received}");
}

#[tokio::test(start_paused = true)]
async fn a_response_has_a_date_and_says_its_length_and_whether_it_closes() {
    let (received, _) = exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(received.contains("\r\ndate: "), "{received}");
    assert!(received.contains("\r\ncontent-length: 5\r\n"), "{received}");
    let (received, _) = exchange(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(received.contains("\r\nconnection: close\r\n"), "{received}");
    let (received, _) = exchange(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    assert!(
        received.contains("\r\nconnection: keep-alive\r\n"),
        "{received}"
    );
}
