//! How a call has failed.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use prost::{Message, Name};
use tower_deadline::Expired;

use crate::details::RpcStatus;
use crate::metadata::{BASE64, Metadata, base64_value};
use crate::{BoxError, Code};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// What of a message is written as `%XX`: all but the printable ASCII characters, and `%`.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// How a call has failed: a [`Code`], a message for people, and what else there is to know.
///
/// It is one pointer wide, so that the `Result`s around it stay small.
///
/// - **Details** are messages for programs, of the standard error model ([`details`](crate::details)) or your
///   own: [`with_detail`](Self::with_detail), [`detail`](Self::detail).
/// - **Metadata** travels in the trailers.
/// - **The source** is what has caused it on this side. It never travels: what a server's caller should know
///   belongs in the message.
///
/// # Example
///
/// ```
/// use tower_grpc::details::ErrorInfo;
/// use tower_grpc::{Code, Status};
///
/// let status = Status::not_found("no such user").with_detail(ErrorInfo {
///     reason: "USER_DELETED".to_owned(),
///     ..ErrorInfo::default()
/// });
///
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.detail::<ErrorInfo>().unwrap().reason, "USER_DELETED");
/// assert_eq!(status.to_string(), "NOT_FOUND: no such user");
/// ```
#[derive(Clone)]
pub struct Status(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: String,
    /// An encoded [`RpcStatus`], or what the peer has put in its place.
    details: Bytes,
    metadata: Metadata,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident $code:ident)*) => {
        $(
            #[doc = concat!("A status with [`Code::", stringify!($code), "`].")]
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Code::$code, message)
            }
        )*
    };
}

impl Status {
    /// A status of a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            details: Bytes::new(),
            metadata: Metadata::new(),
            source: None,
        }))
    }

    constructors! {
        cancelled Cancelled
        unknown Unknown
        invalid_argument InvalidArgument
        deadline_exceeded DeadlineExceeded
        not_found NotFound
        already_exists AlreadyExists
        permission_denied PermissionDenied
        resource_exhausted ResourceExhausted
        failed_precondition FailedPrecondition
        aborted Aborted
        out_of_range OutOfRange
        unimplemented Unimplemented
        internal Internal
        unavailable Unavailable
        data_loss DataLoss
        unauthenticated Unauthenticated
    }

    /// The status that an error means, which is kept as its source.
    ///
    /// The first error of the chain that is known decides: a `Status` is itself; a passed deadline is
    /// `DEADLINE_EXCEEDED`; a connection that fails, or can't be made, is `UNAVAILABLE`; the codes of HTTP/2's
    /// resets map as the protocol has it. Any other is `UNKNOWN`.
    pub fn from_error(error: impl Into<BoxError>) -> Self {
        let error = match error.into().downcast::<Self>() {
            Ok(status) => return *status,
            Err(error) => error,
        };
        let known = chain(&*error).find_map(known);
        let mut status = known.unwrap_or_else(|| Self::unknown(error.to_string()));
        status.0.source = Some(Arc::from(error));
        status
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What travels with it in the trailers.
    ///
    /// Where a client's call of one response has failed, what came before the trailers is there, too, under names
    /// that they don't have.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// What is to travel with it in the trailers.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }

    /// Sends metadata along with it.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Keeps what has caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a message to its details.
    #[must_use]
    pub fn with_detail<M: Message + Name>(mut self, detail: M) -> Self {
        let mut all = self.rpc_status();
        all.details.push(prost_types::Any {
            type_url: M::type_url(),
            value: detail.encode_to_vec(),
        });
        self.0.details = all.encode_to_vec().into();
        self
    }

    /// Puts `google.rpc.Status`, encoded, or anything else, in the place of its details.
    #[must_use]
    pub fn with_details_bytes(mut self, details: impl Into<Bytes>) -> Self {
        self.0.details = details.into();
        self
    }

    /// The first of its details that is of the type.
    ///
    /// There is none where the peer has sent what isn't a `google.rpc.Status`.
    pub fn detail<M: Message + Name + Default>(&self) -> Option<M> {
        let url = M::type_url();
        let name = url.rsplit('/').next();
        let details = RpcStatus::decode(self.0.details.clone()).ok()?.details;
        let any = details
            .into_iter()
            .find(|any| any.type_url.rsplit('/').next() == name)?;
        M::decode(&*any.value).ok()
    }

    /// Its details as `google.rpc.Status`; empty but for code and message where there are none.
    pub fn rpc_status(&self) -> RpcStatus {
        let mut status = RpcStatus::decode(self.0.details.clone()).unwrap_or_default();
        status.code = self.0.code.into();
        status.message.clone_from(&self.0.message);
        status
    }

    /// Its details as they travel in `grpc-status-details-bin`.
    pub fn details_bytes(&self) -> &Bytes {
        &self.0.details
    }

    /// Another code, for what is otherwise as it is.
    #[must_use]
    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// The trailers that tell of it.
    pub(crate) fn into_trailers(self) -> HeaderMap {
        let inner = *self.0;
        let mut headers = inner.metadata.into_headers();
        headers.insert(GRPC_STATUS, inner.code.to_header());
        if !inner.message.is_empty() {
            headers.insert(GRPC_MESSAGE, escape(&inner.message));
        }
        if !inner.details.is_empty() {
            headers.insert(GRPC_DETAILS, base64_value(&inner.details));
        }
        headers
    }

    /// How trailers say that the call has ended; `None` where they say nothing of it.
    pub(crate) fn from_trailers(mut trailers: HeaderMap) -> Option<Result<Metadata, Self>> {
        // Nearly always it is the only field: looking at it is cheaper than looking it up. It may stay, as metadata
        // that was received doesn't show the protocol's own.
        let (_, code) = trailers.iter().find(|(name, _)| **name == GRPC_STATUS)?;
        let code = Code::from_header(code.as_bytes());
        if code == Code::Ok {
            return Some(Ok(Metadata::received(trailers)));
        }
        let message = trailers.remove(GRPC_MESSAGE);
        let details = trailers.remove(GRPC_DETAILS);
        let mut status = Self::new(
            code,
            message.map(|value| unescape(&value)).unwrap_or_default(),
        );
        status.0.details = details
            .and_then(|value| BASE64.decode(value.as_bytes()).ok())
            .unwrap_or_default()
            .into();
        status.0.metadata = Metadata::received(trailers);
        Some(Err(status))
    }
}

