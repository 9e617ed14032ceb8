//! What travels with a call beside its messages.

use std::fmt;
use std::iter::FusedIterator;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Written without padding, read with and without it, as the protocol has it.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names and values that travel with a call: with the request, before the response, and after it.
///
/// A name is of lowercase ASCII letters, digits and `-`, `_`, `.`; uppercase letters are lowered. Each may
/// have several values. A value is printable ASCII text without spaces around it; under names that end in `-bin` it is any bytes, and
/// travels as base64.
///
/// Names that the protocol has for itself (`grpc-` …, `content-type`, `te` and those of HTTP's
/// connections) are refused, and aren't seen here where a peer sends them.
///
/// # Example
///
/// ```
/// use tower_grpc::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert("x-region", "eu")?;
/// metadata.append("x-region", "us")?;
/// metadata.insert_bin("x-trace-bin", [0x00, 0xff])?;
///
/// assert_eq!(metadata.get("x-region"), Some("eu"));
/// assert_eq!(metadata.get_all("x-region").collect::<Vec<_>>(), ["eu", "us"]);
/// assert_eq!(metadata.get_bin("x-trace-bin").unwrap(), [0x00, 0xff][..]);
/// assert!(metadata.insert("grpc-status", "0").is_err());
/// # Ok::<_, tower_grpc::InvalidMetadata>(())
/// ```
#[derive(Clone, Default)]
pub struct Metadata {
    headers: HeaderMap,
    /// They come from a peer, and so may have reserved names among them.
    received: bool,
}

/// A value of a [`Metadata`], as its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataValue<'a> {
    /// Text, under any name that doesn't end in `-bin`.
    Ascii(&'a str),
    /// Bytes, under a name that ends in `-bin`.
    Binary(Bytes),
}

/// A name or a value that can't be metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// The name has other characters than letters, digits, `-`, `_` and `.`.
    Name,
    /// The name is one of the protocol's own.
    Reserved {
        /// The name.
        name: String,
    },
    /// The value isn't printable ASCII. Bytes go under a name that ends in `-bin`.
    Value {
        /// The name of the value.
        name: String,
    },
    /// Text under a name that ends in `-bin`, or bytes under another.
    Kind {
        /// The name of the value.
        name: String,
    },
}

impl Metadata {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a peer has sent.
    pub(crate) fn received(headers: HeaderMap) -> Self {
        Self {
            headers,
            received: true,
        }
    }

    /// Itself, unless nothing was ever put into it. That isn't even dropped, which would look for what there is to drop.
    #[inline]
    pub(crate) fn unless_new(self) -> Option<Self> {
        if self.headers.capacity() > 0 {
            return Some(self);
        }
        std::mem::forget(self);
        None
    }

    /// Headers to send, without those that aren't for metadata to say.
    pub(crate) fn into_headers(self) -> HeaderMap {
        let mut headers = self.headers;
        if self.received {
            let bad: Vec<_> = headers
                .keys()
                .filter(|name| !is_free(name) || **name == http::header::USER_AGENT)
                .cloned()
                .collect();
            for name in bad {
                headers.remove(name);
            }
        }
        headers
    }

    /// The headers that came, with the protocol's own among them.
    pub(crate) fn raw(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first text under `name`.
    ///
    /// There is none where the name ends in `-bin`, or the peer has sent what isn't ASCII.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All texts under `name`, in the order in which they were sent.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = self.lookup(name).filter(|name| !is_binary(name));
        name.map(|name| self.headers.get_all(name))
            .into_iter()
            .flatten()
            .filter_map(|value| value.to_str().ok())
    }

    /// The first bytes under `name`, which ends in `-bin`.
    ///
    /// There are none where the peer has sent what isn't base64.
    pub fn get_bin(&self, name: &str) -> Option<Bytes> {
        self.get_all_bin(name).next()
    }

    /// All bytes under `name`, in the order in which they were sent.
    pub fn get_all_bin(&self, name: &str) -> impl Iterator<Item = Bytes> {
        let name = self.lookup(name).filter(is_binary);
        name.map(|name| self.headers.get_all(name))
            .into_iter()
            .flatten()
            .flat_map(split_binary)
    }

