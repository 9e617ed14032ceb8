//! What a gRPC call costs: ours beside tonic, volo-grpc and connectrpc, and beside the `h2` crate by hand.
//!
//! ```text
//! cargo run --release             # the table, some minutes; wants valgrind and strace
//! cargo run --release -- --row client
//! ```
//!
//! Each figure is of a process of its own that does one thing, with `--one`; see [`one`].

use std::time::Duration;

use crate::peers::{Load, raw, tonic, tower};
use crate::process::{runtime, until_input_ends};

mod load;
mod peers;
mod process;
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
            process::call(async {
                match peer {
                    "raw" => raw::call(port, load).await,
                    "tonic" => tonic::call(port, load).await,
                    _ => tower::call(port, load).await,
                }
            });
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

fn server(peer: &str) {
    process::serve(async |listener| match peer {
        "raw" => raw::serve(listener).await,
        "tonic" => tonic::serve(listener).await,
        _ => tower::serve(listener).await,
    });
}
