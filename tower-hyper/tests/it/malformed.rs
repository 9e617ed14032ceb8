//! Requests that RFC 9112 forbids.

use tokio::io::AsyncWriteExt;
use tower_hyper::Settings;

use crate::support::{converse, read_response, serve};

/// The status of the response to `request`, after which the connection must be closed.
async fn status(request: impl AsRef<[u8]>) -> String {
    let (mut client, _server) = serve(Settings::new());
    let response = converse(&mut client, request).await;
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
    response.chars().skip(9).take(3).collect()
}

#[tokio::test(start_paused = true)]
async fn a_host_is_needed_once_and_has_to_be_one() {
    for host in [
        "",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a b\r\n",
        "host:\r\n",
        "host: u@a\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n");
        assert_eq!(status(&request).await, "400", "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn targets_have_one_of_four_forms() {
    let requests = [
        "GET * HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET  HTTP/1.1",
    ];
    for line in requests {
        assert_eq!(
            status(format!("{line}\r\nhost: a\r\n\r\n")).await,
            "400",
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_absolute_target_names_the_host() {
    let (mut client, _server) = serve(Settings::new());
    let request = "GET http://real/host HTTP/1.1\r\nhost: fake\r\nconnection: close\r\n\r\n";
    let response = converse(&mut client, request).await;
    assert!(response.ends_with("Some(\"real\")"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn framing_has_to_be_plain() {
    let heads = [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: +1",
        "content-length: 1, 1, 2",
        "content-length: x",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: identity",
        "transfer-encoding : chunked",
        " x: folded",
        "x: 1\r\n folded",
        "x y: 1",
        "x: a\0b",
        ": nameless",
    ];
    for head in heads {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n");
        assert_eq!(status(&request).await, "400", "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_beside_an_encoding_smuggles() {
    let length = "content-length: 5";
    let encoding = "transfer-encoding: chunked";
    for (first, second) in [(length, encoding), (encoding, length)] {
        for method in ["GET", "POST"] {
            let request = format!(
                "{method} /echo HTTP/1.1\r\nhost: a\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n"
            );
            assert_eq!(status(&request).await, "400", "{request:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_so_in_a_later_request_too() {
    let (mut client, _server) = serve(Settings::new());
    for _ in 0..2 {
        client
            .write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab")
            .await
            .unwrap();
        read_response(&mut client, "ab").await;
    }
    let request = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = converse(&mut client, request).await;
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_not_taken_for_a_head() {
    let (mut client, _server) = serve(Settings::new());
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    client
        .write_all(&[&head[..], b"#no\nhead\n"].concat())
        .await
        .unwrap();
    read_response(&mut client, "hello").await;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let response = read_response(&mut client, "hello").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_with_bodies_of_either_kind_are_let_through() {
    let (mut client, _server) = serve(Settings::new());
    let one = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n#";
    let two =
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n#\r\n0\r\n\r\n";
    let last = "GET / HTTP/1.0\r\n\r\n";
    let responses = converse(&mut client, [one, two, one, two, last].concat()).await;
    assert_eq!(responses.matches(" 200 OK").count(), 5, "{responses}");
}

#[tokio::test(start_paused = true)]
async fn a_target_has_no_fragment() {
    assert_eq!(status("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n").await, "400");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_headers_are_too_many() {
    let mut request = String::from("GET / HTTP/1.1\r\nhost: a\r\n");
    for i in 0..10_000 {
        request += &format!("x-{i}: y\r\n");
    }
    request += "\r\n";
    assert_eq!(status(&request).await, "431");
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_is_too_long() {
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(200_000));
    assert_eq!(status(&request).await, "431");
}

#[tokio::test(start_paused = true)]
async fn garbage_in_chunks_ends_the_connection() {
    for chunk in [
        "zz\r\nabc\r\n",
        "ffffffffffffffffff\r\n",
        "3\r\nabcdef\r\n",
        "3;\0\r\nabc\r\n",
        "-1\r\n",
    ] {
        let (mut client, server) = serve(Settings::new());
        let request = format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let response = converse(&mut client, request).await;
        assert!(!response.contains("200 OK"), "{chunk:?}: {response}");
        let _ = server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn expectations_that_cannot_be_met_are_refused() {
    let request = "POST / HTTP/1.1\r\nhost: a\r\nexpect: cake\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(status(request).await, "417");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_vetted_wherever_it_stands_in_a_batch() {
    let good = [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n#\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n#\n\r\n0\r\n\r\n",
    ];
    let bad = [
        "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    for first in good {
        for bad in bad {
            let (mut client, _server) = serve(Settings::new());
            let batch = [first, good[1], bad, good[0]].concat();
            let responses = converse(&mut client, &batch).await;
            assert_eq!(responses.matches(" 200 OK").count(), 2, "{batch:?}");
            assert_eq!(responses.matches(" 400 Bad").count(), 1, "{batch:?}");
            assert_eq!(responses.matches("HTTP/1.1 ").count(), 3, "{batch:?}");
        }
    }
}
