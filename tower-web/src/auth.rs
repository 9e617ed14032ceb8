//! Credentials that come with a request: bearer tokens, passwords, keys.
//!
//! These extractors read; whether what they have read is right, the handler decides, or an extractor of the
//! application's own that is made of one of them:
//!
//! ```
//! use tower_web::auth::Bearer;
//! use tower_web::extract::{Extract, NoBody, RequestHead};
//! use tower_web::problem::Rejection;
//!
//! struct Admin;
//!
//! impl Extract for Admin {
//!     type Body = NoBody;
//!     type Rejection = Rejection;
//!
//!     async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
//!         let bearer = Bearer::extract(head, ()).await?;
//!         if bearer.matches("s3cret") { Ok(Self) } else { Err(Bearer::refuse()) }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let request = |token| http::Request::get("/").header("authorization", token).body(()).unwrap();
//! let (mut head, ()) = RequestHead::new(request("Bearer s3cret"));
//! assert!(Admin::extract(&mut head, ()).await.is_ok());
//!
//! let (mut head, ()) = RequestHead::new(request("Bearer guess"));
//! assert_eq!(Admin::extract(&mut head, ()).await.err().unwrap().status(), 401);
//! # }
//! ```
//!
//! Each refuses with a 401 whose `WWW-Authenticate` says what is asked for, and shows no secret when it is printed with
//! `{:?}`. As an `Option`, it is `None` where the request has no such credentials, and malformed ones are refused.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use subtle::ConstantTimeEq as _;

use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead};
use crate::problem::{Location, Rejection};

/// Compares two secrets in a time that doesn't tell where they differ.
///
/// It does tell whether they are of one length.
///
/// # Example
///
/// ```
/// use tower_web::auth::constant_time_eq;
///
/// assert!(constant_time_eq("s3cret", b"s3cret"));
/// assert!(!constant_time_eq("s3cret", "s3creT"));
/// ```
pub fn constant_time_eq(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    a.as_ref().ct_eq(b.as_ref()).into()
}

/// A bearer token (RFC 6750): `Authorization: Bearer …`.
#[derive(Clone)]
pub struct Bearer {
    token: String,
}

impl Bearer {
    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is this one, by [`constant_time_eq`].
    pub fn matches(&self, token: impl AsRef<[u8]>) -> bool {
        constant_time_eq(&self.token, token)
    }

    /// The 401 for a token that is unknown, expired or withdrawn.
    pub fn refuse() -> Rejection {
        unauthorized("the token isn't valid", r#"Bearer error="invalid_token""#)
    }
}

impl Extract for Bearer {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        // RFC 6750, section 3.1: who sent no credentials isn't told of an error.
        Self::extract_optional(head, ())
            .await?
            .ok_or_else(|| unauthorized("a bearer token is needed", "Bearer"))
    }
}

impl OptionalExtract for Bearer {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        let malformed =
            || unauthorized("the token is malformed", r#"Bearer error="invalid_token""#);
        let Some(token) = credentials(&head.headers, "bearer").map_err(|Ambiguous| malformed())?
        else {
            return Ok(None);
        };
        // `b64token`, which is what the header's values may be made of.
        let text = token.trim_end_matches('=');
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        if text.is_empty() || !text.bytes().all(valid) {
            return Err(malformed());
        }
        let token = token.to_owned();
        Ok(Some(Self { token }))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").finish_non_exhaustive()
    }
}

/// A user and a password (RFC 7617): `Authorization: Basic …`. Only over TLS are they a secret.
#[derive(Clone)]
pub struct Basic {
    user: String,
    password: String,
}

const BASIC: &str = r#"Basic realm="restricted", charset="UTF-8""#;

impl Basic {
    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Whether they are these, by [`constant_time_eq`] of both.
    ///
    /// Passwords of many users belong into a store that hashes them; compare there.
    pub fn matches(&self, user: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> bool {
        // Both are compared in any case.
        let user = self.user.as_bytes().ct_eq(user.as_ref());
        let password = self.password.as_bytes().ct_eq(password.as_ref());
        (user & password).into()
    }

    /// The 401 for a user that is unknown or a password that is wrong. A browser asks again.
    pub fn refuse() -> Rejection {
        unauthorized("the user or the password is wrong", BASIC)
    }
}

impl Extract for Basic {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        Self::extract_optional(head, ())
            .await?
            .ok_or_else(|| unauthorized("a user and a password are needed", BASIC))
    }
}

