//! What a request costs the server: tower-web beside axum and bare hyper, same routes, same load.
//!
//! - `web instructions [--rounds N]`: the server's instructions, by callgrind: 6 000 requests less 1 000, by
//!   `h2load --h1 -c1 -m1`. It needs valgrind, and h2load (Debian: nghttp2-client).
//! - `web churn [--rounds N]`: a new connection for each request, to servers of two threads.
//! - `web pipeline [--rounds N]`: sixteen requests at once.
//! - `web idle [--rounds N]`: the memory of kept connections on which nothing happens.
//! - `web serve PEER ADDRESS THREADS`: serves. What is measured.
//!
//! `ours` has what production needs and `bare` turns off. Allocations are counted by `web-allocations`, as an allocator
//! that counts costs instructions. With the feature `actix`, actix-web stands beside them.

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tower_hyper::Workers;

use crate::counting::instructions_of;
use crate::peers::{PEERS, Peer, axum_app, bare, bare_app, ours_app, runtime};

#[cfg(feature = "actix")]
#[path = "../web/actix.rs"]
mod actix;
#[path = "../web/counting.rs"]
mod counting;
#[path = "../web/loads.rs"]
mod loads;
#[path = "../web/peers.rs"]
mod peers;
#[path = "../web/process.rs"]
mod process;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mode, rounds) = match arguments[..] {
        #[cfg(feature = "actix")]
        ["serve", "actix", address, threads] => {
            return actix::serve(address, threads.parse().unwrap());
        }
        ["serve", peer, address, threads] => {
            let threads = threads.parse().unwrap();
            return runtime(threads).block_on(serve(peer, address, threads));
        }
        [mode, "--rounds", rounds] => (mode, Some(rounds.parse().unwrap())),
        [mode] => (mode, None),
        _ => ("", None),
    };
    match mode {
        "instructions" => instructions(rounds.unwrap_or(1)),
        "churn" => loads::churn(rounds.unwrap_or(15)),
        "pipeline" => loads::pipeline(rounds.unwrap_or(15)),
        "idle" => loads::idle(rounds.unwrap_or(3)),
        _ => panic!("web instructions, churn, pipeline or idle, each with `--rounds N` if need be"),
    }
}

async fn serve(peer: &str, address: &str, threads: usize) {
    match peer {
        "axum" => {
            // Without `NODELAY` responses to pipelined requests wait for the client's delayed acknowledgement.
            let listener = TcpListener::bind(address).await.unwrap().tap_io(|io| {
                io.set_nodelay(true).unwrap();
            });
            return axum::serve(listener, axum_app()).await.unwrap();
        }
        "app" => return ours_app().serve(address).await.unwrap(),
        // As `web-bench` does it.
        "workers" | "bare-workers" | "port-workers" => {
            let mut server = tower_hyper::Server::bind(address).await.unwrap();
            if peer == "port-workers" {
                drop(server);
                let address = address.parse().unwrap();
                let listener = tower_hyper::Tcp::bind_reusing_port(address).unwrap();
                server = tower_hyper::Server::new(listener);
            }
            let mut app = ours_app();
            if peer == "bare-workers" {
                server = server.with_settings(bare());
                app = bare_app();
            }
            let workers = Workers::new(threads);
            return app.serve_on_workers(server, workers).await.unwrap();
        }
        _ => {}
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
    let least = |peer, path| {
        let counts = (0..rounds).map(|_| instructions_of(peer, path));
        // What disturbs only adds.
        counts.min().unwrap()
    };
    for (name, path) in PATHS {
        let row = PEERS.map(|peer| least(peer, path));
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
        for peer in loads::OTHERS {
            let count = least(peer, path);
            println!(
                "{name} | {peer}: {count} | bare: {:.2} x",
                bare / count as f64
            );
        }
    }
}
