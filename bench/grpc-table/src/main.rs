//! What a gRPC call costs: ours beside tonic, and beside the `h2` crate by hand.
//!
//! ```text
//! cargo run --release             # the table, some minutes; wants valgrind and strace
//! cargo run --release -- --row client
//! ```
//!
//! Each figure is of a process of its own that does one thing, with `--one`; see [`one`].

use std::io::Read;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::peers::{Load, raw, tonic, tower};

mod peers;
mod table;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["--one", rest @ ..] => one(rest),
        [] => table::print(""),
        ["--row", word] => table::print(word),
        _ => panic!("nothing, --row WORD, or --one …"),
    }
}

/// - `server PEER`: says its port, and serves until its standard input ends.
/// - `client PEER PORT LOAD COUNT`: calls it, and says when it is done.
/// - `idle PORT COUNT`: has as many idle connections, says so, and drops them when its standard input ends.
fn one(arguments: &[&str]) {
    match *arguments {
        ["server", peer] => server(peer),
        ["client", peer, port, load, count] => {
            let (port, load) = (port.parse().unwrap(), Load::parse(load, count));
            runtime().block_on(async {
                match peer {
                    "raw" => raw::call(port, load).await,
                    "tonic" => tonic::call(port, load).await,
                    _ => tower::call(port, load).await,
                }
            });
            println!("done");
            // Who started it looks first how much time it took of the processor.
            until_input_ends();
        }
        ["idle", port, count] => runtime().block_on(async {
            let idle = raw::idle(port.parse().unwrap(), count.parse().unwrap()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            println!("idle");
            until_input_ends();
            drop(idle);
        }),
        _ => panic!("server PEER, client PEER PORT LOAD COUNT, or idle PORT COUNT"),
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn server(peer: &str) {
    std::thread::spawn(|| {
        until_input_ends();
        std::process::exit(0);
    });
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        match peer {
            "raw" => raw::serve(listener).await,
            "tonic" => tonic::serve(listener).await,
            _ => tower::serve(listener).await,
        }
    });
}

fn until_input_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
