//! The client of gRPC's official interoperability tests: exits 0 where the case passes, else 1 and says why.
//!
//! ```text
//! cargo run --example interop-client -- --server_host=localhost --server_port=10000 --test_case=large_unary \
//!     [--use_tls=true --use_test_ca=true | --tls_ca=FILE] [--server_host_override=NAME]
//! ```

use std::process::ExitCode;

use http::Uri;
use interop::Soak;
use interop::cases::{Cases, Failure};
use interop::flags::Flags;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_grpc::GrpcBody;
use tower_h2::client::{Builder, Connect, Connection};
use tower_h2::connect::Tcp;
use tower_h2::tls::{Tls, client_config};
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

const FLAGS: [&str; 7] = [
    "server_host",
    "server_port",
    "server_host_override",
    "test_case",
    "use_tls",
    "use_test_ca",
    "tls_ca",
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    for unknown in flags.unknown(&[&FLAGS[..], &Soak::FLAGS[..]].concat()) {
        eprintln!("--{unknown} is not known here, and ignored");
    }
    let case: String = flags
        .get("test_case")?
        .unwrap_or_else(|| "large_unary".to_owned());
    let target = Target::from_flags(&flags)?;
    let soak = Soak::from_flags(&flags)?;
    let outcome: Result<(), Failure> = Cases::new(async || target.connect().await)
        .with_soak(soak)
        .run(&case)
        .await;
    Ok(outcome?)
}

/// Whom to connect to, and how.
struct Target {
    address: Uri,
    origin: Uri,
    tls: Option<Tls<Tcp>>,
}

impl Target {
    fn from_flags(flags: &Flags) -> Result<Self, Error> {
        let host: String = flags
            .get("server_host")?
            .unwrap_or_else(|| "localhost".to_owned());
        let port: u16 = flags.get("server_port")?.unwrap_or(10_000);
        let name: Option<String> = flags.get("server_host_override")?;
        let tls = match flags.is_set("use_tls")? {
            true => Some(tls(flags, name.clone())?),
            false => None,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        // An address of IPv6 stands in brackets in a URI.
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host
        };
        let address: Uri = format!("{scheme}://{host}:{port}/").parse()?;
        let origin = match &name {
            Some(name) => format!("{scheme}://{name}/").parse()?,
            None => address.clone(),
        };
        Ok(Self {
            address,
            origin,
            tls,
        })
    }

    async fn connect(&self) -> Result<Connection<GrpcBody>, Error> {
        match &self.tls {
            Some(tls) => self.connect_by(tls.clone()).await,
            None => self.connect_by(Tcp::new()).await,
        }
    }

    async fn connect_by<C>(&self, connector: C) -> Result<Connection<GrpcBody>, Error>
    where
        C: Service<Uri>,
        C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        C::Error: Into<Error>,
    {
        let builder = Builder::new().with_origin(&self.origin);
        let mut connect = Connect::new(connector, builder);
        std::future::poll_fn(|cx| Service::<Uri>::poll_ready(&mut connect, cx)).await?;
        Ok(connect.call(self.address.clone()).await?)
    }
}

fn tls(flags: &Flags, name: Option<String>) -> Result<Tls<Tcp>, Error> {
    let authorities = match (flags.get::<String>("tls_ca")?, flags.is_set("use_test_ca")?) {
        (Some(path), _) => std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?,
        (None, true) => include_bytes!("../certs/ca.pem").to_vec(),
        (None, false) => {
            return Err("whom to trust? say --use_test_ca=true, or --tls_ca=FILE".into());
        }
    };
    let tls = Tls::new(Tcp::new(), client_config(&authorities, None)?);
    Ok(match name {
        Some(name) => tls.with_server_name(ServerName::try_from(name)?),
        None => tls,
    })
}
