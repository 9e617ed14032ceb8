//! TLS by rustls: which protocol was agreed on, who the client is, and certificates that change.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::transport::{Prepared, Replayed, Transport};
use crate::{ConnectInfo, Error, ErrorKind, Protocols};

/// How a server proves who it is, and whom it trusts.
///
/// A clone is the same: what one [reloads](Self::reload) all use, from the next handshake on.
///
/// **Errors.** [`ErrorKind::Tls`], where the certificate, the key or the roots aren't usable.
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<Offers>>,
}

/// A configuration for each set of protocols, which differ in what ALPN offers.
struct Offers {
    both: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
    #[cfg(feature = "http2")]
    http2: Arc<ServerConfig>,
}

/// What a TLS handshake has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    client_certificates: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Proves the server's identity by a chain of certificates, its own first, and its private key, both in PEM.
    ///
    /// It speaks TLS 1.2 and 1.3, with *ring*'s cryptography.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let config = builder()?.with_no_client_auth();
        identified(config, chain, key).map(Self::from_config)
    }

    /// The same, and lets only clients in whose certificate one of `roots`, in PEM, has signed ("mutual TLS").
    pub fn from_pem_with_client_roots(
        chain: &[u8],
        key: &[u8],
        roots: &[u8],
    ) -> Result<Self, Error> {
        let mut trusted = RootCertStore::empty();
        for root in certificates(roots)? {
            trusted.add(root).map_err(unusable)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider)
            .build()
            .map_err(unusable)?;
        let config = builder()?.with_client_cert_verifier(verifier);
        identified(config, chain, key).map(Self::from_config)
    }

    /// Uses a configuration of rustls. Where its `alpn_protocols` are empty, they are set by the server's
    /// [`Protocols`].
    pub fn from_config(config: ServerConfig) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(Offers::new(config))),
        }
    }

    /// Uses what `other` uses now, from the next handshake on. Connections that are open stay.
    ///
    /// For certificates that are renewed: no restart, and no connection is lost.
    pub fn reload(&self, other: &Self) {
        self.current.store(other.current.load_full());
    }

    /// Shakes hands. The caller bounds the time.
    pub(crate) async fn handshake<IO>(
        &self,
        io: Replayed<IO>,
        info: ConnectInfo,
        protocols: Protocols,
    ) -> Result<Prepared<IO>, Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.current.load().config(protocols);
        let stream = TlsAcceptor::from(config)
            .accept(io)
            .await
            .map_err(|error| Error::because(ErrorKind::Tls, error))?;
        let session = stream.get_ref().1;
        let agreed = match session.alpn_protocol() {
            #[cfg(feature = "http2")]
            Some(b"h2") => Protocols::Http2,
            Some(b"http/1.1") => Protocols::Http1,
            _ => protocols,
        };
        let tls = TlsInfo {
            server_name: session.server_name().map(ToOwned::to_owned),
            alpn: session.alpn_protocol().map(ToOwned::to_owned),
            client_certificates: session
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
        };
        Ok(Prepared {
            transport: Transport::Tls(Box::new(stream)),
            info: info.with_tls(tls),
            protocols: agreed,
            seen: Vec::new(),
        })
    }
}

impl Offers {
    fn new(config: ServerConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            if config.alpn_protocols.is_empty() {
                config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            }
            Arc::new(config)
        };
        Self {
            #[cfg(feature = "http2")]
            both: offering(&[b"h2", b"http/1.1"]),
            #[cfg(not(feature = "http2"))]
            both: offering(&[b"http/1.1"]),
            http1: offering(&[b"http/1.1"]),
            #[cfg(feature = "http2")]
            http2: offering(&[b"h2"]),
        }
    }

    fn config(&self, protocols: Protocols) -> Arc<ServerConfig> {
        Arc::clone(match protocols {
            Protocols::Both => &self.both,
            Protocols::Http1 => &self.http1,
            #[cfg(feature = "http2")]
            Protocols::Http2 => &self.http2,
        })
    }
}

impl TlsInfo {
    /// The name that the client asked for (SNI, RFC 6066), if it did.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was agreed on (ALPN, RFC 7301), if one was: `h2` or `http/1.1`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The client's certificates in DER, its own first; none unless it had to show one. They are verified.
    pub fn client_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.client_certificates.iter().map(AsRef::as_ref)
    }
}

type Builder<State> = rustls::ConfigBuilder<ServerConfig, State>;

fn builder() -> Result<Builder<rustls::WantsVerifier>, Error> {
    // Not the process's default, which another library may have set to something else.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)
}

fn identified(
    builder: Builder<rustls::server::WantsServerCert>,
    chain: &[u8],
    key: &[u8],
) -> Result<ServerConfig, Error> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable)?;
    builder
        .with_single_cert(certificates(chain)?, key)
        .map_err(unusable)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(unusable)?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in the PEM"));
    }
    Ok(certificates)
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::because(ErrorKind::Tls, error)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
