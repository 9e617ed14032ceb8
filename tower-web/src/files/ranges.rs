//! Which bytes of a file are asked for (RFC 9110, section 14).

/// The bytes from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) const fn len(self) -> u64 {
        self.end - self.start
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// No ranges, or none that are understood: all of it.
    All,
    /// There is at least one, and no two of them overlap.
    Some(Vec<Span>),
    /// They are all beyond the end.
    Unsatisfiable,
}

/// Who asks for more pieces gets all of it: small ones cost more to send than they hold.
const MOST: usize = 16;

impl Ranges {
    /// What the value of a `Range` asks for of a file of this length.
    pub(super) fn parse(value: &str, len: u64) -> Self {
        let Some((unit, list)) = value.split_once('=') else {
            return Self::All;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::All;
        }
        let mut asked = 0;
        let mut spans = Vec::new();
        for range in list
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
        {
            asked += 1;
            match span(range, len) {
                _ if asked > MOST => return Self::All,
                Err(Malformed) => return Self::All,
                Ok(None) => {}
                Ok(Some(span)) => spans.push(span),
            }
        }
        match (asked, spans.is_empty()) {
            (0, _) => Self::All,
            (_, true) => Self::Unsatisfiable,
            (_, false) => Self::Some(apart(spans)),
        }
    }
}

struct Malformed;

/// The bytes that one range asks for, or `None` where there are no such.
fn span(range: &str, len: u64) -> Result<Option<Span>, Malformed> {
    let (first, last) = range.split_once('-').ok_or(Malformed)?;
    let (start, end) = match (number(first)?, number(last)?) {
        (None, None) => return Err(Malformed),
        // The last so many.
        (None, Some(count)) => (len.saturating_sub(count), len),
        (Some(first), None) => (first, len),
        (Some(first), Some(last)) if first > last => return Err(Malformed),
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(len)),
    };
    Ok((start < end).then_some(Span { start, end }))
}

/// A number, however large, or `None` where there is none.
fn number(digits: &str) -> Result<Option<u64>, Malformed> {
    match digits {
        "" => Ok(None),
        _ if !digits.bytes().all(|b| b.is_ascii_digit()) => Err(Malformed),
        // No file is as long.
        _ => Ok(Some(digits.parse().unwrap_or(u64::MAX))),
    }
}

/// The same bytes in spans that don't overlap: in the order asked for, unless some do.
fn apart(mut spans: Vec<Span>) -> Vec<Span> {
    let mut sorted = spans.clone();
    sorted.sort_by_key(|span| span.start);
    if sorted.windows(2).all(|pair| pair[0].end <= pair[1].start) {
        return spans;
    }
    spans.clear();
    for span in sorted {
        match spans.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => spans.push(span),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn some(spans: &[(u64, u64)]) -> Ranges {
        Ranges::Some(
            spans
                .iter()
                .map(|&(start, end)| Span { start, end })
                .collect(),
        )
    }

    #[test]
    fn the_specification_s_examples_hold() {
        let parse = |value| Ranges::parse(value, 10_000);
        assert_eq!(parse("bytes=0-499"), some(&[(0, 500)]));
        assert_eq!(parse("bytes=500-999"), some(&[(500, 1000)]));
        assert_eq!(parse("bytes=-500"), some(&[(9500, 10_000)]));
        assert_eq!(parse("bytes=9500-"), some(&[(9500, 10_000)]));
        assert_eq!(parse("bytes=0-0,-1"), some(&[(0, 1), (9999, 10_000)]));
        assert_eq!(
            parse("bytes= 0-999, 4500-5499, -1000"),
            some(&[(0, 1000), (4500, 5500), (9000, 10_000)])
        );
        assert_eq!(parse("bytes=500-700,601-999"), some(&[(500, 1000)]));
    }

    #[test]
    fn what_reaches_beyond_the_end_is_cut() {
        assert_eq!(
            Ranges::parse("bytes=5-99999999999999999999999", 10),
            some(&[(5, 10)])
        );
        assert_eq!(Ranges::parse("bytes=-99", 10), some(&[(0, 10)]));
        assert_eq!(Ranges::parse("bytes=2-3,50-60", 10), some(&[(2, 4)]));
    }

    #[test]
    fn what_is_all_beyond_the_end_cannot_be_satisfied() {
        for value in ["bytes=10-", "bytes=10-20,30-", "bytes=-0"] {
            assert_eq!(Ranges::parse(value, 10), Ranges::Unsatisfiable, "{value}");
        }
        assert_eq!(Ranges::parse("bytes=0-", 0), Ranges::Unsatisfiable);
    }

    #[test]
    fn what_is_not_understood_is_as_if_it_were_not_there() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=1",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=-",
            "bytes=0-1,x",
        ] {
            assert_eq!(Ranges::parse(value, 10), Ranges::All, "{value}");
        }
        let many = vec!["0-0"; MOST + 1].join(",");
        assert_eq!(Ranges::parse(&format!("bytes={many}"), 10), Ranges::All);
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_that_were_asked_for(
            len in 0_u64..40,
            asked in proptest::collection::vec((proptest::option::of(0_u64..50), proptest::option::of(0_u64..50)), 1..6),
        ) {
            let text = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
            let list: Vec<_> = asked.iter().map(|&(first, last)| format!("{}-{}", text(first), text(last))).collect();
            let mut expected = BTreeSet::new();
            let mut malformed = false;
            for &(first, last) in &asked {
                match (first, last) {
                    (None, None) => malformed = true,
                    (Some(first), Some(last)) if first > last => malformed = true,
                    (Some(first), last) => expected.extend((0..len).filter(|&at| at >= first && last.is_none_or(|last| at <= last))),
                    (None, Some(count)) => expected.extend((0..len).filter(|&at| at + count >= len)),
                }
            }
            match Ranges::parse(&format!("bytes={}", list.join(",")), len) {
                Ranges::All => prop_assert!(malformed),
                Ranges::Unsatisfiable => prop_assert!(!malformed && expected.is_empty()),
                Ranges::Some(spans) => {
                    prop_assert!(!malformed);
                    let bytes: Vec<u64> = spans.iter().flat_map(|span| span.start..span.end).collect();
                    // None is sent twice.
                    prop_assert_eq!(bytes.len(), expected.len());
                    prop_assert_eq!(BTreeSet::from_iter(bytes), expected);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(value in ".*", len: u64) {
            let _ = Ranges::parse(&value, len);
            let _ = Ranges::parse(&format!("bytes={value}"), len);
        }
    }
}
