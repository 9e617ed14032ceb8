//! What RFC 9113 and RFC 7541 have a server do with each kind of wrong frame, and of odd but right ones.
//!
//! Each case is a row: the section, the bytes after the prefaces, and what must come of them. All are run
//! before a service that reads the request, and before one that answers at once.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower_h2::{RecvBody, server};
use tower_util::service_fn;

use crate::support::Answer;
use crate::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    PRIORITY_FIELDS, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, field, frame, post,
};

const NO_ERROR: u32 = 0x0;
const PROTOCOL: u32 = 0x1;
const FLOW_CONTROL: u32 = 0x3;
const STREAM_CLOSED: u32 = 0x5;
const FRAME_SIZE: u32 = 0x6;
const COMPRESSION: u32 = 0x9;

const ALL: u8 = END_HEADERS | END_STREAM;

/// How long a frame may be by default.
const FRAME: usize = 544 * 1024;

/// What comes of the frames.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The connection ends, with a GOAWAY of one of the codes if any.
    Connection(&'static [u32]),
    /// The stream is reset with one of the codes, or the connection ends so.
    Stream(&'static [u32]),
    /// The stream is answered.
    Answered,
    /// Nothing: a PING after them is answered.
    Nothing,
    /// A PING after them is answered, or the connection ends, and without an error.
    Farewell,
}

mod frames;
mod messages;

use Outcome::{Answered, Connection, Farewell, Nothing, Stream};

struct Case {
    section: &'static str,
    frames: Vec<Vec<u8>>,
    outcome: Outcome,
}

fn case(section: &'static str, frames: &[Vec<u8>], outcome: Outcome) -> Case {
    Case {
        section,
        frames: frames.to_vec(),
        outcome,
    }
}

/// HEADERS of a whole request.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, ALL, stream, &post(&[]))
}

/// HEADERS of a request whose body is to follow.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post(&[]))
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn priority_on(stream: u32, dependency: u32) -> Vec<u8> {
    let mut payload = dependency.to_be_bytes().to_vec();
    payload.push(15);
    frame(PRIORITY, 0, stream, &payload)
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// HEADERS of a request whose block is `block`.
fn block(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, ALL, 1, block)
}

/// HEADERS of a request with fields after the usual.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    block(&post(fields))
}

/// HEADERS of a request with these fields alone.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    block(
        &fields
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect::<Vec<_>>(),
    )
}

/// Reads the request, then answers.
async fn reading(request: Request<RecvBody>) -> Answer {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

/// Answers while it reads, as one that finds the request wrong.
async fn hasty(request: Request<RecvBody>) -> Answer {
    drop(request);
    Ok(Response::builder()
        .status(400)
        .body(Full::new(Bytes::from("no")))
        .unwrap())
}

/// What comes of a case's frames.
async fn outcome_of(case: &Case, is_hasty: bool) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let builder = server::Builder::new();
    let server = if is_hasty {
        tokio::spawn(builder.serve_connection(far, service_fn(hasty)))
    } else {
        tokio::spawn(builder.serve_connection(far, service_fn(reading)))
    };
    let mut wire = Wire::client(near).await;
    wire.send_raw(&case.frames.concat()).await;
    if matches!(case.outcome, Nothing | Farewell) {
        wire.send(PING, 0, 0, b"sentinel").await;
    }
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(5), wire.next()).await;
        let Ok(next) = next else {
            return Err(format!("nothing more after {seen:?}"));
        };
        let Some(frame) = next else {
            server.abort();
            return match case.outcome {
                Connection(_) | Stream(_) | Farewell => Ok(()),
                _ => Err(format!("the connection ended after {seen:?}")),
            };
        };
        match (case.outcome, frame.kind) {
            (Connection(codes) | Stream(codes), GOAWAY) => {
                let code = frame.code();
                return if codes.contains(&code) {
                    Ok(())
                } else {
                    Err(format!("GOAWAY {code}"))
                };
            }
            (Stream(codes), RST_STREAM) => {
                let code = frame.code();
                if codes.contains(&code) {
                    return Ok(());
                }
                if code != NO_ERROR {
                    return Err(format!("RST_STREAM {code}"));
                }
            }
            (Answered, HEADERS) => return Ok(()),
            (Farewell, GOAWAY) if frame.code() == NO_ERROR => {}
            (Nothing | Farewell, PING) if frame.payload == b"sentinel" => return Ok(()),
            (Nothing | Farewell | Answered, GOAWAY | RST_STREAM) => {
                return Err(format!("{frame:?}"));
            }
            _ => {}
        }
        seen.push((frame.kind, frame.flags, frame.stream));
    }
}

