//! What the extractors and responses that there are say of themselves.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::{Describe, Holds, JsonSchema, Operation, Probe};
use crate::body::Body;
use crate::extract::{Extension, MatchedRoute, Request};
use crate::json::Json;
use crate::problem::{Problem, Rejection};
use crate::respond::{Created, Html, NoContent, Redirect, Response};
use crate::streams::{BodyStream, Stream};

/// Implements the trait for types that are a body of one media type both ways.
macro_rules! bodies {
    ($($media:literal $schema:tt $refused:tt $($type:ty),+;)*) => {$($(
        impl Describe for $type {
            fn request(operation: &mut Operation<'_>) {
                operation.body($media, json!($schema));
                $refused.iter().for_each(|&status| operation.refusal(status));
            }

            fn response(operation: &mut Operation<'_>) {
                operation.answer($media, json!($schema));
            }
        }
    )+)*};
}

bodies! {
    "text/plain" {"type": "string"} [400, 413] String, &'static str, Box<str>, Cow<'static, str>;
    "application/octet-stream" {} [413] Vec<u8>, Bytes, &'static [u8];
}

/// Arguments that take nothing of a request that the document has a place for.
macro_rules! silent {
    ($($(#[$meta:meta])* [$($generics:tt)*] $type:ty;)*) => {$(
        $(#[$meta])*
        impl<$($generics)*> Describe for $type {}
    )*};
}

silent! {
    [] http::Method;
    [] http::Uri;
    [] http::Version;
    [] http::HeaderMap;
    [] crate::Shutdown;
    [] MatchedRoute;
    [T] Extension<T>;
    [] Response;
    #[cfg(feature = "server")]
    [] crate::ConnectInfo;
}

/// Bodies of which nothing is known.
macro_rules! any_bodies {
    ($($type:ty)*) => {$(
        impl Describe for $type {
            fn request(operation: &mut Operation<'_>) {
                operation.is_optional = true;
                operation.body("*/*", json!({}));
                operation.is_optional = false;
            }
        }
    )*};
}

any_bodies!(Body Request BodyStream);

/// Each operation may answer with a problem. See `document::operation`.
macro_rules! problems {
    ($($type:ty)*) => {$(
        impl Describe for $type {
            fn response(_: &mut Operation<'_>) {}
        }
    )*};
}

problems!(Problem Rejection Infallible);

impl Describe for () {
    fn response(operation: &mut Operation<'_>) {
        let status = operation.status;
        operation.response(status, None);
    }
}

impl Describe for StatusCode {
    fn response(operation: &mut Operation<'_>) {
        operation.status("default", "any status");
    }
}

impl Describe for NoContent {
    fn response(operation: &mut Operation<'_>) {
        operation.response("204", None);
    }
}

impl Describe for Redirect {
    fn response(operation: &mut Operation<'_>) {
        operation.header("3XX", "Location", "where it is");
    }
}

impl<T> Describe for Html<T> {
    fn response(operation: &mut Operation<'_>) {
        operation.answer("text/html", json!({"type": "string"}));
    }
}

impl<S> Describe for Stream<S> {
    fn response(operation: &mut Operation<'_>) {
        operation.answer("*/*", json!({}));
    }
}

impl<T: 'static> Describe for Json<T> {
    fn request(operation: &mut Operation<'_>) {
        let schema = operation.schema::<T>();
        operation.body("application/json", schema);
        for status in [400, 413, 415, 422] {
            operation.refusal(status);
        }
    }

    fn response(operation: &mut Operation<'_>) {
        let schema = operation.schema::<T>();
        operation.answer("application/json", schema);
    }
}

impl<T: 'static> Describe for Option<T> {
    fn request(operation: &mut Operation<'_>) {
        operation.optional::<T>();
    }

    fn response(operation: &mut Operation<'_>) {
        operation.output::<T>();
        operation.refusal(404);
    }
}

impl<T: 'static, E: 'static> Describe for Result<T, E> {
    fn request(operation: &mut Operation<'_>) {
        operation.argument::<T>();
    }

    fn response(operation: &mut Operation<'_>) {
        operation.output::<T>();
        operation.output::<E>();
    }
}

impl<T: 'static> Describe for Box<T> {
    fn response(operation: &mut Operation<'_>) {
        operation.output::<T>();
    }
}

impl<T: 'static> Describe for Created<T> {
    fn response(operation: &mut Operation<'_>) {
        operation.output_as::<T>("201");
        operation.header("201", "Location", "where it is");
    }
}

/// Which status it will be is in the value: any may.
impl<T: 'static> Describe for (StatusCode, T) {
    fn response(operation: &mut Operation<'_>) {
        operation.output_as::<T>("default");
    }
}

impl<H: 'static, T: 'static> Describe for (StatusCode, H, T) {
    fn response(operation: &mut Operation<'_>) {
        operation.output_as::<T>("default");
    }
}

