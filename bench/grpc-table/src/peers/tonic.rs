//! tonic.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use self::pb::benchmark_service_client::BenchmarkServiceClient;
use self::pb::benchmark_service_server::{BenchmarkService, BenchmarkServiceServer};
use self::pb::{Payload, SimpleRequest, SimpleResponse};
use super::{IN_FLIGHT, LARGE, Load, SMALL};

#[allow(dead_code, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/tonic/grpc.testing.rs"));
}

struct Echo;

type Answers = Pin<Box<dyn Stream<Item = Result<SimpleResponse, Status>> + Send>>;

#[tonic::async_trait]
impl BenchmarkService for Echo {
    type StreamingCallStream = Answers;
    type StreamingFromServerStream = Answers;
    type StreamingBothWaysStream = Answers;

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        Ok(Response::new(echo(request.into_inner())))
    }

    async fn streaming_call(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = request.into_inner().map(|request| Ok(echo(request?)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn streaming_from_client(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut requests = request.into_inner();
        while requests.message().await?.is_some() {}
        Ok(Response::new(SimpleResponse::default()))
    }

    async fn streaming_from_server(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<Answers>, Status> {
        let request = request.into_inner();
        let count = request.response_size as usize;
        let answer = echo(request);
        let answers = std::iter::repeat_with(move || Ok(answer.clone()));
        Ok(Response::new(Box::pin(stream::iter(answers.take(count)))))
    }

    async fn streaming_both_ways(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.streaming_call(request).await
    }
}

fn echo(request: SimpleRequest) -> SimpleResponse {
    SimpleResponse {
        payload: request.payload,
        ..SimpleResponse::default()
    }
}

/// A request of a payload of `size` bytes, for `count` answers.
fn request(size: usize, count: usize) -> SimpleRequest {
    SimpleRequest {
        payload: Some(Payload {
            body: Bytes::from(vec![7; size]),
            ..Payload::default()
        }),
        response_size: i32::try_from(count).unwrap(),
        ..SimpleRequest::default()
    }
}

pub async fn serve(listener: TcpListener) {
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    Server::builder()
        .add_service(BenchmarkServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

pub async fn call(port: u16, load: Load) {
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = channel.connect().await;
    let mut client = BenchmarkServiceClient::new(channel.unwrap());
    match load {
        Load::Unary(calls) => {
            let message = request(SMALL, 0);
            let workers: Vec<_> = (0..IN_FLIGHT)
                .map(|_| {
                    let (mut client, message) = (client.clone(), message.clone());
                    tokio::spawn(async move {
                        for _ in 0..calls / IN_FLIGHT {
                            client.unary_call(message.clone()).await.unwrap();
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.await.unwrap();
            }
        }
        Load::LargeUnary(calls) => {
            let message = request(LARGE, 0);
            for _ in 0..calls {
                client.unary_call(message.clone()).await.unwrap();
            }
        }
        Load::Streaming(count) => receive(client, SMALL, count).await,
        Load::Large(count) => receive(client, LARGE, count).await,
    }
}

async fn receive(mut client: BenchmarkServiceClient<Channel>, size: usize, count: usize) {
    let answers = client.streaming_from_server(request(size, count)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut received = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        received += answer.payload.unwrap().body.len();
    }
    assert_eq!(received, size * count);
}
