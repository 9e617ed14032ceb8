//! Calls of every kind and every end, by the tens of thousands: nothing of them is left.
//!
//! A program of its own, as it counts all that is allocated.

use std::alloc::System;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Mutex;
use tower_grpc::client::Channel;
use tower_grpc::server::Server;
use tower_grpc::test::in_memory;
use tower_grpc::{Code, Encoding, GrpcBody, Request};
use tower_service::Service;

use crate::echo::pb::client::EchoClient;
use crate::echo::{Say, say, server};

#[allow(dead_code, reason = "there are other tests of it")]
#[path = "../it/echo.rs"]
mod echo;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test after the other, as both count the same bytes.
static TURN: Mutex<()> = Mutex::const_new(());

/// What caches and tables may have grown by; a byte for each call would be more.
const SLACK: isize = 16 * 1024;

fn live_bytes() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// One call, of the kind and with the end that the number says.
async fn call<S, B>(client: &EchoClient<S>, number: usize)
where
    S: Service<http::Request<GrpcBody>, Response = http::Response<B>> + Clone,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut client = client.clone();
    let many = |times| Say { times, ..say("x") };
    match number % 11 {
        0 => drop(client.unary(say("hello")).await.unwrap()),
        1 => assert!(client.unary(say("fail")).await.is_err()),
        2 => {
            let request = Request::new(say("hang")).with_timeout(Duration::from_millis(2));
            let status = client.unary(request).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded);
        }
        // Given up when it has begun.
        3 => assert!(client.unary(say("hang")).now_or_never().is_none()),
        4 => {
            let mut call = std::pin::pin!(client.unary(say("hang")));
            for _ in 0..3 {
                assert!(call.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        }
        5 => {
            let words = stream::iter(["a", "b", "c"].map(say));
            assert_eq!(client.collect(words).await.unwrap().get_ref().text, "abc");
        }
        6 => {
            let messages = client.repeat(many(20)).await.unwrap().into_inner();
            assert_eq!(messages.count().await, 20);
        }
        // Left after a few messages.
        7 => {
            let mut messages = client.repeat(many(1000)).await.unwrap().into_inner();
            for _ in 0..3 {
                messages.message().await.unwrap().unwrap();
            }
        }
        8 => {
            let words = stream::iter(["a", "b"].map(say)).chain(stream::pending());
            let mut answers = client.chat(words).await.unwrap();
            assert_eq!(answers.message().await.unwrap(), Some(say("a")));
        }
        9 => {
            let client = client.with_sent_encoding(Encoding::Gzip);
            let answer = { client }.unary(say(&"long ".repeat(100))).await;
            assert_eq!(answer.unwrap().get_ref().text.len(), 500);
        }
        _ => {
            let client = client.with_max_decoding_message_size(3);
            let status = { client }.unary(say("longer than that")).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
        }
    }
}

/// Makes so many calls, some at a time, and each in a task of its own.
async fn calls<S, B>(client: &EchoClient<S>, count: usize)
where
    S: Service<http::Request<GrpcBody>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    EchoClient<S>: Clone + Send + Sync,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let calls = (0..count).map(|number| {
        let client = client.clone();
        let call = tokio::spawn(async move { call(&client, number).await });
        async { call.await.unwrap() }
    });
    stream::iter(calls)
        .buffer_unordered(20)
        .for_each(std::future::ready)
        .await;
}

fn runtime(paused: bool) -> tokio::runtime::Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .build()
        .unwrap()
}

#[test]
fn nothing_is_left_of_a_hundred_thousand_calls_in_memory() {
    runtime(true).block_on(async {
        let _turn = TURN.lock().await;
        let client = EchoClient::new(in_memory(server()));
        calls(&client, 1000).await;
        let (bytes, tasks) = (live_bytes(), Handle::current().metrics().num_alive_tasks());
        calls(&client, 100_000).await;
        let grown = live_bytes() - bytes;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
        assert!(grown <= SLACK, "{grown} bytes are left");
    });
}

#[test]
fn nothing_is_left_of_the_calls_of_one_connection() {
    runtime(false).block_on(async {
        let _turn = TURN.lock().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = Server::builder()
            .add_service(server())
            .serve_on(listener, stopped.map(drop));
        let serving = tokio::spawn(serving);
        let channel = Channel::connect(format!("http://{address}")).await.unwrap();
        let client = EchoClient::new(channel);
        calls(&client, 1000).await;
        let bytes = settled(&client).await;
        calls(&client, 5000).await;
        let grown = settled(&client).await - bytes;
        assert!(grown <= SLACK, "{grown} bytes are left");
        drop(stop);
        drop(client);
        serving.await.unwrap().unwrap();
        let metrics = Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

/// What is allocated when both sides know the end of all calls: one more has come after their resets.
async fn settled(client: &EchoClient<Channel>) -> isize {
    for _ in 0..10 {
        client.clone().unary(say("hello")).await.unwrap();
    }
    live_bytes()
}
