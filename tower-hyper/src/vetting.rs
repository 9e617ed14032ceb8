//! Refuses requests that parse, but that RFC 9110, RFC 9112 and RFC 9113 forbid.

use http::header::{EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body;

/// How long a target's path and query may be together. RFC 9112, section 3 asks for 8000 at least.
pub(crate) const MAX_TARGET: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoHost,
    ManyHosts,
    BadHost,
    #[cfg(feature = "http2")]
    OtherHost,
    BadTarget,
    LongTarget,
    Expectation,
    Ambiguous,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoHost => "the Host field is missing",
            Self::ManyHosts => "there is more than one Host field",
            Self::BadHost => "the Host field isn't a host",
            #[cfg(feature = "http2")]
            Self::OtherHost => "the Host field names another host than the target",
            Self::BadTarget => "the request's target has a form that its method doesn't allow",
            Self::LongTarget => "the request's target is too long",
            Self::Ambiguous => "it has two lengths, or its target a fragment",
            Self::Expectation => "the expectation can't be met",
        }
    }
}

/// Says whether the request may reach the service. One whose target names an authority gets a `Host`
/// field of it, as RFC 9112, section 3.2.2 has it.
#[inline]
pub(crate) fn vet<B: Body>(request: &mut Request<B>, known: &mut KnownHost) -> Result<(), Refusal> {
    vet_host(request.version(), request.headers(), known)?;
    // Nobody waits to send a body that isn't there.
    if !request.body().is_end_stream() {
        vet_expectation(request.headers())?;
    }
    let uri = request.uri();
    vet_length(uri)?;
    if uri.authority().is_none() && uri.scheme().is_none() {
        vet_path(request.method(), uri.path())
    } else {
        vet_authority(request)
    }
}

/// Says whether a request over HTTP/2 may reach the service. A `Host` field that is there must say what `:authority`
/// says (RFC 9113, section 8.3.1).
#[cfg(feature = "http2")]
#[inline]
pub(crate) fn vet_http2<B: Body>(
    request: &Request<B>,
    known: &mut KnownHost,
) -> Result<(), Refusal> {
    let (uri, headers) = (request.uri(), request.headers());
    let authority = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    if authority.is_none() || headers.contains_key(HOST) {
        vet_host(Version::HTTP_11, headers, known)?;
    }
    if let Some(authority) = authority {
        if !known.is(authority) {
            return Err(Refusal::BadTarget);
        }
        match headers.get(HOST) {
            Some(host) if !is_same_host(authority, host.as_bytes(), uri.scheme_str()) => {
                return Err(Refusal::OtherHost);
            }
            _ => {}
        }
    }
    vet_length(uri)?;
    if !request.body().is_end_stream() {
        vet_expectation(headers)?;
    }
    if *request.method() != Method::CONNECT {
        return vet_path(request.method(), uri.path());
    }
    // An extended one has a path, and needs no port (RFC 8441, section 4).
    let has_port = || {
        uri.authority()
            .is_some_and(|authority| authority.port_u16().is_some())
    };
    if uri.path().is_empty() && !has_port() {
        return Err(Refusal::BadTarget);
    }
    Ok(())
}

/// Whether both name the same host and port, where the scheme has a port of its own.
#[cfg(feature = "http2")]
fn is_same_host(a: &[u8], b: &[u8], scheme: Option<&str>) -> bool {
    let port: &[u8] = match scheme {
        Some("https") => b":443",
        _ => b":80",
    };
    let name = |host| <[u8]>::strip_suffix(host, port).unwrap_or(host);
    a.eq_ignore_ascii_case(b) || name(a).eq_ignore_ascii_case(name(b))
}

fn vet_length(uri: &Uri) -> Result<(), Refusal> {
    match uri.path_and_query() {
        Some(target) if target.as_str().len() > MAX_TARGET => Err(Refusal::LongTarget),
        _ => Ok(()),
    }
}

fn vet_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Refusal::Expectation)
        }
        _ => Ok(()),
    }
}

/// origin-form and asterisk-form (RFC 9112, section 3.2).
fn vet_path(method: &Method, path: &str) -> Result<(), Refusal> {
    let allowed = match path.as_bytes() {
        [b'/', ..] => *method != Method::CONNECT,
        b"*" => *method == Method::OPTIONS,
        _ => false,
    };
    allowed.then_some(()).ok_or(Refusal::BadTarget)
}

