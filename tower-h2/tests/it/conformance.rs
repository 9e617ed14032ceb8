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

fn frames() -> Vec<Case> {
    let large = vec![0; FRAME];
    let too_large = vec![0; FRAME + 1];
    let half = frame(HEADERS, END_STREAM, 1, &post(&[]));
    vec![
        case("4.1 unknown types", &[frame(0xff, 0, 0, &[0; 8])], Nothing),
        case(
            "4.1 undefined flags",
            &[frame(PING, 0x16, 0, &[0; 8])],
            Nothing,
        ),
        case(
            "4.1 reserved bit",
            &[frame(PING, 0, 1 << 31, &[0; 8])],
            Nothing,
        ),
        case(
            "4.2 largest",
            &[open(1), data(1, END_STREAM, &large)],
            Answered,
        ),
        case(
            "4.2 DATA",
            &[open(1), data(1, END_STREAM, &too_large)],
            Stream(&[FRAME_SIZE]),
        ),
        case(
            "4.2 HEADERS",
            &[frame(HEADERS, ALL, 1, &too_large)],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "4.3 block",
            &[block(&[0x40])],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "4.3 PRIORITY within",
            &[half.clone(), priority_on(1, 0)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "4.3 HEADERS within",
            &[half.clone(), request(3)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "5.1 idle DATA",
            &[data(1, END_STREAM, b"a")],
            Connection(&[PROTOCOL]),
        ),
        case("5.1 idle RST_STREAM", &[reset(1)], Connection(&[PROTOCOL])),
        case(
            "5.1 idle WINDOW_UPDATE",
            &[window(1, 100)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "5.1 idle CONTINUATION",
            &[frame(CONTINUATION, 4, 1, &post(&[]))],
            Connection(&[PROTOCOL]),
        ),
        case(
            "5.1 half-closed DATA",
            &[request(1), data(1, END_STREAM, b"a")],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1 half-closed HEADERS",
            &[request(1), request(1)],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1 half-closed CONTINUATION",
            &[request(1), frame(CONTINUATION, 4, 1, &[])],
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case(
            "5.1 reset DATA",
            &[open(1), reset(1), data(1, END_STREAM, b"a")],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1 reset HEADERS",
            &[open(1), reset(1), request(1)],
            Stream(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "5.1 reset CONTINUATION",
            &[open(1), reset(1), frame(CONTINUATION, 4, 1, &[])],
            Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case("5.1.1 even", &[request(2)], Connection(&[PROTOCOL])),
        case(
            "5.1.1 smaller",
            &[request(5), request(3)],
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case(
            "5.3.1 PRIORITY on itself",
            &[open(1), priority_on(1, 1)],
            Stream(&[PROTOCOL]),
        ),
        case(
            "5.3.1 HEADERS on itself",
            &[frame(
                HEADERS,
                ALL | PRIORITY_FIELDS,
                1,
                &[&[0, 0, 0, 1, 15][..], &post(&[])].concat(),
            )],
            Stream(&[PROTOCOL]),
        ),
        case(
            "5.1 idle PRIORITY",
            &[priority_on(5, 0), request(1)],
            Answered,
        ),
        case(
            "5.1 half-closed PRIORITY",
            &[request(1), priority_on(1, 0)],
            Answered,
        ),
        case(
            "5.1 half-closed WINDOW_UPDATE",
            &[request(1), window(1, 100)],
            Answered,
        ),
        case(
            "5.1 half-closed RST_STREAM",
            &[request(1), reset(1)],
            Nothing,
        ),
        case(
            "5.1 reset PRIORITY",
            &[open(1), reset(1), priority_on(1, 0)],
            Nothing,
        ),
        case(
            "5.5 unknown within block",
            &[half.clone(), frame(0xff, 0, 1, &[0; 8])],
            Connection(&[PROTOCOL]),
        ),
        case("6.1 stream 0", &[data(0, 0, b"a")], Connection(&[PROTOCOL])),
        case(
            "6.1 padding",
            &[open(1), data(1, PADDED | END_STREAM, &[6, 1, 2, 3])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.1 in pieces",
            &[
                open(1),
                data(1, 0, b"a"),
                data(1, 0, b""),
                data(1, END_STREAM, b"b"),
            ],
            Answered,
        ),
        case(
            "6.1 padded",
            &[open(1), data(1, PADDED | END_STREAM, &[2, b'a', 0, 0])],
            Answered,
        ),
        case(
            "6.2 stream 0",
            &[frame(HEADERS, ALL, 0, &post(&[]))],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.2 padding",
            &[frame(HEADERS, ALL | PADDED, 1, &[200, 0x82])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.2 with priority",
            &[frame(
                HEADERS,
                ALL | PRIORITY_FIELDS,
                1,
                &[&[0, 0, 0, 0, 15][..], &post(&[])].concat(),
            )],
            Answered,
        ),
        case(
            "6.2 padded",
            &[frame(
                HEADERS,
                ALL | PADDED,
                1,
                &[&[2][..], &post(&[]), &[0, 0]].concat(),
            )],
            Answered,
        ),
        case(
            "6.2 padded, with priority",
            &[frame(
                HEADERS,
                ALL | PADDED | PRIORITY_FIELDS,
                1,
                &[&[2, 0, 0, 0, 0, 15][..], &post(&[]), &[0, 0]].concat(),
            )],
            Answered,
        ),
        case(
            "6.3 the least weight, of another",
            &[request(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])],
            Answered,
        ),
        case(
            "6.3 the largest weight, alone",
            &[request(1), frame(PRIORITY, 0, 1, &[0x80, 0, 0, 0, 255])],
            Answered,
        ),
        case(
            "6.3 stream 0",
            &[priority_on(0, 1)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.3 length",
            &[open(1), frame(PRIORITY, 0, 1, &[0; 4])],
            Stream(&[FRAME_SIZE]),
        ),
        case("6.4 stream 0", &[reset(0)], Connection(&[PROTOCOL])),
        case(
            "6.4 length",
            &[open(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "6.5 ACK with payload",
            &[frame(SETTINGS, ACK, 0, &[0; 6])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "6.5 stream 1",
            &[frame(SETTINGS, 0, 1, &[])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.5 length",
            &[frame(SETTINGS, 0, 0, &[0; 3])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "6.5.2 ENABLE_PUSH",
            &[setting(2, 2)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.5.2 INITIAL_WINDOW_SIZE",
            &[setting(4, 1 << 31)],
            Connection(&[FLOW_CONTROL, PROTOCOL]),
        ),
        case(
            "6.5.2 MAX_FRAME_SIZE small",
            &[setting(5, 16_383)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.5.2 MAX_FRAME_SIZE large",
            &[setting(5, 1 << 24)],
            Connection(&[PROTOCOL]),
        ),
        case("6.5.2 unknown", &[setting(0xff, 1)], Nothing),
        case("6.5.2 MAX_CONCURRENT_STREAMS", &[setting(3, 100)], Nothing),
        case(
            "7 RST_STREAM of an unknown code",
            &[open(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])],
            Nothing,
        ),
        case(
            "7 GOAWAY of an unknown code",
            &[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            Farewell,
        ),
        case(
            "6.5.3 the last of several values",
            &[[setting(4, 100), setting(4, 1)].concat(), request(1)],
            Answered,
        ),
        case(
            "6.7 stream 1",
            &[frame(PING, 0, 1, &[0; 8])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.7 length",
            &[frame(PING, 0, 0, &[0; 6])],
            Connection(&[FRAME_SIZE]),
        ),
        case("6.7 unasked ACK", &[frame(PING, ACK, 0, &[9; 8])], Nothing),
        case(
            "6.8 stream 1",
            &[frame(GOAWAY, 0, 1, &[0; 8])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.8 length",
            &[frame(GOAWAY, 0, 0, &[0; 7])],
            Connection(&[FRAME_SIZE]),
        ),
        case("6.8 GOAWAY", &[frame(GOAWAY, 0, 0, &[0; 8])], Farewell),
        case(
            "6.8 GOAWAY with a message",
            &[frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye")],
            Farewell,
        ),
        case("6.9 on the connection", &[window(0, 1)], Nothing),
        case("6.9 on a stream", &[open(1), window(1, 1)], Nothing),
        case(
            "6.9.2 overflow by a setting",
            &[
                open(1),
                window(1, (1 << 31) - 1 - 0xffff),
                setting(4, (1 << 31) - 1),
            ],
            Connection(&[FLOW_CONTROL]),
        ),
        case(
            "6.9 zero on the connection",
            &[window(0, 0)],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.9 zero on a stream",
            &[open(1), window(1, 0)],
            Stream(&[PROTOCOL]),
        ),
        case(
            "6.9 length",
            &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "6.9.1 connection overflow",
            &[window(0, u32::MAX >> 1), window(0, u32::MAX >> 1)],
            Connection(&[FLOW_CONTROL]),
        ),
        case(
            "6.9.1 stream overflow",
            &[open(1), window(1, u32::MAX >> 1), window(1, u32::MAX >> 1)],
            Stream(&[FLOW_CONTROL]),
        ),
        case(
            "6.10 several",
            &[
                half.clone(),
                frame(CONTINUATION, 0, 1, &field("a", "b")),
                frame(CONTINUATION, END_HEADERS, 1, &field("c", "d")),
            ],
            Answered,
        ),
        case(
            "6.10 stream 0",
            &[half.clone(), frame(CONTINUATION, END_HEADERS, 0, &[])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.10 after the last",
            &[
                half.clone(),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ],
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case(
            "6.10 after DATA",
            &[
                open(1),
                data(1, 0, b"a"),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.10 other stream",
            &[half.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.10 DATA within",
            &[frame(HEADERS, 0, 1, &post(&[])), data(1, END_STREAM, b"a")],
            Connection(&[PROTOCOL]),
        ),
        case(
            "6.10 after the end",
            &[open(1), frame(CONTINUATION, END_HEADERS, 1, &[])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "8.4 PUSH_PROMISE of a client",
            &[
                open(1),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            ],
            Connection(&[PROTOCOL]),
        ),
    ]
}

fn messages() -> Vec<Case> {
    let trailers = |fields: &[(&str, &str)], flags| {
        let block: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect();
        frame(HEADERS, flags, 1, &block)
    };
    const MALFORMED: Outcome = Stream(&[PROTOCOL]);
    // `:authority: www.example.com`, of RFC 7541, appendix C.4.1.
    const WWW_EXAMPLE_COM: [u8; 14] = [
        0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];
    // The name `x-test`, whose value is to follow.
    const X_TEST: [u8; 7] = [0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff];
    // POST, http and / by their indices.
    let base = [0x83, 0x86, 0x84];
    vec![
        case(
            "8.1 trailers",
            &[open(1), data(1, 0, b"a"), trailers(&[("x-sum", "1")], ALL)],
            Answered,
        ),
        case(
            "8.1 trailers that don't end",
            &[
                open(1),
                data(1, 0, b"a"),
                trailers(&[("x-sum", "1")], END_HEADERS),
            ],
            MALFORMED,
        ),
        case(
            "8.1 pseudo-field in trailers",
            &[
                open(1),
                data(1, 0, b"a"),
                trailers(&[(":method", "GET")], ALL),
            ],
            MALFORMED,
        ),
        case("8.2.1 capitals", &[with(&[("X-Test", "ok")])], MALFORMED),
        case(
            "8.2.1 space in a name",
            &[with(&[("x test", "ok")])],
            MALFORMED,
        ),
        case(
            "8.2.1 line feed in a value",
            &[with(&[("x-test", "a\nb")])],
            MALFORMED,
        ),
        case(
            "8.2.2 connection",
            &[with(&[("connection", "keep-alive")])],
            MALFORMED,
        ),
        case(
            "8.2.2 keep-alive",
            &[with(&[("keep-alive", "timeout=5")])],
            MALFORMED,
        ),
        case(
            "8.2.2 proxy-connection",
            &[with(&[("proxy-connection", "keep-alive")])],
            MALFORMED,
        ),
        case(
            "8.2.2 transfer-encoding",
            &[with(&[("transfer-encoding", "chunked")])],
            MALFORMED,
        ),
        case("8.2.2 upgrade", &[with(&[("upgrade", "h2c")])], MALFORMED),
        case(
            "8.2.2 te",
            &[with(&[("te", "trailers, deflate")])],
            MALFORMED,
        ),
        case(
            "8.2.2 te: trailers",
            &[with(&[("te", "trailers")])],
            Answered,
        ),
        case("8.3 unknown", &[with(&[(":test", "ok")])], MALFORMED),
        case(
            "8.3 of a response",
            &[with(&[(":status", "200")])],
            MALFORMED,
        ),
        case(
            "8.3 after others",
            &[only(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-test", "ok"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.3.1 empty path",
            &[only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", ""),
            ])],
            MALFORMED,
        ),
        case(
            "8.3.1 no method",
            &[only(&[(":scheme", "http"), (":path", "/")])],
            MALFORMED,
        ),
        case(
            "8.3.1 no scheme",
            &[only(&[(":method", "GET"), (":path", "/")])],
            MALFORMED,
        ),
        case(
            "8.3.1 no path",
            &[only(&[(":method", "GET"), (":scheme", "http")])],
            MALFORMED,
        ),
        case(
            "8.3.1 two methods",
            &[only(&[
                (":method", "GET"),
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.3.1 two schemes",
            &[only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":scheme", "http"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.3.1 two paths",
            &[only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.5 CONNECT with a path",
            &[only(&[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.5 CONNECT",
            &[only(&[(":method", "CONNECT"), (":authority", "a:1")])],
            Answered,
        ),
        case(
            "8441.4 :protocol, which isn't enabled",
            &[only(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ])],
            MALFORMED,
        ),
        case(
            "8.1.1 a byte too many",
            &[
                frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "1")])),
                data(1, END_STREAM, b"test"),
            ],
            MALFORMED,
        ),
        case(
            "8.1.1 too many, in pieces",
            &[
                frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "1")])),
                data(1, 0, b"test"),
                data(1, END_STREAM, b"test"),
            ],
            MALFORMED,
        ),
        case(
            "8.1.1 too few",
            &[
                frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "9")])),
                data(1, END_STREAM, b"test"),
            ],
            MALFORMED,
        ),
        case("8.1.1 none", &[with(&[("content-length", "9")])], MALFORMED),
        case(
            "8.1.1 no number",
            &[
                frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "x")])),
                data(1, END_STREAM, b"test"),
            ],
            MALFORMED,
        ),
        case(
            "8.1.1 all",
            &[
                frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "4")])),
                data(1, END_STREAM, b"test"),
            ],
            Answered,
        ),
        case(
            "7541 2.3.3 index",
            &[block(&[0xc6, 0x82])],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 2.3.3 index of a name",
            &[block(&[&base[..], &[0x7f, 0x07, 1, b'a']].concat())],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case("7541 6.1 indexed", &[block(&base)], Answered),
        case(
            "7541 6.2.1 incremental, name indexed",
            &[block(&[&base[..], &[0x41, 1, b'a']].concat())],
            Answered,
        ),
        case(
            "7541 6.2.1 incremental, name new",
            &[block(&[&base[..], &[0x40, 1, b'n', 1, b'v']].concat())],
            Answered,
        ),
        case(
            "7541 6.2.2 without indexing",
            &[block(
                &[&base[..], &[0x01, 1, b'a', 0x00, 1, b'n', 1, b'v']].concat(),
            )],
            Answered,
        ),
        case(
            "7541 6.2.3 never indexed",
            &[block(
                &[&base[..], &[0x11, 1, b'a', 0x10, 1, b'n', 1, b'v']].concat(),
            )],
            Answered,
        ),
        case(
            "7541 6.3 size updates at the beginning",
            &[block(&[&[0x20, 0x3f, 0xe1, 0x1f][..], &base].concat())],
            Answered,
        ),
        case(
            "7541 5.2 huffman",
            &[block(&[&base[..], &WWW_EXAMPLE_COM].concat())],
            Answered,
        ),
        case(
            "7541 5.2 huffman, padded by zeroes",
            &[block(
                &[&base[..], &X_TEST, &[0x83, 0x49, 0x50, 0x90]].concat(),
            )],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 5.2 huffman, with its end",
            &[block(
                &[
                    &base[..],
                    &X_TEST,
                    &[0x87, 0xff, 0xff, 0xff, 0xfd, 0x25, 0x42, 0x7f],
                ]
                .concat(),
            )],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 4.2 size update at the end",
            &[block(&[&post(&[])[..], &[0x3f, 0xe1, 0x1f]].concat())],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 5.2 huffman padding",
            &[block(
                &[
                    &post(&[])[..],
                    &[
                        0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff,
                    ],
                ]
                .concat(),
            )],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 6.1 index 0",
            &[block(&[0x80])],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "7541 6.3 size update too large",
            &[block(&[0x3f, 0xe2, 0x1f])],
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
    ]
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
    conform(frames(), false).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_frames_are_found_though_the_request_was_answered_already() {
    conform(frames(), true).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_reset_and_well_formed_ones_answered() {
    conform(messages(), false).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_requests_are_found_though_the_request_was_answered_already() {
    conform(messages(), true).await;
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
