//! The time of calls: sent, enforced on both sides, and passed on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use tokio::time::Instant;
use tower_deadline::Deadline;
use tower_grpc::test::in_memory;
use tower_grpc::{Code, Request};

use crate::echo::pb::client::EchoClient;
use crate::echo::pb::server::EchoServer;
use crate::echo::{Parrot, Say, client, say};
use crate::raw::{call, post, said, send};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_server_ends_the_handler_at_the_deadline() {
    let parrot = Parrot::default();
    let abandoned = parrot.abandoned.clone();
    let request = post("Unary")
        .header("grpc-timeout", "250m")
        .body(Full::new(said("hang")))
        .unwrap();
    let start = Instant::now();
    let response = send(&mut EchoServer::new(parrot), request).await;
    assert_eq!(response.code(), "4");
    assert_eq!(start.elapsed(), Duration::from_millis(250));
    assert_eq!(abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_ends_a_stream_at_the_deadline() {
    let parrot = Parrot::default();
    let abandoned = parrot.abandoned.clone();
    let body = prost::Message::encode_to_vec(&Say {
        times: 2,
        data: b"hang".to_vec(),
        ..say("x")
    });
    let request = post("Repeat")
        .header("grpc-timeout", "1S")
        .body(Full::new(crate::raw::framed(0, &body)))
        .unwrap();
    let response = send(&mut EchoServer::new(parrot), request).await;
    assert_eq!(crate::raw::messages(&response.body).len(), 2);
    assert_eq!(response.code(), "4");
    assert_eq!(abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_would_answer_at_once_is_not_begun_after_the_deadline() {
    let response = call("Unary", said("hello"), |head| {
        head.header("grpc-timeout", "0n")
    })
    .await;
    assert_eq!(response.code(), "4");
    assert!(crate::raw::messages(&response.body).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_is_exceeded() {
    let response = call("Unary", said("hang"), |head| {
        head.header("grpc-timeout", "0n")
    })
    .await;
    assert_eq!(response.code(), "4");
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_at_the_deadline_whatever_the_server_does() {
    // The server isn't told: the transport takes the header away.
    let deaf = tower_util::service_fn(|_: http::Request<tower_grpc::GrpcBody>| {
        std::future::pending::<Result<http::Response<tower_grpc::GrpcBody>, tower_grpc::Status>>()
    });
    let start = Instant::now();
    let request = Request::new(say("x")).with_timeout(SECOND);
    let status = EchoClient::new(deaf).unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(start.elapsed(), SECOND);
    let request = Request::new(say("x")).with_timeout(SECOND);
    let status = EchoClient::new(deaf).repeat(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let chat = Request::new(futures_util::stream::pending()).with_timeout(SECOND);
    let mut chat = EchoClient::new(deaf).chat(chat).await.unwrap();
    assert_eq!(
        chat.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert_eq!(chat.message().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_transport_ends_at_the_deadline() {
    let (mock, _handle) = tower_test::mock::pair::<
        http::Request<tower_grpc::GrpcBody>,
        http::Response<tower_grpc::GrpcBody>,
    >();
    let mut never = mock.clone();
    // One place is taken, and there is no other.
    std::future::poll_fn(|cx| tower_service::Service::poll_ready(&mut never, cx))
        .await
        .unwrap();
    let request = Request::new(say("x")).with_timeout(SECOND);
    let status = EchoClient::new(mock).unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_calls_time_is_sent() {
    let request = Request::new(say("left")).with_timeout(SECOND);
    let response = client().unary(request).await.unwrap();
    assert_eq!(response.get_ref().text, "1000");
    let response = client().unary(say("left")).await.unwrap();
    assert_eq!(
        response.get_ref().text,
        Duration::MAX.as_millis().to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_call_has_waited_for_its_transport_is_not_sent() {
    let (mock, mut handle) = tower_test::mock::pair::<
        http::Request<tower_grpc::GrpcBody>,
        http::Response<tower_grpc::GrpcBody>,
    >();
    handle.allow(0);
    let call = |mut client: EchoClient<_>| {
        let request = Request::new(say("x")).with_timeout(SECOND);
        tokio::spawn(async move { client.unary(request).await })
    };
    let waiting = call(EchoClient::new(mock.clone()));
    tokio::time::sleep(SECOND / 4).await;
    handle.allow(2);
    let (request, _answer) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()["grpc-timeout"], "750000u");
    let at_once = call(EchoClient::new(mock));
    let (request, _answer) = handle.next_request().await.unwrap();
    assert_eq!(request.headers()["grpc-timeout"], "1000000u");
    for call in [waiting, at_once] {
        call.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_has_left_is_the_time_of_the_calls_it_makes_less_a_margin() {
    let call = async {
        tokio::time::sleep(SECOND).await;
        let response = client().unary(say("left")).await.unwrap();
        response.into_inner().text.parse::<u64>().unwrap()
    };
    let left = Deadline::after(3 * SECOND).within(call).await.unwrap();
    assert_eq!(left, 2000 - 50);
    // A twentieth, where that is less.
    let call = async { client().unary(say("left")).await.unwrap().into_inner().text };
    let left = Deadline::after(SECOND / 10).within(call).await.unwrap();
    assert_eq!(left, "95");
    // Or what the client says.
    let inner = tower_grpc::client::Client::new(in_memory(crate::echo::server()));
    let mut careful = EchoClient::from(inner.with_deadline_reserve(SECOND));
    let call = async { careful.unary(say("left")).await.unwrap().into_inner().text };
    assert_eq!(
        Deadline::after(3 * SECOND).within(call).await.unwrap(),
        "2000"
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_its_own_only_makes_a_calls_time_shorter() {
    let left = |timeout| async move {
        let request = Request::new(say("left")).with_timeout(timeout);
        let text = client().unary(request).await.unwrap().into_inner().text;
        text.parse::<u64>().unwrap()
    };
    let outer = Deadline::after(2 * SECOND);
    assert_eq!(outer.within(left(SECOND)).await.unwrap(), 1000);
    assert_eq!(outer.within(left(60 * SECOND)).await.unwrap(), 1950);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_is_up_is_not_sent() {
    let (mock, mut handle) = tower_test::mock::pair::<
        http::Request<tower_grpc::GrpcBody>,
        http::Response<tower_grpc::GrpcBody>,
    >();
    let request = Request::new(say("x")).with_timeout(Duration::ZERO);
    let status = EchoClient::new(mock).unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(handle.next_request().await.is_none());
}
