//! What a route's captures have caught, as places in the request's path.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use http::StatusCode;
use percent_encoding::percent_decode_str;

use crate::extract::RequestHead;
use crate::problem::{Location, Rejection};

/// How many are held without an allocation.
const INLINE: usize = 4;

/// Places in a path, in the order of the captures. `http` bounds a URI to less than 65 536 bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captures {
    inline: [(u16, u16); INLINE],
    len: u16,
    // Few paths have as many.
    #[expect(clippy::box_collection, reason = "a request is moved about with it")]
    rest: Option<Box<Vec<(u16, u16)>>>,
}

impl Captures {
    pub(crate) fn push(&mut self, start: usize, end: usize) {
        let (Ok(start), Ok(end)) = (u16::try_from(start), u16::try_from(end)) else {
            // Not a path that `http` lets be; what doesn't fit catches nothing.
            return self.push(0, 0);
        };
        let len = usize::from(self.len);
        match self.inline.get_mut(len) {
            Some(place) => *place = (start, end),
            None => self.rest.get_or_insert_default().push((start, end)),
        }
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
        if let Some(rest) = &mut self.rest {
            rest.truncate(usize::from(self.len).saturating_sub(INLINE));
        }
    }

    pub(crate) fn range(&self, position: usize) -> Option<Range<usize>> {
        if position >= usize::from(self.len) {
            return None;
        }
        let (start, end) = match self.inline.get(position) {
            Some(place) => *place,
            None => *self.rest.as_ref()?.get(position - INLINE)?,
        };
        Some(usize::from(start)..usize::from(end))
    }
}

/// A type that a capture can be: any that is read from text ([`FromStr`]).
#[diagnostic::on_unimplemented(
    message = "a capture can't be a `{Self}`",
    label = "can't be read from text",
    note = "a capture's type implements `FromStr`, with an error that implements `Display`"
)]
pub trait FromCapture: Sized {
    /// Reads it from what the capture has caught, decoded.
    ///
    /// # Errors
    ///
    /// The reason, in words for the client.
    fn from_capture(text: Cow<'_, str>) -> Result<Self, String>;
}

impl<T> FromCapture for T
where
    T: FromStr,
    T::Err: Display,
{
    fn from_capture(text: Cow<'_, str>) -> Result<Self, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// Reads the capture at `position`. What doesn't parse is a 400 that names the capture.
pub(crate) fn capture<T: FromCapture>(
    head: &RequestHead,
    position: usize,
    name: &'static str,
) -> Result<T, Rejection> {
    let text = decode(head, position, name)?;
    T::from_capture(text).map_err(|reason| refuse(name, reason))
}

/// What the capture at `position` has caught, decoded.
pub(crate) fn decode<'a>(
    head: &'a RequestHead,
    position: usize,
    name: &'static str,
) -> Result<Cow<'a, str>, Rejection> {
    let text = head.capture_at(position).unwrap_or_default();
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| refuse(name, "isn't UTF-8".to_owned()))
}

#[cold]
fn refuse(name: &'static str, reason: String) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, reason).at(Location::Path, name)
}
