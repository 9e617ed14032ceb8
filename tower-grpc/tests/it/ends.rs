//! How calls end that nobody waits for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_grpc::Code;
use tower_grpc::test::in_memory;

use crate::echo::pb::client::EchoClient;
use crate::echo::pb::server::EchoServer;
use crate::echo::{Parrot, Say, client, say};

#[tokio::test]
async fn a_call_that_is_dropped_drops_the_handler() {
    let parrot = Parrot::default();
    let abandoned = parrot.abandoned.clone();
    let mut client = EchoClient::new(in_memory(EchoServer::new(parrot)));
    let call = client.unary(say("hang"));
    assert!(call.now_or_never().is_none());
    assert_eq!(abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_is_dropped_drops_the_servers() {
    let parrot = Parrot::default();
    let abandoned = parrot.abandoned.clone();
    let mut client = EchoClient::new(in_memory(EchoServer::new(parrot)));
    let endless = Say {
        times: 1,
        data: b"hang".to_vec(),
        ..say("x")
    };
    let mut messages = client.repeat(endless).await.unwrap().into_inner();
    assert!(messages.message().await.unwrap().is_some());
    assert_eq!(abandoned.load(Ordering::SeqCst), 0);
    drop(messages);
    assert_eq!(abandoned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_is_dropped_drops_what_the_client_sends() {
    let (sender, receiver) = mpsc::channel::<Say>(1);
    let mut chat = client().chat(ReceiverStream::new(receiver)).await.unwrap();
    sender.send(say("x")).await.unwrap();
    assert!(chat.message().await.unwrap().is_some());
    drop(chat);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_bidirectional_call_does_not_wait_for_the_servers_head() {
    let never = tower_util::service_fn(|_: http::Request<tower_grpc::GrpcBody>| {
        std::future::pending::<Result<http::Response<tower_grpc::GrpcBody>, tower_grpc::Status>>()
    });
    let mut client = EchoClient::new(never);
    let chat = client.chat(futures_util::stream::pending()).now_or_never();
    assert!(chat.unwrap().is_ok());
}

#[tokio::test]
async fn waiting_for_a_message_may_be_given_up_without_loss() {
    let (sender, receiver) = mpsc::channel(1);
    let mut chat = client().chat(ReceiverStream::new(receiver)).await.unwrap();
    assert!(chat.message().now_or_never().is_none());
    sender.send(say("later")).await.unwrap();
    assert_eq!(chat.message().await.unwrap(), Some(say("later")));
    assert!(chat.metadata().await.is_ok());
}

#[tokio::test]
async fn readiness_is_awaited_inside_a_call() {
    let (mock, mut handle) = tower_test::mock::pair::<
        http::Request<tower_grpc::GrpcBody>,
        http::Response<tower_grpc::GrpcBody>,
    >();
    handle.allow(0);
    let mut client = EchoClient::new(mock);
    let call = tokio::spawn(async move { client.unary(say("x")).await });
    tokio::time::sleep(Duration::ZERO).await;
    handle.allow(1);
    let (request, answer) = handle.next_request().await.unwrap();
    assert_eq!(request.uri().path(), "/tower.grpc.test.Echo/Unary");
    answer.send_error(tower_grpc::Status::aborted("by the test"));
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Aborted);
}
