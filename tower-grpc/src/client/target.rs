//! Which server a channel is of, and how it is connected to.

use std::fmt;
use std::future::poll_fn;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_h2::client;
use tower_h2::client::Connect;
use tower_h2::connect::Tcp;
use tower_service::Service;

use super::Channel;
use super::channel::{Dialing, MAX_BACKOFF};
use crate::{BoxError, Status};

/// How to connect; see [`Channel::builder`].
///
/// `C` is a `Service` from a [`Uri`] to a byte stream.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `lazy` or `connect`"]
pub struct ChannelBuilder<C = Tcp> {
    uri: Uri,
    h2: client::Builder,
    connector: C,
    authority: Option<Authority>,
    speaks_tls: bool,
    max_backoff: Duration,
}

impl ChannelBuilder {
    /// For the server that the text names.
    pub(super) fn new(text: &str) -> Result<Self, InvalidTarget> {
        let uri: Uri = text.parse().map_err(|_| InvalidTarget::new(text))?;
        if uri.authority().is_none() {
            return Err(InvalidTarget::new(text));
        }
        // `localhost:50051` is fine, too.
        let mut parts = uri.into_parts();
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let uri = Uri::from_parts(parts).map_err(|_| InvalidTarget::new(text))?;
        Ok(Self {
            uri,
            h2: client::Builder::new().with_requests_ended_by_responses(),
            connector: Tcp::new(),
            authority: None,
            speaks_tls: false,
            max_backoff: MAX_BACKOFF,
        })
    }
}

impl<C> ChannelBuilder<C> {
    /// Changes the settings of HTTP/2: windows, keep-alive pings, limits.
    pub fn with_http2(mut self, with: impl FnOnce(client::Builder) -> client::Builder) -> Self {
        self.h2 = with(self.h2);
        self
    }

    /// Connects by another service: over TLS (`tower_h2::tls`), a Unix socket, or a proxy.
    ///
    /// Only with one is `https` allowed, which it has to see to.
    pub fn with_connector<D>(self, connector: D) -> ChannelBuilder<D> {
        ChannelBuilder {
            uri: self.uri,
            h2: self.h2,
            connector,
            authority: self.authority,
            speaks_tls: true,
            max_backoff: self.max_backoff,
        }
    }

    /// Sends another host in `:authority` than the one that it connects to.
    ///
    /// What is no host leaves it as it is.
    pub fn with_authority(mut self, authority: &str) -> Self {
        self.authority = authority.parse().ok().or(self.authority);
        self
    }

    /// How long it fails at once after many tries that failed; 120 s by default.
    pub fn with_max_backoff(mut self, max: Duration) -> Self {
        self.max_backoff = max;
        self
    }
}

impl<C> ChannelBuilder<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    /// Connects when the channel is first used.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`] for `https` without a connector that speaks TLS.
    pub fn lazy(self) -> Result<Channel, InvalidTarget> {
        if self.uri.scheme() == Some(&Scheme::HTTPS) && !self.speaks_tls {
            return Err(InvalidTarget {
                target: self.uri.to_string(),
                needs_tls: true,
            });
        }
        let mut parts = self.uri.clone().into_parts();
        parts.authority = self.authority.or(parts.authority);
        let origin = Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone());
        let Self {
            uri,
            h2,
            connector,
            max_backoff,
            ..
        } = self;
        let h2 = h2.with_origin(&origin);
        let dial = Box::new(move || -> Dialing {
            let mut connect = Connect::new(connector.clone(), h2.clone());
            let uri = uri.clone();
            Box::pin(async move {
                poll_fn(|cx| Service::<Uri>::poll_ready(&mut connect, cx)).await?;
                Ok(connect.call(uri).await?)
            })
        });
        Ok(Channel::new(dial, max_backoff))
    }

    /// Connects now.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` as for [`lazy`](Self::lazy), `UNAVAILABLE` where the connection can't be made.
    pub async fn connect(self) -> Result<Channel, Status> {
        let mut channel = self
            .lazy()
            .map_err(|error| Status::invalid_argument(error.to_string()).with_source(error))?;
        poll_fn(|cx| channel.poll_ready(cx)).await?;
        Ok(channel)
    }
}

/// This is no address that a channel can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTarget {
    target: String,
    needs_tls: bool,
}

impl InvalidTarget {
    fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            needs_tls: false,
        }
    }
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, needs_tls } = self;
        match needs_tls {
            false => write!(
                f,
                "{target:?} is no address of a server: try http://host:port"
            ),
            true => write!(f, "{target:?} needs a connector that speaks TLS"),
        }
    }
}

impl std::error::Error for InvalidTarget {}
