//! A channel before servers that come and go, in memory.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, Response, Uri};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tower_classify::{Class, Classify};
use tower_grpc::classify::ByStatus;
use tower_grpc::client::Channel;
use tower_grpc::{Code, Request, Status};
use tower_h2::client::Builder as Http2;

use crate::echo::pb::client::EchoClient;
use crate::echo::{Say, say};
use crate::raw::said;

const SECOND: Duration = Duration::from_secs(1);

type Client = EchoClient<Channel>;
type Peer = Connection<DuplexStream, Bytes>;
type Ends = mpsc::UnboundedReceiver<DuplexStream>;

/// A channel, and where the servers' ends of its connections come.
fn channel_with(settings: impl FnOnce(Http2) -> Http2) -> (Channel, Ends) {
    let (sender, ends) = mpsc::unbounded_channel();
    let connect = tower_util::service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connected = sender.send(far).map(|()| near);
        std::future::ready(connected.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused)))
    });
    let builder = Channel::builder("http://shop.example").unwrap();
    let builder = builder.with_connector(connect).with_http2(settings);
    (builder.lazy().unwrap(), ends)
}

fn client() -> (Client, Ends) {
    let (channel, ends) = channel_with(|http2| http2);
    (EchoClient::new(channel), ends)
}

async fn next(ends: &mut Ends) -> Peer {
    let end = timeout(60 * SECOND, ends.recv()).await;
    let end = end.expect("no connection is made").unwrap();
    h2::server::handshake(end).await.unwrap()
}

/// The next call on the connection.
async fn accept(peer: &mut Peer) -> SendResponse<Bytes> {
    let accepted = timeout(60 * SECOND, peer.accept()).await;
    accepted.expect("no call comes").unwrap().unwrap().1
}

