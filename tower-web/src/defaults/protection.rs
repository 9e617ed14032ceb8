//! Headers that keep browsers from doing what nobody asked them to.

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, Entry, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// A browser takes a response for what its `Content-Type` says, not for what it looks like: an upload that looks like a
/// page isn't run as one.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Another site is told that somebody came from here, and not from which page: paths hold names and numbers.
const REFERRER: HeaderValue = HeaderValue::from_static("strict-origin-when-cross-origin");

/// No other site shows a page of this one in a frame, where a user would click on what isn't seen. Twice, as old
/// browsers know the first only.
const FRAMES: HeaderValue = HeaderValue::from_static("SAMEORIGIN");
const FRAME_ANCESTORS: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'");

/// Puts in what the application hasn't set itself.
#[inline]
pub(super) fn protect(headers: &mut HeaderMap) {
    set(headers, X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    set(headers, REFERRER_POLICY, REFERRER);
    if is_page(headers.get(CONTENT_TYPE)) {
        set(headers, X_FRAME_OPTIONS, FRAMES);
        set(headers, CONTENT_SECURITY_POLICY, FRAME_ANCESTORS);
    }
}

#[inline]
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if let Entry::Vacant(vacant) = headers.entry(name) {
        vacant.insert(value);
    }
}

/// Whether it is something that can be shown in a frame, and clicked on.
fn is_page(content_type: Option<&HeaderValue>) -> bool {
    let Some(value) = content_type else {
        return false;
    };
    let value = value.as_bytes();
    ["text/html", "application/xhtml", "image/svg"]
        .iter()
        .any(|page| {
            value
                .get(..page.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(page.as_bytes()))
        })
}
