//! Responses are compressed for clients that understand it.
//!
//! What is worth it: text of 1 KiB and more, whose type says that it shrinks, in a response that is whole and has no coding
//! yet. Events aren't compressed: each stream of them would hold some 300 KiB of state for ever, to save a few bytes now and
//! then.
//!
//! A response that has a secret in it and repeats what an attacker has sent tells the secret by its length (BREACH). Tokens
//! that change with each response prevent it; so does `cache-control: no-transform` on that response, which is
//! never compressed.

use std::task::{Context, Poll, Waker};

use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY,
};
use http_body::Body as _;

use self::coding::Coding;
use self::stream::Compressed;
use crate::body::Body;
use crate::respond::Response;

mod coding;
mod stream;

/// Below it, what is saved is less than what a packet holds, and the head grows.
pub(super) const SMALLEST: u64 = 1024;

/// What is compressed at once, and longer bodies in pieces of it. Others get their turn in between.
const PIECE: usize = 64 * 1024;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Compresses the response if it is worth it, and the client understands it.
#[inline]
pub(super) fn compress(accepted: Option<&HeaderValue>, is_head: bool, response: &mut Response) {
    // Most are small, or have a length that the type needn't be looked at for.
    let is_small = matches!(response.body().size_hint().exact(), Some(length) if length < SMALLEST);
    if !is_small && is_worth_it(response) {
        let whole = std::mem::replace(response, Response::new(Body::empty()));
        *response = encode(accepted, is_head, whole);
    }
}

fn is_worth_it(response: &Response) -> bool {
    let headers = response.headers();
    let is_whole = !matches!(
        response.status(),
        StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::NO_CONTENT
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::NOT_MODIFIED
    );
    let forbids = [CONTENT_ENCODING, CONTENT_RANGE, CONTENT_DIGEST];
    is_whole
        && headers.get(CONTENT_TYPE).is_some_and(shrinks)
        && !forbids.iter().any(|name| headers.contains_key(name))
        && !may_not_be_transformed(headers)
}

/// RFC 9111, section 5.2.2.6.
fn may_not_be_transformed(headers: &HeaderMap) -> bool {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    directives.any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

/// Whether what has this type gets smaller. Pictures, sound and archives are as small as they get.
fn shrinks(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("text", subtype)) => subtype != "event-stream",
        Some(("application", subtype)) => {
            matches!(
                subtype,
                "json" | "javascript" | "xml" | "wasm" | "x-ndjson" | "jsonl" | "yaml" | "graphql"
            ) || subtype.ends_with("+json")
                || subtype.ends_with("+xml")
        }
        Some(("image", subtype)) => matches!(subtype, "svg+xml" | "bmp" | "x-icon"),
        Some(("font", subtype)) => matches!(subtype, "ttf" | "otf"),
        _ => false,
    }
}

fn encode(accepted: Option<&HeaderValue>, is_head: bool, mut response: Response) -> Response {
    // A cache has to know that others may get it otherwise.
    vary(response.headers_mut());
    let Some(coding) = accepted
        .and_then(|value| value.to_str().ok())
        .and_then(coding::negotiate)
    else {
        return response;
    };
    if is_head {
        tell(coding, response.headers_mut());
        // It isn't sent, and its length would be another.
        return response.map(|_| Body::new(Compressed::nothing()));
    }
    let (mut parts, mut body) = response.into_parts();
    let body = match at_once(&mut body) {
        Some(bytes) => {
            let smaller = coding.encode_all(&bytes);
            if smaller.len() >= bytes.len() {
                return Response::from_parts(parts, Body::from(bytes));
            }
            Body::from(smaller)
        }
        None => Body::new(Compressed::new(body, coding.encoder())),
    };
    tell(coding, &mut parts.headers);
    Response::from_parts(parts, body)
}

/// The body's bytes, where they are there and few.
fn at_once(body: &mut Body) -> Option<bytes::Bytes> {
    let length = body.size_hint().exact()?;
    if length > PIECE as u64 || !body.is_full() {
        return None;
    }
    let mut cx = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

fn vary(headers: &mut HeaderMap) {
    let is_told = headers
        .get_all(VARY)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|name| name == "*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()));
    if !is_told {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

fn tell(coding: Coding, headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    // A range of what is made anew each time means nothing.
    headers.remove(ACCEPT_RANGES);
    // It isn't the same bytes any more, but means the same (RFC 9110, section 8.8.1).
    let strong = headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""));
    if let Some(weak) = strong.and_then(weakened) {
        headers.insert(ETAG, weak);
    }
}

fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_already_is_left_alone() {
        let shrinks = |text: &'static str| shrinks(&HeaderValue::from_static(text));
        for yes in [
            "text/html; charset=utf-8",
            "application/json",
            "Application/Problem+JSON",
            "image/svg+xml",
        ] {
            assert!(shrinks(yes), "{yes}");
        }
        for no in [
            "",
            "image/png",
            "video/mp4",
            "application/zip",
            "application/octet-stream",
            "application/grpc",
            "font/woff2",
            "text/event-stream",
        ] {
            assert!(!shrinks(no), "{no}");
        }
    }

    #[test]
    fn vary_is_told_once() {
        let mut headers = HeaderMap::new();
        headers.insert(VARY, HeaderValue::from_static("origin, Accept-Encoding"));
        vary(&mut headers);
        assert_eq!(headers.get_all(VARY).iter().count(), 1);
        headers.insert(VARY, HeaderValue::from_static("origin"));
        vary(&mut headers);
        assert_eq!(headers.get_all(VARY).iter().count(), 2);
    }
}
