//! From end to end over sockets: TCP, Unix, and TLS.

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tower_h2::client::{self, Connect, Connection};
use tower_h2::connect::Tcp;
use tower_h2::{ErrorKind, server};
use tower_service::Service;
use tower_util::{ServiceExt, service_fn};

use crate::support::echo;

async fn hello<C>(client: Connection<Full<Bytes>>, uri: C) -> Bytes
where
    Uri: TryFrom<C>,
    <Uri as TryFrom<C>>::Error: Into<http::Error>,
{
    let body = Full::new(Bytes::from("hello"));
    let request = Request::post(uri).body(body).unwrap();
    let response = client.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn tcp_connects_to_the_host_and_port_of_the_uri() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        server::Builder::new()
            .serve_connection(io, service_fn(echo))
            .await
    });
    let mut connect = Connect::new(Tcp::new(), client::Builder::new());
    let client = connect
        .ready()
        .await
        .unwrap()
        .call(uri.clone())
        .await
        .unwrap();
    assert_eq!(hello(client, uri).await, "hello");
}

#[tokio::test]
async fn a_uri_without_a_host_and_a_closed_port_are_told_apart() {
    let connect = Connect::<_, Full<Bytes>>::new(Tcp::new(), client::Builder::new());
    let error = connect
        .clone()
        .oneshot(Uri::from_static("/path"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let kind = |error: &tower_h2::Error| {
        let source = std::error::Error::source(error).unwrap();
        source.downcast_ref::<std::io::Error>().unwrap().kind()
    };
    assert_eq!(kind(&error), std::io::ErrorKind::InvalidInput);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let error = connect.oneshot(uri).await.unwrap_err();
    assert_eq!(kind(&error), std::io::ErrorKind::ConnectionRefused);
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_carry_it_as_well() {
    use tower_h2::connect::Unix;

    let path = std::env::temp_dir().join(format!("tower-h2-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        server::Builder::new()
            .serve_connection(io, service_fn(echo))
            .await
    });
    let connect = Connect::new(Unix::new(&path), client::Builder::new());
    let client = connect.oneshot(()).await.unwrap();
    assert_eq!(hello(client, "http://localhost/").await, "hello");
    std::fs::remove_file(path).unwrap();
}

#[cfg(feature = "tls")]
mod tls {
    use std::convert::Infallible;

    use http::Response;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tower_h2::RecvBody;
    use tower_h2::tls::{Acceptor, Identity, Tls, client_config, server_config};

    use super::*;

    /// An authority, a server `localhost`, and a client, in PEM.
    struct Certificates {
        authority: String,
        server: (String, String),
        client: (String, String),
    }

    fn certificates() -> Certificates {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issue = |name: &str| {
            let own = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&own, &authority, &key).unwrap();
            (certificate.pem(), own.serialize_pem())
        };
        Certificates {
            server: issue("localhost"),
            client: issue("client"),
            authority: authority.pem(),
        }
    }

    fn identity((certificates, key): &(String, String)) -> Identity<'_> {
        Identity {
            certificates: certificates.as_bytes(),
            key: key.as_bytes(),
        }
    }

    /// Answers with whether the client has shown a certificate; gives the port.
    async fn serve(acceptor: Acceptor) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let Ok(io) = acceptor.accept(io).await else {
                    continue;
                };
                let known = io.peer_certificates().is_some();
                let service = service_fn(move |_: Request<RecvBody>| async move {
                    let body = Full::new(Bytes::from(known.to_string()));
                    Ok::<_, Infallible>(Response::new(body))
                });
                tokio::spawn(server::Builder::new().serve_connection(io, service));
            }
        });
        port
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_connects() {
        let pem = certificates();
        let config = server_config(identity(&pem.server), None).unwrap();
        let port = serve(Acceptor::new(config)).await;
        let config = client_config(pem.authority.as_bytes(), None).unwrap();
        let connect = Connect::new(Tls::new(Tcp::new(), config), client::Builder::new());
        let uri: Uri = format!("https://localhost:{port}/").parse().unwrap();
        let client = connect.oneshot(uri.clone()).await.unwrap();
        assert_eq!(hello(client, uri).await, "false");
    }

    #[tokio::test]
    async fn a_client_that_does_not_trust_it_fails_and_says_so() {
        let (pem, other) = (certificates(), certificates());
        let config = server_config(identity(&pem.server), None).unwrap();
        let port = serve(Acceptor::new(config)).await;
        let config = client_config(other.authority.as_bytes(), None).unwrap();
        let tls = Tls::new(Tcp::new(), config);
        let connect = Connect::<_, Full<Bytes>>::new(tls, client::Builder::new());
        let uri = format!("https://localhost:{port}/").parse().unwrap();
        let error = connect.oneshot(uri).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("certificate"), "{source}");
    }

    #[tokio::test]
    async fn a_server_that_asks_for_certificates_takes_only_clients_that_have_one() {
        let pem = certificates();
        let authority = pem.authority.as_bytes();
        let config = server_config(identity(&pem.server), Some(authority)).unwrap();
        let port = serve(Acceptor::new(config)).await;
        let uri: Uri = format!("https://localhost:{port}/").parse().unwrap();

        let config = client_config(authority, Some(identity(&pem.client))).unwrap();
        let connect = Connect::new(Tls::new(Tcp::new(), config), client::Builder::new());
        let client = connect.oneshot(uri.clone()).await.unwrap();
        assert_eq!(hello(client, uri.clone()).await, "true");

        let config = client_config(authority, None).unwrap();
        let tls = Tls::new(Tcp::new(), config);
        let connect = Connect::<_, Full<Bytes>>::new(tls, client::Builder::new());
        // In TLS 1.3 the client learns of it only after its own handshake.
        let refused = match connect.oneshot(uri.clone()).await {
            Ok(client) => client
                .oneshot(Request::get(uri).body(Full::default()).unwrap())
                .await
                .is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }

    #[tokio::test]
    async fn a_server_without_http_2_is_refused() {
        let pem = certificates();
        let mut config = server_config(identity(&pem.server), None).unwrap();
        config.alpn_protocols = Vec::new();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            let _held = acceptor.accept(io).await;
            std::future::pending::<()>().await;
        });
        let config = client_config(pem.authority.as_bytes(), None).unwrap();
        let tls = Tls::new(Tcp::new(), config);
        let connect = Connect::<_, Full<Bytes>>::new(tls, client::Builder::new());
        let uri = format!("https://localhost:{port}/").parse().unwrap();
        let error = connect.oneshot(uri).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("ALPN"), "{source}");
    }
}
