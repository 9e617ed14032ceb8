//! How a WebSocket is asked for, and who may have one.

use std::future::Future;
use std::time::Duration;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::WebSocket;
use super::io::Io;
use super::session::{Outcome, Session};
use crate::body::Body;
use crate::extract::{Extract, OptionalExtract, RequestHead, WholeBody};
use crate::problem::{Location, Rejection};
use crate::respond::{IntoResponse, Response};
use crate::shutdown::Shutdown;

/// A request that asks for a WebSocket. See the [module](super).
///
/// One that doesn't is refused with a 426, or a 400 where its handshake is malformed; `Option<WebSocketUpgrade>` is
/// `None` where none is asked for, for a path that has a page, too.
#[derive(Debug)]
#[must_use = "a socket is opened by what `on_upgrade` returns"]
pub struct WebSocketUpgrade {
    opening: Opening,
    /// What the client would speak, in its order.
    offered: Vec<String>,
    protocol: Option<HeaderValue>,
    origin: Origin,
    settings: Settings,
    shutdown: Option<Shutdown>,
}

/// How the client has asked.
#[derive(Debug)]
enum Opening {
    Upgrade {
        upgrade: OnUpgrade,
        /// The answer to the client's key.
        accept: HeaderValue,
    },
    Tunnel {
        incoming: Body,
    },
}

#[derive(Debug)]
enum Origin {
    /// Not a browser's, or of this site.
    Own,
    Other(HeaderValue),
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) max_message: usize,
    pub(super) ping_interval: Option<Duration>,
    pub(super) pong_timeout: Duration,
}

const MAX_MESSAGE: usize = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Of a request whose bodies are the two ways of a WebSocket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tunnelled;

/// Makes a `GET` of an extended CONNECT for a WebSocket (RFC 8441), so that it finds the route of both.
#[cfg(feature = "http2")]
#[inline]
pub(crate) fn route_tunnel<B>(request: &mut http::Request<B>) {
    if *request.method() != Method::CONNECT {
        return;
    }
    let protocol = request.extensions().get::<tower_h2::Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")) {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(Tunnelled);
    }
}

impl Extract for WebSocketUpgrade {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let tunnelled = head.extensions.get::<Tunnelled>().is_some();
        if !tunnelled && !asks_for_upgrade(head) {
            return Err(upgrade_required("a WebSocket must be asked for here"));
        }
        if head
            .headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            // RFC 6455, section 4.4.
            return Err(
                upgrade_required("only version 13 of the protocol is spoken here")
                    .at(Location::Header, "sec-websocket-version")
                    .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            );
        }
        let opening = if tunnelled {
            Opening::Tunnel {
                // What bounds it are its messages.
                incoming: body.with_limit(u64::MAX),
            }
        } else {
            let accept = accept(&head.headers)?;
            let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
                return Err(Rejection::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "this connection can't be upgraded",
                ));
            };
            Opening::Upgrade { upgrade, accept }
        };
        Ok(Self {
            opening,
            offered: tokens(&head.headers, &SEC_WEBSOCKET_PROTOCOL)
                .map(str::to_owned)
                .collect(),
            protocol: None,
            origin: Origin::of(&head.headers, &head.uri),
            settings: Settings {
                max_message: MAX_MESSAGE,
                ping_interval: Some(PING_INTERVAL),
                pong_timeout: PONG_TIMEOUT,
            },
            shutdown: head.shutdown(),
        })
    }
}

impl OptionalExtract for WebSocketUpgrade {
    async fn extract_optional(
        head: &mut RequestHead,
        body: Body,
    ) -> Result<Option<Self>, Rejection> {
        if head.extensions.get::<Tunnelled>().is_none() && !asks_for_upgrade(head) {
            return Ok(None);
        }
        Self::extract(head, body).await.map(Some)
    }
}

fn upgrade_required(detail: &'static str) -> Rejection {
    Rejection::new(StatusCode::UPGRADE_REQUIRED, detail)
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(CONNECTION, HeaderValue::from_static("upgrade"))
}

fn asks_for_upgrade(head: &RequestHead) -> bool {
    let has = |name: HeaderName, token: &str| {
        tokens(&head.headers, &name).any(|own| own.eq_ignore_ascii_case(token))
    };
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && has(CONNECTION, "upgrade")
        && has(UPGRADE, "websocket")
}

/// The members of a list of tokens.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The proof that the handshake was understood. The key is 16 bytes in base64, of which nothing is made but this.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Rejection> {
    let refuse = |detail: &'static str| {
        Rejection::new(StatusCode::BAD_REQUEST, detail).at(Location::Header, "sec-websocket-key")
    };
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(refuse("must be there once"));
    };
    let key = key.as_bytes();
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/".contains(b);
    if key.len() != 24 || !key.ends_with(b"==") || !key[..22].iter().all(base64) {
        return Err(refuse("isn't 16 bytes in base64"));
    }
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| refuse("isn't 16 bytes in base64"))
}

impl Origin {
    /// Whether a browser's page is of the host that it asks.
    ///
    /// The scheme isn't compared: it ends where TLS does, which may be before this server.
    fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let Some(origin) = headers.get(ORIGIN) else {
            return Self::Own;
        };
        let host = match (uri.authority(), headers.get(HOST)) {
            (Some(authority), _) => Some(authority.as_str()),
            (None, host) => host.and_then(|host| host.to_str().ok()),
        };
        let site = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, site)| site);
        match (site, host) {
            (Some(site), Some(host)) if site.eq_ignore_ascii_case(host) => Self::Own,
            _ => Self::Other(origin.clone()),
        }
    }
}

