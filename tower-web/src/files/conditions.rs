//! Whether a client needs the file at all (RFC 9110, section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

/// By what one state of a file is told from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    /// Strong, with its quotes.
    pub(super) etag: Option<&'a str>,
    pub(super) modified: Option<SystemTime>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// The client has it.
    NotModified,
    /// It isn't what the client wants it to be.
    Failed,
}

impl Validators<'_> {
    /// Judges a `GET` or `HEAD`, in the order of section 13.2.2.
    pub(super) fn judge(self, headers: &HeaderMap) -> Verdict {
        if let Some(matches) = self.any_tag(headers, &IF_MATCH, strong) {
            if !matches {
                return Verdict::Failed;
            }
        } else if self.since(headers, &IF_UNMODIFIED_SINCE) == Some(false) {
            return Verdict::Failed;
        }
        if let Some(matches) = self.any_tag(headers, &IF_NONE_MATCH, weak) {
            if matches {
                return Verdict::NotModified;
            }
        } else if self.since(headers, &IF_MODIFIED_SINCE) == Some(true) {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether a range of it makes sense: if what the client has of it is of this state.
    pub(super) fn ranges_apply(self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else {
            return true;
        };
        let Ok(value) = value.to_str() else {
            return false;
        };
        if value.starts_with('"') || value.starts_with("W/") {
            return self.etag.is_some_and(|own| strong(own, value.trim()));
        }
        match (self.modified, httpdate::parse_http_date(value)) {
            (Some(own), Ok(date)) => whole_seconds(own) == date,
            _ => false,
        }
    }

    /// Whether a tag of the list is ours. `None` where there is no list.
    fn any_tag(
        self,
        headers: &HeaderMap,
        name: &HeaderName,
        equal: fn(&str, &str) -> bool,
    ) -> Option<bool> {
        let mut there = false;
        for value in headers.get_all(name) {
            there = true;
            let value = value.to_str().unwrap_or_default();
            let matches = |tag: &str| tag == "*" || self.etag.is_some_and(|own| equal(own, tag));
            if tags(value).any(matches) {
                return Some(true);
            }
        }
        there.then_some(false)
    }

    /// Whether it hasn't been modified since a date. `None` where there is no date, or we don't know.
    fn since(self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        let date = headers.get(name)?.to_str().ok()?;
        let date = httpdate::parse_http_date(date).ok()?;
        Some(whole_seconds(self.modified?) <= date)
    }
}

/// Equal, and neither of them weak.
fn strong(own: &str, tag: &str) -> bool {
    own == tag && !tag.starts_with("W/")
}

/// Equal but for weakness.
fn weak(own: &str, tag: &str) -> bool {
    own == tag.strip_prefix("W/").unwrap_or(tag)
}

/// Dates in headers have no fractions.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// The tags of a list. A comma may stand in one.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let quote = rest
            .find('"')
            .filter(|&at| rest[..at].chars().all(|c| "W/".contains(c)));
        let end = match quote {
            Some(open) => rest[open + 1..]
                .find('"')
                .map_or(rest.len(), |close| open + close + 2),
            None => rest.find(',').unwrap_or(rest.len()),
        };
        let (tag, after) = rest.split_at(end);
        rest = after;
        Some(tag.trim_end())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn ours() -> Validators<'static> {
        let date = httpdate::parse_http_date(DATE).unwrap();
        Validators {
            etag: Some("\"a,b\""),
            modified: Some(date + Duration::from_millis(700)),
        }
    }

    fn judge(pairs: &[(HeaderName, &'static str)]) -> Verdict {
        ours().judge(&headers(pairs))
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_tag_that_the_client_has_is_not_sent_again() {
        for list in [
            "\"a,b\"",
            "W/\"a,b\"",
            "\"x\", \"a,b\"",
            "*",
            " , \"y\" ,W/\"a,b\"",
        ] {
            assert_eq!(
                judge(&[(IF_NONE_MATCH, list)]),
                Verdict::NotModified,
                "{list}"
            );
        }
        for list in ["\"a\"", "a,b", "\"a,b", ""] {
            assert_eq!(judge(&[(IF_NONE_MATCH, list)]), Verdict::Send, "{list}");
        }
    }

    #[test]
    fn a_date_is_compared_by_whole_seconds() {
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, DATE)]), Verdict::NotModified);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, AFTER)]), Verdict::NotModified);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, BEFORE)]), Verdict::Send);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, "yesterday")]), Verdict::Send);
        assert_eq!(judge(&[(IF_UNMODIFIED_SINCE, DATE)]), Verdict::Send);
        assert_eq!(judge(&[(IF_UNMODIFIED_SINCE, BEFORE)]), Verdict::Failed);
    }

    #[test]
    fn a_tag_counts_and_a_date_beside_it_does_not() {
        assert_eq!(
            judge(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, AFTER)]),
            Verdict::Send
        );
        assert_eq!(
            judge(&[(IF_MATCH, "\"a,b\""), (IF_UNMODIFIED_SINCE, BEFORE)]),
            Verdict::Send
        );
    }

    #[test]
    fn what_must_match_must_match_strongly() {
        assert_eq!(judge(&[(IF_MATCH, "\"a,b\"")]), Verdict::Send);
        assert_eq!(judge(&[(IF_MATCH, "*")]), Verdict::Send);
        assert_eq!(judge(&[(IF_MATCH, "W/\"a,b\"")]), Verdict::Failed);
        assert_eq!(judge(&[(IF_MATCH, "\"x\"")]), Verdict::Failed);
    }

    #[test]
    fn a_range_is_of_the_state_that_the_client_has() {
        let applies = |value| ours().ranges_apply(&headers(&[(IF_RANGE, value)]));
        assert!(applies("\"a,b\""));
        assert!(applies(DATE));
        for other in ["W/\"a,b\"", "\"x\"", BEFORE, AFTER, "yesterday"] {
            assert!(!applies(other), "{other}");
        }
        assert!(ours().ranges_apply(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_list_makes_it_hang_or_panic(list in "[W/\", a]*") {
            prop_assert!(tags(&list).take(1000).count() < 1000);
        }

        #[test]
        fn a_list_of_tags_is_read_as_written(written in proptest::collection::vec("(W/)?\"[!a,/]*\"", 0..5)) {
            let list = written.join(" , ");
            prop_assert_eq!(tags(&list).collect::<Vec<_>>(), written);
        }
    }
}