fn escape(message: &str) -> HeaderValue {
    let mut text = percent_encode(message.as_bytes(), ESCAPED).to_string();
    // A space at either end would be no part of the field's value, and some peers refuse whoever sends one.
    if let Some(rest) = text.strip_prefix(' ') {
        text = format!("%20{rest}");
    }
    if let Some(rest) = text.strip_suffix(' ') {
        text = format!("{rest}%20");
    }
    // What is left is printable ASCII.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn unescape(value: &HeaderValue) -> String {
    percent_decode(value.as_bytes())
        .decode_utf8_lossy()
        .into_owned()
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// What is known of one error of a chain.
fn known(error: &(dyn StdError + 'static)) -> Option<Status> {
    if let Some(status) = error.downcast_ref::<Status>() {
        return Some(status.clone());
    }
    if error.is::<Expired>() {
        return Some(Status::deadline_exceeded(error.to_string()));
    }
    #[cfg(feature = "transport")]
    if let Some(error) = error.downcast_ref::<tower_h2::Error>() {
        return Some(of_h2(error));
    }
    let error = error.downcast_ref::<io::Error>()?;
    match error.get_ref() {
        // What it wraps is not its source, but that of it.
        Some(inner) => chain(inner).find_map(known),
        None => Some(Status::unavailable(error.to_string())),
    }
}

/// The table of the protocol, "HTTP2 Transport Mapping", errors.
#[cfg(feature = "transport")]
fn of_h2(error: &tower_h2::Error) -> Status {
    use tower_h2::{ErrorKind, Reason};

    let code = match (error.kind(), error.reason()) {
        _ if error.is_unprocessed() => Code::Unavailable,
        (ErrorKind::Reset, Some(Reason::CANCEL)) => Code::Cancelled,
        (_, Some(Reason::REFUSED_STREAM)) => Code::Unavailable,
        (_, Some(Reason::ENHANCE_YOUR_CALM)) => Code::ResourceExhausted,
        (_, Some(Reason::INADEQUATE_SECURITY)) => Code::PermissionDenied,
        (ErrorKind::Reset, Some(Reason::STREAM_CLOSED)) => Code::Unknown,
        (ErrorKind::Reset | ErrorKind::Protocol | ErrorKind::Unsendable, _) => Code::Internal,
        (ErrorKind::Service | ErrorKind::Body, _) => {
            let known = StdError::source(error).and_then(|source| chain(source).find_map(known));
            return known.unwrap_or_else(|| Status::unknown(error.to_string()));
        }
        _ => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Status");
        debug
            .field("code", &self.0.code)
            .field("message", &self.0.message);
        if !self.0.details.is_empty() {
            debug.field("details", &self.0.details);
        }
        if !self.0.metadata.is_empty() {
            debug.field("metadata", &self.0.metadata);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.name())?;
        match self.0.message.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.0.message),
        }
    }
}