/// Headers of a response, and the rest of it.
macro_rules! with_headers {
    ($($(#[$meta:meta])* [$($generics:tt)*] $headers:ty;)*) => {$(
        $(#[$meta])*
        impl<$($generics)* T: 'static> Describe for ($headers, T) {
            fn response(operation: &mut Operation<'_>) {
                operation.output::<T>();
            }
        }
    )*};
}

with_headers! {
    [] http::HeaderMap;
    [K: 'static, V: 'static,] Vec<(K, V)>;
    [K: 'static, V: 'static, const N: usize,] [(K, V); N];
    #[cfg(feature = "headers")]
    [H: 'static,] crate::headers::Header<H>;
    #[cfg(feature = "cookies")]
    [] crate::cookies::Cookies;
}

#[cfg(feature = "forms")]
impl<T: 'static> Describe for crate::forms::Query<T> {
    fn request(operation: &mut Operation<'_>) {
        operation.query::<T>();
        operation.refusal(400);
    }
}

#[cfg(feature = "forms")]
impl<T: 'static> Describe for crate::forms::Form<T> {
    fn request(operation: &mut Operation<'_>) {
        let schema = operation.schema::<T>();
        operation.body("application/x-www-form-urlencoded", schema);
        for status in [400, 413, 415, 422] {
            operation.refusal(status);
        }
    }
}

#[cfg(feature = "headers")]
impl<T: crate::headers::types::Header> Describe for crate::headers::Header<T> {
    fn request(operation: &mut Operation<'_>) {
        // Those that have a scheme aren't parameters (OpenAPI 3.1, 4.8.12.2).
        if T::name() != http::header::AUTHORIZATION {
            let schema = json!({"type": "string"});
            operation.parameter(crate::problem::Location::Header, T::name().as_str(), schema);
        }
        operation.refusal(400);
    }
}

#[cfg(feature = "multipart")]
impl Describe for crate::multipart::Multipart {
    fn request(operation: &mut Operation<'_>) {
        // A name stands in a header (RFC 7578, section 4.2), and so has no control characters.
        let schema = json!({
            "type": "object",
            "propertyNames": {"not": {"pattern": "[\\u0000-\\u001f\\u007f]"}},
            "additionalProperties": true,
        });
        operation.body("multipart/form-data", schema);
        for status in [400, 413, 415] {
            operation.refusal(status);
        }
    }
}

#[cfg(feature = "auth")]
mod security {
    use super::{Describe, Operation, json};
    use crate::auth::{ApiKey, ApiKeyHeader, Basic, Bearer};

    impl Describe for Bearer {
        fn request(operation: &mut Operation<'_>) {
            operation.security("bearer", json!({"type": "http", "scheme": "bearer"}));
            operation.refusal(401);
        }
    }

    impl Describe for Basic {
        fn request(operation: &mut Operation<'_>) {
            operation.security("basic", json!({"type": "http", "scheme": "basic"}));
            operation.refusal(401);
        }
    }

    impl<H: ApiKeyHeader> Describe for ApiKey<H> {
        fn request(operation: &mut Operation<'_>) {
            let scheme = json!({"type": "apiKey", "in": "header", "name": H::NAME});
            operation.security(H::NAME, scheme);
            operation.refusal(401);
        }
    }
}

/// Which cookies are read is in the handler.
#[cfg(feature = "cookies")]
impl Describe for crate::cookies::Cookies {
    fn response(operation: &mut Operation<'_>) {
        operation.header("200", "Set-Cookie", "the cookies that have changed");
    }
}

#[cfg(feature = "sse")]
impl<S> Describe for crate::sse::Sse<S> {
    fn response(operation: &mut Operation<'_>) {
        operation.answer("text/event-stream", json!({"type": "string"}));
    }
}

#[cfg(feature = "sse")]
impl Describe for crate::sse::LastEventId {
    fn request(operation: &mut Operation<'_>) {
        let schema = json!({"type": "string"});
        operation.parameter(crate::problem::Location::Header, "Last-Event-ID", schema);
    }
}

#[cfg(feature = "files")]
impl Describe for crate::files::File {
    fn response(operation: &mut Operation<'_>) {
        operation.answer("*/*", json!({}));
        operation.response("206", None)["content"]["*/*"] = json!({});
        operation.response("304", None);
        operation.refusal(404);
        operation.refusal(412);
        operation.refusal(416);
    }
}

#[cfg(feature = "websocket")]
impl Describe for crate::websocket::WebSocketUpgrade {
    fn request(operation: &mut Operation<'_>) {
        operation.status("101", "a WebSocket");
        operation.refusal(400);
        operation.refusal(426);
    }
}

/// What holds one type with a schema.
macro_rules! holds {
    ($($(#[$meta:meta])* $type:ident::$($path:ident)::+;)*) => {$(
        $(#[$meta])*
        impl<T: JsonSchema + 'static> Holds for $type::$($path)::+<T> {
            fn learn(operation: &mut Operation<'_>) {
                Probe::<T>::new().schema(operation);
                Probe::<Self>::new().description(operation);
            }
        }
    )*};
}

holds! {
    crate::json::Json;
    #[cfg(feature = "forms")]
    crate::forms::Query;
    #[cfg(feature = "forms")]
    crate::forms::Form;
}

/// What holds one that does.
macro_rules! passes {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        impl<T: Holds + 'static, $($generics)*> Holds for $type {
            fn learn(operation: &mut Operation<'_>) {
                Probe::<Self>::new().description(operation);
                T::learn(operation);
            }
        }
    )*};
}

passes! {
    [] Option<T>;
    [E: 'static] Result<T, E>;
    [] Created<T>;
    [] (StatusCode, T);
}
