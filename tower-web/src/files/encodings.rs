//! Which of the encodings that a file is there in the client would rather have (RFC 9110, section 12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// An encoding in which a file may be kept ready beside the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// `gzip`, in a file whose name ends in `.gz`.
    Gzip,
    /// `br`, in a file whose name ends in `.br`.
    Brotli,
}

impl Encoding {
    /// The better ones first.
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    pub(super) const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Brotli => "br",
        }
    }
}

/// The one that the client likes best of those that are there. `None` is the file as it is, which is sent in doubt.
pub(super) fn choose(headers: &HeaderMap, there: impl Fn(Encoding) -> bool) -> Option<Encoding> {
    let identity = weight(headers, "identity");
    Encoding::ALL
        .into_iter()
        .filter(|&encoding| there(encoding))
        .filter_map(|encoding| Some((encoding, weight(headers, encoding.token())?)))
        .filter(|&(_, weight)| weight > 0 && weight >= identity.unwrap_or(0))
        // Of equals the first.
        .rev()
        .max_by_key(|&(_, weight)| weight)
        .map(|(encoding, _)| encoding)
}

/// How much the client likes an encoding, in thousandths. `None` where it doesn't say.
fn weight(headers: &HeaderMap, token: &str) -> Option<u16> {
    let mut any = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for member in value.to_str().unwrap_or_default().split(',') {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1000, thousandths);
            if name.eq_ignore_ascii_case(token) {
                return Some(weight);
            }
            if name == "*" {
                any = Some(weight);
            }
        }
    }
    any
}

/// A weight: at most three digits behind the point. What isn't one is none.
fn thousandths(weight: &str) -> u16 {
    match weight.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn choice(accept: &'static str) -> Option<Encoding> {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
        choose(&headers, |_| true)
    }

    #[test]
    fn the_better_one_is_sent_unless_the_client_likes_the_other_more() {
        assert_eq!(choice("gzip, deflate, br, zstd"), Some(Encoding::Brotli));
        assert_eq!(choice("gzip;q=1.0, br;q=0.5"), Some(Encoding::Gzip));
        assert_eq!(choice("GZIP"), Some(Encoding::Gzip));
        assert_eq!(choice("*"), Some(Encoding::Brotli));
        assert_eq!(choice("br;q=0, *"), Some(Encoding::Gzip));
    }

    #[test]
    fn in_doubt_the_file_is_sent_as_it_is() {
        for accept in [
            "",
            "deflate",
            "gzip;q=0",
            "identity, gzip;q=0.5",
            "gzip;q=2",
            "gzip;q=x",
            "*;q=0",
        ] {
            assert_eq!(choice(accept), None, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new(), |_| true), None);
    }

    #[test]
    fn only_what_is_there_is_sent() {
        let headers =
            HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"))]);
        assert_eq!(
            choose(&headers, |encoding| encoding == Encoding::Gzip),
            Some(Encoding::Gzip)
        );
        assert_eq!(choose(&headers, |_| false), None);
    }
}
