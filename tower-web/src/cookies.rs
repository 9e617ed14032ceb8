//! Cookies, read and set, with defaults that are safe.

use cookie::CookieJar;
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::extract::{Extract, NoBody, RequestHead};
use crate::respond::{IntoHeaders, IntoResponse, Response};

pub use cookie::{Cookie, SameSite, time::Duration as CookieAge};

/// The request's cookies, and those that the response shall set: return it before the body, in a tuple.
///
/// A cookie that is set is kept from scripts (`HttpOnly`), from other sites' requests (`SameSite=Lax`) and from
/// connections without TLS (`Secure`; browsers count `localhost` as safe), and is sent for every path (`Path=/`), unless
/// it says otherwise itself. Names and values are percent-encoded, so any text may be in them.
///
/// A cookie that can't be read is skipped, as it may be another application's: absent and malformed are the same here.
///
/// # Example
///
/// ```
/// use tower_web::cookies::{Cookie, Cookies};
/// use tower_web::respond::IntoResponse;
/// use tower_web::extract::{Extract, RequestHead};
///
/// async fn visit(mut cookies: Cookies) -> (Cookies, String) {
///     let visits = cookies.get("visits").and_then(|visits| visits.parse().ok()).unwrap_or(0) + 1;
///     cookies.set(Cookie::new("visits", visits.to_string()));
///     (cookies, format!("{visits} visits"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = http::Request::get("/").header("cookie", "theme=dark; visits=6").body(()).unwrap();
/// let (mut head, ()) = RequestHead::new(request);
/// let cookies = Cookies::extract(&mut head, ()).await.unwrap();
///
/// let response = visit(cookies).await.into_response();
/// assert_eq!(response.headers()["set-cookie"], "visits=7; HttpOnly; SameSite=Lax; Secure; Path=/");
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cookies {
    pub(crate) jar: CookieJar,
}

impl Cookies {
    /// No cookies: for a response that only sets some, and for tests.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut jar = CookieJar::new();
        for value in headers.get_all(COOKIE) {
            let Ok(value) = value.to_str() else { continue };
            for cookie in Cookie::split_parse_encoded(value.to_owned()).flatten() {
                // The more specific path comes first (RFC 6265, section 5.4), so the first of a name counts.
                if jar.get(cookie.name()).is_none() {
                    jar.add_original(cookie);
                }
            }
        }
        Self { jar }
    }

    /// The value of a cookie: what was [`set`](Self::set), or else what the request has.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.jar.get(name).map(Cookie::value)
    }

    /// All names and values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.jar.iter().map(|cookie| cookie.name_value())
    }

    /// Sets a cookie in the response. What it leaves open gets the safe default.
    pub fn set(&mut self, cookie: impl Into<Cookie<'static>>) {
        self.jar.add(Self::completed(cookie.into()));
    }

    /// A cookie with the safe default for what it leaves open.
    pub(crate) fn completed(mut cookie: Cookie<'static>) -> Cookie<'static> {
        if cookie.http_only().is_none() {
            cookie.set_http_only(true);
        }
        if cookie.same_site().is_none() {
            cookie.set_same_site(SameSite::Lax);
        }
        if cookie.secure().is_none() {
            cookie.set_secure(true);
        }
        if cookie.path().is_none() {
            cookie.set_path("/");
        }
        cookie
    }

    /// Lets the client forget a cookie that was set for every path and this host.
    pub fn remove(&mut self, name: impl Into<String>) {
        self.remove_as(Cookie::new(name.into(), ""));
    }

    /// The same for one that was set with a path or a domain of its own: the client must be told both.
    pub fn remove_as(&mut self, cookie: impl Into<Cookie<'static>>) {
        let mut cookie = cookie.into();
        cookie.set_value("");
        cookie.set_max_age(CookieAge::ZERO);
        self.set(cookie);
    }
}

