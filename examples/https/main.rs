//! HTTPS, with certificates that are renewed while it runs.
//!
//! ```sh
//! cargo run --example https
//! curl --insecure https://127.0.0.1:8443/
//! ```
//!
//! It makes a certificate of its own, which nobody trusts. With files (PEM) it uses those, and reads them again at `SIGHUP`:
//!
//! ```sh
//! cargo run --example https -- chain.pem key.pem
//! pkill --signal HUP https
//! ```

use std::path::{Path, PathBuf};

use tower_web::prelude::*;
use tower_web::{BoxError, Server, Tls};

#[get("/")]
async fn index(connection: ConnectInfo) -> String {
    let tls = connection.tls();
    let protocol = tls.and_then(|tls| tls.alpn()).unwrap_or_default();
    let protocol = String::from_utf8_lossy(protocol);
    format!("hello, {}, by {protocol}\n", connection.peer())
}

fn app() -> App {
    App::new().route(index)
}

/// A certificate for this machine that it has signed itself: good enough to try.
fn self_signed() -> Result<Tls, BoxError> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let (chain, key) = (made.cert.pem(), made.key_pair.serialize_pem());
    Ok(Tls::from_pem(chain.as_bytes(), key.as_bytes())?)
}

/// The certificate and the key that are in these files now.
fn from_files(chain: &Path, key: &Path) -> Result<Tls, BoxError> {
    Ok(Tls::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?)
}

/// Reads the files again at each `SIGHUP`. What isn't usable is told, and the old certificate stays.
#[cfg(unix)]
fn renew_on_hangup(tls: Tls, chain: PathBuf, key: PathBuf) -> Result<(), BoxError> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match from_files(&chain, &key) {
                Ok(renewed) => {
                    tls.reload(&renewed);
                    println!("the certificate is renewed");
                }
                Err(error) => eprintln!("the certificate stays as it is: {error}"),
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn renew_on_hangup(_: Tls, _: PathBuf, _: PathBuf) -> Result<(), BoxError> {
    Ok(())
}

#[tower_web::main]
async fn main() -> tower_web::Result {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let tls = match (arguments.next(), arguments.next()) {
        (Some(chain), Some(key)) => {
            let tls = from_files(&chain, &key)?;
            renew_on_hangup(tls.clone(), chain, key)?;
            tls
        }
        _ => self_signed()?,
    };
    let server = Server::bind("127.0.0.1:8443").await?.with_tls(tls);
    println!("try: curl --insecure https://127.0.0.1:8443/");
    app().serve_on(server).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    /// A certificate in files, and a client that trusts it alone.
    struct Files {
        directory: PathBuf,
    }

    impl Files {
        fn new() -> Self {
            let name = format!("tower-https-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            Self { directory }
        }

        fn chain(&self) -> PathBuf {
            self.directory.join("chain.pem")
        }

        fn key(&self) -> PathBuf {
            self.directory.join("key.pem")
        }

        fn renew(&self) -> TlsConnector {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(self.chain(), made.cert.pem()).unwrap();
            std::fs::write(self.key(), made.key_pair.serialize_pem()).unwrap();
            let mut roots = RootCertStore::empty();
            let pem = made.cert.pem();
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    async fn ask(client: &TlsConnector, address: std::net::SocketAddr) -> std::io::Result<String> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = client.connect(name, tcp).await?;
        tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_to_the_next_connection() {
        let files = Files::new();
        let first = files.renew();
        let tls = from_files(&files.chain(), &files.key()).unwrap();
        let server = Server::bind("127.0.0.1:0")
            .await
            .unwrap()
            .with_tls(tls.clone());
        let address = server.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let client = async {
            let answer = ask(&first, address).await.unwrap();
            assert!(answer.ends_with("by http/1.1\n"), "{answer}");

            let second = files.renew();
            tls.reload(&from_files(&files.chain(), &files.key()).unwrap());
            ask(&second, address).await.unwrap();
            ask(&first, address).await.unwrap_err();
            end.send(()).unwrap();
        };
        let signal = async {
            let _ = ended.await;
        };
        let (served, ()) = tokio::join!(app().serve_until(server, signal), client);
        served.unwrap();
    }

    #[test]
    fn a_certificate_of_its_own_is_usable() {
        self_signed().unwrap();
    }
}
