//! Server-sent events: a stream that a page listens to.

use std::fmt;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http_body::Frame;
use pin_project_lite::pin_project;
use serde_core::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::BoxError;
use crate::body::Body;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead};
use crate::problem::{Location, Rejection};
use crate::respond::{Asked, IntoResponse, Response};
use crate::shutdown::Shutdown;

mod testing;

pub use testing::{TestEvent, TestEvents};

/// A stream of events as a response: `text/event-stream`, for an `EventSource` in a browser.
///
/// The items are an [`Event`], or a `Result` of one; an error breaks the response off, and is logged. While there are
/// no events, a comment goes out every 15 seconds, by which a client that is gone is noticed and nobody on the way takes
/// the connection for idle. The response ends when the application shuts down; a browser connects anew by
/// itself, and tells with [`LastEventId`] what it has seen.
///
/// **Cancellation.** The stream is dropped when the client has gone.
///
/// # Example
///
/// ```
/// use tower_web::sse::{Event, Sse};
/// use tower_web::respond::IntoResponse;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let events = tokio_stream::iter([Event::new("one"), Event::new("two").with_name("count").with_id("2")]);
/// let response = Sse::new(events).into_response();
/// assert_eq!(response.headers()["content-type"], "text/event-stream");
///
/// let text = response.into_body().bytes().await.unwrap();
/// assert_eq!(text, "data: one\n\ndata: two\nevent: count\nid: 2\n\n");
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a response does nothing unless a handler returns it"]
pub struct Sse<S> {
    events: S,
    keep_alive: Option<Duration>,
}

const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl<S> Sse<S> {
    /// The events of this stream.
    pub const fn new(events: S) -> Self {
        Self {
            events,
            keep_alive: Some(KEEP_ALIVE),
        }
    }

    /// With a comment after so long a silence.
    pub const fn with_keep_alive(mut self, silence: Duration) -> Self {
        self.keep_alive = Some(silence);
        self
    }

    /// Without comments: silence stays silent.
    pub const fn without_keep_alive(mut self) -> Self {
        self.keep_alive = None;
        self
    }
}

impl<S> Sse<S>
where
    S: Stream + Send + 'static,
    S::Item: IntoEvent,
{
    fn respond(self, shutdown: Option<Shutdown>) -> Response {
        let body = Body::new(Events {
            events: self.events,
            silence: self.keep_alive.map(Silence::new),
            end: shutdown
                .map(|mut shutdown| -> End { Box::pin(async move { shutdown.wait().await }) }),
        });
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx collects a response before it passes it on, unless it is told otherwise.
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
        response
    }
}

impl<S> IntoResponse for Sse<S>
where
    S: Stream + Send + 'static,
    S::Item: IntoEvent,
{
    const NEEDS_REQUEST: bool = true;

    fn into_response(self) -> Response {
        self.respond(None)
    }

    fn into_response_to(self, request: &Asked) -> Response {
        self.respond(request.shutdown())
    }
}

/// What a stream of events is made of: an [`Event`], or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't an event",
    label = "the stream's items aren't events",
    note = "make events of them: `stream.map(|item| Event::new(item))`, or `Event::json(&item)`"
)]
pub trait IntoEvent {
    /// The event, or why there are no more.
    ///
    /// # Errors
    ///
    /// The stream's own.
    fn into_event(self) -> Result<Event, BoxError>;
}

impl IntoEvent for Event {
    fn into_event(self) -> Result<Event, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> IntoEvent for Result<Event, E> {
    fn into_event(self) -> Result<Event, BoxError> {
        self.map_err(Into::into)
    }
}

/// One event, as the [HTML standard] writes it.
///
/// [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// All its lines.
    text: String,
}

impl Event {
    /// An event with this text, of as many lines as it likes.
    pub fn new(data: impl AsRef<str>) -> Self {
        let data = data.as_ref();
        let mut text = String::with_capacity(data.len() + 32);
        for line in lines(data) {
            field(&mut text, "data", line);
        }
        Self { text }
    }

