//! gRPC by hand on the `h2` crate: bytes in, the same bytes out.

use std::future::poll_fn;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::messages::{STREAM, UNARY, request};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

pub async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(200)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(io)
        .await
        .unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        // Some end the stream with a frame of its own.
        if !chunk.is_empty() {
            message = chunk;
        }
    }
    body.trailers().await.unwrap();
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    let mut send = respond.send_response(response, false).unwrap();
    send.send_data(message, false).unwrap();
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers).unwrap();
}

/// Makes calls, so many at once; each answer must have `bytes` at least.
pub async fn call<IO>(io: IO, calls: usize, at_once: usize, copies: i32)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut message = request(100);
    message.response_size = copies;
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).unwrap();
    let framed = framed.freeze();
    let path = if copies > 0 { STREAM } else { UNARY };
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let (mut send, framed) = (send.clone(), framed.clone());
            tokio::spawn(async move {
                for _ in 0..calls / at_once {
                    poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
                    let request = Request::post(format!("http://localhost{path}"))
                        .header(TE, HeaderValue::from_static("trailers"))
                        .header(CONTENT_TYPE, GRPC)
                        .body(())
                        .unwrap();
                    let (response, mut stream) = send.send_request(request, false).unwrap();
                    stream.send_data(framed.clone(), true).unwrap();
                    let mut body = response.await.unwrap().into_body();
                    let mut length = 0;
                    while let Some(chunk) = body.data().await {
                        let chunk = chunk.unwrap().len();
                        body.flow_control().release_capacity(chunk).unwrap();
                        length += chunk;
                    }
                    assert!(length > 100 * copies.max(1) as usize);
                    let trailers = body.trailers().await.unwrap().unwrap();
                    assert_eq!(trailers["grpc-status"], "0");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}
