//! Frames: RFC 9113, sections 4 to 7.

use super::*;

pub(super) fn cases() -> Vec<Case> {
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
