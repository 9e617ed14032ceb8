//! A client, before our server and before a raw one.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower_h2::client::{self, Connect, Connection};
use tower_h2::{ErrorKind, RecvBody, server};
use tower_service::Service;
use tower_util::{ServiceExt, service_fn};

use crate::support::{Answer, echo};
use crate::wire::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, STATUS_200,
    WINDOW_UPDATE, Wire,
};

type Client = Connection<Full<Bytes>>;

const CANCEL: u32 = 8;

/// A client of `service`, served by a task.
async fn connect<F>(limits: server::Builder, service: fn(Request<RecvBody>) -> F) -> Client
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(limits.serve_connection(far, service_fn(service)));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    client
}

/// A client, and the peer that the test plays.
async fn before_raw_server() -> (Client, h2::server::Connection<DuplexStream, Bytes>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    (client, h2::server::handshake(far).await.unwrap())
}

fn request(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://localhost/")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

async fn text(response: Response<RecvBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn late(_: Request<RecvBody>) -> Answer {
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(Response::new(Full::new(Bytes::from("late"))))
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_response() {
    let client = connect(server::Builder::new(), echo).await;
    let response = client.oneshot(request("hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_streams_that_the_peer_allows() {
    let limits = server::Builder::new().with_max_concurrent_streams(2);
    let client = connect(limits, late).await;
    // The peer's settings come with its first frames.
    let first = client.clone().oneshot(request("")).await;
    assert_eq!(text(first.unwrap()).await, "late");

    let mut handles = [client.clone(), client.clone(), client.clone()];
    for handle in &mut handles[..2] {
        handle.ready().await.unwrap();
    }
    let calls = [handles[0].call(request("")), handles[1].call(request(""))];
    let mut third = task::spawn(poll_fn(|cx| handles[2].poll_ready(cx)));
    assert_pending!(third.poll());
    for call in calls {
        text(call.await.unwrap()).await;
    }
    assert!(third.is_woken());
    assert_ready!(third.poll()).unwrap();
}

/// A client, and the wire before the peer's settings are sent.
async fn before_settings() -> (Client, Wire) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    (client, Wire::mute(far).await)
}

/// The frames that the client sends until it waits.
async fn heard(peer: &mut Wire) -> Vec<wire::Frame> {
    let mut frames = Vec::new();
    let second = Duration::from_secs(1);
    while let Ok(frame) = tokio::time::timeout(second, peer.next()).await {
        frames.push(frame.expect("the connection has ended"));
    }
    frames
}

/// The streams among them that it opens.
async fn opened(peer: &mut Wire) -> Vec<u32> {
    let frames = heard(peer).await;
    let heads = frames.iter().filter(|frame| frame.kind == HEADERS);
    heads.map(|frame| frame.stream).collect()
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
fn at_most(streams: u8) -> [u8; 6] {
    [0, 3, 0, 0, 0, streams]
}

#[tokio::test(start_paused = true)]
async fn a_burst_before_the_peers_settings_is_never_refused() {
    let (client, mut peer) = before_settings().await;
    for _ in 0..5 {
        tokio::spawn(client.clone().oneshot(request("")));
    }
    assert_eq!(opened(&mut peer).await, [1]);
    peer.send(SETTINGS, 0, 0, &at_most(3)).await;
    assert_eq!(opened(&mut peer).await, [3, 5]);
    peer.send(HEADERS, END_HEADERS | END_STREAM, 3, &[STATUS_200])
        .await;
    assert_eq!(opened(&mut peer).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn settings_without_a_limit_allow_any_number() {
    let (client, mut peer) = before_settings().await;
    for _ in 0..300 {
        tokio::spawn(client.clone().oneshot(request("")));
    }
    peer.send(SETTINGS, 0, 0, &[]).await;
    assert_eq!(opened(&mut peer).await.len(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_on_the_way_is_followed() {
    let (client, mut peer) = before_settings().await;
    peer.send(SETTINGS, 0, 0, &at_most(2)).await;
    for _ in 0..4 {
        tokio::spawn(client.clone().oneshot(request("")));
    }
    assert_eq!(opened(&mut peer).await, [1, 3]);
    peer.send(SETTINGS, 0, 0, &at_most(0)).await;
    for stream in [1, 3] {
        peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200])
            .await;
    }
    assert_eq!(opened(&mut peer).await, []);
    peer.send(SETTINGS, 0, 0, &at_most(1)).await;
    assert_eq!(opened(&mut peer).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_follows_a_window_that_the_settings_change() {
    let (client, mut peer) = before_settings().await;
    let window = |size: u8| [0, 4, 0, 0, 0, size];
    let data = |frames: Vec<wire::Frame>| -> Vec<usize> {
        let data = frames.iter().filter(|frame| frame.kind == DATA);
        data.map(|frame| frame.payload.len()).collect()
    };
    peer.send(SETTINGS, 0, 0, &window(0)).await;
    tokio::spawn(client.oneshot(request("twenty bytes to send")));
    assert_eq!(data(heard(&mut peer).await), []);
    // The window is 0, 8, 8 - 5 - 8, and 12 - 5.
    peer.send(SETTINGS, 0, 0, &window(8)).await;
    assert_eq!(data(heard(&mut peer).await), [8]);
    peer.send(SETTINGS, 0, 0, &window(3)).await;
    peer.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 4]).await;
    assert_eq!(data(heard(&mut peer).await), []);
    peer.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 8]).await;
    assert_eq!(data(heard(&mut peer).await), [7]);
    peer.send(SETTINGS, 0, 0, &window(100)).await;
    assert_eq!(data(heard(&mut peer).await), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let (mut client, _peer) = before_settings().await;
    let start = Instant::now();
    let error = client.ready().await.unwrap().call(request("")).await;
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    assert!(client.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reservation_goes_with_its_handle() {
    let client = connect(server::Builder::new(), echo).await;
    let mut reserved = client.clone();
    reserved.ready().await.unwrap();
    assert_eq!(client.open_streams(), 1);
    let clone = reserved.clone();
    assert_eq!(client.open_streams(), 1);
    drop(reserved);
    assert_eq!(client.open_streams(), 0);
    drop(clone);
    assert_eq!(client.open_streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_once_the_response_is_read_to_its_end() {
    let mut client = connect(server::Builder::new(), echo).await;
    let response = client.ready().await.unwrap().call(request("hello")).await;
    let mut body = response.unwrap().into_body();
    assert_eq!(client.open_streams(), 1);
    while body.frame().await.is_some() {}
    assert_eq!(client.open_streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_readiness_is_sent_all_the_same() {
    let mut client = connect(server::Builder::new(), echo).await;
    let response = client.call(request("hello")).await.unwrap();
    assert_eq!(text(response).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn calls_without_readiness_are_queued_beyond_what_the_peer_allows() {
    let limits = server::Builder::new().with_max_concurrent_streams(1);
    let mut client = connect(limits, late).await;
    let first = client.clone().oneshot(request("")).await.unwrap();
    assert_eq!(text(first).await, "late");
    let calls: Vec<_> = (0..5)
        .map(|_| tokio::spawn(client.call(request(""))))
        .collect();
    for call in calls {
        assert_eq!(text(call.await.unwrap().unwrap()).await, "late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_response_future_resets_the_stream() {
    let (client, mut peer) = before_raw_server().await;
    let call = tokio::spawn(client.oneshot(request("hello")));
    let (_request, mut respond) = peer.accept().await.unwrap().unwrap();
    call.abort();
    let moving = tokio::spawn(async move { peer.accept().await.is_none() });
    let reason = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::CANCEL);
    drop(respond);
    assert!(
        moving.await.unwrap(),
        "the connection ends with its last handle"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_response_future_resets_the_stream_though_no_other_may_be_opened() {
    let (mut client, mut peer) = before_settings().await;
    peer.send(SETTINGS, 0, 0, &at_most(1)).await;
    for stream in [1, 3] {
        let mut call = task::spawn(client.ready().await.unwrap().call(request("")));
        assert_pending!(call.poll());
        assert_eq!(opened(&mut peer).await, [stream]);
        drop(call);
        let frame = peer.next_of(RST_STREAM).await;
        assert_eq!((frame.stream, frame.code()), (stream, CANCEL));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_goaway_leaves_out_may_be_sent_again_and_what_it_names_is_finished() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    let mut peer = Wire::server(far).await;
    let first = tokio::spawn(client.ready().await.unwrap().call(request("first")));
    let second = tokio::spawn(client.ready().await.unwrap().call(request("second")));
    while peer.next().await.unwrap().stream != 3 {}
    peer.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &[STATUS_200])
        .await;

    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GoAway);
    assert!(error.is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn after_a_goaway_readiness_fails_and_says_that_nothing_was_processed() {
    let (mut client, mut peer) = before_raw_server().await;
    client.ready().await.unwrap();
    let call = tokio::spawn(client.call(request("")));
    let (_, mut respond) = peer.accept().await.unwrap().unwrap();
    peer.graceful_shutdown();
    tokio::spawn(async move { while peer.accept().await.is_some() {} });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = client.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GoAway);
    assert!(error.is_unprocessed());
    // What was accepted is answered all the same.
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_may_be_sent_again() {
    let (client, mut peer) = before_raw_server().await;
    let call = tokio::spawn(client.oneshot(request("")));
    let (_, mut respond) = peer.accept().await.unwrap().unwrap();
    respond.send_reset(Reason::REFUSED_STREAM);
    tokio::spawn(async move { while peer.accept().await.is_some() {} });
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reset);
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    assert!(error.is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn a_reset_after_processing_may_not() {
    let (client, mut peer) = before_raw_server().await;
    let call = tokio::spawn(client.oneshot(request("")));
    let (_, mut respond) = peer.accept().await.unwrap().unwrap();
    respond.send_reset(Reason::INTERNAL_ERROR);
    tokio::spawn(async move { while peer.accept().await.is_some() {} });
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reset);
    assert!(!error.is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_what_is_under_way_and_readiness() {
    let (mut client, mut peer) = before_raw_server().await;
    client.ready().await.unwrap();
    let call = tokio::spawn(client.call(request("")));
    let _request = peer.accept().await.unwrap().unwrap();
    drop(peer);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(!error.is_unprocessed());
    assert!(client.ready().await.unwrap_err().is_unprocessed());
    assert!(client.is_closed());
}

type Streaming = BoxBody<Bytes, Infallible>;

/// A body of what is sent into a channel.
fn channel_body() -> (mpsc::Sender<Bytes>, Streaming) {
    let (sender, mut receiver) = mpsc::channel(4);
    let frames = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_to_wait_is_sent_while_the_response_is_read() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|request: Request<RecvBody>| async {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    tokio::spawn(server::Builder::new().serve_connection(far, service));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);

    let (sender, body) = channel_body();
    let request = Request::post("http://localhost/").body(body).unwrap();
    let mut echoed = client.oneshot(request).await.unwrap().into_body();
    for message in ["one", "two", "three"] {
        sender.send(Bytes::from(message)).await.unwrap();
        let frame = echoed.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(sender);
    assert!(echoed.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_request_ends_with_its_response_where_that_is_wanted() {
    for ends in [false, true] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let builder = client::Builder::new();
        let builder = match ends {
            true => builder.with_requests_ended_by_responses(),
            false => builder,
        };
        let (client, driver) = builder.handshake(near).await.unwrap();
        tokio::spawn(driver);
        let mut peer = Wire::server(far).await;
        let (sender, body) = channel_body();
        let request = Request::post("http://localhost/").body(body).unwrap();
        let call = tokio::spawn(client.oneshot(request));
        sender.send(Bytes::from("begin")).await.unwrap();
        peer.next_of(DATA).await;
        peer.send(HEADERS, END_HEADERS | END_STREAM, 1, &[STATUS_200])
            .await;
        let response = call.await.unwrap().unwrap();
        assert!(response.into_body().frame().await.is_none());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sender.is_closed(), ends);
        if ends {
            assert_eq!(peer.next_of(RST_STREAM).await.code(), CANCEL);
        } else {
            sender.send(Bytes::from("end")).await.unwrap();
            assert_eq!(peer.next_of(DATA).await.payload, b"end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_response_ends_the_upload_of_its_request() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|_: Request<RecvBody>| async {
        let (sender, body) = channel_body();
        sender.send(Bytes::from("begun")).await.unwrap();
        tokio::spawn(async move { sender.closed().await });
        Ok::<_, Infallible>(Response::new(body))
    });
    tokio::spawn(server::Builder::new().serve_connection(far, service));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);

    let (sender, body) = channel_body();
    let request = Request::post("http://localhost/").body(body).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert!(!sender.is_closed());
    drop(response);
    sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_fails_its_request() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, service_fn(echo)));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    let frames = futures_util::stream::iter([Err::<Frame<Bytes>, _>("broken")]);
    let request = Request::post("http://localhost/").body(StreamBody::new(frames));
    let error = client.oneshot(request.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "broken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_alone_is_sent_to_the_origin() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|request: Request<RecvBody>| async move {
        let uri = request.uri().to_string();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(uri))))
    });
    tokio::spawn(server::Builder::new().serve_connection(far, service));
    let (client, driver) = client::Builder::new()
        .with_origin(&Uri::from_static("http://example.com:50051"))
        .handshake(near)
        .await
        .unwrap();
    tokio::spawn(driver);
    let request = Request::get("/path?query")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "http://example.com:50051/path?query");
}

#[tokio::test(start_paused = true)]
async fn connect_makes_connections_over_a_connectors_streams() {
    let connector = service_fn(|_: Uri| async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(server::Builder::new().serve_connection(far, service_fn(echo)));
        Ok::<_, Infallible>(near)
    });
    let mut connect = Connect::new(connector, client::Builder::new());
    let target = Uri::from_static("http://localhost");
    let client: Client = connect.ready().await.unwrap().call(target).await.unwrap();
    let response = client.oneshot(request("hello")).await.unwrap();
    assert_eq!(text(response).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_speak_http_2_is_not_connected_to() {
    for (said, kind) in [
        ("", ErrorKind::Timeout),
        ("HTTP/1.1 400 No\r\n\r\n", ErrorKind::Protocol),
    ] {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(said.as_bytes()).await.unwrap();
        let mut near = Some(near);
        let connector =
            service_fn(move |_: Uri| std::future::ready(Ok::<_, Infallible>(near.take().unwrap())));
        let connect = Connect::<_, Full<Bytes>>::new(connector, client::Builder::new());
        let error = connect.oneshot(Uri::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.is_unprocessed());
        let cause = std::error::Error::source(&error).unwrap();
        let cause = cause.downcast_ref::<tower_h2::Error>().unwrap();
        assert_eq!(cause.kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_fails_is_the_source_of_the_error() {
    let connector =
        service_fn(|_: Uri| async { Err::<DuplexStream, _>(std::io::Error::other("no route")) });
    let connect = Connect::<_, Full<Bytes>>::new(connector, client::Builder::new());
    let error = connect
        .oneshot(Uri::from_static("http://localhost"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.is_unprocessed());
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "no route"
    );
}

#[test]
fn connect_keeps_the_contract_of_services() {
    // The peers' ends, so that the pipes stay open.
    static FAR: std::sync::Mutex<Vec<DuplexStream>> = std::sync::Mutex::new(Vec::new());
    tower_test::contract::Checker::new()
        .requests(|| Uri::from_static("http://localhost"))
        .responses(|| {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let settings = wire::frame(SETTINGS, 0, 0, &[]);
            let mut hello = task::spawn(AsyncWriteExt::write_all(&mut far, &settings));
            assert_ready!(hello.poll()).unwrap();
            drop(hello);
            FAR.lock().unwrap().push(far);
            near
        })
        .check(|connector| Connect::<_, Full<Bytes>>::new(connector, client::Builder::new()))
        .assert();
}
