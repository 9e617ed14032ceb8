//! What a client makes of servers that end calls in odd ways, over HTTP/2.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::{Connection, SendResponse};
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_grpc::{Code, GrpcBody, Status};

use crate::echo::pb::client::EchoClient;
use crate::echo::{Say, say};
use crate::raw::{framed, said};

type Client = EchoClient<tower_h2::client::Connection<GrpcBody>>;
type Peer = Connection<DuplexStream, Bytes>;

async fn before_raw_server() -> (Client, Peer) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let builder = tower_h2::client::Builder::new().with_requests_ended_by_responses();
    let (connection, driver) = builder.handshake(near).await.unwrap();
    tokio::spawn(driver);
    let peer = h2::server::handshake(far).await.unwrap();
    let origin = "http://localhost".parse().unwrap();
    (EchoClient::new(connection).with_origin(&origin), peer)
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Phase {
    Nothing,
    Head,
    PartOfMessage,
    Message,
}

const PHASES: [Phase; 4] = [
    Phase::Nothing,
    Phase::Head,
    Phase::PartOfMessage,
    Phase::Message,
];

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in fields {
        all.append(*name, value.parse().unwrap());
    }
    all
}

/// Responds up to `phase`; the stream, where there is one by then.
fn respond_to(phase: Phase, respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    if phase == Phase::Nothing {
        return None;
    }
    let mut stream = respond.send_response(head(), false).unwrap();
    let message = said("first");
    match phase {
        Phase::PartOfMessage => stream.send_data(message.slice(..7), false).unwrap(),
        Phase::Message => stream.send_data(message, false).unwrap(),
        Phase::Nothing | Phase::Head => {}
    }
    Some(stream)
}

/// Moves the connection until nothing is left to do.
async fn flush(peer: &mut Peer) {
    for _ in 0..10 {
        let _ = peer.accept().now_or_never();
        tokio::task::yield_now().await;
    }
}

