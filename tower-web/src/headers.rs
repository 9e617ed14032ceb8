//! Headers as types of their own.

use std::ops::Deref;

use http::{HeaderMap, StatusCode};

use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead};
use crate::problem::{Location, Rejection};
use crate::respond::IntoHeaders;

/// The types of headers that there are, and the trait for more: the crate `headers`.
pub use ::headers as types;

/// A header of the request, read as `T`; in a response's tuple, one that is set.
///
/// One that is missing or malformed is refused with a 400 that names it. `Option<Header<T>>` is `None` where the header
/// is missing.
///
/// # Example
///
/// ```
/// use tower_web::extract::{Extract, RequestHead};
/// use tower_web::headers::Header;
/// use tower_web::headers::types::{ContentType, IfModifiedSince, UserAgent};
/// use tower_web::respond::IntoResponse;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = http::Request::get("/").header("user-agent", "curl/8").body(()).unwrap();
/// let (mut head, ()) = RequestHead::new(request);
/// let Header(agent) = Header::<UserAgent>::extract(&mut head, ()).await.unwrap();
/// assert_eq!(agent.as_str(), "curl/8");
///
/// let since = Option::<Header<IfModifiedSince>>::extract(&mut head, ()).await.unwrap();
/// assert!(since.is_none());
///
/// let response = (Header(ContentType::xml()), "<a/>").into_response();
/// assert_eq!(response.headers()["content-type"], "text/xml");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header<T>(pub T);

impl<T: types::Header + Send> Extract for Header<T> {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        read(&head.headers)?.ok_or_else(|| refuse::<T>("is missing"))
    }
}

impl<T: types::Header + Send> OptionalExtract for Header<T> {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        read(&head.headers)
    }
}

/// Some headers read nothing at all as an empty list. Whether it is there is asked before.
fn read<T: types::Header>(headers: &HeaderMap) -> Result<Option<Header<T>>, Rejection> {
    if !headers.contains_key(T::name()) {
        return Ok(None);
    }
    match T::decode(&mut headers.get_all(T::name()).iter()) {
        Ok(value) => Ok(Some(Header(value))),
        Err(_) => Err(refuse::<T>("is malformed")),
    }
}

fn refuse<T: types::Header>(detail: &'static str) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, detail).at(Location::Header, T::name().as_str())
}

impl<T: types::Header> IntoHeaders for Header<T> {
    fn put(self, headers: &mut HeaderMap) {
        headers.remove(T::name());
        types::HeaderMapExt::typed_insert(headers, self.0);
    }
}

impl<T> Deref for Header<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::types::{ContentLength, IfNoneMatch};
    use super::*;

    async fn read<T: Extract<Body = NoBody, Rejection = Rejection>>(
        name: &str,
        value: &str,
    ) -> Result<T, Rejection> {
        let request = http::Request::get("/")
            .header(name, value)
            .body(())
            .unwrap();
        T::extract(&mut RequestHead::new(request).0, ()).await
    }

    #[tokio::test]
    async fn a_missing_header_is_refused_by_name_and_is_none_as_an_option() {
        let rejection = read::<Header<ContentLength>>("x-other", "1")
            .await
            .unwrap_err();
        assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            rejection.field(),
            Some((Location::Header, "content-length"))
        );
        let absent = read::<Option<Header<ContentLength>>>("x-other", "1").await;
        assert_eq!(absent.unwrap(), None);
        assert!(
            read::<Option<Header<IfNoneMatch>>>("x-other", "1")
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_malformed_header_is_refused_even_as_an_option() {
        let rejection = read::<Option<Header<ContentLength>>>("content-length", "many").await;
        assert_eq!(rejection.unwrap_err().detail(), "is malformed");
        let Header(length) = read::<Header<ContentLength>>("content-length", "7")
            .await
            .unwrap();
        assert_eq!(length.0, 7);
    }
}