async fn conform(cases: Vec<Case>, is_hasty: bool) {
    let mut failed = Vec::new();
    for case in &cases {
        if let Err(why) = outcome_of(case, is_hasty).await {
            failed.push(format!("{}: {:?}, but {why}", case.section, case.outcome));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_frames_end_the_stream_or_the_connection_and_odd_ones_do_not() {
    conform(frames::cases(), false).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_frames_are_found_though_the_request_was_answered_already() {
    conform(frames::cases(), true).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_reset_and_well_formed_ones_answered() {
    conform(messages::cases(), false).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_found_though_the_request_was_answered_already() {
    conform(messages::cases(), true).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_preface_ends_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|_: Request<RecvBody>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    });
    let server = tokio::spawn(server::Builder::new().serve_connection(far, service));
    near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    near.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(server.await.unwrap().is_err());
}

/// The code with which the peer ends a stream, or the connection.
async fn code_of_the_end(wire: &mut Wire) -> u32 {
    loop {
        let next = wire.next().await.expect("the peer says why it ends");
        if [GOAWAY, RST_STREAM].contains(&next.kind) {
            return next.code();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_both_sides_have_ended_takes_nothing_more() {
    let late = [
        (data(1, END_STREAM, b"a"), STREAM_CLOSED),
        (request(1), STREAM_CLOSED),
        (frame(CONTINUATION, END_HEADERS, 1, &[]), PROTOCOL),
    ];
    for (frame, expected) in late {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let builder = server::Builder::new();
        let server = tokio::spawn(builder.serve_connection(far, service_fn(reading)));
        let mut wire = Wire::client(near).await;
        wire.send_raw(&request(1)).await;
        while let Some(answer) = wire.next().await {
            if answer.stream == 1 && answer.flags & END_STREAM != 0 {
                break;
            }
        }
        wire.send_raw(&frame).await;
        assert_eq!(code_of_the_end(&mut wire).await, expected);
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_goes_on_after_its_end_finds_the_stream_closed_though_no_response_has_come()
{
    for late in [data(1, 0, b"a"), data(1, END_STREAM, b""), request(1)] {
        let service = service_fn(|_: Request<RecvBody>| std::future::pending::<Answer>());
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(server::Builder::new().serve_connection(far, service));
        let mut wire = Wire::client(near).await;
        // Others are open, before it and after.
        wire.send_raw(&[request(1), open(3), data(3, 0, b"a")].concat())
            .await;
        wire.send_raw(&late).await;
        assert_eq!(code_of_the_end(&mut wire).await, STREAM_CLOSED);
        drop(wire);
        let error = server.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), tower_h2::ErrorKind::Protocol);
        assert_eq!(error.reason(), Some(tower_h2::Reason::STREAM_CLOSED));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_error_is_told_and_then_the_connection_closed() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(server::Builder::new().serve_connection(far, service_fn(reading)));
    let mut wire = Wire::client(near).await;
    wire.send(PING, 0, 0, &[0; 6]).await;
    assert_eq!(code_of_the_end(&mut wire).await, FRAME_SIZE);
    assert!(wire.next().await.is_none());
    server.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn settings_and_pings_are_acknowledged() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, service_fn(reading)));
    let mut wire = Wire::client(near).await;
    wire.next_of(SETTINGS).await;
    wire.send_raw(&setting(3, 100)).await;
    let answer = wire.next_of(SETTINGS).await;
    assert_eq!((answer.flags, answer.payload.len()), (ACK, 0));
    wire.send(PING, 0, 0, b"12345678").await;
    let answer = wire.next_of(PING).await;
    assert_eq!((answer.flags, &answer.payload[..]), (ACK, &b"12345678"[..]));
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_head_has_no_content() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, service_fn(hasty)));
    let mut wire = Wire::client(near).await;
    let fields = [(":method", "HEAD"), (":scheme", "http"), (":path", "/")];
    wire.send_raw(&only(&fields)).await;
    assert_eq!(wire.next_of(HEADERS).await.flags & END_STREAM, END_STREAM);
}

#[tokio::test(start_paused = true)]
async fn a_response_keeps_to_the_window_of_the_settings() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, service_fn(reading)));
    let mut wire = Wire::client(near).await;
    wire.send_raw(&setting(4, 3)).await;
    wire.send_raw(&[open(1), data(1, END_STREAM, b"hello")].concat())
        .await;
    assert_eq!(wire.next_of(DATA).await.payload, b"hel");
    // The window of an open stream moves with the setting, below zero as well (section 6.9.2).
    wire.send_raw(&setting(4, 1)).await;
    wire.send_raw(&window(1, 3)).await;
    assert_eq!(wire.next_of(DATA).await.payload, b"l");
    wire.send_raw(&setting(4, 10)).await;
    assert_eq!(wire.next_of(DATA).await.payload, b"o");
}

#[tokio::test(start_paused = true)]
async fn extended_connect_carries_its_protocol_where_it_is_enabled() {
    let service = service_fn(|request: Request<RecvBody>| async move {
        let protocol = request.extensions().get::<tower_h2::Protocol>();
        assert_eq!(protocol.map(tower_h2::Protocol::as_str), Some("websocket"));
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    let builder = server::Builder::new().with_extended_connect();
    tokio::spawn(builder.serve_connection(far, service));
    let mut wire = Wire::client(near).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "localhost"),
    ];
    let mut open = only(&fields);
    open[4] = END_HEADERS;
    wire.send_raw(&open).await;
    assert_eq!(wire.next_of(HEADERS).await.flags & END_STREAM, 0);
    for message in [b"one", b"two"] {
        wire.send_raw(&data(1, 0, message)).await;
        assert_eq!(wire.next_of(DATA).await.payload, message);
    }
}
