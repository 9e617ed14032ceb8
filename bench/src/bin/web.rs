//! What a request costs the server: tower-web beside axum and bare hyper, same routes, same load.
//!
//! - `web allocations`: allocations of a keep-alive request, by the connection's task, in memory.
//! - `web instructions [--rounds N]`: the server's instructions, by callgrind: 6 000 requests less 1 000, by
//!   `h2load --h1 -c1 -m1`. It needs valgrind, and h2load (Debian: nghttp2-client).
//! - `web serve PEER ADDRESS`: serves, on one thread. What the others measure.
//!
//! `ours` has what production needs and `--bare` turns off; `bare` is what is left then.

use std::convert::Infallible;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower_hyper::{ConnectInfo, Settings};
use tower_web::AppService;

const PEERS: [&str; 4] = ["hyper", "axum", "bare", "ours"];

#[derive(Serialize, Deserialize)]
struct Message {
    message: String,
}

#[derive(Serialize)]
struct Greeting {
    message: &'static str,
}

const GREETING: Greeting = Greeting {
    message: "Hello, World!",
};

mod ours {
    use super::{GREETING, Greeting, Message, Settings};
    use tower_web::{App, AppService, Json, get, post};

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

    pub(crate) fn app() -> AppService {
        let app = App::new().route(index).route(json).route(user).route(echo);
        app.build().unwrap()
    }

    /// All off, but detection, the deadline of the first head, and drain.
    pub(crate) fn bare() -> Settings {
        Settings::new()
            .with_idle_timeout(None)
            .with_body_timeout(None)
            .with_write_timeout(None)
            .without_vetting()
    }
}

fn axum_app() -> axum::Router {
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
enum Peer {
    Hyper,
    Axum(axum::Router),
    Ours(AppService, Settings),
}

impl Peer {
    fn new(name: &str) -> Self {
        match name {
            "hyper" => Self::Hyper,
            "axum" => Self::Axum(axum_app()),
            "bare" => Self::Ours(ours::app(), ours::bare()),
            "ours" => Self::Ours(ours::app(), Settings::new()),
            other => panic!("{other} is none of {PEERS:?}"),
        }
    }

    async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self {
            Self::Hyper => {
                let service = hyper::service::service_fn(hyper_app);
                let _ = hyper::server::conn::http1::Builder::new()
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["allocations"] => allocations(),
        ["instructions"] => instructions(1),
        ["instructions", "--rounds", rounds] => instructions(rounds.parse().unwrap()),
        ["serve", peer, address] => runtime().block_on(serve(peer, address)),
        _ => panic!("web allocations, web instructions, or web serve PEER ADDRESS"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn serve(peer: &str, address: &str) {
    if peer == "axum" {
        let listener = TcpListener::bind(address).await.unwrap();
        axum::serve(listener, axum_app()).await.unwrap();
        return;
    }
    let peer = Peer::new(peer);
    if let Peer::Ours(app, settings) = peer {
        let server = tower_hyper::Server::bind(address).await.unwrap();
        server.with_settings(settings).serve(app).await.unwrap();
        return;
    }
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (io, _) = listener.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        tokio::spawn(peer.clone().serve_connection(io));
    }
}

const REQUESTS: [(&str, &str); 4] = [
    (
        "static",
        "GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
    ),
    (
        "JSON",
        "GET /json HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
    ),
    (
        "path parameter",
        "GET /users/7 HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
    ),
    (
        "JSON echo",
        "POST /echo HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n{\"message\":\"Hello, World!\"}",
    ),
];

fn allocations() {
    println!("allocations per request | {}", PEERS.join(" | "));
    for (name, request) in REQUESTS {
        let row = PEERS.map(|peer| allocations_of(peer, request));
        println!("{name} | {}", row.join(" | "));
    }
}

/// Client and server share this thread, and the client allocates nothing once it has begun.
fn allocations_of(peer: &str, request: &str) -> String {
    const ROUNDS: u32 = 100;
    let runtime = runtime();
    let mut buffer = vec![0; 16 * 1024];
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let peer = Peer::new(peer);
    runtime.spawn(peer.serve_connection(server));
    let mut exchanges = |count: u32| {
        runtime.block_on(async {
            for _ in 0..count {
                exchange(&mut client, request, &mut buffer).await;
            }
        });
    };
    exchanges(ROUNDS);
    let counted = allocation_counter::measure(|| exchanges(ROUNDS));
    format!("{:.2}", counted.count_total as f64 / f64::from(ROUNDS))
}

/// Sends a request, and reads its response, whose body ends as no other part of it does.
async fn exchange(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    buffer: &mut [u8],
) {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut read = 0;
    loop {
        let count = client.read(&mut buffer[read..]).await.unwrap();
        assert_ne!(count, 0, "the connection was closed");
        read += count;
        let response = &buffer[..read];
        let whole = |end: &[u8]| response.ends_with(end);
        if whole(b"Hello, World!") || whole(b"\"Hello, World!\"}") || whole(b"user 7") {
            assert!(response.starts_with(b"HTTP/1.1 200"));
            return;
        }
    }
}

const PATHS: [(&str, &str); 4] = [
    ("static", "/"),
    ("JSON", "/json"),
    ("path parameter", "/users/7"),
    ("JSON echo", "/echo"),
];

fn instructions(rounds: usize) {
    println!("instructions per request | {}", PEERS.join(" | "));
    for (name, path) in PATHS {
        // The least of the rounds: what disturbs only adds.
        let row = PEERS.map(|peer| {
            (0..rounds)
                .map(|_| instructions_of(peer, path))
                .min()
                .unwrap()
        });
        let counts = row.map(|count| count.to_string());
        println!("{name} | {}", counts.join(" | "));
        let [hyper, axum, bare, ours] = row.map(|count| count as f64);
        println!(
            "{name} | bare: {:.2} x hyper, {:.2} x axum | ours: {:.2} x hyper, {:.2} x axum",
            bare / hyper,
            bare / axum,
            ours / hyper,
            ours / axum,
        );
    }
}

/// Between 6 000 and 1 000 requests, setting up and tearing down cancel out.
fn instructions_of(peer: &str, path: &str) -> u64 {
    (total(peer, path, 6000) - total(peer, path, 1000)) / 5000
}

/// The instructions of a server that serves so many requests.
fn total(peer: &str, path: &str, requests: u32) -> u64 {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let output = std::env::temp_dir().join(format!("web-{}-{port}.callgrind", std::process::id()));
    let mut server = Server(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(std::env::current_exe().unwrap())
            .args(["serve", peer, &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("valgrind"),
    );
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut load = Command::new("h2load");
    load.args(["--h1", "-c1", "-m1", &format!("-n{requests}")]);
    let body = std::env::temp_dir().join(format!("web-{}.json", std::process::id()));
    if path == "/echo" {
        std::fs::write(&body, "{\"message\":\"Hello, World!\"}").unwrap();
        load.arg("-d").arg(&body);
        load.args(["-H", "content-type: application/json"]);
    }
    let loaded = load
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("h2load");
    let said = String::from_utf8_lossy(&loaded.stdout);
    assert!(
        said.contains(&format!("{requests} succeeded")),
        "{peer} {path}: {said}"
    );
    let _ = std::fs::remove_file(&body);
    server.interrupt();
    let written = std::fs::read_to_string(&output).unwrap();
    let _ = std::fs::remove_file(&output);
    let total = written.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or_else(|| line.strip_prefix("summary: "))
    });
    total
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// A server under valgrind.
struct Server(Child);

impl Server {
    /// Ends it in a way that lets valgrind write what it counted.
    fn interrupt(&mut self) {
        let id = self.0.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
