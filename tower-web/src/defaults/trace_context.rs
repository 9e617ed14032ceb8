//! Which trace a request belongs to: W3C Trace Context, level 1.

use std::fmt;

use http::HeaderValue;

use super::current;
use super::random;
use super::request_id::write_hex;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead};
use crate::problem::Problem;

/// Where a request stands in a trace: the trace, the caller's span, and the span that this server has made for it.
///
/// A handler takes it as an argument, and [`current`](Self::current) gives it to whatever runs within the handler.
/// [`to_header_value`](Self::to_header_value) is what to send along as `traceparent` with requests of its own.
///
/// A `traceparent` that is malformed is as good as none, as the recommendation wants it: a trace begins here then.
///
/// # Example
///
/// ```
/// use tower_web::defaults::TraceContext;
///
/// let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = TraceContext::child_of(caller).unwrap();
/// assert!(context.is_sampled());
/// assert_eq!(context.parent_id(), Some(0x00f0_67aa_0ba9_02b7));
/// assert!(context.to_string().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
/// assert_ne!(context.to_string(), caller);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    /// Zero where the trace begins here.
    parent: u64,
    flags: u8,
}

impl TraceContext {
    /// A trace that begins here. It is sampled, as nobody has decided otherwise.
    pub(crate) fn root() -> Self {
        Self {
            trace: random::nonzero_u128(),
            span: random::nonzero_u64(),
            parent: 0,
            flags: 1,
        }
    }

    /// The trace of the caller with this `traceparent`, else a new one.
    #[inline]
    pub(crate) fn of(header: Option<&HeaderValue>) -> Self {
        header
            .and_then(|value| value.to_str().ok())
            .and_then(Self::child_of)
            .unwrap_or_else(Self::root)
    }

    /// A span of the trace that a `traceparent` names, or `None` where it isn't one.
    pub fn child_of(traceparent: &str) -> Option<Self> {
        let (trace, parent, flags) = parse(traceparent)?;
        Some(Self {
            trace,
            span: random::nonzero_u64(),
            parent,
            // The other bits mean nothing yet, and mustn't be passed on.
            flags: flags & 1,
        })
    }

    /// That of the request whose handler is running.
    pub fn current() -> Option<Self> {
        current::with(|facts| facts.trace)
    }

    /// The trace's number.
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// The trace's number, as logs have it.
    pub(crate) fn trace_id_in_hex(&self) -> impl fmt::Display + use<> {
        Hex(self.trace)
    }

    /// The number of the span that this server has made for the request.
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// The number of the caller's span, if there is one.
    pub fn parent_id(&self) -> Option<u64> {
        (self.parent != 0).then_some(self.parent)
    }

    /// Whether the caller may have recorded its span, so that this one is worth it, too.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The `traceparent` of requests that are made on the way.
    pub fn to_header_value(&self) -> HeaderValue {
        // Hexadecimal digits and dashes are always a value.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

struct Hex(u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(self.0, f)
    }
}

/// As `traceparent`, with this server's span.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace, span, flags, ..
        } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`. A later version may have more after these four.
fn parse(text: &str) -> Option<(u128, u64, u8)> {
    const LENGTH: usize = 55;
    if !text.is_ascii() || text.len() < LENGTH {
        return None;
    }
    let mut fields = text[..LENGTH].split('-');
    let version = hex(fields.next()?, 2)?;
    let trace = hex(fields.next()?, 32)?;
    let parent = hex(fields.next()?, 16)?;
    let flags = hex(fields.next()?, 2)?;
    let rest = &text[LENGTH..];
    let is_whole = match version {
        0xff => false,
        0 => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    (is_whole && trace != 0 && parent != 0).then_some((trace, parent as u64, flags as u8))
}

/// So many hexadecimal digits, which mustn't be capitals.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != count || !digits.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

impl Extract for TraceContext {
    type Body = NoBody;
    type Rejection = Problem;

    async fn extract(_: &mut RequestHead, _: ()) -> Result<Self, Problem> {
        Self::current().ok_or_else(|| {
            Problem::internal(
                "trace contexts are turned off: turn them on, or take `Option<TraceContext>`",
            )
        })
    }
}

/// `None` where trace contexts are turned off.
impl OptionalExtract for TraceContext {
    async fn extract_optional(_: &mut RequestHead, _: ()) -> Result<Option<Self>, Problem> {
        Ok(Self::current())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read() {
        let context = TraceContext::child_of(GOOD).unwrap();
        assert_eq!(
            context.trace_id(),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(context.parent_id(), Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled());
        assert!(
            !TraceContext::child_of(&GOOD.replace("-01", "-00"))
                .unwrap()
                .is_sampled()
        );
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replacen("00", "cc", 1);
        assert!(TraceContext::child_of(&later).is_some());
        assert!(TraceContext::child_of(&format!("{later}-more")).is_some());
        assert!(TraceContext::child_of(&format!("{later}.more")).is_none());
        assert!(TraceContext::child_of(&format!("{GOOD}-more")).is_none());
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf", "4bg"),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::child_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_the_next(trace in 1..u128::MAX, span in 1..u64::MAX, flags in 0..2_u8) {
            let context = TraceContext { trace, span, parent: 0, flags };
            let next = TraceContext::child_of(&context.to_string()).unwrap();
            prop_assert_eq!(next.trace, trace);
            prop_assert_eq!(next.parent, span);
            prop_assert_eq!(next.flags, flags);
        }

        #[test]
        fn nothing_makes_it_panic(text: String) {
            let _ = TraceContext::child_of(&text);
        }
    }
}