impl OptionalExtract for Basic {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        let malformed = || unauthorized("the credentials are malformed", BASIC);
        let Some(encoded) = credentials(&head.headers, "basic").map_err(|Ambiguous| malformed())?
        else {
            return Ok(None);
        };
        let pair = STANDARD.decode(encoded).map_err(|_| malformed())?;
        let pair = String::from_utf8(pair).map_err(|_| malformed())?;
        // RFC 7617, section 2: neither part has control characters, and the user's name has no colon.
        match pair.split_once(':') {
            Some((user, password)) if !pair.contains(char::is_control) => Ok(Some(Self {
                user: user.to_owned(),
                password: password.to_owned(),
            })),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Which header an [`ApiKey`] comes in.
pub trait ApiKeyHeader: Send + Sync + 'static {
    /// The header's name, in lower case.
    const NAME: &'static str;
}

/// `x-api-key`.
#[derive(Debug, Clone, Copy)]
pub enum XApiKey {}

impl ApiKeyHeader for XApiKey {
    const NAME: &'static str = "x-api-key";
}

/// A key in a header of its own, by default `x-api-key`. Implement [`ApiKeyHeader`] for another.
///
/// # Example
///
/// ```
/// use tower_web::auth::{ApiKey, ApiKeyHeader};
/// use tower_web::extract::{Extract, RequestHead};
///
/// enum Partner {}
///
/// impl ApiKeyHeader for Partner {
///     const NAME: &'static str = "x-partner-key";
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = http::Request::get("/").header("x-partner-key", "k7").body(()).unwrap();
/// let (mut head, ()) = RequestHead::new(request);
/// let key = ApiKey::<Partner>::extract(&mut head, ()).await.unwrap();
/// assert!(key.matches("k7"));
/// # }
/// ```
pub struct ApiKey<H = XApiKey> {
    key: String,
    header: PhantomData<fn() -> H>,
}

impl<H: ApiKeyHeader> ApiKey<H> {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is this one, by [`constant_time_eq`].
    pub fn matches(&self, key: impl AsRef<[u8]>) -> bool {
        constant_time_eq(&self.key, key)
    }

    /// The 401 for a key that is unknown or withdrawn.
    pub fn refuse() -> Rejection {
        Self::unauthorized("isn't valid")
    }

    fn unauthorized(detail: &'static str) -> Rejection {
        // A 401 must have a challenge. No scheme is registered for keys, so it says where the key goes.
        let challenge = format!(r#"ApiKey header="{}""#, H::NAME);
        unauthorized(detail, &challenge).at(Location::Header, H::NAME)
    }
}

impl<H: ApiKeyHeader> Extract for ApiKey<H> {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        Self::extract_optional(head, ())
            .await?
            .ok_or_else(|| Self::unauthorized("is missing"))
    }
}

impl<H: ApiKeyHeader> OptionalExtract for ApiKey<H> {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        let Some(value) = only(&head.headers, H::NAME)
            .map_err(|Ambiguous| Self::unauthorized("is there more than once"))?
        else {
            return Ok(None);
        };
        match value.to_str() {
            Ok(key) if !key.is_empty() => Ok(Some(Self {
                key: key.to_owned(),
                header: PhantomData,
            })),
            _ => Err(Self::unauthorized("is malformed")),
        }
    }
}

impl<H> Clone for ApiKey<H> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            header: PhantomData,
        }
    }
}

impl<H> fmt::Debug for ApiKey<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").finish_non_exhaustive()
    }
}

/// A header that may be there once is there more often: two who read it might not read the same.
struct Ambiguous;

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Ambiguous> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Ambiguous),
    }
}

/// What follows the scheme, or `None` where the request has no credentials of this scheme.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<Option<&'a str>, Ambiguous> {
    let Some(value) = only(headers, AUTHORIZATION.as_str())? else {
        return Ok(None);
    };
    let Ok(value) = value.to_str() else {
        return Ok(None);
    };
    let (own, rest) = value.split_once(' ').unwrap_or((value, ""));
    Ok(own
        .eq_ignore_ascii_case(scheme)
        .then(|| rest.trim_matches(' ')))
}

