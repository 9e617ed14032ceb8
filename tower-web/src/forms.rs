//! The query, and forms as browsers send them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use percent_encoding::percent_decode;
use serde_core::de::DeserializeOwned;

use crate::body::Body;
use crate::extract::{Extract, NoBody, OptionalExtract, RequestHead, WholeBody, unless_absent};
use crate::problem::{Location, Rejection};

mod flattened;

/// The query of the request's URI, for handlers that take parameters: a struct, a map, or a vector of pairs.
///
/// A key that is repeated fills a `Vec`. A field that may be missing is an `Option`, or has `#[serde(default)]`; a
/// number that is there and empty, as a form sends it that wasn't filled in, is `None` as well. Whatever else doesn't
/// fit `T` is refused with a 400 that names the parameter. Numbers and lists are read in a field with `#[serde(flatten)]`, too, which takes
/// a reading more for each, of 64 KiB at most.
///
/// `Option<Query<T>>` is `None` where there is no query.
///
/// # Example
///
/// ```
/// use serde::Deserialize;
/// use tower_web::extract::{Extract, RequestHead};
/// use tower_web::forms::Query;
///
/// #[derive(Debug, Deserialize)]
/// struct Search {
///     #[serde(default)]
///     tag: Vec<String>,
///     page: Option<u32>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = |uri| RequestHead::new(http::Request::get(uri).body(()).unwrap()).0;
///
/// let mut head = request("/?tag=red&tag=blue");
/// let Query(search) = Query::<Search>::extract(&mut head, ()).await.unwrap();
/// assert_eq!(search.tag, ["red", "blue"]);
/// assert_eq!(search.page, None);
///
/// let mut head = request("/?page=two");
/// let rejection = Query::<Search>::extract(&mut head, ()).await.unwrap_err();
/// assert_eq!(rejection.status(), 400);
/// assert_eq!(rejection.field().unwrap().1, "page");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query<T>(pub T);

/// A form that was sent with POST: a body of `application/x-www-form-urlencoded`.
///
/// It is read as a [`Query`] is. A body of another type is refused with a 415, and one that doesn't fit `T` with a 422
/// that names the field. `Option<Form<T>>` is `None` where there is no body. Files come by
/// [`Multipart`](crate::multipart::Multipart).
///
/// # Example
///
/// ```
/// use serde::Deserialize;
/// use tower_web::extract::{Extract, RequestHead};
/// use tower_web::forms::Form;
///
/// #[derive(Deserialize)]
/// struct Login {
///     name: String,
///     password: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let request = http::Request::post("/login")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .body("name=Ann+Lee&password=%C3%A9t%C3%A9".into())
///     .unwrap();
/// let (mut head, body) = RequestHead::new(request);
/// let Form(login) = Form::<Login>::extract(&mut head, body).await.unwrap();
/// assert_eq!(login.name, "Ann Lee");
/// assert_eq!(login.password, "été");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned + Send> Extract for Query<T> {
    type Body = NoBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, (): ()) -> Result<Self, Rejection> {
        let query = head.uri.query().unwrap_or("");
        match parse(query.as_bytes()) {
            Ok(value) => Ok(Self(value)),
            Err(malformed) => Err(malformed.reject(StatusCode::BAD_REQUEST, Location::Query)),
        }
    }
}

impl<T: DeserializeOwned + Send> OptionalExtract for Query<T> {
    async fn extract_optional(head: &mut RequestHead, (): ()) -> Result<Option<Self>, Rejection> {
        match head.uri.query() {
            None | Some("") => Ok(None),
            Some(_) => Self::extract(head, ()).await.map(Some),
        }
    }
}

impl<T: DeserializeOwned + Send> Extract for Form<T> {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        check_type(&head.headers)?;
        let bytes = body.bytes().await?;
        match parse(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(malformed) => {
                Err(malformed.reject(StatusCode::UNPROCESSABLE_ENTITY, Location::Body))
            }
        }
    }
}

impl<T: DeserializeOwned + Send> OptionalExtract for Form<T> {
    async fn extract_optional(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        unless_absent(head, body).await
    }
}

/// Refuses a body that doesn't say that it is a form.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    if is_form(headers) {
        return Ok(());
    }
    Err(Rejection::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body must be a form, with `content-type: application/x-www-form-urlencoded`",
    ))
}

/// Whether the content type is that of a form, whatever its parameters.
fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let essence = content_type.split(|&b| b == b';').next().unwrap_or(b"");
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Why pairs don't make a value.
#[derive(Debug, PartialEq, Eq)]
struct Malformed {
    /// Which field it is about. `None` if it can't be told.
    field: Option<String>,
    detail: String,
}

impl Malformed {
    fn reject(self, status: StatusCode, location: Location) -> Rejection {
        // What can't be decoded at all isn't a matter of what it means.
        let rejection = match self.field {
            None => return Rejection::new(StatusCode::BAD_REQUEST, self.detail),
            Some(_) => Rejection::new(status, self.detail),
        };
        match self.field {
            Some(field) => rejection.at(location, field),
            None => rejection,
        }
    }
}

fn parse<T: DeserializeOwned>(pairs: &[u8]) -> Result<T, Malformed> {
    // The decoder would put U+FFFD for what isn't UTF-8, and the handler would never know. Separators are ASCII, so
    // the whole is UTF-8 if each of its pieces is.
    let plain = pairs.is_ascii() && !pairs.contains(&b'%');
    if !plain && percent_decode(pairs).decode_utf8().is_err() {
        return Err(Malformed {
            field: None,
            detail: "a parameter isn't UTF-8".to_owned(),
        });
    }
    match serde_html_form::from_bytes(pairs) {
        Ok(value) => Ok(value),
        Err(error) => parse_otherwise(pairs, &error),
    }
}

