//! What a server bounds: time, and what a peer may send.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncRead, DuplexStream, ReadHalf};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_h2::{Error, ErrorKind, RecvBody, client, server};
use tower_service::Service;
use tower_util::{ServiceExt, service_fn};

use crate::support::{Answer, call, echo, serve};
use crate::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Wire, field, frame, post,
};

const ENHANCE_YOUR_CALM: u32 = 0xb;
const SECOND: Duration = Duration::from_secs(1);

type Served = JoinHandle<Result<(), Error>>;

fn start(builder: &server::Builder) -> (DuplexStream, Served) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (
        near,
        tokio::spawn(builder.serve_connection(far, service_fn(echo))),
    )
}

async fn wire(builder: &server::Builder) -> (Wire, Served) {
    let (io, server) = start(builder);
    (Wire::client(io).await, server)
}

async fn never(_: Request<RecvBody>) -> Answer {
    std::future::pending().await
}

/// The connection has failed for want of time, `after` so long.
async fn timed_out(server: Served, since: Instant, after: Duration) {
    let error = server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!(since.elapsed().as_secs(), after.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_up() {
    let (_io, server) = start(&server::Builder::new());
    timed_out(server, Instant::now(), SECOND * 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_given_up() {
    let (mut wire, server) = wire(&server::Builder::new()).await;
    let since = Instant::now();
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &post(&[]));
    let dripping = tokio::spawn(async move {
        for byte in head {
            wire.send_raw(&[byte]).await;
            tokio::time::sleep(SECOND).await;
        }
    });
    timed_out(server, since, SECOND * (15 + 8)).await;
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_given_up_without_an_answer() {
    let builder = server::Builder::new()
        .with_keep_alive(SECOND * 60)
        .with_keep_alive_timeout(SECOND * 5);
    let (mut wire, server) = wire(&builder).await;
    let since = Instant::now();
    let ping = wire.next_of(PING).await;
    assert_eq!(since.elapsed().as_secs(), 60);
    wire.send(PING, ACK, 0, &ping.payload).await;
    wire.next_of(PING).await;
    timed_out(server, since, SECOND * 125).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_ended_with_grace() {
    let builder = server::Builder::new().with_idle_timeout(SECOND * 60);
    let mut pair = serve(builder, service_fn(echo)).await;
    tokio::time::sleep(SECOND * 50).await;
    call(&mut pair.client, b"busy").await.unwrap();
    let since = Instant::now();
    pair.server.await.unwrap().unwrap();
    assert_eq!(since.elapsed().as_secs(), 60);
    pair.wire.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_finishes_its_requests_and_ends() {
    let service = service_fn(|_: Request<RecvBody>| async {
        tokio::time::sleep(SECOND * 100).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("late"))))
    });
    let builder = server::Builder::new().with_max_age(SECOND * 60);
    let mut pair = serve(builder, service).await;
    let since = Instant::now();
    let (_, body) = call(&mut pair.client, b"").await.unwrap();
    assert_eq!(body, "late");
    pair.server.await.unwrap().unwrap();
    assert_eq!(since.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn ages_differ_by_a_tenth_so_that_not_all_end_at_once() {
    let builder = server::Builder::new().with_max_age(SECOND * 1000);
    let since = Instant::now();
    let mut ages = Vec::new();
    for _ in 0..20 {
        let pair = serve(builder.clone(), service_fn(echo)).await;
        ages.push(tokio::spawn(async move {
            pair.server.await.unwrap().unwrap();
            drop(pair.client);
            since.elapsed().as_secs()
        }));
    }
    let mut seen = std::collections::BTreeSet::new();
    for age in ages {
        let age = age.await.unwrap();
        assert!((899..=1101).contains(&age), "{age}");
        seen.insert(age);
    }
    assert!(seen.len() > 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_open_after_the_grace_is_cut() {
    let builder = server::Builder::new()
        .with_idle_timeout(None)
        .with_max_age(SECOND * 10)
        .with_drain_timeout(SECOND * 30);
    let mut pair = serve(builder, service_fn(never)).await;
    let since = Instant::now();
    assert!(call(&mut pair.client, b"").await.is_err());
    let took = since.elapsed().as_secs();
    assert!((39..=41).contains(&took), "{took}");
    let error = pair.server.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// A response of ever more chunks.
async fn endless(
    _: Request<RecvBody>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let chunk = Ok::<_, Infallible>(Bytes::from_static(&[7; 4096]));
    let chunks = futures_util::stream::repeat_with(move || chunk.clone().map(Frame::data));
    Ok(Response::new(StreamBody::new(chunks)))
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_no_bytes_is_given_up() {
    let (near, far) = tokio::io::duplex(4 * 1024);
    let server = tokio::spawn(server::Builder::new().serve_connection(far, service_fn(endless)));
    let mut wire = Wire::client(near).await;
    wire.send(HEADERS, END_HEADERS | END_STREAM, 1, &post(&[]))
        .await;
    // A second more is for telling it, if it listens.
    timed_out(server, Instant::now(), SECOND * 31).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_window_is_shut_gets_no_more_than_its_window() {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let server = tokio::spawn(server::Builder::new().serve_connection(far, service_fn(endless)));
    let mut wire = Wire::client(near).await;
    wire.send(HEADERS, END_HEADERS | END_STREAM, 1, &post(&[]))
        .await;
    let mut received = 0;
    while received < 65_535 {
        received += wire.next_of(DATA).await.payload.len();
    }
    assert_eq!(received, 65_535);
    let more = tokio::time::timeout(SECOND * 600, wire.next()).await;
    assert!(more.is_err(), "{more:?}");
    // It is waited for: it is the peer's right to read later.
    assert!(!server.is_finished());
    wire.send(WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes())
        .await;
    wire.send(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes())
        .await;
    while received < 66_535 {
        received += wire.next_of(DATA).await.payload.len();
    }
    assert_eq!(received, 66_535);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let builder = server::Builder::new().with_stream_write_timeout(SECOND * 30);
    let _server = tokio::spawn(builder.serve_connection(far, service_fn(endless)));
    let mut wire = Wire::client(near).await;
    wire.send(WINDOW_UPDATE, 0, 0, &10_000_000_u32.to_be_bytes())
        .await;
    for stream in [1, 3] {
        wire.send(HEADERS, END_HEADERS | END_STREAM, stream, &post(&[]))
            .await;
    }
    let start = Instant::now();
    let reset = loop {
        let frame = wire.next().await.unwrap();
        if frame.kind == RST_STREAM {
            break frame;
        }
        // The one reads on, slowly, and the other doesn't.
        if frame.kind == DATA && frame.stream == 3 {
            tokio::time::sleep(SECOND / 10).await;
            let length = u32::try_from(frame.payload.len()).unwrap();
            wire.send(WINDOW_UPDATE, 0, 3, &length.to_be_bytes()).await;
        }
    };
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    // What it had sent before is read first.
    assert!((30..60).contains(&start.elapsed().as_secs()));
    wire.next_of(DATA).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_response_waits_for_a_window_no_longer_than_a_long_one() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let builder = server::Builder::new().with_stream_write_timeout(SECOND * 30);
    let _server = tokio::spawn(builder.serve_connection(far, service_fn(echo)));
    let mut wire = Wire::client(near).await;
    // SETTINGS_INITIAL_WINDOW_SIZE is none.
    wire.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    for stream in [1, 3] {
        wire.send(HEADERS, END_HEADERS, stream, &post(&[])).await;
        wire.send(DATA, END_STREAM, stream, b"hello").await;
    }
    tokio::time::sleep(SECOND * 29).await;
    // What there is room for is sent at once, as a peer may wait for it before it makes more.
    wire.send(WINDOW_UPDATE, 0, 3, &2_u32.to_be_bytes()).await;
    assert_eq!(wire.next_of(DATA).await.payload, &b"he"[..]);
    let start = Instant::now();
    assert_eq!(wire.next_of(RST_STREAM).await.stream, 1);
    assert_eq!(start.elapsed().as_secs(), 1);
    wire.send(WINDOW_UPDATE, 0, 3, &10_u32.to_be_bytes()).await;
    assert_eq!(wire.next_of(DATA).await.payload, &b"llo"[..]);
}

/// The server ends the connection for what was sent, and calmly.
async fn calmed<IO: AsyncRead + Unpin>(mut wire: Wire<IO>, server: Served) {
    let goaway = wire.next_of(GOAWAY).await;
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    let error = server.await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Flood | ErrorKind::Protocol),
        "{error:?}"
    );
}

/// Sends a frame often; in pieces, as a server that answers has to be read.
async fn flood(wire: Wire, frames: &[u8], times: usize) -> Wire<ReadHalf<DuplexStream>> {
    let (mut reader, mut writer) = wire.split();
    let frames = frames.repeat(100);
    let reading = tokio::spawn(async move {
        let mut last = None;
        while let Some(frame) = reader.next().await {
            let end = frame.kind == GOAWAY;
            last = Some(frame);
            if end {
                break;
            }
        }
        (reader, last)
    });
    for _ in 0..times / 100 {
        writer.send_raw(&frames).await;
    }
    let (mut reader, last) = reading.await.unwrap();
    reader.put_back(last);
    reader
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_ends_the_connection() {
    let (wire, server) = wire(&server::Builder::new()).await;
    let wire = flood(wire, &frame(PING, 0, 0, &[0; 8]), 50_000).await;
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_settings_ends_the_connection() {
    let (wire, server) = wire(&server::Builder::new()).await;
    let wire = flood(wire, &frame(SETTINGS, 0, 0, &[]), 50_000).await;
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_of_unknown_types_ends_the_connection() {
    let (wire, server) = wire(&server::Builder::new()).await;
    let wire = flood(wire, &frame(0xee, 0, 0, b"nothing"), 50_000).await;
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_continuations_ends_the_connection() {
    let (mut wire, server) = wire(&server::Builder::new()).await;
    wire.send(HEADERS, END_STREAM, 1, &post(&[])).await;
    let wire = flood(wire, &frame(CONTINUATION, 0, 1, &field("a", "b")), 50_000).await;
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_end_the_connection() {
    let (wire, server) = wire(&server::Builder::new().with_max_pending_resets(20)).await;
    let (mut reader, mut writer) = wire.split();
    let attack = tokio::spawn(async move {
        for stream in 0..5_000 {
            let id = 2 * stream + 1;
            writer.send(HEADERS, END_HEADERS, id, &post(&[])).await;
            writer.send(RST_STREAM, 0, id, &8_u32.to_be_bytes()).await;
        }
        writer
    });
    let goaway = reader.next_of(GOAWAY).await;
    reader.put_back(Some(goaway));
    attack.abort();
    let wire = reader;
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_of_streams_that_were_accepted_end_the_connection() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(server::Builder::new().serve_connection(far, service_fn(never)));
    let mut wire = Wire::client(near).await;
    let mut ended = false;
    for stream in 0..5_000 {
        let id = 2 * stream + 1;
        wire.send(HEADERS, END_HEADERS, id, &post(&[])).await;
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        wire.send(RST_STREAM, 0, id, &8_u32.to_be_bytes()).await;
        tokio::task::yield_now().await;
        if server.is_finished() {
            ended = true;
            break;
        }
    }
    assert!(ended);
    calmed(wire, server).await;
}

#[tokio::test(start_paused = true)]
async fn patient_pings_are_answered_for_ever() {
    let (mut wire, server) = wire(&server::Builder::new()).await;
    for _ in 0..20_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        wire.send(PING, 0, 0, &[1; 8]).await;
        assert_eq!(wire.next_of(PING).await.flags, ACK);
    }
    assert!(!server.is_finished());
}

#[tokio::test(start_paused = true)]
async fn header_fields_beyond_the_limit_are_answered_with_431() {
    let builder = server::Builder::new().with_max_header_list_size(1000);
    let mut pair = serve(builder, service_fn(echo)).await;
    let request = Request::post("http://localhost/").header("large", "x".repeat(2000));
    let (response, _) = pair
        .client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(call(&mut pair.client, b"well").await.unwrap().1, "well");
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_allowed_are_refused() {
    let builder = server::Builder::new().with_max_concurrent_streams(2);
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(builder.serve_connection(far, service_fn(never)));
    let mut wire = Wire::client(near).await;
    for id in [1, 3, 5] {
        wire.send(HEADERS, END_HEADERS | END_STREAM, id, &post(&[]))
            .await;
    }
    let reset = wire.next_of(RST_STREAM).await;
    assert_eq!(
        (reset.stream, reset.code()),
        (5, u32::from(Reason::REFUSED_STREAM))
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_stops_at_its_window() {
    let service = service_fn(|request: Request<RecvBody>| async move {
        let _unread = request;
        std::future::pending::<Answer>().await
    });
    let builder = server::Builder::new().with_initial_stream_window(1000);
    let mut pair = serve(builder, service).await;
    let request = Request::post("http://localhost/").body(()).unwrap();
    let (_response, mut send) = pair.client.send_request(request, false).unwrap();
    tokio::time::sleep(SECOND).await;
    send.reserve_capacity(5000);
    let room = std::future::poll_fn(|cx| send.poll_capacity(cx))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room, 1000);
    send.send_data(Bytes::from_static(&[0; 1000]), false)
        .unwrap();
    send.reserve_capacity(1);
    let more = std::future::poll_fn(|cx| send.poll_capacity(cx));
    assert!(tokio::time::timeout(SECOND * 600, more).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_a_server_that_does_not_answer_pings() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (client, driver) = client::Builder::new()
        .with_keep_alive(SECOND * 10)
        .with_keep_alive_timeout(SECOND * 5)
        .handshake::<_, Full<Bytes>>(near)
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let mut peer = Wire::server(far).await;
    let idle_since = Instant::now();
    let idle = tokio::time::timeout(SECOND * 100, peer.next_of(PING)).await;
    assert!(idle.is_err(), "no pings without requests");
    assert_eq!(idle_since.elapsed().as_secs(), 100);

    let request = Request::get("http://localhost/")
        .body(Full::default())
        .unwrap();
    let answer = tokio::spawn(client.oneshot(request));
    peer.next_of(PING).await;
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(answer.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_stream_learns_of_a_goaway() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    let mut peer = Wire::server(far).await;
    // SETTINGS_MAX_CONCURRENT_STREAMS is 1.
    peer.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).await;
    let request = || {
        Request::get("http://localhost/")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let _open = client.ready().await.unwrap().call(request());
    tokio::time::sleep(SECOND).await;
    let waiting = tokio::spawn(client.clone().oneshot(request()));
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished());
    peer.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    assert!(waiting.await.unwrap().unwrap_err().is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn adaptive_windows_grow_with_what_the_path_holds() {
    let (near, far) = tokio::io::duplex(64 * 1024 * 1024);
    let service = service_fn(|request: Request<RecvBody>| async move {
        let size = request
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .len();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(size.to_string()))))
    });
    let builder = server::Builder::new()
        .with_initial_stream_window(65_535)
        .with_initial_connection_window(65_535)
        .with_adaptive_windows();
    tokio::spawn(builder.serve_connection(far, service));
    let mut wire = Wire::client(near).await;
    wire.send(HEADERS, END_HEADERS, 1, &post(&[])).await;
    let mut window = 65_535_usize;
    let (mut sent, mut largest) = (0, 0);
    // The path takes 50 ms each way, and the client fills the window.
    for _ in 0..40 {
        while window >= 16_384 && sent < 8 << 20 {
            wire.send(DATA, 0, 1, &[0; 16_384]).await;
            window -= 16_384;
            sent += 16_384;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        while let Ok(Some(frame)) =
            tokio::time::timeout(Duration::from_millis(1), wire.next()).await
        {
            let value = frame
                .payload
                .last_chunk()
                .map(|bytes| u32::from_be_bytes(*bytes));
            match (frame.kind, frame.stream) {
                (PING, _) => wire.send(PING, ACK, 0, &frame.payload).await,
                (WINDOW_UPDATE, 0) => window += value.unwrap() as usize,
                (SETTINGS, _) if frame.flags & ACK == 0 => {
                    largest = largest.max(value.unwrap());
                    wire.send(SETTINGS, ACK, 0, &[]).await;
                }
                _ => {}
            }
        }
    }
    assert!(largest > 1 << 20, "{largest}");
}
