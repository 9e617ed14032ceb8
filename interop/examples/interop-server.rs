//! The server of gRPC's official interoperability tests.
//!
//! ```text
//! cargo run --example interop-server -- --port=10000 [--use_tls=true] [--tls_cert=FILE --tls_key=FILE]
//! ```
//!
//! Without files, TLS uses the test authority's certificate, for `*.test.google.fr`. `--port=0` takes any port; the
//! first line of the output names it.

use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr};

use interop::FILE_DESCRIPTOR_SET;
use interop::answers::{Answers, benchmark_service, test_service};
use interop::flags::Flags;
use tokio::net::TcpListener;
use tower_grpc::reflection::Reflection;
use tower_grpc::server::Server;
use tower_h2::tls::{Acceptor, Identity, server_config};

type Error = Box<dyn std::error::Error + Send + Sync>;

const FLAGS: [&str; 4] = ["port", "use_tls", "tls_cert", "tls_key"];

#[tokio::main]
async fn main() -> Result<(), Error> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    for unknown in flags.unknown(&FLAGS) {
        eprintln!("--{unknown} is not known here, and ignored");
    }
    let tls = flags
        .is_set("use_tls")?
        .then(|| acceptor(&flags))
        .transpose()?;
    let listener = listen(flags.get("port")?.unwrap_or(10_000)).await?;
    println!("listening on {}", listener.local_addr()?);
    let (_health, health) = tower_grpc::health::health_reporter();
    let reflection = Reflection::new(&[FILE_DESCRIPTOR_SET])?;
    let mut server = Server::builder()
        .add_service(test_service(Answers))
        .add_service(benchmark_service())
        .add_service(health)
        .add_service(reflection.v1())
        .add_service(reflection.v1alpha());
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    server.serve_on(listener, pending()).await?;
    Ok(())
}

/// All addresses of this machine, as official servers do.
async fn listen(port: u16) -> Result<TcpListener, Error> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?),
    }
}

fn acceptor(flags: &Flags) -> Result<Acceptor, Error> {
    let certificates = read(
        flags.get("tls_cert")?,
        include_bytes!("../certs/server.pem"),
    )?;
    let key = read(flags.get("tls_key")?, include_bytes!("../certs/server.key"))?;
    let identity = Identity {
        certificates: &certificates,
        key: &key,
    };
    Ok(Acceptor::new(server_config(identity, None)?))
}

fn read(path: Option<String>, default: &[u8]) -> Result<Vec<u8>, Error> {
    let Some(path) = path else {
        return Ok(default.to_vec());
    };
    std::fs::read(&path).map_err(|error| format!("{path}: {error}").into())
}
