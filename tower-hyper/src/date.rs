//! The `date` of responses over HTTP/2, which hyper adds to those over HTTP/1.1 by itself (RFC 9110, section 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, HeaderMap, HeaderValue};

thread_local! {
    /// A second, and how it is written: most responses follow another in the same one.
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Adds the date, where the service hasn't.
pub(crate) fn stamp(headers: &mut HeaderMap) {
    if headers.contains_key(DATE) {
        return;
    }
    // A clock that is before 1970 isn't one, and a server without a clock must not send a date.
    if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
        headers.insert(DATE, written(now.as_secs()));
    }
}

fn written(second: u64) -> HeaderValue {
    LAST.with_borrow_mut(|last| match last {
        Some((known, value)) if *known == second => value.clone(),
        _ => {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            let text = httpdate::fmt_http_date(time);
            let value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
            *last = Some((second, value.clone()));
            value
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_as_http_wants_it() {
        // The example of RFC 9110, section 5.6.7.
        assert_eq!(written(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(written(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(written(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }

    #[test]
    fn a_date_of_the_service_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("once upon a time"));
        stamp(&mut headers);
        assert_eq!(headers[DATE], "once upon a time");
        headers.remove(DATE);
        stamp(&mut headers);
        assert!(headers.contains_key(DATE));
    }
}