#[cfg(feature = "sessions")]
impl Cookies {
    /// Those that the response shall set, as it does.
    pub(crate) fn written(&self) -> impl Iterator<Item = String> {
        self.jar.delta().map(|cookie| cookie.encoded().to_string())
    }

    /// Sets what `other` sets, too.
    pub(crate) fn take(&mut self, other: Self) {
        for cookie in other.jar.delta() {
            self.jar.add(cookie.clone());
        }
    }
}

impl Extract for Cookies {
    type Body = NoBody;
    type Rejection = std::convert::Infallible;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Self::Rejection> {
        Ok(Self::read(&head.headers))
    }
}

/// One `Set-Cookie` for each that was set, beside those that the response has.
impl IntoHeaders for Cookies {
    fn put(self, headers: &mut HeaderMap) {
        for cookie in self.jar.delta() {
            match HeaderValue::try_from(cookie.encoded().to_string()) {
                Ok(value) => {
                    headers.append(SET_COOKIE, value);
                }
                Err(_) => {
                    let name = cookie.name();
                    tracing::warn!(name, "a cookie with an invalid path or domain isn't set");
                }
            }
        }
    }
}

/// The cookies alone.
impl IntoResponse for Cookies {
    fn into_response(self) -> Response {
        (self, ()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Cookies {
        let headers = values
            .iter()
            .map(|value| (COOKIE, HeaderValue::from_static(value)));
        Cookies::read(&headers.collect())
    }

    fn set(cookies: Cookies) -> Vec<String> {
        let response = cookies.into_response();
        let mut set: Vec<_> = response
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        set.sort();
        set
    }

    #[test]
    fn cookies_of_several_headers_are_read_and_malformed_ones_skipped() {
        let cookies = read(&["a=1; b=%20x; broken; =empty", "c=3; a=later"]);
        assert_eq!(cookies.get("a"), Some("1"));
        assert_eq!(cookies.get("b"), Some(" x"));
        assert_eq!(cookies.get("c"), Some("3"));
        assert_eq!(cookies.get("broken"), None);
        assert_eq!(cookies.iter().count(), 3);
    }

    #[test]
    fn what_was_only_read_is_not_set() {
        assert_eq!(set(read(&["a=1"])), [""; 0]);
    }

    #[test]
    fn a_cookie_may_say_otherwise_than_the_defaults() {
        let mut cookies = Cookies::new();
        let cookie = Cookie::build(("a", "1"))
            .http_only(false)
            .secure(false)
            .same_site(SameSite::Strict)
            .path("/x");
        cookies.set(cookie);
        assert_eq!(cookies.get("a"), Some("1"));
        assert_eq!(set(cookies), ["a=1; SameSite=Strict; Path=/x"]);
    }

    #[test]
    fn no_value_can_smuggle_an_attribute_or_a_header_in() {
        let mut cookies = Cookies::new();
        cookies.set(("a", "1; Domain=evil.example\r\nx: y"));
        let set = set(cookies);
        assert_eq!(set.len(), 1);
        assert!(
            set[0].starts_with("a=1%3B%20Domain%3Devil.example%0D%0Ax%3A%20y; HttpOnly"),
            "{set:?}"
        );
    }

    #[test]
    fn a_removed_cookie_is_told_to_expire() {
        let mut cookies = read(&["a=1; b=2"]);
        cookies.remove("a");
        cookies.remove_as(Cookie::build(("b", "")).path("/x"));
        assert_eq!(cookies.get("a"), Some(""));
        assert_eq!(
            set(cookies),
            [
                "a=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0",
                "b=; HttpOnly; SameSite=Lax; Secure; Path=/x; Max-Age=0"
            ]
        );
    }

    #[test]
    fn cookies_stand_beside_those_that_the_response_has() {
        let mut cookies = Cookies::new();
        cookies.set(("b", "2"));
        let response = (cookies, ([("set-cookie", "a=1")], "text")).into_response();
        assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 2);
    }
}