    /// Whether there is a value under `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.lookup(name)
            .is_some_and(|name| self.headers.contains_key(name))
    }

    /// Puts a text under `name`, in the place of what is there.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`], where the name is reserved, or either isn't ASCII, or the name ends in `-bin`.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), InvalidMetadata> {
        let name = free_name(name)?;
        let value = text_value(&name, value)?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Adds a text under `name` to what is there.
    ///
    /// # Errors
    ///
    /// As for [`insert`](Self::insert).
    pub fn append(&mut self, name: &str, value: &str) -> Result<(), InvalidMetadata> {
        let name = free_name(name)?;
        let value = text_value(&name, value)?;
        self.headers.append(name, value);
        Ok(())
    }

    /// Puts bytes under `name`, in the place of what is there.
    ///
    /// # Errors
    ///
    /// [`InvalidMetadata`], where the name is reserved, isn't ASCII, or doesn't end in `-bin`.
    pub fn insert_bin(
        &mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), InvalidMetadata> {
        let name = free_name(name)?;
        let value = binary_value(&name, value.as_ref())?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Adds bytes under `name` to what is there.
    ///
    /// # Errors
    ///
    /// As for [`insert_bin`](Self::insert_bin).
    pub fn append_bin(
        &mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), InvalidMetadata> {
        let name = free_name(name)?;
        let value = binary_value(&name, value.as_ref())?;
        self.headers.append(name, value);
        Ok(())
    }

    /// Removes all values under `name`; whether there were any.
    pub fn remove(&mut self, name: &str) -> bool {
        self.lookup(name)
            .is_some_and(|name| self.headers.remove(name).is_some())
    }

    /// All names with their values. A name that has several values comes several times.
    pub fn iter(&self) -> impl Iterator<Item = (&str, MetadataValue<'_>)> {
        self.headers
            .iter()
            .filter(|(name, _)| is_free(name))
            .flat_map(|(name, value)| {
                values_of(name, value).map(move |value| (name.as_str(), value))
            })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        !self.headers.keys().any(is_free)
    }

    /// Adds what `other` has under names that aren't here.
    pub(crate) fn complete(&mut self, other: &Self) {
        for name in other.headers.keys().filter(|name| is_free(name)) {
            if !self.headers.contains_key(name) {
                for value in other.headers.get_all(name) {
                    self.headers.append(name, value.clone());
                }
            }
        }
    }

    fn lookup(&self, name: &str) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        is_free(&name).then_some(name)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        let count = |metadata: &Self| metadata.headers.keys().filter(|name| is_free(name)).count();
        count(self) == count(other)
            && self
                .headers
                .keys()
                .filter(|name| is_free(name))
                .all(|name| {
                    let ours = self.headers.get_all(name).iter();
                    ours.eq(other.headers.get_all(name).iter())
                })
    }
}

impl fmt::Display for InvalidMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str(
                "a metadata name has other characters than letters, digits, '-', '_' and '.'",
            ),
            Self::Reserved { name } => write!(f, "metadata name {name:?} is reserved by gRPC"),
            Self::Value { name } => write!(
                f,
                "the value of {name:?} isn't printable ASCII; bytes go under a name that ends in -bin"
            ),
            Self::Kind { name } if name.ends_with("-bin") => {
                write!(f, "{name:?} takes bytes, as its name ends in -bin")
            }
            Self::Kind { name } => {
                write!(
                    f,
                    "{name:?} takes text; for bytes its name must end in -bin"
                )
            }
        }
    }
}

impl std::error::Error for InvalidMetadata {}

/// The values in one header: binary ones may be joined by commas.
fn values_of<'a>(
    name: &HeaderName,
    value: &'a HeaderValue,
) -> impl Iterator<Item = MetadataValue<'a>> + use<'a> {
    let binary = is_binary(name);
    let bytes = binary.then(|| split_binary(value)).into_iter().flatten();
    let text = (!binary).then(|| value.to_str().ok()).flatten();
    let text = text.map(MetadataValue::Ascii);
    text.into_iter().chain(bytes.map(MetadataValue::Binary))
}

fn split_binary(value: &HeaderValue) -> impl FusedIterator<Item = Bytes> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .filter_map(|text| BASE64.decode(text.trim_ascii()).ok())
        .map(Bytes::from)
        .fuse()
}

fn is_binary(name: &HeaderName) -> bool {
    name.as_str().ends_with("-bin")
}

/// Whether the name is the application's to use.
fn is_free(name: &HeaderName) -> bool {
    match name.as_str() {
        // Named in other specifications as metadata of tracing and of retries.
        "grpc-trace-bin" | "grpc-tags-bin" | "grpc-previous-rpc-attempts" => true,
        "content-type" | "content-length" | "te" | "trailer" | "transfer-encoding"
        | "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "host" => false,
        name => !name.starts_with("grpc-"),
    }
}

