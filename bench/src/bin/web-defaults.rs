//! What production costs: tower-web as it is, beside axum with layers of tower-http that do the same.
//!
//! Instructions of the server for each request, as `web instructions` counts them: `h2load --h1 -c1 -m1`, 6000 − 1000 requests.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer};
use tracing_subscriber::fmt;

use crate::counting::instructions_of;

#[path = "../web/counting.rs"]
mod counting;
#[path = "../web/process.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod process;

/// With nothing on, with all layers, and these with a subscriber that takes lines of `INFO` and above.
const PEERS: [&str; 5] = ["axum", "axum-layers", "axum-info", "ours", "ours-info"];

const TIMEOUT: Duration = Duration::from_secs(30);
const BODY: usize = 2 * 1024 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["serve", peer, address, _] = arguments[..] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.unwrap().block_on(serve(peer, address));
    }
    println!("instructions per request | {}", PEERS.join(" | "));
    for (name, path) in [("static", "/"), ("yields once", "/yield")] {
        let counts = PEERS.map(|peer| instructions_of(peer, path));
        let [axum, layers, info, ours, ours_info] = counts.map(|count| count as f64);
        println!(
            "{name} | {}",
            counts.map(|count| count.to_string()).join(" | ")
        );
        println!(
            "{name} | ours: {:.2} x axum with nothing on, {:.2} x with layers; {:.2} x with a subscriber",
            ours / axum,
            ours / layers,
            ours_info / info,
        );
    }
}

async fn serve(peer: &str, address: &str) {
    if peer.ends_with("info") {
        // What is written goes nowhere; that it is written is what costs.
        fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(std::io::sink)
            .init();
    }
    match peer {
        "ours" | "ours-info" => ours::app().serve(address).await.unwrap(),
        _ => {
            let app = match peer {
                "axum" => theirs(),
                _ => with_layers(theirs()),
            };
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            axum::serve(listener, app).await.unwrap();
        }
    }
}

mod ours {
    use tower_web::{App, get};

    #[get("/")]
    async fn index() -> &'static str {
        "Hello, World!"
    }

    #[get("/yield")]
    async fn yields() -> &'static str {
        tokio::task::yield_now().await;
        "Hello, World!"
    }

    pub fn app() -> App {
        App::new().route(index).route(yields)
    }
}

fn theirs() -> axum::Router {
    use axum::routing::get;

    let yields = || async {
        tokio::task::yield_now().await;
        "Hello, World!"
    };
    axum::Router::new()
        .route("/", get(|| async { "Hello, World!" }))
        .route("/yield", get(yields))
}

fn with_layers(app: axum::Router) -> axum::Router {
    let set = |name: &'static str, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let spans = TraceLayer::new_for_http()
        .make_span_with(DefaultMakeSpan::new().level(tracing::Level::INFO))
        .on_response(DefaultOnResponse::new());
    // The innermost first.
    app.layer(RequestBodyLimitLayer::new(BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
        .layer(CatchPanicLayer::new())
        .layer(CompressionLayer::new())
        .layer(set("referrer-policy", "strict-origin-when-cross-origin"))
        .layer(set("x-content-type-options", "nosniff"))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(spans)
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}