/// absolute-form and authority-form (RFC 9112, section 3.2).
fn vet_authority<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    let is_connect = *request.method() == Method::CONNECT;
    let uri = request.uri();
    let Some(authority) = uri.authority() else {
        return Err(Refusal::BadTarget);
    };
    let allowed = match uri.scheme_str() {
        None => is_connect && authority.port_u16().is_some(),
        Some("http" | "https") => !is_connect,
        Some(_) => false,
    };
    if !allowed || !is_host(authority.as_str().as_bytes()) {
        return Err(Refusal::BadTarget);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::BadTarget)?;
    if request.headers().get(HOST) != Some(&host) {
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

#[inline]
fn vet_host(version: Version, headers: &HeaderMap, known: &mut KnownHost) -> Result<(), Refusal> {
    match headers.get(HOST) {
        None if version == Version::HTTP_11 => Err(Refusal::NoHost),
        None => Ok(()),
        Some(host) if !known.is(host.as_bytes()) => Err(Refusal::BadHost),
        // Only where some field is repeated can this one be.
        Some(_) if headers.len() == headers.keys_len() => Ok(()),
        Some(_) if headers.get_all(HOST).iter().nth(1).is_some() => Err(Refusal::ManyHosts),
        Some(_) => Ok(()),
    }
}

/// A host that was found to be one: a connection's requests mostly have the same.
#[derive(Debug, Default)]
pub(crate) struct KnownHost {
    bytes: [u8; 32],
    length: usize,
}

impl KnownHost {
    /// Whether `value` is a host.
    #[inline]
    fn is(&mut self, value: &[u8]) -> bool {
        if !value.is_empty() && self.bytes[..self.length] == *value {
            return true;
        }
        let is_host = is_host(value);
        if let (true, Some(room)) = (is_host, self.bytes.get_mut(..value.len())) {
            room.copy_from_slice(value);
            self.length = value.len();
        }
        is_host
    }
}

/// `uri-host [ ":" port ]` of RFC 9110, section 7.2, with a host that isn't empty.
fn is_host(value: &[u8]) -> bool {
    let (host, rest) = match value {
        [b'[', inner @ ..] => {
            let Some(end) = inner.iter().position(|byte| *byte == b']') else {
                return false;
            };
            if !is_ip_literal(&inner[..end]) {
                return false;
            }
            (&inner[..end], &inner[end + 1..])
        }
        _ => {
            let end = value
                .iter()
                .position(|byte| !is_name_byte(*byte))
                .unwrap_or(value.len());
            (&value[..end], &value[end..])
        }
    };
    !host.is_empty()
        && match rest {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// An IPv6 address, or what RFC 3986 keeps for later versions.
fn is_ip_literal(inner: &[u8]) -> bool {
    match std::str::from_utf8(inner) {
        Ok(text) if text.starts_with(['v', 'V']) => inner
            .iter()
            .all(|byte| is_name_byte(*byte) || *byte == b':'),
        Ok(text) => text.parse::<std::net::Ipv6Addr>().is_ok(),
        Err(_) => false,
    }
}

fn is_port(port: &[u8]) -> bool {
    let number = port.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
            .filter(|number| *number <= 65_535)
    });
    number.is_some()
}

/// `unreserved`, `sub-delims`, and the `%` of an escape (RFC 3986, section 3.2.2).
fn is_name_byte(byte: u8) -> bool {
    const NAME: [bool; 256] = {
        let mut table = [false; 256];
        let allowed =
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%";
        let mut i = 0;
        while i < allowed.len() {
            table[allowed[i] as usize] = true;
            i += 1;
        }
        table
    };
    NAME[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, hosts: &[&str]) -> Request<String> {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body("body".to_owned()).unwrap()
    }

    fn outcome(method: &str, target: &str, hosts: &[&str]) -> Result<(), Refusal> {
        vet(
            &mut request(method, target, hosts),
            &mut KnownHost::default(),
        )
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "a",
            "a.b-c:80",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8080",
            "a:",
            "x_y",
            "%41",
        ] {
            assert_eq!(outcome("GET", "/", &[host]), Ok(()), "{host}");
        }
        let bad = [
            "", ":80", "a b", "a/b", "u@a", "a:b", "a:65536", "[::1", "[x]", "[::1]x", "a,b:c",
            "a?b", "a#",
        ];
        for host in bad {
            assert_eq!(
                outcome("GET", "/", &[host]),
                Err(Refusal::BadHost),
                "{host}"
            );
        }
    }

    #[test]
    fn a_known_host_makes_no_difference() {
        let mut known = KnownHost::default();
        let long = "a".repeat(100);
        for host in ["a", "a", "", "b c", "ab", "a", &long, "a", &long] {
            assert_eq!(
                known.is(host.as_bytes()),
                is_host(host.as_bytes()),
                "{host}"
            );
        }
    }

    #[test]
    fn exactly_one_host_is_needed_from_1_1_on() {
        assert_eq!(outcome("GET", "/", &[]), Err(Refusal::NoHost));
        assert_eq!(outcome("GET", "/", &["a", "a"]), Err(Refusal::ManyHosts));
        let mut old = request("GET", "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(vet(&mut old, &mut KnownHost::default()), Ok(()));
    }

    #[test]
    fn each_form_of_target_has_its_methods() {
        assert_eq!(outcome("OPTIONS", "*", &["a"]), Ok(()));
        assert_eq!(outcome("CONNECT", "a:80", &["a"]), Ok(()));
        for (method, target) in [
            ("GET", "*"),
            ("GET", "a:80"),
            ("CONNECT", "/"),
            ("CONNECT", "a"),
            ("CONNECT", "http://a/"),
            ("GET", "ftp://a/"),
            ("GET", "http://u@a/"),
        ] {
            let refused = outcome(method, target, &["a"]);
            assert_eq!(refused, Err(Refusal::BadTarget), "{method} {target}");
        }
    }

    #[test]
    fn the_targets_authority_replaces_the_host() {
        let mut request = request("GET", "http://real:8080/x", &["fake"]);
        assert_eq!(vet(&mut request, &mut KnownHost::default()), Ok(()));
        assert_eq!(request.headers()[HOST], "real:8080");
    }

    #[cfg(feature = "http2")]
    #[test]
    fn over_http_2_the_host_is_the_authority() {
        let outcome = |method, target, hosts: &[&str]| {
            vet_http2(&request(method, target, hosts), &mut KnownHost::default())
        };
        for (target, hosts) in [
            ("http://a/x", &[][..]),
            ("http://a/x", &["a"]),
            ("http://A:80/x", &["a"]),
            ("https://a/x", &["a:443"]),
            ("/x", &["a"]),
        ] {
            assert_eq!(outcome("GET", target, hosts), Ok(()), "{target} {hosts:?}");
        }
        for (target, hosts, refusal) in [
            ("/x", &[][..], Refusal::NoHost),
            ("/x", &["a", "a"], Refusal::ManyHosts),
            ("/x", &["a b"], Refusal::BadHost),
            ("http://a/x", &["a", "a"], Refusal::ManyHosts),
            ("http://a/x", &[""], Refusal::BadHost),
            ("http://a/x", &["b"], Refusal::OtherHost),
            ("http://a/x", &["a:443"], Refusal::OtherHost),
            ("https://a/x", &["a:80"], Refusal::OtherHost),
            ("http://u@a/x", &[], Refusal::BadTarget),
        ] {
            assert_eq!(
                outcome("GET", target, hosts),
                Err(refusal),
                "{target} {hosts:?}"
            );
        }
        assert_eq!(outcome("OPTIONS", "*", &["a"]), Ok(()));
        assert_eq!(outcome("GET", "*", &["a"]), Err(Refusal::BadTarget));
        assert_eq!(outcome("CONNECT", "a:80", &[]), Ok(()));
        assert_eq!(outcome("CONNECT", "a", &[]), Err(Refusal::BadTarget));
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        let mut request = request("POST", "/", &["a"]);
        request
            .headers_mut()
            .insert(EXPECT, HeaderValue::from_static("100-Continue"));
        assert_eq!(vet(&mut request, &mut KnownHost::default()), Ok(()));
        request
            .headers_mut()
            .insert(EXPECT, HeaderValue::from_static("200-ok"));
        assert_eq!(
            vet(&mut request, &mut KnownHost::default()),
            Err(Refusal::Expectation)
        );
    }
}
