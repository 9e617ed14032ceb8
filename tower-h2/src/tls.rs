//! TLS by rustls, with the ALPN protocol `h2` and certificates on either or both sides.
//!
//! [`Tls`] goes around a connector of a client, [`Acceptor`] turns accepted streams into TLS streams on a
//! server. Both take rustls's configurations; [`client_config`] and [`server_config`] make the usual ones from
//! PEM, on the `ring` provider.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The ALPN protocol of HTTP/2 over TLS (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A certificate chain and its key, in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, and those between it and the authority.
    pub certificates: &'a [u8],
    /// Its private key.
    pub key: &'a [u8],
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// A client's configuration: trusts the authorities in `authorities`, PEM, and shows `identity` to
/// servers that ask for one.
///
/// # Errors
///
/// Where the PEM can't be read, has no certificate, or its key doesn't fit.
pub fn client_config(
    authorities: &[u8],
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?);
    Ok(match identity {
        Some(identity) => {
            let (certificates, key) = identity.read()?;
            builder.with_client_auth_cert(certificates, key)?
        }
        None => builder.with_no_client_auth(),
    })
}

/// A server's configuration: shows `identity`, and where `client_authorities`, PEM, are given, takes only
/// clients that show a certificate of one of them.
///
/// # Errors
///
/// As [`client_config`].
pub fn server_config(
    identity: Identity<'_>,
    client_authorities: Option<&[u8]>,
) -> Result<ServerConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificates, key) = identity.read()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match client_authorities {
        Some(authorities) => {
            let roots = Arc::new(roots(authorities)?);
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider).build()?,
            )
        }
        None => builder.with_no_client_auth(),
    };
    Ok(builder.with_single_cert(certificates, key)?)
}

impl Identity<'_> {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BoxError> {
        let certificates = read_certificates(self.certificates)?;
        Ok((certificates, PrivateKeyDer::from_pem_slice(self.key)?))
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err("there is no certificate in the PEM".into());
    }
    Ok(certificates)
}

/// Has a connector's streams to `https` URIs speak TLS; others stay as they are.
///
/// **Readiness.** The connector's.
///
/// **Errors.** The connector's, and [`io::Error`]: where the handshake fails or takes over 10 s, where the
/// server doesn't agree on HTTP/2 by ALPN, or where the URI's host is no name for a certificate.
#[derive(Clone)]
pub struct Tls<C> {
    connector: C,
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl<C> Tls<C> {
    /// Goes around `connector`, with `config`, whose ALPN protocol is set to `h2`.
    pub fn new(connector: C, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![H2.to_vec()];
        Self {
            connector,
            config: Arc::new(config),
            name: None,
        }
    }

    /// Expects a certificate for `name`, and asks for it, instead of the URI's host.
    #[must_use]
    pub fn with_server_name(mut self, name: ServerName<'static>) -> Self {
        self.name = Some(name);
        self
    }
}

impl<C> fmt::Debug for Tls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<C> Service<Uri> for Tls<C>
where
    C: Service<Uri>,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = MaybeTls<C::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            let connecting = self.connector.call(uri);
            return Box::pin(async move {
                let io = connecting.await.map_err(Into::into)?;
                Ok(MaybeTls(Stream::Plain(io)))
            });
        }
        let name = match &self.name {
            Some(name) => Ok(name.clone()),
            None => name_of(&uri),
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connecting = self.connector.call(uri);
        Box::pin(async move {
            let name = name?;
            let io = connecting.await.map_err(Into::into)?;
            let stream = timeout(HANDSHAKE, connector.connect(name, io)).await??;
            if stream.get_ref().1.alpn_protocol() != Some(H2) {
                return Err("the server doesn't agree on HTTP/2 (ALPN `h2`)".into());
            }
            Ok(MaybeTls(Stream::Client(Box::new(stream))))
        })
    }
}

fn name_of(uri: &Uri) -> Result<ServerName<'static>, BoxError> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(ServerName::try_from(host)?.to_owned())
}

/// Turns the streams that a server accepts into TLS streams, with the ALPN protocol `h2`.
#[derive(Clone)]
pub struct Acceptor {
    acceptor: TlsAcceptor,
}

impl Acceptor {
    /// With `config`, whose ALPN protocol is set to `h2`.
    pub fn new(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![H2.to_vec()];
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    /// Shakes hands.
    ///
    /// # Errors
    ///
    /// [`io::Error`], where the handshake fails or takes over 10 s. A client that speaks no HTTP/2 fails it.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<MaybeTls<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = timeout(HANDSHAKE, self.acceptor.accept(io)).await??;
        Ok(MaybeTls(Stream::Server(Box::new(stream))))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// A byte stream, over TLS or not.
#[derive(Debug)]
pub struct MaybeTls<IO>(Stream<IO>);

// TLS's state takes over a kilobyte, which a plain stream shall not.
#[derive(Debug)]
enum Stream<IO> {
    Plain(IO),
    Client(Box<tokio_rustls::client::TlsStream<IO>>),
    Server(Box<tokio_rustls::server::TlsStream<IO>>),
}

impl<IO> MaybeTls<IO> {
    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        match &self.0 {
            Stream::Plain(io) => io,
            Stream::Client(stream) => stream.get_ref().0,
            Stream::Server(stream) => stream.get_ref().0,
        }
    }

    /// The certificates that the peer has shown, its own first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.0 {
            Stream::Plain(_) => None,
            Stream::Client(stream) => stream.get_ref().1.peer_certificates(),
            Stream::Server(stream) => stream.get_ref().1.peer_certificates(),
        }
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! forward {
    ($this:expr, $stream:ident => $call:expr) => {
        match &mut $this.get_mut().0 {
            Stream::Plain(io) => {
                let $stream = Pin::new(io);
                $call
            }
            Stream::Client(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
            Stream::Server(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Stream::Plain(io) => io.is_write_vectored(),
            Stream::Client(tls) => tls.is_write_vectored(),
            Stream::Server(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(cx))
    }
}
