//! The lists that proxies write: by whom each was asked.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};

/// The entries of `X-Forwarded-For`, the client's first. `None` for one that names nobody.
pub(super) fn x_forwarded_for(headers: &HeaderMap, name: &HeaderName) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => hops.extend(line.split(',').map(|entry| address(entry.trim()))),
            Err(_) => hops.push(None),
        }
    }
    hops
}

/// The same of `Forwarded` (RFC 7239, section 4).
pub(super) fn forwarded(headers: &HeaderMap, name: &HeaderName) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => hops.extend(split(line, b',').map(node)),
            Err(_) => hops.push(None),
        }
    }
    hops
}

/// Whom an element names with `for`.
fn node(element: &str) -> Option<IpAddr> {
    split(element, b';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.trim_matches('"');
        name.eq_ignore_ascii_case("for").then(|| address(value))?
    })
}

/// The parts between separators that don't stand in quotes. No node has a quote within.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |character: char| {
        is_quoted ^= character == '"';
        !is_quoted && character == char::from(separator)
    })
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bare.parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Vec<Option<String>> {
        let name = http::header::FORWARDED;
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(line).unwrap())]);
        let hops = forwarded(&headers, &name).into_iter();
        hops.map(|hop| hop.map(|ip| ip.to_string())).collect()
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("for=\"_gazonk\""), [None]);
        assert_eq!(
            read("For=\"[2001:db8:cafe::17]:4711\""),
            [some("2001:db8:cafe::17")]
        );
        assert_eq!(
            read("for=192.0.2.60;proto=http;by=203.0.113.43"),
            [some("192.0.2.60")]
        );
        assert_eq!(
            read("for=192.0.2.43, for=198.51.100.17"),
            [some("192.0.2.43"), some("198.51.100.17")]
        );
        assert_eq!(read("proto=https;by=unknown"), [None]);
    }

    #[test]
    fn a_separator_in_quotes_separates_nothing() {
        assert_eq!(
            read("for=\"a,b;c\", for=192.0.2.1"),
            [None, Some("192.0.2.1".to_owned())]
        );
    }

    proptest! {
        #[test]
        fn whatever_stands_before_it_the_last_entry_is_the_last(before in "[ -~]{0,40}", octet: u8) {
            let ip = format!("192.0.2.{octet}");
            let name = HeaderName::from_static("x-forwarded-for");
            let line = HeaderValue::from_str(&format!("{before}, {ip}")).unwrap();
            let hops = x_forwarded_for(&HeaderMap::from_iter([(name.clone(), line)]), &name);
            prop_assert_eq!(hops.last().copied().flatten(), ip.parse().ok());
        }
    }
}