fn free_name(name: &str) -> Result<HeaderName, InvalidMetadata> {
    // HTTP allows more characters than gRPC.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_allowed) {
        return Err(InvalidMetadata::Name);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| InvalidMetadata::Name)?;
    match is_free(&name) {
        true => Ok(name),
        false => Err(InvalidMetadata::Reserved {
            name: name.as_str().to_owned(),
        }),
    }
}

fn text_value(name: &HeaderName, value: &str) -> Result<HeaderValue, InvalidMetadata> {
    if is_binary(name) {
        let name = name.as_str().to_owned();
        return Err(InvalidMetadata::Kind { name });
    }
    // Spaces around a value are no part of it (RFC 9113, section 8.2.1), and some peers refuse whoever sends them.
    let value = value.trim_matches(' ');
    let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    HeaderValue::from_str(value)
        .ok()
        .filter(|_| printable)
        .ok_or_else(|| InvalidMetadata::Value {
            name: name.as_str().to_owned(),
        })
}

fn binary_value(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, InvalidMetadata> {
    if !is_binary(name) {
        let name = name.as_str().to_owned();
        return Err(InvalidMetadata::Kind { name });
    }
    Ok(base64_value(value))
}

pub(crate) fn base64_value(value: &[u8]) -> HeaderValue {
    // Base64 always fits into a header.
    HeaderValue::try_from(BASE64.encode(value)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_names_are_refused_and_not_seen() {
        let mut headers = HeaderMap::new();
        for name in [
            "grpc-status",
            "grpc-timeout",
            "content-type",
            "te",
            "grpc-encoding",
        ] {
            let mut metadata = Metadata::new();
            let refused = metadata.insert(name, "1").unwrap_err();
            assert!(
                matches!(refused, InvalidMetadata::Reserved { .. }),
                "{name}"
            );
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let metadata = Metadata::received(headers);
        assert!(metadata.is_empty());
        assert_eq!(metadata.iter().count(), 0);
        assert_eq!(metadata.get("grpc-status"), None);
        assert!(metadata.into_headers().is_empty());
    }

    #[test]
    fn text_and_bytes_keep_to_their_names() {
        let mut metadata = Metadata::new();
        assert!(metadata.insert("a-bin", "text").is_err());
        assert!(metadata.insert_bin("a", b"bytes").is_err());
        assert!(metadata.insert("a", "grüße").is_err());
        assert!(metadata.insert("a", "line\nbreak").is_err());
        assert!(metadata.insert("a b", "c").is_err());
        assert!(metadata.insert("", "c").is_err());
        assert!(metadata.insert(":path", "c").is_err());
        assert!(metadata.is_empty());
        metadata.insert("UPPER", "  x y ").unwrap();
        assert_eq!(metadata.get("upper"), Some("x y"));
        metadata.insert("empty", "  ").unwrap();
        assert_eq!(metadata.get("empty"), Some(""));
    }

    #[test]
    fn binary_values_are_read_joined_padded_or_not() {
        let mut headers = HeaderMap::new();
        headers.append("k-bin", HeaderValue::from_static("AA==, AAE"));
        headers.append("k-bin", HeaderValue::from_static("!!"));
        headers.append("k-bin", HeaderValue::from_static("/w"));
        let metadata = Metadata::received(headers);
        let values: Vec<_> = metadata.get_all_bin("k-bin").collect();
        assert_eq!(values, [&[0][..], &[0, 1], &[255]]);
    }

    #[test]
    fn appending_keeps_every_value_in_order() {
        let mut metadata = Metadata::new();
        metadata.append("k", "1").unwrap();
        metadata.append("k", "2").unwrap();
        let values: Vec<_> = metadata.get_all("k").collect();
        assert_eq!(values, ["1", "2"]);
        metadata.insert("k", "3").unwrap();
        assert_eq!(metadata.get_all("k").count(), 1);
        assert!(metadata.remove("k") && !metadata.remove("k"));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_wire(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut metadata = Metadata::new();
            for value in &values {
                metadata.append_bin("k-bin", value).unwrap();
            }
            let read = Metadata::received(metadata.into_headers());
            let read: Vec<_> = read.get_all_bin("k-bin").map(|value| value.to_vec()).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_received_bytes_panic(name in "[a-z-]{1,8}(-bin)?", value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
                let mut headers = HeaderMap::new();
                headers.insert(name.clone(), value);
                let metadata = Metadata::received(headers);
                let _ = metadata.iter().count();
                let _ = metadata.get(name.as_str());
                let _ = metadata.get_bin(name.as_str());
            }
        }
    }
}
