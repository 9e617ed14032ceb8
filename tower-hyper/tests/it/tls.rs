//! TLS, with certificates made for the test.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use rcgen::{Certificate, CertificateParams, IsCa, KeyPair};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_hyper::{Incoming, Protocols, Settings, Tls, TlsInfo};
use tower_util::service_fn;

use crate::servers::{Door, InMemory, in_memory};
use crate::support::{Body, full, read_all};

/// Signs certificates.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

/// A certificate and its key, in PEM.
struct Identity {
    chain: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            key,
        }
    }

    fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .unwrap();
        Identity {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn tls(&self) -> Tls {
        let identity = self.sign("localhost");
        Tls::from_pem(identity.chain.as_bytes(), identity.key.as_bytes()).unwrap()
    }

    fn client(&self, identity: Option<&Identity>, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let root = self.certificate.der().clone();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(identity.chain.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Tells what the handshake has found out.
async fn tell(request: Request<Incoming>) -> Result<Response<Body>, String> {
    let info = request.body().connect_info().and_then(|info| info.tls());
    let certificates = info.map_or(0, |tls| tls.client_certificates().count());
    let name = info.and_then(TlsInfo::server_name).unwrap_or_default();
    Ok(full(format!("{name} {certificates}")))
}

fn start(server: tower_hyper::Server<InMemory>) {
    tokio::spawn(server.serve(service_fn(tell)));
}

async fn connect(
    door: &Door,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<DuplexStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, door.connect()).await
}

async fn ask(stream: &mut TlsStream<DuplexStream>) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_all(stream).await
}

#[tokio::test]
async fn a_client_is_served_over_tls() {
    let authority = Authority::new();
    let (door, server) = in_memory();
    start(server.with_tls(authority.tls()));
    let mut stream = connect(&door, &authority.client(None, &[])).await.unwrap();
    assert!(ask(&mut stream).await.ends_with("localhost 0"));
}

#[tokio::test]
async fn alpn_offers_what_the_server_speaks() {
    let authority = Authority::new();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (protocols, agreed) in [
        (Protocols::Both, &b"h2"[..]),
        (Protocols::Http1, b"http/1.1"),
        (Protocols::Http2, b"h2"),
    ] {
        let (door, server) = in_memory();
        let settings = Settings::new().with_protocols(protocols);
        start(server.with_tls(authority.tls()).with_settings(settings));
        let stream = connect(&door, &authority.client(None, both)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed));
    }
}

#[tokio::test]
async fn a_client_has_to_show_a_certificate_where_that_is_wanted() {
    let authority = Authority::new();
    let own = authority.sign("localhost");
    let roots = authority.certificate.pem();
    let (chain, key) = (own.chain.as_bytes(), own.key.as_bytes());
    let tls = Tls::from_pem_with_client_roots(chain, key, roots.as_bytes()).unwrap();
    let (door, server) = in_memory();
    start(server.with_tls(tls));

    let known = authority.sign("client");
    let mut stream = connect(&door, &authority.client(Some(&known), &[]))
        .await
        .unwrap();
    assert!(ask(&mut stream).await.ends_with("localhost 1"));

    let stranger = Authority::new().sign("client");
    for identity in [None, Some(&stranger)] {
        // In TLS 1.3 the client learns of it by its first read.
        if let Ok(mut stream) = connect(&door, &authority.client(identity, &[])).await {
            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
            assert_eq!(read_all(&mut stream).await, "");
        }
    }
}

#[tokio::test]
async fn a_reloaded_certificate_is_shown_from_the_next_handshake_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let tls = before.tls();
    let (door, server) = in_memory();
    start(server.with_tls(tls.clone()));
    let mut open = connect(&door, &before.client(None, &[])).await.unwrap();
    tls.reload(&after.tls());
    assert!(connect(&door, &before.client(None, &[])).await.is_err());
    assert!(connect(&door, &after.client(None, &[])).await.is_ok());
    assert!(ask(&mut open).await.ends_with("localhost 0"));
}

#[tokio::test(start_paused = true)]
async fn the_handshake_counts_toward_the_deadline_of_the_first_head() {
    let (door, server) = in_memory();
    let settings = Settings::new().with_head_timeout(Duration::from_secs(5));
    start(
        server
            .with_tls(Authority::new().tls())
            .with_settings(settings),
    );
    let start = Instant::now();
    let mut client = door.connect();
    client.write_all(&[0x16, 3, 1]).await.unwrap();
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[test]
fn unusable_pem_is_an_error() {
    let identity = Authority::new().sign("localhost");
    assert!(Tls::from_pem(b"", identity.key.as_bytes()).is_err());
    assert!(Tls::from_pem(identity.chain.as_bytes(), b"nonsense").is_err());
}