fn answer(respond: &mut SendResponse<Bytes>, text: &str) {
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(said(text), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// Moves the connection to its end, and answers calls with `text`.
fn serve(mut peer: Peer, text: &'static str) {
    tokio::spawn(async move {
        while let Some(Ok((_, mut respond))) = peer.accept().await {
            answer(&mut respond, text);
        }
    });
}

/// Calls, in a task.
fn call(client: &Client) -> tokio::task::JoinHandle<Result<Say, Status>> {
    let mut client = client.clone();
    tokio::spawn(async move { Ok(client.unary(say("x")).await?.into_inner()) })
}

fn class(status: Status) -> Class {
    ByStatus.classify(&(), &Err::<(), _>(status))
}

#[tokio::test(start_paused = true)]
async fn after_a_goaway_calls_go_to_another_connection_and_those_under_way_are_finished() {
    let (client, mut ends) = client();
    let before = call(&client);
    let mut old = next(&mut ends).await;
    let mut respond = accept(&mut old).await;
    old.graceful_shutdown();
    let old = tokio::spawn(async move { while old.accept().await.is_some() {} });
    sleep(SECOND).await;
    let after = call(&client);
    serve(next(&mut ends).await, "new");
    assert_eq!(after.await.unwrap().unwrap(), say("new"));
    assert!(!before.is_finished());
    answer(&mut respond, "old");
    assert_eq!(before.await.unwrap().unwrap(), say("old"));
    old.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_refused_is_made_again_once() {
    let (client, mut ends) = client();
    let refused = call(&client);
    let mut peer = next(&mut ends).await;
    accept(&mut peer).await.send_reset(Reason::REFUSED_STREAM);
    answer(&mut accept(&mut peer).await, "again");
    let stream = tokio::spawn({
        let mut client = client.clone();
        async move { client.repeat(say("x")).await?.into_inner().message().await }
    });
    accept(&mut peer).await.send_reset(Reason::REFUSED_STREAM);
    answer(&mut accept(&mut peer).await, "and again");
    let twice = call(&client);
    for _ in 0..2 {
        accept(&mut peer).await.send_reset(Reason::REFUSED_STREAM);
    }
    serve(peer, "fine");
    assert_eq!(refused.await.unwrap().unwrap(), say("again"));
    assert_eq!(stream.await.unwrap().unwrap(), Some(say("and again")));
    let status = twice.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(class(status), Class::RejectedBeforeWork { after: None });
    // The connection stays.
    assert_eq!(call(&client).await.unwrap().unwrap(), say("fine"));
    assert!(ends.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_goaway_leaves_out_is_made_again_on_another_connection() {
    let (client, mut ends) = client();
    let calls = [call(&client), call(&client)];
    // It takes none of them in.
    let mut peer = next(&mut ends).await;
    peer.abrupt_shutdown(Reason::NO_ERROR);
    let old = tokio::spawn(async move { while peer.accept().await.is_some() {} });
    serve(next(&mut ends).await, "new");
    for moved in calls {
        assert_eq!(moved.await.unwrap().unwrap(), say("new"));
    }
    old.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_long_message_that_was_refused_is_not_made_again() {
    let (mut client, mut ends) = client();
    let refused = tokio::spawn({
        let mut client = client.clone();
        async move { client.repeat(say(&"x".repeat(256 * 1024))).await }
    });
    let unary = tokio::spawn(async move { client.unary(say(&"x".repeat(256 * 1024))).await });
    let mut peer = next(&mut ends).await;
    for _ in 0..2 {
        accept(&mut peer).await.send_reset(Reason::REFUSED_STREAM);
    }
    serve(peer, "never");
    let status = refused.await.unwrap().unwrap_err();
    assert_eq!(class(status), Class::RejectedBeforeWork { after: None });
    let status = unary.await.unwrap().unwrap_err();
    assert_eq!(class(status), Class::RejectedBeforeWork { after: None });
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_messages_that_was_refused_is_not_made_again() {
    let (mut client, mut ends) = client();
    let refused = tokio::spawn(async move {
        let messages = futures_util::stream::iter([say("x")]);
        client.collect(messages).await.unwrap_err()
    });
    let mut peer = next(&mut ends).await;
    accept(&mut peer).await.send_reset(Reason::REFUSED_STREAM);
    serve(peer, "never");
    let status = refused.await.unwrap();
    assert_eq!(class(status), Class::RejectedBeforeWork { after: None });
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_amid_calls_fails_them_and_the_next_call_gets_another() {
    let (client, mut ends) = client();
    let calls = [call(&client), call(&client), call(&client)];
    let mut peer = next(&mut ends).await;
    let mut under_way = Vec::new();
    for _ in &calls {
        under_way.push(accept(&mut peer).await);
    }
    drop(peer);
    for lost in calls {
        let status = lost.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        // They may have been processed: whether they may be made again is for their caller to know.
        assert!(matches!(class(status), Class::Retryable { .. }));
    }
    let again = call(&client);
    serve(next(&mut ends).await, "again");
    assert_eq!(again.await.unwrap().unwrap(), say("again"));
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_what_the_server_allows_wait_for_their_turn() {
    let (client, mut ends) = client();
    let calls: Vec<_> = (0..5).map(|_| call(&client)).collect();
    let end = ends.recv().await.unwrap();
    let mut builder = h2::server::Builder::new();
    let builder = builder.max_concurrent_streams(2);
    let mut peer = builder.handshake::<_, Bytes>(end).await.unwrap();
    let mut open = vec![accept(&mut peer).await, accept(&mut peer).await];
    for _ in 2..calls.len() {
        assert!(timeout(SECOND, peer.accept()).await.is_err());
        answer(&mut open.remove(0), "x");
        open.push(accept(&mut peer).await);
    }
    open.iter_mut().for_each(|respond| answer(respond, "x"));
    serve(peer, "x");
    for done in calls {
        done.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_ends_at_its_deadline() {
    let (client, mut ends) = client();
    let _first = call(&client);
    let end = ends.recv().await.unwrap();
    let mut builder = h2::server::Builder::new();
    let builder = builder.max_concurrent_streams(1);
    let mut peer = builder.handshake::<_, Bytes>(end).await.unwrap();
    let _open = accept(&mut peer).await;
    tokio::spawn(async move { while peer.accept().await.is_some() {} });
    let start = Instant::now();
    let request = Request::new(say("x")).with_timeout(SECOND);
    let status = client.clone().unary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_amid_a_call_is_found_out_by_pings() {
    let (channel, mut ends) = channel_with(|http2| {
        http2
            .with_keep_alive(10 * SECOND)
            .with_keep_alive_timeout(5 * SECOND)
    });
    let client = EchoClient::new(channel);
    let lost = call(&client);
    let mut peer = next(&mut ends).await;
    let _respond = accept(&mut peer).await;
    let start = Instant::now();
    // Nobody moves the server's side any more, and nobody closes it.
    let status = lost.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(start.elapsed().as_secs(), 15);
    let again = call(&client);
    serve(next(&mut ends).await, "again");
    assert_eq!(again.await.unwrap().unwrap(), say("again"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_listens_and_says_nothing_is_unavailable() {
    let (client, mut ends) = client();
    let start = Instant::now();
    let calls = [call(&client), call(&client)];
    let _mute = ends.recv().await.unwrap();
    for mute in calls {
        let status = mute.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
    assert_eq!(start.elapsed(), 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_speaks_something_else_is_unavailable() {
    let (client, mut ends) = client();
    let refused = call(&client);
    let mut end = ends.recv().await.unwrap();
    let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut end, answer)
        .await
        .unwrap();
    let status = refused.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
