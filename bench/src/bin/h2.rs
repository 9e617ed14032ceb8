//! One unary echo of gRPC's shape over HTTP/2: ours beside the `h2` crate by hand, with a task per request.
//!
//! Run by `h2.sh`, which counts instructions:
//!
//! - `h2 server raw|hyper|tower`: serves one connection on a free port, which it prints, and ends with it.
//! - `h2 client raw|tower PORT CALLS`: makes the calls, ten at once on one connection.
//!
//! And for times and memory:
//!
//! - `h2 compute raw|hyper|tower`: eight streams of one connection that compute for a millisecond each, on two threads.
//! - `h2 large raw|tower`: messages of 1 MiB up and down one stream after the other.
//! - `h2 idle raw|hyper|tower`: the memory of a thousand connections that have made a call and wait.

use std::convert::Infallible;
use std::future::poll_fn;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut builder = match arguments[..] {
        ["compute", _] => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(&arguments));
}

async fn run(arguments: &[&str]) {
    match *arguments {
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
        ["compute", peer] => compute(peer).await,
        ["large", peer] => large(peer).await,
        ["idle", peer] => idle(peer).await,
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
        "hyper" => serve_hyper(io).await,
        _ => {
            let service = tower_util::service_fn(echo);
            let _ = tower_h2::server::Builder::new()
                .serve_connection(io, service)
                .await;
        }
    }
}

/// As tonic serves, with its default windows and limits.
async fn serve_hyper<IO>(io: IO)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut message = Bytes::new();
        while !body.is_end_stream() {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
                break;
            };
            if let Ok(chunk) = frame.unwrap().into_data() {
                message = chunk;
            }
        }
        compute_for(&path);
        Ok::<_, Infallible>(head(Unary::new(message, true)))
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let _ = hyper::server::conn::http2::Builder::new(executor)
        .serve_connection(hyper_util::rt::TokioIo::new(io), service)
        .await;
}

async fn serve_raw<IO>(io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
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

/// What a path asks for: to compute for so many microseconds.
fn compute_for(path: &str) {
    if let Some(micros) = path.strip_prefix("/compute/") {
        let time = Duration::from_micros(micros.parse().unwrap());
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }
}

async fn answer_raw(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        message = chunk.unwrap();
        body.flow_control().release_capacity(message.len()).unwrap();
    }
    body.trailers().await.unwrap();
    compute_for(&path);
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
    let path = request.uri().path().to_owned();
    let message = last_chunk(request.into_body()).await;
    compute_for(&path);
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

/// A server's end of a pipe, in a task.
fn spawn_server(peer: &str, io: DuplexStream) {
    match peer {
        "raw" => drop(tokio::spawn(serve_raw(io))),
        "hyper" => drop(tokio::spawn(serve_hyper(io))),
        _ => {
            let service = tower_util::service_fn(echo);
            let builder = tower_h2::server::Builder::new();
            drop(tokio::spawn(async move {
                builder.serve_connection(io, service).await
            }));
        }
    }
}

async fn raw_client(io: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

/// Calls once, and gives how many bytes came back.
async fn call_once(send: &mut h2::client::SendRequest<Bytes>, path: &str, message: Bytes) -> usize {
    poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
    let uri = format!("http://localhost{path}");
    let request = Request::post(uri).body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(message, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap().len();
        body.flow_control().release_capacity(chunk).unwrap();
        length += chunk;
    }
    length
}

async fn compute(peer: &str) {
    const STREAMS: usize = 8;
    const ROUNDS: usize = 100;
    for micros in [100, 1000] {
        let (near, far) = tokio::io::duplex(1 << 20);
        spawn_server(peer, far);
        let send = raw_client(near).await;
        let path = format!("/compute/{micros}");
        let start = Instant::now();
        let workers: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (mut send, path) = (send.clone(), path.clone());
                tokio::spawn(async move {
                    for _ in 0..ROUNDS {
                        call_once(&mut send, &path, Bytes::from_static(&MESSAGE)).await;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let took = start.elapsed() / ROUNDS as u32;
        println!("{peer}: {STREAMS} streams that compute for {micros} µs each: {took:?}");
    }
}

async fn large(peer: &str) {
    const SIZE: usize = 1 << 20;
    const CALLS: usize = 2000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer_name = peer.to_owned();
    let serving = async move {
        let (io, _) = listener.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        match &*peer_name {
            "raw" => serve_raw(io).await,
            _ => {
                let service = tower_util::service_fn(echo_all);
                let builder = tower_h2::server::Builder::new();
                let _ = builder.serve_connection(io, service).await;
            }
        }
    };
    tokio::spawn(serving);
    let io = TcpStream::connect(address).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (client, driver) = tower_h2::client::Builder::new()
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(driver);
    let mut client = client;
    let message = Bytes::from(vec![7; SIZE]);
    let start = Instant::now();
    for _ in 0..CALLS {
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        let body = Unary::new(message.clone(), false);
        let response = client.call(request(body)).await.unwrap();
        let mut body = std::pin::pin!(response.into_body());
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            frame.unwrap();
        }
    }
    let rate = (CALLS * SIZE) as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{peer}: messages of 1 MiB echoed at {rate:.0} MB/s");
}

/// Echoes the chunks of a request as they come.
async fn echo_all(request: Request<RecvBody>) -> Result<Response<RecvBody>, Infallible> {
    Ok(head(request.into_body()))
}

async fn idle(peer: &str) {
    const CONNECTIONS: usize = 1000;
    let mut clients = Vec::new();
    // What the clients take is the same on both sides.
    let before = resident();
    for _ in 0..CONNECTIONS {
        let (near, far) = tokio::io::duplex(1024);
        spawn_server(peer, far);
        let mut send = raw_client(near).await;
        call_once(&mut send, "/", Bytes::from_static(&MESSAGE)).await;
        clients.push(send);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    println!(
        "{peer}: {} KiB a pair of connections",
        (resident() - before) / CONNECTIONS
    );
}

/// The resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
