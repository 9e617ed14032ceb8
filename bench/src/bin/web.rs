//! What a request costs the server: tower-web beside axum and bare hyper, same routes, same load.
//!
//! - `web instructions [--rounds N]`: the server's instructions, by callgrind: 6 000 requests less 1 000, by
//!   `h2load --h1 -c1 -m1`. It needs valgrind, and h2load (Debian: nghttp2-client).
//! - `web serve PEER ADDRESS`: serves, on one thread. What is measured.
//!
//! `ours` has what production needs and `bare` turns off. Allocations are counted by `web-allocations`, as an allocator
//! that counts costs instructions.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::peers::{PEERS, Peer, axum_app, runtime};

#[path = "../web/peers.rs"]
mod peers;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["instructions"] => instructions(1),
        ["instructions", "--rounds", rounds] => instructions(rounds.parse().unwrap()),
        ["serve", peer, address] => runtime().block_on(serve(peer, address)),
        _ => panic!("web instructions, or web serve PEER ADDRESS"),
    }
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
