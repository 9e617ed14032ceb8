//! The `h2` crate by hand, with a task per request: what a call costs at least.

use std::future::poll_fn;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};

use super::tower::pb::{Payload, SimpleRequest, SimpleResponse};
use super::{IN_FLIGHT, Load, SMALL};

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn payload() -> Option<Payload> {
    Some(Payload {
        body: Bytes::from(vec![7; SMALL]),
        ..Payload::default()
    })
}

pub async fn serve(listener: TcpListener) {
    let answer = framed(&SimpleResponse {
        payload: payload(),
        ..SimpleResponse::default()
    });
    loop {
        let (io, _) = listener.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        tokio::spawn(connection(io, answer.clone()));
    }
}

async fn connection(io: TcpStream, answer: Bytes) {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(200)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(io)
        .await
        .unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(respond_with(answer.clone(), request, respond));
    }
}

async fn respond_with(
    answer: Bytes,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let mut body = request.into_body();
    while let Some(chunk) = body.data().await {
        let len = chunk.unwrap().len();
        body.flow_control().release_capacity(len).unwrap();
    }
    body.trailers().await.unwrap();
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    let mut send = respond.send_response(response, false).unwrap();
    send.send_data(answer, false).unwrap();
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers).unwrap();
}

pub async fn call(port: u16, load: Load) {
    let Load::Unary(calls) = load else {
        panic!("only unary calls are written by hand");
    };
    let send = connect(port).await;
    let message = framed(&SimpleRequest {
        payload: payload(),
        ..SimpleRequest::default()
    });
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (mut send, message) = (send.clone(), message.clone());
            tokio::spawn(async move {
                for _ in 0..calls / IN_FLIGHT {
                    call_once(&mut send, message.clone()).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

/// As many connections, each after a call.
pub async fn idle(port: u16, connections: usize) -> Vec<h2::client::SendRequest<Bytes>> {
    let message = framed(&SimpleRequest {
        payload: payload(),
        ..SimpleRequest::default()
    });
    let mut idle = Vec::new();
    for _ in 0..connections {
        let mut send = connect(port).await;
        call_once(&mut send, message.clone()).await;
        idle.push(send);
    }
    idle
}

async fn connect(port: u16) -> h2::client::SendRequest<Bytes> {
    let io = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

async fn call_once(send: &mut h2::client::SendRequest<Bytes>, message: Bytes) {
    poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
    let request = Request::post("http://localhost/grpc.testing.BenchmarkService/UnaryCall")
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        )
        .header(
            header::USER_AGENT,
            HeaderValue::from_static("grpc-rust-raw/1.0"),
        )
        .body(())
        .unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(message, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    while let Some(chunk) = body.data().await {
        let len = chunk.unwrap().len();
        body.flow_control().release_capacity(len).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}
