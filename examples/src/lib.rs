//! What the HTTP examples share: serving a Tower service over hyper, in a few lines.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt};

/// A response with its whole body in memory.
pub type HttpResponse = Response<Full<Bytes>>;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds a listener to the address that the command line names, or else to `default`.
///
/// # Errors
///
/// Says what to do where the argument is no address or the address can't be had.
pub async fn listen(default: SocketAddr) -> Result<TcpListener, String> {
    let addr = match std::env::args().nth(1) {
        Some(arg) => arg
            .parse()
            .map_err(|e| format!("`{arg}` is not an address such as {default}: {e}"))?,
        None => default,
    };
    TcpListener::bind(addr).await.map_err(|e| {
        let other = SocketAddr::new(default.ip(), default.port().wrapping_add(1));
        format!("cannot listen on {addr}: {e}\nadd another address to the command: `-- {other}`")
    })
}

/// Serves HTTP/1.1 on `listener` for ever, a clone of `service` to each connection.
///
/// A service that fails has no way to answer, so `on_error` makes a response of its error.
pub async fn serve<S>(listener: TcpListener, service: S, on_error: fn(S::Error) -> HttpResponse)
where
    S: Service<Request<Incoming>, Response = HttpResponse> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely. Those in use will be closed: wait, don't spin.
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Where that can't be, small writes are held back, and slower.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let handler = hyper::service::service_fn(move |request| {
                let response = service.clone().oneshot(request);
                async move { Ok::<_, Infallible>(response.await.unwrap_or_else(on_error)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), handler);
            if let Err(error) = connection.await {
                eprintln!("connection failed: {error}");
            }
        });
    }
}

/// Waits for Ctrl-C.
///
/// # Errors
///
/// Where the signal can't be listened to.
pub async fn interrupted() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
