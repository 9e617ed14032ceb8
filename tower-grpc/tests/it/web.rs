//! gRPC-Web, and the pages that may call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower_grpc::web::{CorsLayer, GrpcWebLayer};
use tower_layer::Layer;

use crate::echo::{say, server};
use crate::raw::{Whole, messages, post, said, send};

async fn call(content_type: &str, method: &str, body: impl Into<Bytes>) -> Whole {
    let request = Request::post(format!("/tower.grpc.test.Echo/{method}"))
        .header("content-type", content_type)
        .header("content-length", "1")
        .body(Full::new(body.into()))
        .unwrap();
    send(&mut GrpcWebLayer::new().layer(server()), request).await
}

/// Parts a body into its messages and the text of its trailers.
fn part(body: &[u8]) -> (Vec<u8>, String) {
    let at = body.iter().position(|byte| *byte == 0x80).unwrap();
    let text = &body[at + 5..];
    let len = u32::from_be_bytes(body[at + 1..at + 5].try_into().unwrap());
    assert_eq!(len as usize, text.len());
    (
        body[..at].to_vec(),
        String::from_utf8(text.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn a_binary_call_has_its_trailers_in_the_body() {
    let response = call("application/grpc-web+proto", "Unary", said("hello")).await;
    assert_eq!(
        response.headers["content-type"],
        "application/grpc-web+proto"
    );
    assert!(response.trailers.is_none());
    let (body, trailers) = part(&response.body);
    assert_eq!(messages(&body), [say("hello")]);
    assert_eq!(trailers, "grpc-status:0\r\n");
}

#[tokio::test]
async fn a_text_call_is_base64_both_ways() {
    let body = STANDARD.encode(said("hello"));
    let response = call("application/grpc-web-text", "Unary", body).await;
    assert_eq!(
        response.headers["content-type"],
        "application/grpc-web-text+proto"
    );
    // Each frame is a text of its own.
    let text = std::str::from_utf8(&response.body).unwrap();
    let mut plain = Vec::new();
    for piece in text.split_inclusive('=').filter(|piece| *piece != "=") {
        let padding = "=".repeat((4 - piece.len() % 4) % 4);
        plain.extend(STANDARD.decode(format!("{piece}{padding}")).unwrap());
    }
    let (body, trailers) = part(&plain);
    assert_eq!(messages(&body), [say("hello")]);
    assert_eq!(trailers, "grpc-status:0\r\n");
}

#[tokio::test]
async fn a_call_is_answered_in_the_form_that_the_client_accepts() {
    for (sent, accepted, answered) in [
        (
            "application/grpc-web",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ),
        (
            "application/grpc-web+proto",
            "*/*, application/grpc-web-text+proto;q=1",
            "application/grpc-web-text+proto",
        ),
        (
            "application/grpc-web+proto",
            "*/*",
            "application/grpc-web+proto",
        ),
        (
            "Application/gRPC-Web+proto",
            "application/json",
            "application/grpc-web+proto",
        ),
    ] {
        let request = Request::post("/tower.grpc.test.Echo/Unary")
            .header("content-type", sent)
            .header("accept", accepted)
            .body(Full::new(said("hello")))
            .unwrap();
        let response = send(&mut GrpcWebLayer::new().layer(server()), request).await;
        assert_eq!(response.headers["content-type"], answered, "{sent}");
    }
    let request = Request::post("/tower.grpc.test.Echo/Unary")
        .header("content-type", "application/grpc-web-text")
        .header("accept", "application/grpc-web")
        .body(Full::new(Bytes::from(STANDARD.encode(said("hello")))))
        .unwrap();
    let response = send(&mut GrpcWebLayer::new().layer(server()), request).await;
    assert_eq!(messages(&part(&response.body).0), [say("hello")]);
}

#[tokio::test]
async fn text_that_is_cut_or_no_base64_fails() {
    for body in ["!!!!", "AAA", "AAAAAA=="] {
        let response = call("application/grpc-web-text", "Unary", body).await;
        assert_eq!(response.code(), "13", "{body}");
    }
}

#[tokio::test]
async fn a_failure_is_in_the_head() {
    let response = call("application/grpc-web", "Unary", said("fail")).await;
    assert_eq!(response.headers["content-type"], "application/grpc-web");
    assert_eq!(response.code(), "6");
}

#[tokio::test]
async fn grpc_itself_passes() {
    let request = post("Unary").body(Full::new(said("x"))).unwrap();
    let response = send(&mut GrpcWebLayer::new().layer(server()), request).await;
    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    let response = call("application/json", "Unary", "{}").await;
    assert_eq!(response.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

async fn from_page(layer: CorsLayer, origin: &str, preflight: bool) -> Whole {
    let mut request = post("Unary").header("origin", origin);
    if preflight {
        request = request
            .method("OPTIONS")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-grpc-web,x-mine");
    }
    let request = request.body(Full::new(said("x"))).unwrap();
    send(
        &mut layer.layer(GrpcWebLayer::new().layer(server())),
        request,
    )
    .await
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call() {
    let layer = || {
        CorsLayer::new()
            .with_origin("https://shop.example")
            .unwrap()
    };
    let preflight = from_page(layer(), "https://shop.example", true).await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(
        preflight.headers["access-control-allow-origin"],
        "https://shop.example"
    );
    assert_eq!(preflight.headers["access-control-allow-methods"], "POST");
    assert_eq!(
        preflight.headers["access-control-allow-headers"],
        "x-grpc-web,x-mine"
    );
    let response = from_page(layer(), "https://shop.example", false).await;
    assert_eq!(
        response.headers["access-control-allow-origin"],
        "https://shop.example"
    );
    assert_eq!(response.headers["vary"], "origin");
    let exposed = response.headers["access-control-expose-headers"]
        .to_str()
        .unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"));
}

#[tokio::test]
async fn a_page_of_another_origin_may_not() {
    let none = CorsLayer::new();
    let other = CorsLayer::new()
        .with_origin("https://shop.example")
        .unwrap();
    let credentials = CorsLayer::new().with_any_origin().with_credentials();
    for layer in [none, other, credentials] {
        for preflight in [true, false] {
            let response = from_page(layer.clone(), "https://evil.example", preflight).await;
            assert!(!response.headers.contains_key("access-control-allow-origin"));
        }
    }
    let any = from_page(
        CorsLayer::new().with_any_origin(),
        "https://any.example",
        true,
    )
    .await;
    assert_eq!(any.headers["access-control-allow-origin"], "*");
}

#[test]
fn what_is_no_origin_is_refused() {
    for origin in [
        "*",
        "",
        "shop.example",
        "https://shop.example/",
        "https://shop.example/path",
    ] {
        assert!(CorsLayer::new().with_origin(origin).is_err(), "{origin}");
    }
}