impl WebSocketUpgrade {
    /// With another bound of a message, in bytes. A peer that sends more is closed with 1009.
    pub const fn with_max_message(mut self, bytes: usize) -> Self {
        self.settings.max_message = bytes;
        self
    }

    /// Asks for a sign of life after so long a silence.
    pub const fn with_ping_interval(mut self, silence: Duration) -> Self {
        self.settings.ping_interval = Some(silence);
        self
    }

    /// Closes a peer that gives no sign of life for so long after it was asked, or takes nothing of what is sent for
    /// so long.
    pub const fn with_pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// Never asks for signs of life: a peer that has gone without a word is kept until something is sent to it.
    pub const fn without_pings(mut self) -> Self {
        self.settings.ping_interval = None;
        self
    }

    /// Lets the pages of this site in, too: a scheme, a host, and a port where it isn't the scheme's own, as
    /// `https://app.example.com`.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        if matches!(&self.origin, Origin::Other(other) if other.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        {
            self.origin = Origin::Own;
        }
        self
    }

    /// Lets the pages of any site in. Only where nothing depends on a cookie, or on where the client is.
    pub fn allow_any_origin(mut self) -> Self {
        self.origin = Origin::Own;
        self
    }

    /// Speaks one of these subprotocols: the first that the client speaks, too. Without one in common the socket is
    /// opened all the same, and it is the client's to close it.
    pub fn with_protocols<P>(mut self, protocols: P) -> Self
    where
        P: IntoIterator,
        P::Item: AsRef<str>,
    {
        self.protocol = protocols
            .into_iter()
            .find(|own| self.offered.iter().any(|offered| offered == own.as_ref()))
            .and_then(|own| HeaderValue::from_str(own.as_ref()).ok());
        self
    }

    /// The subprotocols that the client speaks, in its order.
    pub fn offered_protocols(&self) -> &[String] {
        &self.offered
    }

    /// The response that opens the socket, which is then given to the handler in a task of its own.
    ///
    /// The handler returns nothing, or a `Result`. Its failure is logged, unless it only says that the peer has
    /// [closed](super::Closed).
    ///
    /// **Cancellation.** The handler is dropped 30 seconds after the connection has ended, if it still runs.
    pub fn on_upgrade<F, Fut>(self, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        if let Origin::Other(origin) = &self.origin {
            tracing::warn!(?origin, "a websocket is refused to a page of another site");
            return Rejection::new(StatusCode::FORBIDDEN, "pages of this site aren't let in")
                .at(Location::Header, "origin")
                .into_response();
        }
        let protocol = self.protocol;
        let session = Session {
            settings: self.settings,
            protocol: protocol
                .as_ref()
                .and_then(|protocol| Some(protocol.to_str().ok()?.to_owned())),
            shutdown: self.shutdown,
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        match self.opening {
            Opening::Upgrade { upgrade, accept } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok(connection) => session.run(Io::upgraded(connection), handler).await,
                        Err(error) => tracing::debug!(%error, "a websocket's client went away"),
                    }
                });
            }
            Opening::Tunnel { incoming } => {
                let (io, outgoing) = Io::tunnel(incoming);
                *response.body_mut() = outgoing;
                tokio::spawn(session.run(io, handler));
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn same_site(origin: &'static str, host: &'static str) -> bool {
        let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
        matches!(Origin::of(&headers, &Uri::from_static("/ws")), Origin::Own)
    }

    #[test]
    fn a_page_is_of_this_site_if_its_host_and_port_are() {
        assert!(same_site("https://example.com", "example.com"));
        assert!(same_site("http://Example.com:8080", "example.com:8080"));
        assert!(same_site("http://[::1]:80", "[::1]:80"));
        assert!(!same_site("https://evil.example", "example.com"));
        assert!(!same_site(
            "https://example.com.evil.example",
            "example.com"
        ));
        assert!(!same_site("http://example.com:8081", "example.com:8080"));
        assert!(!same_site("null", "example.com"));
        assert!(!same_site("", ""));
    }

    #[test]
    fn the_authority_of_http2_stands_for_the_host() {
        let headers = headers(&[(ORIGIN, "https://example.com")]);
        let uri = Uri::from_static("https://example.com/ws");
        assert!(matches!(Origin::of(&headers, &uri), Origin::Own));
        assert!(matches!(
            Origin::of(&headers, &Uri::from_static("/ws")),
            Origin::Other(_)
        ));
    }

    /// RFC 6455, section 1.3.
    #[test]
    fn the_key_is_answered_as_in_the_specification() {
        let headers = headers(&[(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_that_is_not_one_is_refused() {
        for key in [
            "",
            "short==",
            "dGhlIHNhbXBsZSBub25jZQ=!",
            "dGhlIHNhbXBs ZSBub25jZ==!",
        ] {
            assert!(
                accept(&headers(&[(SEC_WEBSOCKET_KEY, key)])).is_err(),
                "{key}"
            );
        }
        assert_eq!(
            accept(&HeaderMap::new()).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
