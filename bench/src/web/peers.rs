//! The same routes, three times.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_hyper::{ConnectInfo, Settings};
use tower_web::AppService;

pub const PEERS: [&str; 4] = ["hyper", "axum", "bare", "ours"];

#[derive(Serialize, Deserialize)]
pub struct Message {
    message: String,
}

#[derive(Serialize)]
pub struct Greeting {
    message: &'static str,
}

pub const GREETING: Greeting = Greeting {
    message: "Hello, World!",
};

mod ours {
    use super::{GREETING, Greeting, Message, Settings};
    use tower_web::{App, Json, get, post};

    #[get("/")]
    async fn index() -> &'static str {
        "Hello, World!"
    }

    #[get("/json")]
    async fn json() -> Json<Greeting> {
        Json(GREETING)
    }

    #[get("/users/{id}")]
    async fn user(id: u64) -> String {
        format!("user {id}")
    }

    #[post("/echo")]
    async fn echo(message: Json<Message>) -> Json<Message> {
        message
    }

    pub fn app() -> App {
        routes(App::new())
    }

    pub fn bare_app() -> App {
        routes(App::bare())
    }

    fn routes(app: App) -> App {
        app.route(index).route(json).route(user).route(echo)
    }

    /// All off, but detection, the deadline of the first head, and drain.
    pub fn bare() -> Settings {
        Settings::new()
            .with_idle_timeout(None)
            .with_body_timeout(None)
            .with_write_timeout(None)
            .without_vetting()
    }
}

pub use ours::{app as ours_app, bare, bare_app};

pub fn axum_app() -> axum::Router {
    use axum::Json;
    use axum::extract::Path;
    use axum::routing::{get, post};

    axum::Router::new()
        .route("/", get(async || "Hello, World!"))
        .route("/json", get(async || Json(GREETING)))
        .route(
            "/users/{id}",
            get(async |Path(id): Path<u64>| format!("user {id}")),
        )
        .route(
            "/echo",
            post(async |Json(message): Json<Message>| Json(message)),
        )
}

async fn hyper_app(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/" => Bytes::from_static(b"Hello, World!"),
        "/json" => serde_json::to_vec(&GREETING).unwrap().into(),
        "/echo" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let message: Message = serde_json::from_slice(&body).unwrap();
            serde_json::to_vec(&message).unwrap().into()
        }
        path => match path.strip_prefix("/users/").map(str::parse::<u64>) {
            Some(Ok(id)) => format!("user {id}").into(),
            _ => Bytes::new(),
        },
    };
    Ok(Response::new(Full::new(body)))
}

/// What serves connections.
#[derive(Clone)]
pub enum Peer {
    Hyper {
        /// Responses to pipelined requests are written together.
        pipeline_flush: bool,
    },
    Axum(axum::Router),
    Ours(AppService, Settings),
}

impl Peer {
    pub fn new(name: &str) -> Self {
        match name {
            "hyper" | "hyper-flush" => Self::Hyper {
                pipeline_flush: name == "hyper-flush",
            },
            "axum" => Self::Axum(axum_app()),
            "bare" => Self::Ours(bare_app().build().unwrap(), bare()),
            "ours" => Self::Ours(ours_app().build().unwrap(), Settings::new()),
            other => panic!("{other} is none of {PEERS:?}"),
        }
    }

    pub async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self {
            Self::Hyper { pipeline_flush } => {
                let service = hyper::service::service_fn(hyper_app);
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(pipeline_flush)
                    .serve_connection(TokioIo::new(io), service)
                    .await;
            }
            // As `axum::serve` does it.
            Self::Axum(router) => {
                let mut builder =
                    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.http2().enable_connect_protocol();
                let _ = builder
                    .serve_connection_with_upgrades(
                        TokioIo::new(io),
                        TowerToHyperService::new(router),
                    )
                    .await;
            }
            Self::Ours(app, settings) => {
                let _ = settings
                    .serve_connection(io, ConnectInfo::default(), app)
                    .await;
            }
        }
    }
}

pub fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all();
    builder.build().unwrap()
}