impl StdError for Status {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

impl From<Expired> for Status {
    fn from(expired: Expired) -> Self {
        Self::from_error(expired)
    }
}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        Self::from_error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::details::{ErrorInfo, RetryInfo};
    use proptest::prelude::*;

    #[test]
    fn a_status_is_one_pointer_wide() {
        assert_eq!(size_of::<Status>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Status>>(), size_of::<usize>());
    }

    #[test]
    fn a_message_is_percent_encoded() {
        let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n 100%";
        let trailers = Status::unknown(message).into_trailers();
        assert_eq!(
            trailers[GRPC_MESSAGE],
            "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A 100%25"
        );
        let status = Status::from_trailers(trailers).unwrap().unwrap_err();
        assert_eq!(status.message(), message);
    }

    #[test]
    fn no_message_begins_or_ends_with_a_space_on_the_wire() {
        for (message, text) in [
            (" ", "%20"),
            ("   ", "%20 %20"),
            (" a b ", "%20a b%20"),
            ("a b", "a b"),
        ] {
            assert_eq!(escape(message), text);
            assert_eq!(unescape(&escape(message)), message);
        }
    }

    #[test]
    fn a_malformed_message_is_kept_as_far_as_it_goes() {
        for (text, expected) in [
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(unescape(&HeaderValue::from_static(text)), expected);
        }
    }

    #[test]
    fn details_are_found_by_type() {
        let retry = RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
        };
        let info = ErrorInfo {
            reason: "R".to_owned(),
            domain: "example.com".to_owned(),
            ..ErrorInfo::default()
        };
        let status = Status::unavailable("later")
            .with_detail(info.clone())
            .with_detail(retry.clone());
        let status = Status::from_trailers(status.into_trailers())
            .unwrap()
            .unwrap_err();
        assert_eq!(status.detail::<RetryInfo>(), Some(retry));
        assert_eq!(status.detail::<ErrorInfo>(), Some(info));
        let all = status.rpc_status();
        assert_eq!(
            (all.code, all.message.as_str(), all.details.len()),
            (14, "later", 2)
        );
    }

    #[test]
    fn a_known_error_has_its_code_and_stays_the_source() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(refused);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.source().unwrap().is::<io::Error>());
        let status = Status::from_error(Expired::during_work());
        assert_eq!(status.code(), Code::DeadlineExceeded);
        // A status inside of another error is found.
        let inner = Status::permission_denied("no");
        let status = Status::from_error(io::Error::other(inner));
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(Status::from_error("anything").code(), Code::Unknown);
    }

    #[test]
    fn trailers_without_a_status_say_nothing() {
        assert!(Status::from_trailers(HeaderMap::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_message_survives_the_wire(message in any::<String>()) {
            let trailers = Status::unknown(message.clone()).into_trailers();
            let status = Status::from_trailers(trailers).unwrap().unwrap_err();
            prop_assert_eq!(status.message(), message);
        }

        #[test]
        fn no_trailers_panic(
            status in prop::collection::vec(any::<u8>(), 0..4),
            message in prop::collection::vec(any::<u8>(), 0..40),
            details in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut trailers = HeaderMap::new();
            for (name, value) in [(GRPC_STATUS, status), (GRPC_MESSAGE, message), (GRPC_DETAILS, details)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    trailers.insert(name, value);
                }
            }
            if let Some(Err(status)) = Status::from_trailers(trailers) {
                let _ = status.detail::<ErrorInfo>();
                let _ = status.rpc_status();
            }
        }
    }
}
