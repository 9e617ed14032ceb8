//! Clients that stop, vanish, hurry, or take their time.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use interop::testing::{EchoStatus, SimpleRequest};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tower_grpc::{Code, Request};

use crate::support::{PATIENCE, client, encoded, exchange, post, raw, raw_with, read, run};
use crate::victim::NEVER;

fn never() -> SimpleRequest {
    SimpleRequest {
        response_size: NEVER,
        ..SimpleRequest::default()
    }
}

/// Waits until so many handlers run.
async fn until_alive(server: &crate::support::Running, count: usize) {
    let begun = async {
        while server.seen().alive < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, begun)
        .await
        .expect("handlers don't begin");
}

#[tokio::test]
async fn a_request_that_ends_with_its_head_has_no_message() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let (response, _) = send
        .send_request(post("UnaryCall").body(()).unwrap(), true)
        .unwrap();
    assert_eq!(read(response).await.unwrap().code(), Some("12"));
    let (response, _) = send
        .send_request(post("StreamingCall").body(()).unwrap(), true)
        .unwrap();
    assert_eq!(read(response).await.unwrap().code(), Some("0"));
    server.is_well().await;
}

#[tokio::test]
async fn a_request_that_never_ends_does_at_its_deadline() {
    let server = run().await;
    let mut send = raw(server.address).await;
    for method in ["UnaryCall", "StreamingCall"] {
        let request = post(method).header("grpc-timeout", "50m").body(()).unwrap();
        let body = Bytes::from_static(&[0, 0, 0]);
        let outcome = exchange(&mut send, request, body, false).await.unwrap();
        assert_eq!(outcome.code(), Some("4"), "{method}");
    }
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn a_client_that_goes_on_after_the_answer_is_told_to_stop() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let request = post("StreamingFromClient").body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    stream
        .send_data(encoded(&SimpleRequest::default()), false)
        .unwrap();
    assert_eq!(read(response).await.unwrap().code(), Some("9"));
    let reason = timeout(PATIENCE, poll_fn(|cx| stream.poll_reset(cx))).await;
    assert_eq!(reason.unwrap().unwrap(), h2::Reason::NO_ERROR);
    // The connection lives.
    let request = post("UnaryCall").body(()).unwrap();
    let body = encoded(&SimpleRequest::default());
    let next = exchange(&mut send, request, body, true).await.unwrap();
    assert_eq!(next.code(), Some("0"));
    server.calms_down().await;
}

