//! What the head of a call says.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue, header};
use http_body::Body;
use tower_deadline::Deadline;

use super::Settings;
use super::refusal::Refusal;
use crate::compression::{Announced, Encoding, EncodingSet, GRPC_ACCEPT_ENCODING, GRPC_ENCODING};
use crate::inbound::Inbound;
use crate::outbound::Writing;
use crate::{Metadata, Request, Status, timeout};

/// A call whose head is in order.
pub(super) struct Opened<B> {
    pub(super) messages: Inbound<B>,
    pub(super) head: Head,
    pub(super) writing: Writing,
    pub(super) deadline: Option<Deadline>,
}

impl<B> Opened<B> {
    // What it gives is large, and is taken apart at once.
    #[inline(always)]
    pub(super) fn read(
        settings: Settings,
        subtype: &'static str,
        request: http::Request<B>,
    ) -> Result<Self, (Refusal, B)>
    where
        B: Body,
    {
        if let Some(refusal) = Refusal::of_method(request.method()) {
            return Err((refusal, request.into_body()));
        }
        let (head, body) = request.into_parts();
        let fields = match Fields::read(settings, subtype, &head.headers) {
            Ok(fields) => fields,
            Err(refusal) => return Err((refusal, body)),
        };
        let ambient = Deadline::current();
        let asked = fields.timeout.map(Deadline::after);
        Ok(Self {
            writing: Writing {
                encoding: fields.send,
                compression: None,
                max: settings.max_encoding,
            },
            deadline: asked.map(|asked| ambient.map_or(asked, |now| now.min(asked))),
            messages: Inbound::new(body, fields.encoding, settings.max_decoding),
            head: Head {
                headers: head.headers,
                extensions: head.extensions,
                timeout: fields.timeout,
            },
        })
    }
}

/// What a handler is told of the call beside its messages.
pub(super) struct Head {
    headers: HeaderMap,
    extensions: Extensions,
    timeout: Option<Duration>,
}

impl Head {
    /// A request of this head.
    #[inline]
    pub(super) fn with<T>(self, message: T, was_compressed: bool) -> Request<T> {
        Request::received(
            message,
            Metadata::received(self.headers),
            self.extensions,
            self.timeout,
            was_compressed,
        )
    }
}

/// What the headers say of the time and of encodings.
struct Fields {
    timeout: Option<Duration>,
    encoding: Option<Encoding>,
    send: Option<Encoding>,
}

impl Fields {
    /// One pass, which costs less than a lookup for each.
    fn read(settings: Settings, subtype: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut fields = Self {
            timeout: None,
            encoding: None,
            send: None,
        };
        let mut content_type = None;
        let mut refusal = None;
        for (name, value) in headers {
            if *name == header::CONTENT_TYPE {
                content_type = content_type.or(Some(value));
            } else if *name == timeout::GRPC_TIMEOUT {
                fields.timeout = timeout::parse(value.as_bytes());
                if fields.timeout.is_none() {
                    let message = format!("grpc-timeout is malformed: {value:?}");
                    refusal = Some(Refusal::Failure(Status::internal(message)));
                }
            } else if *name == GRPC_ENCODING {
                match read_encoding(settings, value) {
                    Ok(encoding) => fields.encoding = encoding,
                    Err(unknown) => refusal = Some(unknown),
                }
            } else if settings.send != EncodingSet::NONE && *name == GRPC_ACCEPT_ENCODING {
                fields.send = settings.send.first_of(EncodingSet::from_header(value));
            }
        }
        // Whoever speaks no gRPC is told so first.
        match Refusal::of_content_type(content_type, Some(subtype)).or(refusal) {
            Some(refusal) => Err(refusal),
            None => Ok(fields),
        }
    }
}

/// How the messages are compressed that come.
fn read_encoding(settings: Settings, value: &HeaderValue) -> Result<Option<Encoding>, Refusal> {
    match Announced::read(Some(value)) {
        Announced::Plain => Ok(None),
        Announced::Known(encoding) if settings.accept.contains(encoding) => Ok(Some(encoding)),
        Announced::Known(_) | Announced::Unknown => {
            Err(Refusal::Encoding(value.clone(), settings.accept))
        }
    }
}
