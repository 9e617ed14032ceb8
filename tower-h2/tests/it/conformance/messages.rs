//! Messages, and their fields: RFC 9113, section 8, and RFC 7541.

use super::*;

pub(super) fn cases() -> Vec<Case> {
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
