//! Allocations of a keep-alive request, by all that runs in the connection's task, in memory: tower-web beside axum and bare
//! hyper, same routes.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::peers::{PEERS, Peer, runtime};

#[path = "../web/peers.rs"]
#[allow(dead_code, reason = "the other binary uses the rest")]
mod peers;

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

fn main() {
    println!("allocations per request | {}", PEERS.join(" | "));
    for (name, request) in REQUESTS {
        let row = PEERS.map(|peer| allocations_of(peer, request));
        println!("{name} | {}", row.join(" | "));
    }
}

/// Client and server share this thread, and the client allocates nothing once it has begun.
fn allocations_of(peer: &str, request: &str) -> String {
    const ROUNDS: u32 = 100;
    let runtime = runtime(1);
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