#[tokio::test]
async fn a_chat_that_is_half_closed_is_answered_to_its_end() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let request = post("StreamingCall").body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    for _ in 0..10 {
        let message = encoded(&SimpleRequest::default());
        stream.send_data(message, false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let outcome = read(response).await.unwrap();
    assert_eq!((outcome.code(), outcome.body.len()), (Some("0"), 50));
    server.calms_down().await;
}

#[tokio::test]
async fn streams_that_are_reset_in_every_state_leave_no_handler() {
    let server = run().await;
    let mut send = raw(server.address).await;
    let body = encoded(&never());
    for round in 0..120 {
        // Many resets at once are taken for an attack.
        if round % 10 == 0 {
            send = raw(server.address).await;
        }
        poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        let method = ["UnaryCall", "StreamingCall", "StreamingFromServer"][round % 3];
        let request = post(method).body(()).unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        // After the head, within the message, after it, and after the end.
        match round % 4 {
            0 => {}
            1 => stream.send_data(body.slice(..3), false).unwrap(),
            2 => stream.send_data(body.clone(), false).unwrap(),
            _ => stream.send_data(body.clone(), true).unwrap(),
        }
        if round % 5 > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn a_window_that_stays_shut_holds_no_more_than_a_chunk_of_each_answer() {
    let server = run().await;
    let mut shut = h2::client::Builder::new();
    shut.initial_window_size(0);
    let mut send = raw_with(server.address, &shut).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        let request = post("StreamingFromServer").body(()).unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        let body = encoded(&SimpleRequest::default());
        stream.send_data(body, true).unwrap();
        open.push((timeout(PATIENCE, response).await.unwrap().unwrap(), stream));
    }
    server.is_well().await;
    // Two batches of messages of 16 KiB for each of them.
    let made = server.seen().made;
    assert!((100..=400).contains(&made), "{made} messages were made");
    drop((open, send));
    server.calms_down().await;
}

#[tokio::test]
async fn a_reader_that_stops_is_waited_for_within_its_window() {
    let server = run().await;
    let mut slow = client(server.address).await;
    let answers = slow.streaming_from_server(SimpleRequest::default()).await;
    let mut answers = answers.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    // Until nothing is made any more.
    let mut before = usize::MAX;
    while before != server.seen().made {
        before = server.seen().made;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before * 16 * 1024 < 8 * 1024 * 1024, "{before} messages");
    server.is_well().await;
    // It goes on where it stopped.
    for _ in 0..2 * before {
        answers.message().await.unwrap().unwrap();
    }
    drop(answers);
    server.calms_down().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_at_all_holds_up_nobody() {
    let server = run().await;
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    // The bytes that the client writes go to the server, and nothing comes back.
    let socket = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (unread, mut writer) = socket.into_split();
    let copying = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut far, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    let (mut send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..10 {
        let request = post("StreamingFromServer").body(()).unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        let body = encoded(&SimpleRequest::default());
        stream.send_data(body, true).unwrap();
        open.push((response, stream));
    }
    until_alive(&server, 10).await;
    server.is_well().await;
    drop((open, send, unread));
    connection.abort();
    copying.abort();
    server.calms_down().await;
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let server = run().await;
    for _ in 0..20 {
        let mut gone = client(server.address).await;
        let mut second = gone.clone();
        let calls = tokio::spawn(async move {
            let answers = gone.streaming_from_server(SimpleRequest::default()).await;
            let _answers = answers.unwrap();
            let _ = second.unary_call(never()).await;
        });
        until_alive(&server, 2).await;
        calls.abort();
        let _ = calls.await;
        server.calms_down().await;
    }
    server.is_well().await;
}

#[tokio::test]
async fn a_storm_of_deadlines_ends_each_call_with_its_status() {
    let server = run().await;
    let storm = client(server.address).await;
    let calls = (0..1000).map(|number| {
        let mut storm = storm.clone();
        let time = Duration::from_millis(20 + number % 30);
        async move {
            storm
                .unary_call(Request::new(never()).with_timeout(time))
                .await
        }
    });
    let (outcomes, ()) = tokio::join!(join_all(calls), server.is_well());
    for outcome in outcomes {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    server.calms_down().await;
    server.is_well().await;
}

#[tokio::test]
async fn a_server_that_ends_under_load_loses_no_accepted_call_and_runs_none_twice() {
    let mut server = run().await;
    let mut calls = Vec::new();
    for number in 0..20 {
        let client = client(server.address).await;
        for part in 0..100 {
            let mut client = client.clone();
            let name = format!("{number}/{part}");
            calls.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(part)).await;
                let request = SimpleRequest {
                    response_size: 10,
                    response_status: Some(EchoStatus {
                        message: name.clone(),
                        ..EchoStatus::default()
                    }),
                    ..SimpleRequest::default()
                };
                (name, client.unary_call(request).await)
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop();
    let outcomes = timeout(PATIENCE, join_all(calls)).await.unwrap();
    let runs = server.seen().runs;
    let (mut answered, mut refused) = (0, 0);
    for outcome in outcomes {
        let (name, outcome) = outcome.unwrap();
        match outcome {
            Ok(_) => {
                answered += 1;
                assert_eq!(runs.get(&name), Some(&1), "{name}");
            }
            Err(status) => {
                refused += 1;
                assert_eq!(status.code(), Code::Unavailable, "{name}: {status}");
                assert_eq!(runs.get(&name), None, "{name} has run: {status}");
            }
        }
    }
    assert!(answered > 0 && refused > 0, "{answered} and {refused}");
    server.ended().await;
}
