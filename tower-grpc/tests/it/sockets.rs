//! `Server` and `Channel`, over TCP.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tower_grpc::client::Channel;
use tower_grpc::server::Server;
use tower_grpc::{Code, Request};

use crate::echo::pb::client::EchoClient;
use crate::echo::pb::server::EchoServer;
use crate::echo::{Parrot, Say, say};

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
    parrot: Parrot,
}

async fn run_on(listener: TcpListener) -> Running {
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let parrot = Parrot::default();
    let server = Server::builder()
        .add_service(EchoServer::new(parrot.clone()))
        .with_drain_timeout(Duration::from_millis(200));
    let task = tokio::spawn(server.serve_on(listener, async {
        if stopped.await.is_err() {
            pending::<()>().await;
        }
    }));
    Running {
        address,
        stop,
        task,
        parrot,
    }
}

async fn run() -> Running {
    run_on(TcpListener::bind("127.0.0.1:0").await.unwrap()).await
}

impl Running {
    async fn client(&self) -> EchoClient<Channel> {
        let channel = Channel::connect(format!("http://{}", self.address)).await;
        EchoClient::new(channel.unwrap())
    }
}

#[tokio::test]
async fn many_calls_share_a_channel() {
    let server = run().await;
    let client = server.client().await;
    let calls = (0..300).map(|number| {
        let mut client = client.clone();
        async move {
            let text = number.to_string();
            let response = client.unary(say(&text)).await.unwrap();
            assert_eq!(response.get_ref().text, text);
        }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn a_large_message_goes_both_ways() {
    let server = run().await;
    let large = Say {
        data: (0..3_000_000_u32).map(|byte| byte as u8).collect(),
        ..Say::default()
    };
    let response = server.client().await.unary(large.clone()).await.unwrap();
    assert!(response.into_inner() == large);
}

#[tokio::test]
async fn a_chat_goes_back_and_forth_over_a_socket() {
    let server = run().await;
    let (sender, receiver) = mpsc::channel(1);
    let mut client = server.client().await;
    let mut answers = client.chat(ReceiverStream::new(receiver)).await.unwrap();
    for word in ["one", "two", "three"] {
        sender.send(say(word)).await.unwrap();
        assert_eq!(answers.message().await.unwrap(), Some(say(word)));
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_call_ends_the_handler_on_the_server() {
    let server = run().await;
    let mut client = server.client().await;
    // A second call shows that the first has arrived, as streams are accepted in order.
    let mut other = client.clone();
    let mut hanging = Box::pin(client.unary(say("hang")));
    assert!(hanging.as_mut().now_or_never().is_none());
    other.unary(say("x")).await.unwrap();
    drop(hanging);
    while server.parrot.abandoned.load(Ordering::SeqCst) == 0 {
        other.unary(say("x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_over_a_socket() {
    let server = run().await;
    let request = Request::new(say("hang")).with_timeout(Duration::from_millis(20));
    let status = server.client().await.unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_over_a_socket() {
    let server = run().await;
    let channel = Channel::lazy(format!("http://{}", server.address)).unwrap();
    let mut other = crate::echo::pb::client::OtherClient::new(channel);
    let status = other.new_(say("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_server_that_is_told_to_end_finishes_its_calls() {
    let server = run().await;
    let mut client = server.client().await;
    let (sender, receiver) = mpsc::channel(1);
    let mut answers = client.chat(ReceiverStream::new(receiver)).await.unwrap();
    sender.send(say("before")).await.unwrap();
    assert_eq!(answers.message().await.unwrap(), Some(say("before")));
    server.stop.send(()).unwrap();
    sender.send(say("after")).await.unwrap();
    assert_eq!(answers.message().await.unwrap(), Some(say("after")));
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_told_to_end_does_not_wait_for_ever() {
    let server = run().await;
    let mut client = server.client().await;
    let hanging = tokio::spawn(async move { client.unary(say("hang")).await });
    // Another call shows that the server has the first.
    server.client().await.unary(say("x")).await.unwrap();
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn a_channel_connects_again_when_the_server_is_back() {
    let server = run().await;
    let address = server.address;
    let mut client = server.client().await;
    client.unary(say("x")).await.unwrap();
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    let _again = run_on(TcpListener::bind(address).await.unwrap()).await;
    // The loss may show in the first call.
    let mut answer = client.unary(say("again")).await;
    if answer.is_err() {
        answer = client.unary(say("again")).await;
    }
    assert_eq!(answer.unwrap().get_ref().text, "again");
}

#[tokio::test]
async fn a_channel_to_nobody_fails_at_once_and_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = Channel::lazy(format!("http://{address}")).unwrap();
    let calls = (0..10).map(|_| {
        let mut client = EchoClient::new(channel.clone());
        async move { client.unary(say("x")).await.unwrap_err() }
    });
    for status in join_all(calls).await {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(std::error::Error::source(&status).is_some());
    }
}

#[tokio::test]
async fn a_call_that_waits_is_answered_when_the_server_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let builder = Channel::builder(format!("http://{address}")).unwrap();
    let channel = builder.with_max_backoff(Duration::from_millis(1)).lazy();
    let channel = channel.unwrap();
    let mut waiting = EchoClient::new(channel.waiting());
    let call = tokio::spawn(async move { waiting.unary(say("patience")).await });
    // Others fail still, and after several tries the call hasn't.
    for _ in 0..20 {
        let status = EchoClient::new(channel.clone()).unary(say("x")).await;
        assert_eq!(status.unwrap_err().code(), Code::Unavailable);
        tokio::task::yield_now().await;
    }
    assert!(!call.is_finished());
    let _server = run_on(TcpListener::bind(address).await.unwrap()).await;
    assert_eq!(call.await.unwrap().unwrap().get_ref().text, "patience");
}

#[tokio::test]
async fn a_call_that_waits_ends_at_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = Channel::lazy(format!("http://{address}")).unwrap();
    let request = Request::new(say("x")).with_timeout(Duration::from_millis(20));
    let call = EchoClient::new(channel.waiting()).unary(request).await;
    assert_eq!(call.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_is_no_target_is_refused() {
    for target in ["", "/path", "http://", "https://shop.example"] {
        assert!(Channel::lazy(target).is_err(), "{target}");
        let status = Channel::connect(target).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{target}");
    }
    assert!(Channel::lazy("localhost:50051").is_ok());
}

#[tokio::test]
async fn a_client_may_be_shared_between_threads() {
    let server = run().await;
    let client = std::sync::Arc::new(server.client().await);
    let calls = (0..4).map(|_| {
        let client = std::sync::Arc::clone(&client);
        tokio::spawn(async move { EchoClient::clone(&client).unary(say("x")).await })
    });
    for answer in join_all(calls).await {
        assert!(answer.unwrap().is_ok());
    }
}
