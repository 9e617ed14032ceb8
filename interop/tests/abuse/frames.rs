//! Frames that no client sends.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, Running, run};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PROTOCOL_ERROR: u32 = 1;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that isn't indexed (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).unwrap());
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// The head of a call.
fn head(method: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let path = format!("/grpc.testing.BenchmarkService/{method}");
    for (name, value) in [
        (":path", path.as_str()),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ] {
        block.extend(field(name, value));
    }
    block
}

/// Writes the preface, settings and `frames` so many times, as far as the server takes them; what the server
/// writes until it ends the connection.
async fn flood(address: SocketAddr, first: &[u8], frames: &[u8], times: usize) -> Vec<u8> {
    let io = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = io.into_split();
    let mut opening = PREFACE.to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend_from_slice(first);
    let frames = frames.repeat(times.min(100));
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&opening).await;
        for _ in 0..times.div_ceil(100) {
            if writer.write_all(&frames).await.is_err() {
                break;
            }
        }
        writer
    });
    let mut written = Vec::new();
    let reading = reader.read_to_end(&mut written);
    // A reset of the connection is an end as well.
    let _ = timeout(PATIENCE, reading).await.expect("it goes on");
    drop(writing.await);
    written
}

/// The codes of the GOAWAYs and RST_STREAMs in what a server wrote.
fn codes(mut bytes: &[u8], kind: u8) -> Vec<u32> {
    let mut codes = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        if head[3] == kind {
            let at = if kind == GOAWAY { 4 } else { 0 };
            codes.push(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
        }
        bytes = rest;
    }
    codes
}

/// The server ends the flood, and serves others.
async fn is_calmed(server: &Running, first: &[u8], frames: &[u8]) {
    let written = flood(server.address, first, frames, 100_000).await;
    let codes = codes(&written, GOAWAY);
    // The reset that follows may overtake it.
    assert!(
        codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM),
        "{codes:?}"
    );
    server.is_well().await;
    server.calms_down().await;
}

#[tokio::test]
async fn floods_of_frames_that_bring_nothing_end_their_connection_alone() {
    let server = run().await;
    let open = frame(HEADERS, END_HEADERS, 1, &head("UnaryCall"));
    is_calmed(&server, &[], &frame(PING, 0, 0, &[0; 8])).await;
    is_calmed(&server, &[], &frame(SETTINGS, 0, 0, &[])).await;
    is_calmed(&server, &[], &frame(0xbe, 0, 0, b"nothing")).await;
    is_calmed(&server, &open, &frame(DATA, 0, 1, &[])).await;
    is_calmed(&server, &open, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection_alone() {
    let server = run().await;
    let first = frame(HEADERS, END_STREAM, 1, &head("UnaryCall"));
    is_calmed(
        &server,
        &first,
        &frame(CONTINUATION, 0, 1, &field("a", "b")),
    )
    .await;
}

#[tokio::test]
async fn rapid_resets_end_their_connection_alone() {
    let server = run().await;
    let mut frames = Vec::new();
    for stream in 0..20_000 {
        let id = 2 * stream + 1;
        frames.extend(frame(HEADERS, END_HEADERS, id, &head("UnaryCall")));
        frames.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    let written = flood(server.address, &frames, &[], 0).await;
    let codes = codes(&written, GOAWAY);
    assert!(codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM));
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_its_connection_alone() {
    let server = run().await;
    let mut large = frame(DATA, 0, 1, &[]);
    large[..3].copy_from_slice(&[0xff; 3]);
    let open = frame(HEADERS, END_HEADERS, 1, &head("UnaryCall"));
    let written = flood(server.address, &open, &large, 1).await;
    assert_eq!(codes(&written, GOAWAY), [FRAME_SIZE_ERROR]);
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn a_connection_cut_anywhere_is_forgotten() {
    let server = run().await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &head("UnaryCall")));
    bytes.extend(frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 1, 2, 3]));
    for end in (0..bytes.len()).step_by(3) {
        let mut io = TcpStream::connect(server.address).await.unwrap();
        io.write_all(&bytes[..end]).await.unwrap();
    }
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn what_is_no_preface_is_cut_off() {
    let server = run().await;
    for garbage in [
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "\x16\x03\x01\x02",
    ] {
        let mut io = TcpStream::connect(server.address).await.unwrap();
        io.write_all(garbage.as_bytes()).await.unwrap();
        // Where so much may still become a preface, the client has to end.
        io.shutdown().await.unwrap();
        let ended = timeout(PATIENCE, io.read_to_end(&mut Vec::new())).await;
        let _ = ended.expect("it goes on");
    }
    server.is_well().await;
}

#[tokio::test]
async fn data_after_the_end_of_a_request_resets_it() {
    let server = run().await;
    let mut io = TcpStream::connect(server.address).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    // A handler that waits; so the stream is half-closed, and not closed.
    let message = [
        0, 0, 0, 0, 11, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
    ];
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &head("UnaryCall")));
    bytes.extend(frame(DATA, END_STREAM, 1, &message));
    bytes.extend(frame(DATA, END_STREAM, 1, &message));
    io.write_all(&bytes).await.unwrap();
    let mut written = Vec::new();
    let reset = async {
        loop {
            let resets = codes(&written, RST_STREAM);
            let goaways = codes(&written, GOAWAY);
            if let Some(code) = resets.first().or(goaways.first()) {
                return *code;
            }
            assert!(io.read_buf(&mut written).await.unwrap() > 0, "it has ended");
        }
    };
    let code = timeout(PATIENCE, reset).await.unwrap();
    assert!([STREAM_CLOSED, PROTOCOL_ERROR].contains(&code), "{code}");
    drop(io);
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_others_nothing() {
    let mut server = run().await;
    // The clients are here, the server's ends there; as many as the files that may be open allow.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let count = 10_000.min(files.saturating_sub(200));
    server.may_grow_by(count * 24);
    let address = server.address;
    let mut opening = PREFACE.to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    let connects = (0..count).map(|number| {
        let opening = &opening;
        async move {
            let mut io = TcpStream::connect(address).await.unwrap();
            // One in ten doesn't even say what it is.
            if number % 10 > 0 {
                io.write_all(opening).await.unwrap();
            }
            io
        }
    });
    let idle: Vec<_> = stream::iter(connects).buffer_unordered(100).collect().await;
    server.is_well().await;
    let growth = server.growth();
    println!(
        "{count} idle connections: {} bytes each",
        growth * 1024 / count
    );
    drop(idle);
    tokio::time::sleep(Duration::from_millis(10)).await;
    server.is_well().await;
}
