//! Says hello, by this crate or by hyper alone: what the server's part of a request costs.
//!
//! ```text
//! cargo run --release -p tower-hyper --example hello -- 127.0.0.1:8080 [bare-hyper | pipelined-hyper]
//! ```
//!
//! `callgrind.sh` beside it counts the instructions of both.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_hyper::Server;
use tower_util::service_fn;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    match arguments.next().as_deref() {
        Some("bare-hyper") => serve_by_hyper(&address, false).await,
        Some("pipelined-hyper") => serve_by_hyper(&address, true).await,
        _ => {
            let server = Server::bind(address).await?;
            Ok(server.serve(service_fn(hello)).await?)
        }
    }
}

async fn hello<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, World!",
    ))))
}

async fn serve_by_hyper(address: &str, pipelines: bool) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .pipeline_flush(pipelines)
                .serve_connection(
                    TokioIo::new(stream),
                    hyper::service::service_fn(hello::<hyper::body::Incoming>),
                );
            let _ = connection.await;
        });
    }
}