/// Has the peer respond to one call up to `phase`, and then end it with `end`; how that reads in a unary call, and in one
/// that gets a stream.
async fn ended(phase: Phase, end: fn(Peer, SendResponse<Bytes>)) -> [Status; 2] {
    let play = |mut peer: Peer| async move {
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        let _stream = respond_to(phase, &mut respond);
        flush(&mut peer).await;
        end(peer, respond);
    };
    let (mut client, peer) = before_raw_server().await;
    let (unary, ()) = tokio::join!(client.unary(say("x")), play(peer));

    let (mut client, peer) = before_raw_server().await;
    let receive = async {
        let mut messages = client.repeat(say("x")).await?.into_inner();
        if phase == Phase::Message {
            assert_eq!(messages.message().await?, Some(say("first")));
        }
        let status = messages.message().await.unwrap_err();
        assert_eq!(messages.message().await.unwrap(), None);
        Err::<(), _>(status)
    };
    let (stream, ()) = tokio::join!(receive, play(peer));
    [unary.unwrap_err(), stream.unwrap_err()]
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_at_any_time_is_unavailable() {
    for phase in PHASES {
        for status in ended(phase, |_, _| {}).await {
            assert_eq!(status.code(), Code::Unavailable, "{phase:?}: {status:?}");
            assert!(std::error::Error::source(&status).is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_its_server_ends_amid_a_call_is_unavailable() {
    type End = fn(Peer, SendResponse<Bytes>);
    macro_rules! goaway {
        ($reason:ident) => {
            |mut peer, respond| {
                peer.abrupt_shutdown(Reason::$reason);
                tokio::spawn(async move {
                    while peer.accept().await.is_some() {}
                    drop(respond);
                });
            }
        };
    }
    let ends: [End; 3] = [
        goaway!(NO_ERROR),
        goaway!(INTERNAL_ERROR),
        goaway!(PROTOCOL_ERROR),
    ];
    for end in ends {
        for phase in PHASES {
            for status in ended(phase, end).await {
                assert_eq!(status.code(), Code::Unavailable, "{phase:?}: {status:?}");
            }
        }
    }
}

/// Drives the connection for good.
fn go_on(mut peer: Peer) {
    tokio::spawn(async move { while peer.accept().await.is_some() {} });
}

#[tokio::test(start_paused = true)]
async fn a_reset_at_any_time_is_the_code_that_it_maps_to() {
    type End = fn(Peer, SendResponse<Bytes>);
    macro_rules! reset {
        ($reason:ident) => {
            |mut peer, mut respond| {
                respond.send_reset(Reason::$reason);
                tokio::spawn(async move {
                    // One that is refused comes again.
                    while let Some(Ok((_, mut respond))) = peer.accept().await {
                        respond.send_reset(Reason::$reason);
                    }
                });
            }
        };
    }
    let table: [(End, Code); 8] = [
        (reset!(NO_ERROR), Code::Internal),
        (reset!(PROTOCOL_ERROR), Code::Internal),
        (reset!(INTERNAL_ERROR), Code::Internal),
        (reset!(FLOW_CONTROL_ERROR), Code::Internal),
        (reset!(REFUSED_STREAM), Code::Unavailable),
        (reset!(CANCEL), Code::Cancelled),
        (reset!(ENHANCE_YOUR_CALM), Code::ResourceExhausted),
        (reset!(INADEQUATE_SECURITY), Code::PermissionDenied),
    ];
    for (end, code) in table {
        for phase in PHASES {
            for status in ended(phase, end).await {
                assert_eq!(status.code(), code, "{phase:?}: {status:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_request_has_ended_is_the_answer() {
    for reset in [None, Some(Reason::NO_ERROR), Some(Reason::CANCEL)] {
        let (mut client, mut peer) = before_raw_server().await;
        let (sender, receiver) = mpsc::channel::<Say>(1);
        let call = client.collect(ReceiverStream::new(receiver));
        let play = async {
            let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(head(), false).unwrap();
            stream.send_data(said("enough"), false).unwrap();
            let end = trailers(&[("grpc-status", "0"), ("x-end", "1")]);
            stream.send_trailers(end).unwrap();
            if let Some(reason) = reset {
                flush(&mut peer).await;
                stream.send_reset(reason);
            }
            go_on(peer);
        };
        let (response, ()) = tokio::join!(call, play);
        let response = response.unwrap();
        assert_eq!(*response.get_ref(), say("enough"), "{reset:?}");
        assert_eq!(response.trailers().get("x-end"), Some("1"));
        // Nobody wants the rest.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sender.is_closed(), "{reset:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_request_has_ended_ends_a_chat() {
    let (mut client, mut peer) = before_raw_server().await;
    let (sender, receiver) = mpsc::channel::<Say>(1);
    let play = async {
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        let mut head = head();
        head.headers_mut()
            .insert("grpc-status", "9".parse().unwrap());
        respond.send_response(head, true).unwrap();
        go_on(peer);
    };
    let chat = async {
        let mut answers = client.chat(ReceiverStream::new(receiver)).await.unwrap();
        answers.message().await.unwrap_err()
    };
    let (status, ()) = tokio::join!(chat, play);
    assert_eq!(status.code(), Code::FailedPrecondition);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sender.is_closed());
}

/// What a unary call makes of a response.
async fn answered(play: impl FnOnce(&mut SendResponse<Bytes>)) -> Result<Say, Status> {
    let (mut client, mut peer) = before_raw_server().await;
    let serve = async {
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        play(&mut respond);
        go_on(peer);
    };
    let (response, ()) = tokio::join!(client.unary(say("x")), serve);
    response.map(tower_grpc::Response::into_inner)
}

fn whole(respond: &mut SendResponse<Bytes>) {
    let mut stream = respond.send_response(head(), false).unwrap();
    stream.send_data(said("fine"), false).unwrap();
    stream
        .send_trailers(trailers(&[("grpc-status", "0")]))
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn interim_responses_are_passed_over() {
    let answer = answered(|respond| {
        for status in [100, 103] {
            let interim = Response::builder().status(status).body(()).unwrap();
            respond.send_informational(interim).unwrap();
        }
        whole(respond);
    });
    assert_eq!(answer.await.unwrap(), say("fine"));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_http_does_not_have_is_unknown() {
    for status in [299, 418, 800, 999] {
        let answer = answered(|respond| {
            let head = Response::builder().status(status).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        });
        let status = answer.await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_frame_after_a_head_that_says_all_changes_nothing() {
    let answer = answered(|respond| {
        let mut head = head();
        let headers = head.headers_mut();
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-message", "no%20one".parse().unwrap());
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let status = answer.await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "no one");
}

#[tokio::test(start_paused = true)]
async fn the_first_of_several_statuses_counts() {
    let answer = answered(|respond| {
        let mut stream = respond.send_response(head(), false).unwrap();
        stream.send_data(said("x"), false).unwrap();
        let end = trailers(&[
            ("grpc-status", "7"),
            ("grpc-status", "0"),
            ("grpc-message", "a"),
            ("grpc-message", "b"),
        ]);
        stream.send_trailers(end).unwrap();
    });
    let status = answer.await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_head_or_an_end_beyond_the_limit_fails_its_call_alone() {
    let large = || "x".repeat(20_000).parse::<http::HeaderValue>().unwrap();
    let (mut client, mut peer) = before_raw_server().await;
    let serve = async {
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        let mut response = head();
        response.headers_mut().insert("x-large", large());
        respond.send_response(response, true).unwrap();
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(head(), false).unwrap();
        stream.send_data(said("x"), false).unwrap();
        let mut end = HeaderMap::new();
        end.insert("x-large", large());
        end.insert("grpc-status", "0".parse().unwrap());
        stream.send_trailers(end).unwrap();
        let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
        whole(&mut respond);
        go_on(peer);
    };
    let calls = async {
        let statuses = [
            client.unary(say("x")).await.unwrap_err(),
            client.unary(say("x")).await.unwrap_err(),
        ];
        (statuses, client.unary(say("x")).await)
    };
    let ((statuses, fine), ()) = tokio::join!(calls, serve);
    for status in statuses {
        assert_eq!(status.code(), Code::Internal, "{status:?}");
    }
    assert_eq!(*fine.unwrap().get_ref(), say("fine"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_time_resets_its_stream() {
    for phase in PHASES {
        let (mut client, mut peer) = before_raw_server().await;
        let call = async {
            let messages = client.chat(futures_util::stream::pending::<Say>()).await;
            let mut messages = messages.unwrap();
            if phase == Phase::Message {
                assert!(messages.message().await.unwrap().is_some());
            }
            let next = messages.message();
            let timeout = tokio::time::timeout(Duration::from_secs(1), next).await;
            assert!(timeout.is_err(), "{phase:?}");
        };
        let serve = async {
            let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
            let stream = respond_to(phase, &mut respond);
            let reset = async {
                match stream {
                    Some(mut stream) => {
                        futures_util::future::poll_fn(|cx| stream.poll_reset(cx)).await
                    }
                    None => futures_util::future::poll_fn(|cx| respond.poll_reset(cx)).await,
                }
            };
            tokio::select! {
                reason = reset => reason.unwrap(),
                _ = peer.accept() => unreachable!("there is one call"),
            }
        };
        let ((), reason) = tokio::join!(call, serve);
        assert_eq!(reason, Reason::CANCEL, "{phase:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_in_frames_of_a_byte_is_whole() {
    let answer = answered(|respond| {
        let mut stream = respond.send_response(head(), false).unwrap();
        for byte in said("in pieces") {
            let byte = Bytes::copy_from_slice(&[byte]);
            stream.send_data(byte, false).unwrap();
        }
        stream
            .send_trailers(trailers(&[("grpc-status", "0")]))
            .unwrap();
    });
    assert_eq!(answer.await.unwrap(), say("in pieces"));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_sends_after_the_message_is_waited_for() {
    let (mut client, mut peer) = before_raw_server().await;
    let mut call = Box::pin(client.unary(say("x")));
    assert!(call.as_mut().now_or_never().is_none());
    let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
    let mut stream = respond.send_response(head(), false).unwrap();
    stream.send_data(said("early"), false).unwrap();
    flush(&mut peer).await;
    assert!(call.as_mut().now_or_never().is_none());
    // A second message is one too many, whatever the end.
    stream.send_data(framed(0, b""), false).unwrap();
    flush(&mut peer).await;
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let reason = futures_util::future::poll_fn(|cx| stream.poll_reset(cx));
    tokio::select! {
        reason = reason => assert_eq!(reason.unwrap(), Reason::CANCEL),
        _ = peer.accept() => unreachable!("there is one call"),
        () = pending() => {}
    }
}
