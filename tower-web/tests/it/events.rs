//! Streams of events, and streams, as a client sees them.

use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, iter, pending};
use tower_web::prelude::*;
use tower_web::sse::{Event, IntoEvent, LastEventId, Sse};
use tower_web::streams::{BodyStream, Stream};

type Events = ReceiverStream<Event>;

#[get("/silence")]
async fn silence() -> Sse<tokio_stream::Pending<Event>> {
    Sse::new(pending())
}

#[get("/long-silence")]
async fn long_silence() -> Sse<tokio_stream::Pending<Event>> {
    Sse::new(pending()).without_keep_alive()
}

/// One event each ten seconds.
#[get("/clock")]
async fn clock() -> Sse<Events> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for tick in 0.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if sender.send(Event::new(format!("{tick}"))).await.is_err() {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver))
}

#[get("/breaks")]
async fn breaks() -> Result<Sse<impl futures_core::Stream<Item = impl IntoEvent>>, Problem> {
    let items = [Ok(Event::new("before")), Err("the source has failed")];
    Ok(Sse::new(iter(items)))
}

#[get("/since")]
async fn since(last: Option<LastEventId>) -> String {
    last.map_or("the beginning".to_owned(), |last| last.0)
}

#[post("/double")]
async fn double(
    body: BodyStream,
) -> Stream<impl futures_core::Stream<Item = Result<String, std::io::Error>>> {
    let doubled = body.map(|piece| {
        let piece = piece.map_err(std::io::Error::other)?;
        Ok(String::from_utf8_lossy(&piece).repeat(2))
    });
    Stream::new(doubled).with_content_type("text/plain")
}

fn app() -> App {
    App::new()
        .route(silence)
        .route(long_silence)
        .route(clock)
        .route(breaks)
        .route(since)
        .route(double)
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_comments() {
    let response = app().test().get("/silence").stream().await;
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let mut body = response.into_body();
    let start = Instant::now();
    for n in 1..4 {
        assert_eq!(body.chunk().await.unwrap().unwrap(), ":\n\n");
        assert_eq!(start.elapsed().as_secs(), 15 * n);
    }

    let mut body = app().test().get("/long-silence").stream().await.into_body();
    let wait = tokio::time::timeout(Duration::from_secs(10_000), body.chunk());
    assert!(wait.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_speaks_is_not_interrupted_by_comments() {
    let mut body = app().test().get("/clock").stream().await.into_body();
    for tick in 0..5 {
        assert_eq!(
            body.chunk().await.unwrap().unwrap(),
            format!("data: {tick}\n\n")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn events_end_with_the_application() {
    let client = app().test();
    let mut events = client.get("/clock").events().await;
    assert_eq!(events.next().await.unwrap().data, "0");
    let begin = client.clone();
    let waiting = tokio::spawn(async move {
        let ended = events.next().await.is_none();
        (ended, Instant::now())
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    begin.service().begin_shutdown();
    let (ended, at) = waiting.await.unwrap();
    assert!(ended);
    assert_eq!(at, begun);
}

#[tokio::test]
async fn an_error_breaks_the_response_off() {
    let mut body = app().test().get("/breaks").stream().await.into_body();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "data: before\n\n");
    assert!(body.chunk().await.is_err());
}

#[tokio::test]
async fn a_client_tells_what_it_has_seen() {
    let client = app().test();
    client.get("/since").await.assert_text("the beginning");
    client
        .get("/since")
        .header("last-event-id", "7 é")
        .await
        .assert_text("7 é");
}

#[tokio::test]
async fn a_body_streams_in_and_out() {
    let pieces = iter([Ok::<_, tower_web::BoxError>("ab"), Ok(""), Ok("c")]);
    let response = app()
        .test()
        .post("/double")
        .body(Body::from_stream(pieces))
        .await;
    response
        .assert_header("content-type", "text/plain")
        .assert_text("ababcc");
}
