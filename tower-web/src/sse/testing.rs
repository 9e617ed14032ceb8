//! The other end of a stream of events, for tests.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::body::Body;
use crate::testing::TestRequest;

impl TestRequest {
    /// Listens to a stream of events, as an `EventSource` does.
    ///
    /// # Panics
    ///
    /// Panics where the response isn't one.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_web::prelude::*;
    /// use tower_web::sse::{Event, IntoEvent, Sse};
    ///
    /// #[get("/count")]
    /// async fn count() -> Sse<impl futures_core::Stream<Item = impl IntoEvent>> {
    ///     Sse::new(tokio_stream::iter([Event::new("one"), Event::new("two").with_name("more")]))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut events = App::new().route(count).test().get("/count").events().await;
    /// assert_eq!(events.next().await.unwrap().data, "one");
    /// assert_eq!(events.next().await.unwrap().name, "more");
    /// assert!(events.next().await.is_none());
    /// # }
    /// ```
    pub async fn events(self) -> TestEvents {
        let response = self.header("accept", "text/event-stream").stream().await;
        let content_type = response.headers().get(CONTENT_TYPE);
        let events =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        assert!(
            response.status() == StatusCode::OK && events,
            "no stream of events: {response:?}"
        );
        TestEvents {
            body: response.into_body(),
            reader: Reader::default(),
        }
    }
}

/// The listener's end of a stream of events in a test. [`TestRequest::events`] opens it.
#[derive(Debug)]
pub struct TestEvents {
    body: Body,
    reader: Reader,
}

/// An event as a page sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestEvent {
    /// `message`, unless it has another.
    pub name: String,
    /// Its text.
    pub data: String,
    /// The last id that was told, of this event or one before it.
    pub id: String,
    /// How long to wait before connecting anew, as it was told last.
    pub retry: Option<Duration>,
}

impl TestEvents {
    /// The next event, or `None` at the end of the stream. Comments are skipped.
    ///
    /// # Panics
    ///
    /// Panics where the stream breaks off.
    pub async fn next(&mut self) -> Option<TestEvent> {
        loop {
            if let Some(event) = self.reader.next() {
                return Some(event);
            }
            match self.body.chunk().await {
                Ok(Some(chunk)) => self.reader.text.extend_from_slice(&chunk),
                Ok(None) => return None,
                Err(error) => panic!("the stream broke off: {error}"),
            }
        }
    }
}

/// Reads events as the [HTML standard] says.
///
/// [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
#[derive(Debug, Default)]
struct Reader {
    /// What has come and isn't read yet.
    text: Vec<u8>,
    name: String,
    data: Option<String>,
    id: String,
    retry: Option<Duration>,
}

impl Reader {
    /// The next event that is there as a whole.
    fn next(&mut self) -> Option<TestEvent> {
        while let Some(line) = self.line() {
            if !line.is_empty() {
                self.read(&line);
                continue;
            }
            let name = std::mem::take(&mut self.name);
            if let Some(data) = self.data.take() {
                return Some(TestEvent {
                    name: if name.is_empty() {
                        "message".to_owned()
                    } else {
                        name
                    },
                    data,
                    id: self.id.clone(),
                    retry: self.retry,
                });
            }
        }
        None
    }

    fn line(&mut self) -> Option<String> {
        let end = self.text.iter().position(|b| b"\r\n".contains(b))?;
        let broken = match &self.text[end..] {
            // The other half may be on its way.
            b"\r" => return None,
            [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        let line = String::from_utf8_lossy(&self.text[..end]).into_owned();
        self.text.drain(..end + broken);
        Some(line)
    }

    fn read(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => {
                if let Ok(retry) = value.parse() {
                    self.retry = Some(Duration::from_millis(retry));
                }
            }
            // A comment, or nothing known.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Event;
    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<TestEvent> {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for chunk in chunks {
            reader.text.extend_from_slice(chunk);
            events.extend(std::iter::from_fn(|| reader.next()));
        }
        events
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let events = read(&[
            b": hi\n\nid: 1\n\ndata: a\rdata:b\r\r",
            b"\nevent:x\r\ndata\r\n\r\ndata: cut",
        ]);
        assert_eq!(events.len(), 2);
        assert_eq!(
            (&*events[0].name, &*events[0].data, &*events[0].id),
            ("message", "a\nb", "1")
        );
        assert_eq!(
            (&*events[1].name, &*events[1].data, &*events[1].id),
            ("x", "", "1")
        );
    }

    proptest! {
        /// Whatever is said is heard, wherever the network cuts it.
        #[test]
        fn any_text_makes_the_round_trip(data in "[a\r\n: é]{0,12}", name in "[a: é]{1,5}", id in "[a: é]{0,5}", cut: proptest::sample::Index) {
            let bytes = Event::new(&data).with_name(&name).with_id(&id).into_bytes();
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            let events = read(&[first, second]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&events[0].data, &data.replace("\r\n", "\n").replace('\r', "\n"));
            prop_assert_eq!(&events[0].name, &name);
            prop_assert_eq!(&events[0].id, &id);
        }
    }
}
