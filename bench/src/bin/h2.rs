//! One unary echo of gRPC's shape over HTTP/2: ours beside the `h2` crate by hand, with a task per request.
//!
//! Run by `h2.sh`, which counts instructions:
//!
//! - `h2 server raw|tower`: serves one connection on a free port, which it prints, and ends with it.
//! - `h2 client raw|tower PORT CALLS`: makes the calls, ten at once on one connection.

use std::convert::Infallible;
use std::future::poll_fn;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tower_h2::RecvBody;
use tower_service::Service;

const IN_FLIGHT: usize = 10;
/// A gRPC message of 100 bytes with its prefix.
const MESSAGE: [u8; 105] = {
    let mut message = [7; 105];
    message[0] = 0;
    message[1] = 0;
    message[2] = 0;
    message[3] = 0;
    message[4] = 100;
    message
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", peer] => serve(peer).await,
        ["client", peer, port, calls] => {
            let io = TcpStream::connect(("127.0.0.1", port.parse().unwrap()))
                .await
                .unwrap();
            io.set_nodelay(true).unwrap();
            let calls = calls.parse().unwrap();
            match peer {
                "raw" => call_raw(io, calls).await,
                _ => call_tower(io, calls).await,
            }
        }
        _ => panic!("h2 server raw|tower, or h2 client raw|tower PORT CALLS"),
    }
}

async fn serve(peer: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (io, _) = listener.accept().await.unwrap();
    io.set_nodelay(true).unwrap();
    match peer {
        "raw" => serve_raw(io).await,
        _ => {
            let service = tower_util::service_fn(echo);
            let _ = tower_h2::server::Builder::new()
                .serve_connection(io, service)
                .await;
        }
    }
}

async fn serve_raw(io: TcpStream) {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(200)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(io)
        .await
        .unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer_raw(request, respond));
    }
}

async fn answer_raw(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        message = chunk.unwrap();
        body.flow_control().release_capacity(message.len()).unwrap();
    }
    body.trailers().await.unwrap();
    let mut send = respond.send_response(head(()), false).unwrap();
    send.send_data(message, false).unwrap();
    send.send_trailers(trailers()).unwrap();
}

fn head<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, grpc);
    response
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

async fn echo(request: Request<RecvBody>) -> Result<Response<Unary>, Infallible> {
    let message = last_chunk(request.into_body()).await;
    Ok(head(Unary::new(message, true)))
}

async fn last_chunk(body: RecvBody) -> Bytes {
    let mut body = std::pin::pin!(body);
    let mut message = Bytes::new();
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await else {
            break;
        };
        if let Ok(chunk) = frame.unwrap().into_data() {
            message = chunk;
        }
    }
    message
}

/// One message, and in a response the trailers.
struct Unary {
    message: Option<Bytes>,
    trailers: bool,
}

impl Unary {
    fn new(message: Bytes, trailers: bool) -> Self {
        Self {
            message: Some(message),
            trailers,
        }
    }
}

impl Body for Unary {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let trailing = std::mem::take(&mut self.trailers);
        Poll::Ready(trailing.then(|| Ok(Frame::trailers(trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.trailers
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn request<B>(body: B) -> Request<B> {
    Request::post("http://localhost/grpc.testing.BenchmarkService/UnaryCall")
        .header(http::header::TE, HeaderValue::from_static("trailers"))
        .header(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        )
        .body(body)
        .unwrap()
}

async fn call_raw(io: TcpStream, calls: usize) {
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let mut send = send.clone();
            tokio::spawn(async move {
                for _ in 0..calls / IN_FLIGHT {
                    poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
                    let (response, mut stream) = send.send_request(request(()), false).unwrap();
                    stream
                        .send_data(Bytes::from_static(&MESSAGE), true)
                        .unwrap();
                    let mut body = response.await.unwrap().into_body();
                    while let Some(chunk) = body.data().await {
                        let length = chunk.unwrap().len();
                        body.flow_control().release_capacity(length).unwrap();
                    }
                    body.trailers().await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

async fn call_tower(io: TcpStream, calls: usize) {
    let builder = tower_h2::client::Builder::new();
    let (client, driver) = builder.handshake(io).await.unwrap();
    tokio::spawn(driver);
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                for _ in 0..calls / IN_FLIGHT {
                    poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
                    let body = Unary::new(Bytes::from_static(&MESSAGE), false);
                    let response = client.call(request(body)).await.unwrap();
                    let mut body = std::pin::pin!(response.into_body());
                    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                        frame.unwrap();
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}
