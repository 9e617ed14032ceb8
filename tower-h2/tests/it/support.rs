//! A peer that speaks HTTP/2 by hand, and services to serve it.

use std::convert::Infallible;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tower_h2::{RecvBody, server};

pub(crate) type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Answers with the request's body.
pub(crate) async fn echo(request: Request<RecvBody>) -> Answer {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => Bytes::from(error.to_string()),
    };
    Ok(Response::new(Full::new(body)))
}

/// A client's handle, and the tasks of both sides.
pub(crate) struct Pair {
    pub(crate) client: SendRequest<Bytes>,
    pub(crate) server: JoinHandle<Result<(), tower_h2::Error>>,
    pub(crate) wire: JoinHandle<Result<(), h2::Error>>,
}

/// Serves `service` to a raw client.
pub(crate) async fn serve<S, B>(builder: server::Builder, service: S) -> Pair
where
    S: tower_service::Service<Request<RecvBody>, Response = Response<B>> + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (near, far) = tokio::io::duplex(256 * 1024);
    let server = tokio::spawn(builder.serve_connection(far, service));
    let (client, wire) = raw_client(near).await;
    Pair {
        client,
        server,
        wire,
    }
}

pub(crate) async fn raw_client(
    io: DuplexStream,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(io)
        .await
        .unwrap();
    let wire = tokio::spawn(connection);
    (client.ready().await.unwrap(), wire)
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://localhost{path}"))
        .body(())
        .unwrap()
}

/// Sends a request with a body, and gives what comes back.
pub(crate) async fn call(
    client: &mut SendRequest<Bytes>,
    body: &'static [u8],
) -> Result<(Response<()>, Bytes), h2::Error> {
    let (response, mut send) = client.send_request(post("/"), body.is_empty())?;
    if !body.is_empty() {
        send.send_data(Bytes::from_static(body), true)?;
    }
    let (head, mut body) = response.await?.into_parts();
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    Ok((Response::from_parts(head, ()), all.into()))
}