    /// An event whose text is JSON.
    ///
    /// # Errors
    ///
    /// Fails where the value can't be written as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::to_string(value)?))
    }

    /// A line that a client doesn't show to its page.
    pub fn comment(comment: impl AsRef<str>) -> Self {
        let mut text = String::new();
        for line in lines(comment.as_ref()) {
            field(&mut text, "", line);
        }
        Self { text }
    }

    /// With a name, for which a page listens with `addEventListener`. Without one, it is `message`.
    ///
    /// A name has one line: a line break in it becomes a space.
    #[must_use]
    pub fn with_name(mut self, name: impl AsRef<str>) -> Self {
        field(&mut self.text, "event", &one_line(name.as_ref()));
        self
    }

    /// With an id, which the client sends as `Last-Event-ID` when it connects anew.
    ///
    /// An id has one line, and no NUL: what it mustn't have becomes a space.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        field(&mut self.text, "id", &one_line(id.as_ref()));
        self
    }

    /// With how long the client waits before it connects anew, in whole milliseconds.
    #[must_use]
    pub fn with_retry(mut self, wait: Duration) -> Self {
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "retry: {}", wait.as_millis());
        self
    }

    fn into_bytes(self) -> Bytes {
        let mut text = self.text;
        text.push('\n');
        text.into()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event").field(&self.text).finish()
    }
}

fn field(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(": ");
    text.push_str(value);
    text.push('\n');
}

/// The lines of a text, by each of the standard's three breaks.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            return rest.take();
        };
        let broken = if text[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = Some(&text[end + broken..]);
        Some(&text[..end])
    })
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\0'], " ")
}

/// The id of the last event that the client has seen before it connected anew: take it as an `Option`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEventId(pub String);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

impl Extract for LastEventId {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        Self::extract_optional(head, ())
            .await?
            .ok_or_else(|| refuse("is missing"))
    }
}

impl OptionalExtract for LastEventId {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        let Some(id) = head.headers.get(LAST_EVENT_ID) else {
            return Ok(None);
        };
        match std::str::from_utf8(id.as_bytes()) {
            Ok(id) => Ok(Some(Self(id.to_owned()))),
            Err(_) => Err(refuse("isn't UTF-8")),
        }
    }
}

fn refuse(detail: &'static str) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, detail)
        .at(Location::Header, LAST_EVENT_ID.as_str().to_owned())
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

pin_project! {
    /// The events on their way.
    struct Events<S> {
        #[pin]
        events: S,
        silence: Option<Silence>,
        // The application's.
        end: Option<End>,
    }
}

impl<S> http_body::Body for Events<S>
where
    S: Stream,
    S::Item: IntoEvent,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if let Some(end) = this.end {
            if end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
        }
        if let Poll::Ready(event) = this.events.poll_next(cx) {
            if let Some(silence) = this.silence {
                silence.broken();
            }
            return Poll::Ready(event.map(|event| match event.into_event() {
                Ok(event) => Ok(Frame::data(event.into_bytes())),
                Err(error) => {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "a stream of events broke off"
                    );
                    Err(error)
                }
            }));
        }
        let Some(silence) = this.silence else {
            return Poll::Pending;
        };
        ready!(silence.poll(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
    }
}

/// How long nothing has been said.
struct Silence {
    bound: Duration,
    /// `None` until somebody waits.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    const fn new(bound: Duration) -> Self {
        Self {
            bound,
            since: None,
            timer: None,
        }
    }

    /// The timer stays where it is: it is moved when it fires.
    fn broken(&mut self) {
        self.since = None;
    }

    /// Waits until the silence is too long, and breaks it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        // Too long for the clock is for ever.
        let Some(end) = since.checked_add(self.bound) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= end {
                self.since = None;
                timer.as_mut().reset(end);
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: Event) -> String {
        String::from_utf8(event.into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn each_line_of_a_text_is_a_line_of_the_event() {
        assert_eq!(
            text(Event::new("a\nb\r\nc\rd")),
            "data: a\ndata: b\ndata: c\ndata: d\n\n"
        );
        assert_eq!(text(Event::new("")), "data: \n\n");
        assert_eq!(text(Event::new("a\n")), "data: a\ndata: \n\n");
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_name_or_an_id() {
        let event = Event::new("x")
            .with_name("a\ndata: b")
            .with_id("1\r\n\x002");
        assert_eq!(text(event), "data: x\nevent: a data: b\nid: 1   2\n\n");
        assert_eq!(text(Event::comment("a\ndata: b")), ": a\n: data: b\n\n");
    }

    #[test]
    fn an_event_tells_when_to_come_again() {
        let event = Event::new("x").with_retry(Duration::from_secs(2));
        assert_eq!(text(event), "data: x\nretry: 2000\n\n");
    }

    #[test]
    fn an_event_may_be_json() {
        assert_eq!(
            text(Event::json(&["a\nb"]).unwrap()),
            "data: [\"a\\nb\"]\n\n"
        );
    }
}