fn unauthorized(detail: &'static str, challenge: &str) -> Rejection {
    let rejection = Rejection::new(StatusCode::UNAUTHORIZED, detail);
    match HeaderValue::from_str(challenge) {
        Ok(challenge) => rejection.with_header(WWW_AUTHENTICATE, challenge),
        Err(_) => rejection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::IntoProblem as _;
    use crate::respond::IntoResponse as _;

    async fn read<T: Extract<Body = NoBody>>(headers: &[(&str, &str)]) -> Result<T, T::Rejection> {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        T::extract(&mut RequestHead::new(request.body(()).unwrap()).0, ()).await
    }

    fn challenge(rejection: Rejection) -> String {
        let response = rejection.into_problem().into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        response.headers()[WWW_AUTHENTICATE]
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[tokio::test]
    async fn a_token_is_read_whatever_the_case_of_its_scheme() {
        for value in [
            "Bearer a.b-c~d+e/f==",
            "bearer  a.b-c~d+e/f==",
            "BEARER a.b-c~d+e/f==",
        ] {
            let bearer = read::<Bearer>(&[("authorization", value)]).await.unwrap();
            assert_eq!(bearer.token(), "a.b-c~d+e/f==");
            assert!(bearer.matches("a.b-c~d+e/f=="));
            assert!(!bearer.matches("a.b-c~d+e/f="));
        }
    }

    #[tokio::test]
    async fn no_token_is_a_challenge_without_an_error() {
        assert_eq!(challenge(read::<Bearer>(&[]).await.unwrap_err()), "Bearer");
        let basic = [("authorization", "Basic QTpC")];
        assert_eq!(
            challenge(read::<Bearer>(&basic).await.unwrap_err()),
            "Bearer"
        );
    }

    #[tokio::test]
    async fn a_malformed_token_is_refused_even_where_none_is_needed() {
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer =",
            "Bearer \"x\"",
        ] {
            let headers = [("authorization", value)];
            let error = read::<Option<Bearer>>(&headers).await.unwrap_err();
            assert_eq!(
                challenge(error),
                r#"Bearer error="invalid_token""#,
                "{value}"
            );
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert!(read::<Option<Bearer>>(&twice).await.is_err());
    }

    #[tokio::test]
    async fn none_is_what_is_absent() {
        assert!(read::<Option<Bearer>>(&[]).await.unwrap().is_none());
        assert!(read::<Option<Basic>>(&[]).await.unwrap().is_none());
        assert!(read::<Option<ApiKey>>(&[]).await.unwrap().is_none());
        let other = [("authorization", "Digest x")];
        assert!(read::<Option<Basic>>(&other).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_password_may_have_colons_and_any_letters() {
        let value = format!("Basic {}", STANDARD.encode("ann:é:t"));
        let basic = read::<Basic>(&[("authorization", &value)]).await.unwrap();
        assert_eq!((basic.user(), basic.password()), ("ann", "é:t"));
        assert!(basic.matches("ann", "é:t"));
        assert!(!basic.matches("ann", "x"));
        assert!(!basic.matches("bob", "é:t"));
    }

    #[tokio::test]
    async fn malformed_passwords_are_refused() {
        for pair in [&b"no colon"[..], b"a:\xff", b"a:line\nbreak"] {
            let value = format!("Basic {}", STANDARD.encode(pair));
            let error = read::<Option<Basic>>(&[("authorization", &value)])
                .await
                .unwrap_err();
            assert!(challenge(error).starts_with("Basic realm="));
        }
        assert!(
            read::<Option<Basic>>(&[("authorization", "Basic !")])
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_key_is_told_by_its_header() {
        let key = read::<ApiKey>(&[("x-api-key", "k")]).await.unwrap();
        assert_eq!(key.key(), "k");
        let rejection = read::<ApiKey>(&[]).await.unwrap_err();
        assert_eq!(rejection.field(), Some((Location::Header, "x-api-key")));
        assert_eq!(challenge(rejection), r#"ApiKey header="x-api-key""#);
        assert!(read::<Option<ApiKey>>(&[("x-api-key", "")]).await.is_err());
        assert!(
            read::<ApiKey>(&[("x-api-key", "a"), ("x-api-key", "b")])
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn no_secret_is_printed() {
        let value = format!("Basic {}", STANDARD.encode("ann:hush"));
        let basic = read::<Basic>(&[("authorization", &value)]).await.unwrap();
        let bearer = read::<Bearer>(&[("authorization", "Bearer hush")])
            .await
            .unwrap();
        let key = read::<ApiKey>(&[("x-api-key", "hush")]).await.unwrap();
        assert!(!format!("{basic:?} {bearer:?} {key:?}").contains("hush"));
    }
}
