//! What HTTP/2 wants of header fields that HTTP/1 doesn't.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what is about an HTTP/1 connection (RFC 9113, section 8.2.2), which a peer must refuse.
pub(crate) fn strip_connection_fields(headers: &mut HeaderMap) {
    // Nearly always none is there, or only what gRPC's requests have: one pass is cheaper than six lookups.
    let is_suspect = |(name, value): (&HeaderName, &HeaderValue)| {
        *name == CONNECTION
            || *name == TRANSFER_ENCODING
            || *name == UPGRADE
            || *name == KEEP_ALIVE
            || *name == PROXY_CONNECTION
            || (*name == TE && value != "trailers")
    };
    if !headers.iter().any(is_suspect) {
        return;
    }
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    if headers.get_all(TE).iter().any(|value| value != "trailers") {
        headers.remove(TE);
    }
}

/// Says how long the body is, where it is known and isn't said yet.
pub(crate) fn announce_length<B: Body>(headers: &mut HeaderMap, body: &B) {
    if let Some(length) = body.size_hint().exact() {
        if !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
}

/// The length that the head announces. HTTP/2 bodies have an end of their own, so it is only a hint,
/// which h2 holds the peer to.
pub(crate) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    // Heads are short, and gRPC's have none: one pass is cheaper than a lookup, unless it is long.
    if headers.keys_len() < 16 && !headers.keys().any(|name| *name == CONTENT_LENGTH) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn te_is_kept_where_it_asks_for_trailers_only() {
        let mut headers = HeaderMap::new();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        strip_connection_fields(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[TE], "trailers");

        headers.append(TE, HeaderValue::from_static("gzip"));
        strip_connection_fields(&mut headers);
        assert!(headers.is_empty());
    }
}
