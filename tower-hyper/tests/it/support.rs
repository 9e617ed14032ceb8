//! Services and raw clients.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_hyper::{ConnectInfo, Error, Incoming, Settings};
use tower_service::Service;
use tower_util::service_fn;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) fn full(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

/// `/` greets, `/echo` gives the body back, `/slow` takes ten seconds, `/never` for ever, `/panic` does,
/// `/fail` fails, `/large` is 10 MB, and `/peer` says who asks.
pub(crate) async fn app(request: Request<Incoming>) -> Result<Response<Body>, String> {
    match request.uri().path() {
        "/echo" => match request.into_body().collect().await {
            Ok(body) => Ok(full(body.to_bytes())),
            Err(error) if error.is_timeout() => {
                let mut response = full("");
                *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                Ok(response)
            }
            Err(error) => Err(error.to_string()),
        },
        "/slow" => {
            sleep(Duration::from_secs(10)).await;
            Ok(full("slow"))
        }
        "/never" => pending().await,
        "/panic" => panic!("as asked"),
        "/fail" => Err("as asked".into()),
        "/large" => Ok(full(vec![b'x'; 10_000_000])),
        "/host" => Ok(full(format!("{:?}", request.headers().get("host")))),
        "/peer" => Ok(full(format!(
            "{:?}",
            request.body().connect_info().map(ConnectInfo::peer)
        ))),
        _ => Ok(full("hello")),
    }
}

/// Serves one connection in memory.
pub(crate) fn serve(settings: Settings) -> (DuplexStream, JoinHandle<Result<(), Error>>) {
    serve_service(settings, service_fn(app))
}

pub(crate) fn serve_service<S>(
    settings: Settings,
    service: S,
) -> (DuplexStream, JoinHandle<Result<(), Error>>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = String>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (client, server) = tokio::io::duplex(64 * 1024);
    let connection = settings.serve_connection(server, ConnectInfo::default(), service);
    (client, tokio::spawn(connection))
}

/// Sends `request` and reads all that comes until the server closes.
pub(crate) async fn converse(client: &mut DuplexStream, request: impl AsRef<[u8]>) -> String {
    client.write_all(request.as_ref()).await.unwrap();
    read_all(client).await
}

pub(crate) async fn read_all(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // A reset after the last byte is the end, too.
    let _ = client.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

/// Reads one response whose body is `body`.
pub(crate) async fn read_response(client: &mut (impl AsyncRead + Unpin), body: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(&format!("\r\n\r\n{body}")) {
        let mut bytes = [0; 1024];
        let length = client.read(&mut bytes).await.unwrap();
        assert_ne!(length, 0, "the connection ended after {read:?}");
        read.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    read
}
