//! What a gRPC call costs: ours, tonic, and the `h2` crate by hand with a task per request, which is the
//! floor. Run by `run.sh`, which counts instructions and writes.
//!
//! - `server raw|tonic|tower`: serves on a free port, which it prints, until it is ended.
//! - `client raw|tonic|tower PORT CALLS`: unary echoes of 100 bytes, ten at once on one connection.
//! - `stream PORT MESSAGES`: has the server send so many messages of 100 bytes in one call.

mod messages;
mod ours;
mod peer;
mod raw;

use tokio::net::{TcpListener, TcpStream};

const AT_ONCE: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", who] => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            println!("{}", listener.local_addr().unwrap().port());
            serve(who, listener).await;
        }
        ["client", who, port, calls] => {
            let (port, calls) = (port.parse().unwrap(), calls.parse().unwrap());
            match who {
                "raw" => raw::call(connect(port).await, calls, AT_ONCE, 0).await,
                "tonic" => peer::call(port, calls, AT_ONCE).await,
                _ => ours::call(port, calls, AT_ONCE).await,
            }
        }
        ["stream", port, messages] => {
            let io = connect(port.parse().unwrap()).await;
            raw::call(io, 1, 1, messages.parse().unwrap()).await;
        }
        _ => panic!("server WHO, client WHO PORT CALLS, or stream PORT MESSAGES"),
    }
}

async fn connect(port: u16) -> TcpStream {
    let io = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    io.set_nodelay(true).unwrap();
    io
}

async fn serve(who: &str, listener: TcpListener) {
    match who {
        "raw" => loop {
            let (io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            tokio::spawn(raw::serve(io));
        },
        "tonic" => peer::serve(listener).await,
        _ => ours::serve(listener).await,
    }
}
