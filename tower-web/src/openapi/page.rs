//! The routes that show the document.

use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::{Description, Docs, document};
use crate::body::Body;
use crate::extract::Requirements;
use crate::handler::{Answers, Call, Endpoint, Place, taken};
use crate::layered::BoxFuture;
use crate::respond::Response;
use crate::routing::{Draft, Where};

const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/docs";

/// Addresses are relative, so that the page works below any prefix that a proxy takes off.
const HTML: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#;

const START: &str = r##"SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
});
"##;

/// Nothing from elsewhere, and nothing inline but pictures in the stylesheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes for the document and its page, but for those that the application has itself.
pub(crate) fn own_routes(drafts: &[Draft], docs: Docs) -> Vec<Draft> {
    if docs.is_hidden {
        return Vec::new();
    }
    let is_taken = |path: &str| drafts.iter().any(|draft| draft.path == path);
    let mut routes = Vec::new();
    if !is_taken(DOCUMENT) {
        let described = drafts.iter().filter_map(|draft| {
            Some((
                draft.answers.clone(),
                draft.path.clone(),
                draft.description?,
            ))
        });
        routes.push(route(
            DOCUMENT,
            Asset::Document(Lazy {
                docs,
                routes: described.collect(),
                text: OnceLock::new(),
            }),
        ));
    }
    if !is_taken(PAGE) {
        routes.extend([
            route(PAGE, Asset::Plain("text/html; charset=utf-8", HTML)),
            route("/docs/start.js", Asset::Plain("text/javascript", START)),
            route(
                "/docs/swagger-ui.css",
                Asset::Packed("text/css", tower_web_docs::CSS_GZ),
            ),
            route(
                "/docs/swagger-ui-bundle.js",
                Asset::Packed("text/javascript", tower_web_docs::SCRIPT_GZ),
            ),
        ]);
    }
    routes
}

fn route(path: &str, asset: Asset) -> Draft {
    Draft {
        answers: Answers::One(Method::GET),
        path: path.to_owned(),
        place: Where::Handler(Place::new("the feature `openapi`", file!(), line!())),
        body_limit: None,
        handler_timeout: None,
        requirements: Requirements::default(),
        description: None,
        endpoint: Arc::new(asset),
    }
}

enum Asset {
    Plain(&'static str, &'static str),
    Packed(&'static str, &'static [u8]),
    Document(Lazy),
}

struct Lazy {
    docs: Docs,
    routes: Vec<(Answers, String, Description)>,
    text: OnceLock<Bytes>,
}

impl Lazy {
    fn text(&self) -> Bytes {
        let routes = self.routes.iter();
        let routes = routes.map(|(answers, path, own)| (answers, &**path, *own));
        // What is wrong was told when the application was built.
        let text = || {
            document(&self.docs, routes, &mut Vec::new())
                .to_string()
                .into()
        };
        self.text.get_or_init(text).clone()
    }
}

impl Endpoint for Asset {
    fn call(&self, call: &mut Option<Call>) -> BoxFuture<Response> {
        let Some(call) = call.take() else {
            return taken();
        };
        let response = match self {
            Self::Plain(media, text) => response(media, text.as_bytes()),
            Self::Packed(media, packed) => unpacked(media, packed, &call.head.headers),
            Self::Document(lazy) => {
                let mut response = response("application/json", &b""[..]);
                *response.body_mut() = lazy.text().into();
                response
            }
        };
        Box::pin(std::future::ready(response))
    }
}

fn response(media: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Browsers take it packed, and others are few.
fn unpacked(media: &'static str, packed: &'static [u8], asked: &HeaderMap) -> Response {
    let takes_gzip = asked
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("gzip"));
    let mut response = if takes_gzip {
        response(media, packed)
    } else {
        let mut body = Vec::new();
        // It was packed when the package was made, and a test reads it.
        let _ = flate2::read::GzDecoder::new(packed).read_to_end(&mut body);
        response(media, body)
    };
    let headers = response.headers_mut();
    if takes_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    let hour = HeaderValue::from_static("public, max-age=3600");
    headers.insert(CACHE_CONTROL, hour);
    response
}
