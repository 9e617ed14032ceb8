//! Says hello, by this crate or by hyper alone: what the server's part of a request costs.
//!
//! ```text
//! cargo run --release -p tower-hyper --example cost -- 127.0.0.1:8080 [MODE]
//! ```
//!
//! Modes, each on one thread: `ours` (the default), `bare` (without what can be turned off), `bare-hyper`, and
//! `pipelined-hyper`. On two threads: `multi` and `loops` (a multi-threaded runtime with one accept loop
//! and with two), `workers` and `reuse-port` (a runtime for each thread, over duplicates of one
//! socket or with sockets of their own), and `multi-hyper`.
//!
//! `callgrind.sh` beside it counts instructions.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower_hyper::{Server, Settings, Tcp, Workers};
use tower_util::service_fn;

const THREADS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let address = address.as_deref().unwrap_or("127.0.0.1:8080");
    let mode = arguments.next();
    let mode = mode.as_deref().unwrap_or("ours");
    let mut runtime = match mode {
        "multi" | "loops" | "multi-hyper" => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(async {
        match mode {
            "bare-hyper" | "multi-hyper" => serve_by_hyper(address, false).await,
            "pipelined-hyper" => serve_by_hyper(address, true).await,
            _ => serve(address, mode).await,
        }
    })
}

async fn hello<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, World!",
    ))))
}

async fn serve(address: &str, mode: &str) -> Result<(), Box<dyn Error>> {
    let app = service_fn(hello);
    let workers = Workers::new(THREADS);
    let server = match mode {
        "reuse-port" => Server::new(Tcp::bind_reusing_port(address.parse()?)?),
        _ => Server::bind(address).await?,
    };
    match mode {
        "workers" | "reuse-port" => server.serve_on(workers, app, pending()).await?,
        "loops" => server.with_accept_loops(THREADS)?.serve(app).await?,
        "bare" => {
            // All off but detection, the deadline of heads, and the drain.
            let settings = Settings::new()
                .with_idle_timeout(None)
                .with_body_timeout(None)
                .with_write_timeout(None)
                .without_vetting();
            server.with_settings(settings).serve(app).await?;
        }
        _ => server.serve(app).await?,
    }
    Ok(())
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
