//! A server whose clients mean harm, over sockets.
//!
//! Under each attack it must not grow by more than 32 MiB, and a client that means well must get its answers soon. The server
//! has the defaults, but for deadlines, which are a second, and is a process of its own, so that its memory is.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tower_web::prelude::*;
use tower_web::{Server, Settings};

use crate::harness::{LISTENING, ROLE, Target, ask, connect, converse, read_all, read_to, under};

mod harness;

const SECOND: Duration = Duration::from_secs(1);

#[get("/")]
async fn index() -> &'static str {
    "hello"
}

/// Requests to `/never` that are being served.
static WAITING: AtomicUsize = AtomicUsize::new(0);

struct Waiting;

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

#[get("/never")]
async fn never() -> &'static str {
    WAITING.fetch_add(1, Ordering::SeqCst);
    let _waiting = Waiting;
    std::future::pending().await
}

#[get("/waiting")]
async fn waiting() -> String {
    format!("[{}]", WAITING.load(Ordering::SeqCst))
}

#[post("/upload")]
#[body_limit(u64::MAX)]
async fn upload(mut body: BodyStream) -> Result<String, Problem> {
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await? {
        bytes += chunk.len();
    }
    Ok(bytes.to_string())
}

#[post("/text")]
async fn text(text: String) -> String {
    text
}

#[get("/events")]
async fn events() -> impl IntoResponse {
    Sse::new(tokio_stream::StreamExt::map(
        tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(SECOND / 50)),
        |_| Event::new("tick"),
    ))
}

#[get("/ws")]
async fn ws(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(message) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Of sixteen mebibytes, made once.
#[get("/large")]
async fn large() -> File {
    static LARGE: std::sync::OnceLock<File> = std::sync::OnceLock::new();
    LARGE
        .get_or_init(|| File::new("large.bin", vec![b'x'; 16 << 20]))
        .clone()
}

async fn serve() -> tower_web::Result {
    let settings = Settings::new()
        .with_head_timeout(SECOND)
        .with_idle_timeout(SECOND)
        .with_body_timeout(SECOND)
        .with_write_timeout(SECOND);
    let server = Server::bind("127.0.0.1:0")
        .await?
        .with_settings(settings)
        .with_drain_timeout(SECOND);
    println!("{LISTENING}{}", server.local_addr()?);
    let end = async {
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
    };
    App::new()
        .route(index)
        .route(never)
        .route(waiting)
        .route(upload)
        .route(text)
        .route(events)
        .route(ws)
        .route(large)
        .mount("/files", Files::new("tests"))
        .serve_until(server, end)
        .await
}

/// The server itself, where it is told to be one.
#[test]
fn the_server_ends_with_its_input() {
    if std::env::var_os(ROLE).is_some() {
        tower_web::block_on(serve()).unwrap();
    } else {
        Target::start().end();
    }
}

fn connections(address: SocketAddr, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let start = || {
        let mut client = connect(address);
        client.write_all(first).unwrap();
        client
    };
    std::iter::repeat_with(start).take(count).collect()
}

#[test]
fn clients_that_send_nothing_or_pri_are_closed() {
    under("silence", |address| {
        let silent = connections(address, 100, b"");
        let preface = connections(address, 100, b"PRI");
        for mut client in silent.into_iter().chain(preface) {
            assert_eq!(read_all(&mut client), "");
        }
    });
}

#[test]
fn heads_that_drip_are_cut_and_bodies_that_drip_are_no_burden() {
    under("drip", |address| {
        let mut heads = connections(address, 50, b"GET / HT");
        let body = b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 17\r\n\r\nab";
        let mut bodies = connections(address, 50, body);
        for _ in 0..15 {
            for client in heads.iter_mut() {
                // It is cut at some time.
                let _ = client.write_all(b"T");
            }
            for client in bodies.iter_mut() {
                client.write_all(b"x").unwrap();
            }
            thread::sleep(SECOND / 10);
        }
        for mut client in heads {
            assert!(!read_all(&mut client).contains(" 200 "));
        }
        for mut client in bodies {
            assert!(read_to(&mut client, "\r\n\r\n17").contains(" 200 "));
        }
    });
}

#[test]
fn a_large_body_that_is_declared_and_not_sent_costs_nothing() {
    under("declared", |address| {
        for path in ["/upload", "/text"] {
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\nabc");
            for mut client in connections(address, 50, head.as_bytes()) {
                let status = if path == "/text" { "413" } else { "408" };
                let answer = read_all(&mut client);
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{answer}"
                );
            }
        }
    });
}