/// Reads them as a type with a flattened field wants them, where what is wrong is somewhere within one.
#[cold]
fn parse_otherwise<T: DeserializeOwned>(
    pairs: &[u8],
    error: &dyn fmt::Display,
) -> Result<T, Malformed> {
    let malformed = explain::<T>(pairs, error);
    if malformed.field.as_deref() != Some("") || pairs.len() > flattened::MOST_BYTES {
        return Err(malformed);
    }
    let pairs = serde_html_form::from_bytes(pairs).unwrap_or_default();
    flattened::parse(pairs).map_err(|told| match told.field.as_deref() {
        // It knows nothing better.
        None | Some("") => malformed,
        Some(_) => told,
    })
}

/// Says what was wrong, and where: the pairs are read once more, by a reader that remembers its way.
#[cold]
fn explain<T: DeserializeOwned>(pairs: &[u8], error: &dyn fmt::Display) -> Malformed {
    let deserializer = serde_html_form::Deserializer::from_bytes(pairs);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(deserializer) else {
        // Only where `T` judges by something else than the pairs.
        return Malformed {
            field: Some(String::new()),
            detail: error.to_string(),
        };
    };
    let mut detail = error.inner().to_string();
    // So it says of a name that is there more than once, where one value is wanted.
    if detail == "unsupported value" {
        detail = "is there more than once, and has one value only".to_owned();
    }
    // serde has no other way to say which field it misses.
    let missing = detail
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next());
    if let Some(field) = missing {
        return Malformed {
            field: Some(field.to_owned()),
            detail: "is missing".to_owned(),
        };
    }
    // Which of its values it is, where there are many, its name doesn't say.
    let mut steps = error.path().iter();
    let name = steps.find_map(|step| match step {
        serde_path_to_error::Segment::Map { key } => Some(key.clone()),
        _ => None,
    });
    Malformed {
        field: Some(name.unwrap_or_default()),
        detail,
    }
}

impl<T> Query<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Form<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Query<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Query<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Deref for Form<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Form<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Search {
        #[serde(default)]
        tag: Vec<String>,
        page: Option<u32>,
        sort: Option<Sort>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Sort {
        Name,
        Age,
    }

    #[derive(Debug, Deserialize)]
    struct Numbers {
        #[serde(rename = "n")]
        _numbers: Vec<u8>,
    }

    fn search(pairs: &str) -> Result<Search, Malformed> {
        parse(pairs.as_bytes())
    }

    fn field(pairs: &str) -> String {
        search(pairs).unwrap_err().field.unwrap()
    }

    #[test]
    fn repeated_keys_fill_a_vector_in_their_order() {
        assert_eq!(search("tag=b&page=2&tag=a").unwrap().tag, ["b", "a"]);
        assert_eq!(search("tag=only").unwrap().tag, ["only"]);
        assert_eq!(search("").unwrap().tag, [""; 0]);
    }

    #[test]
    fn an_option_is_none_only_where_nothing_was_given() {
        assert_eq!(search("").unwrap().page, None);
        assert_eq!(search("page=").unwrap().page, None);
        assert_eq!(search("page=7").unwrap().page, Some(7));
        assert_eq!(field("page=seven"), "page");
        assert_eq!(field("page=-1"), "page");
    }

    #[test]
    fn the_refused_field_is_named() {
        assert_eq!(field("tag=a&sort=size"), "sort");
        assert_eq!(field("page=1&page=2"), "page");
        assert_eq!(
            parse::<Numbers>(b"n=1&n=x").unwrap_err().field.as_deref(),
            Some("n")
        );

        #[derive(Debug, Deserialize)]
        struct Needs {
            #[serde(rename = "user-name")]
            _name: String,
        }
        let malformed = parse::<Needs>(b"user=x").unwrap_err();
        assert_eq!(malformed.field.as_deref(), Some("user-name"));
        assert_eq!(malformed.detail, "is missing");
        let twice = search("page=1&page=2").unwrap_err();
        assert!(twice.detail.contains("more than once"), "{twice:?}");
    }

    #[test]
    fn what_is_not_utf8_is_refused_and_not_replaced() {
        for pairs in [&b"tag=%FF"[..], b"tag=\xff", b"%C3=%A9"] {
            let malformed = parse::<Search>(pairs).unwrap_err();
            assert_eq!(malformed.field, None);
            assert_eq!(
                malformed
                    .reject(StatusCode::UNPROCESSABLE_ENTITY, Location::Body)
                    .status(),
                StatusCode::BAD_REQUEST
            );
        }
    }

    #[test]
    fn the_content_type_may_have_parameters_and_capitals() {
        let form = |value: &'static str| {
            is_form(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                value.parse().unwrap(),
            )]))
        };
        assert!(form("application/x-www-form-urlencoded"));
        assert!(form("Application/X-WWW-Form-URLEncoded ; charset=UTF-8"));
        assert!(!form("multipart/form-data; boundary=x"));
        assert!(!is_form(&HeaderMap::new()));
    }

    proptest! {
        /// Whatever a form is made of comes out as it went in.
        #[test]
        fn any_text_makes_the_round_trip(pairs in proptest::collection::vec((".*", ".*"), 0..8)) {
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
            };
            let encoded: Vec<_> = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
            let mut expected = BTreeMap::<String, Vec<String>>::new();
            for (key, value) in pairs {
                expected.entry(key).or_default().push(value);
            }
            let read: BTreeMap<String, Vec<String>> = parse(encoded.join("&").as_bytes()).unwrap();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse::<Search>(&bytes);
            let _ = parse::<Vec<(String, u8)>>(&bytes);
        }
    }
}
