//! What a request is called, from the client's log to ours.

use std::fmt;
use std::io::Write as _;

use http::{HeaderName, HeaderValue};

use super::current;
use super::random;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead};
use crate::problem::Problem;
use crate::sheet;

/// The header.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones aren't taken from clients: it stands in each line of the log.
const LONGEST: usize = 128;

/// What a request is called: in the response's `x-request-id`, in each problem, and in each line of the log.
///
/// One that the client has sent is taken over where it is sane: at most 128 letters, digits and `-_.:/+=@`. Any other,
/// and none, is replaced by the number of the [trace](super::TraceContext), in 32 hexadecimal digits.
///
/// A handler takes it as an argument, and [`current`](Self::current) gives it to whatever runs within the handler.
///
/// # Example
///
/// ```
/// use tower_web::prelude::*;
/// use tower_web::defaults::RequestId;
///
/// #[get("/")]
/// async fn who(id: RequestId) -> String {
///     id.to_string()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = App::new().route(who).test();
/// let response = client.get("/").header("x-request-id", "order-7").await;
/// response.assert_text("order-7").assert_header("x-request-id", "order-7");
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Client(HeaderValue),
    /// Written out where it is needed.
    Own(u128),
}

impl RequestId {
    /// What the client has sent, else `own`, else a new one.
    #[inline]
    pub(crate) fn of(header: Option<&HeaderValue>, own: Option<u128>) -> Self {
        match header {
            Some(value) if is_sane(value.as_bytes()) => Self(Source::Client(value.clone())),
            _ => Self(Source::Own(own.unwrap_or_else(random::nonzero_u128))),
        }
    }

    /// That of the request whose handler is running.
    pub fn current() -> Option<Self> {
        current::with(|facts| facts.id.clone())
    }

    /// As the value of a header.
    pub fn to_header_value(&self) -> HeaderValue {
        match &self.0 {
            Source::Client(value) => value.clone(),
            // Hexadecimal digits are always a value.
            Source::Own(number) => sheet::written(|writer| writer.write_all(&hex(*number)))
                .ok()
                .and_then(|text| HeaderValue::from_maybe_shared(text).ok())
                .unwrap_or(HeaderValue::from_static("")),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Client(value) => f.write_str(value.to_str().unwrap_or_default()),
            Source::Own(number) => write_hex(*number, f),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// Whether it may stand in a log: no spaces, no quotes, nothing that a terminal or a shell understands.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(is_plain)
}

/// Writes 32 digits, as `{:032x}` does at several times the cost: they stand in each line of the log.
pub(crate) fn write_hex(number: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match std::str::from_utf8(&hex(number)) {
        Ok(digits) => f.write_str(digits),
        Err(_) => write!(f, "{number:032x}"),
    }
}

fn hex(number: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

impl Extract for RequestId {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(_: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        Self::current().ok_or_else(|| {
            Problem::internal(
                "request ids are turned off: turn them on, or take `Option<RequestId>`",
            )
        })
    }
}

/// `None` where request ids are turned off.
impl OptionalExtract for RequestId {
    async fn extract_optional(_: &mut RequestHead, _: ()) -> Result<Option<Self>, Problem> {
        Ok(Self::current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_line_of_the_log_is_not_taken_over() {
        for sane in ["a", "01HF-7", "urn:uuid:0/1+2=3@4_5.6", &"x".repeat(128)] {
            assert!(is_sane(sane.as_bytes()), "{sane}");
        }
        for odd in ["", "a b", "a\"b", "a\x1b[31m", "a;b", "é", &"x".repeat(129)] {
            assert!(!is_sane(odd.as_bytes()), "{odd}");
        }
    }

    #[test]
    fn those_that_share_memory_stay_as_they_were() {
        let ids: Vec<_> = (1..100)
            .map(|number| RequestId(Source::Own(number)))
            .collect();
        let values: Vec<_> = ids.iter().map(RequestId::to_header_value).collect();
        for (id, value) in ids.iter().zip(values) {
            assert_eq!(value, id.to_string());
        }
    }

    #[test]
    fn both_ways_of_writing_it_agree() {
        for number in [1, 0x0123_4567_89ab_cdef, u128::MAX] {
            let id = RequestId(Source::Own(number));
            assert_eq!(id.to_header_value(), id.to_string());
        }
    }
}