#[test]
fn malformed_requests_are_refused() {
    let mut many = String::from("GET / HTTP/1.1\r\nhost: a\r\n");
    for i in 0..10_000 {
        many += &format!("x-{i}: y\r\n");
    }
    many += "\r\n";
    let smuggled = "host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let requests = [
        ("431", many),
        ("400", format!("POST /text HTTP/1.1\r\n{smuggled}")),
        ("400", "GET / HTTP/1.1\r\n\r\n".into()),
        ("400", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".into()),
        ("400", "GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("400", "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("400", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        (
            "200",
            "GET http://b/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".into(),
        ),
    ];
    under("malformed", |address| {
        for _ in 0..20 {
            for (status, request) in &requests {
                let answer = converse(address, request);
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{request}: {answer}"
                );
            }
            for chunk in [
                "zz\r\nabc\r\n",
                "ffffffffffffffffff\r\n",
                "3\r\nabcdef\r\n",
                "-1\r\n",
            ] {
                let answer = converse(
                    address,
                    format!(
                        "POST /text HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
                    ),
                );
                assert!(!answer.contains(" 200 "), "{chunk}: {answer}");
            }
        }
    });
}

#[test]
fn paths_lead_nowhere_but_into_their_directory() {
    under("traversal", |address| {
        assert!(ask(address, "/files/abuse/main.rs").contains(" 200 "));
        for path in [
            "../Cargo.toml",
            "abuse/../../Cargo.toml",
            "%2e%2e/Cargo.toml",
            "..%2fCargo.toml",
            "%2e%2e%5cCargo.toml",
            "..\\Cargo.toml",
            "/etc/passwd",
            "%2fetc%2fpasswd",
            "Cargo.toml%00.rs",
        ] {
            let answer = ask(address, &format!("/files/{path}"));
            assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
        }
    });
}

#[test]
fn readers_that_stall_are_cut() {
    under("slow readers", |address| {
        let get = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
        // The file itself is 16 MiB of what the server may grow by.
        let mut clients = connections(address, 40, get);
        for client in &mut clients {
            client.read_exact(&mut [0; 1000]).unwrap();
        }
        thread::sleep(SECOND * 3);
        for mut client in clients {
            assert!(read_all(&mut client).len() < 16 << 20);
        }
    });
}

#[test]
fn a_handler_that_never_ends_is_dropped_with_its_client() {
    under("never", |address| {
        let get = b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n";
        let clients = connections(address, 100, get);
        let wait_for = |text: &str| {
            let start = Instant::now();
            while !ask(address, "/waiting").ends_with(text) {
                assert!(start.elapsed() < SECOND * 10, "not {text}");
                thread::sleep(SECOND / 50);
            }
        };
        wait_for("[100]");
        drop(clients);
        wait_for("[0]");
    });
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// `GET http://a/` by HPACK's static table.
const FIELDS: &[u8] = b"\x82\x86\x84\x41\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends frames until the server has closed the connection, which it has to do before there are `most`.
fn flood(address: SocketAddr, most: u32, mut frames: impl FnMut(u32) -> Vec<u8>) {
    let mut client = connect(address);
    client.write_all(PREFACE).unwrap();
    for i in 0..most {
        if let Err(error) = client.write_all(&frames(i)) {
            let kind = error.kind();
            assert!(
                kind != std::io::ErrorKind::WouldBlock,
                "the server neither reads nor closes"
            );
            return;
        }
    }
    panic!("{most} were let through");
}

#[test]
fn floods_of_http_2_end_their_connection() {
    under("rapid reset", |address| {
        flood(address, 1_000_000, |i| {
            let stream = 2 * i + 1;
            let mut frames = frame(HEADERS, 5, stream, FIELDS);
            frames.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
            frames
        });
    });
    under("continuation", |address| {
        flood(address, 10_000, |i| match i {
            0 => frame(HEADERS, 1, 1, FIELDS),
            // A literal that nobody indexes.
            _ => frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(3000)),
        });
    });
    under("ping", |address| {
        flood(address, 1_000_000, |_| frame(PING, 0, 0, b"pingping"));
    });
}

fn upgraded(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    client
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    assert!(read_to(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 101"));
    client
}

#[test]
fn web_sockets_whose_clients_take_nothing_hold_them_back() {
    under("web sockets", |address| {
        let mut clients: Vec<_> = (0..20).map(|_| upgraded(address)).collect();
        // A masked message of 64 KiB, again and again, whose echo nobody reads.
        let mut message = vec![0x82, 0xff];
        message.extend(65_536_u64.to_be_bytes());
        message.extend([0; 4 + 65_536]);
        for client in &mut clients {
            client.set_write_timeout(Some(SECOND / 20)).unwrap();
            let sent = (0..1000).take_while(|_| client.write_all(&message).is_ok());
            assert!(sent.count() < 1000, "the server takes it all");
        }
    });
}

#[test]
fn a_shutdown_under_load_ends_in_time() {
    let target = Target::start();
    let address = target.address;
    let mut streams = connections(address, 20, b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    for client in &mut streams {
        client.read_exact(&mut [0; 100]).unwrap();
    }
    streams.extend((0..20).map(|_| upgraded(address)));
    streams.extend(connections(
        address,
        20,
        b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n",
    ));
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut client| thread::spawn(move || read_all(&mut client)))
        .collect();
    let took = target.end();
    println!("shutdown: {took:?}");
    for reader in readers {
        reader.join().unwrap();
    }
}
