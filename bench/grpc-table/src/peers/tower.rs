//! Ours.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tower_grpc::client::Channel;
use tower_grpc::server::Server;
use tower_grpc::{Request, Response, Status, Streaming};

use self::pb::client::BenchmarkServiceClient;
use self::pb::server::{BenchmarkService, BenchmarkServiceServer};
use self::pb::{Payload, SimpleRequest, SimpleResponse};
use super::{IN_FLIGHT, LARGE, Load, SMALL};

#[allow(dead_code, reason = "generated")]
pub mod pb {
    tower_grpc::include_proto!("grpc.testing");
}

struct Echo;

impl BenchmarkService for Echo {
    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        Ok(Response::new(echo(request.into_inner())))
    }

    async fn streaming_call(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        Ok(Response::new(
            request.into_inner().map(|request| Ok(echo(request?))),
        ))
    }

    async fn streaming_from_client(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut requests = request.into_inner();
        while requests.message().await?.is_some() {}
        Ok(Response::new(SimpleResponse::default()))
    }

    /// As many messages as `response_size` says, which has no other use here.
    async fn streaming_from_server(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        let request = request.into_inner();
        let count = request.response_size as usize;
        let answer = echo(request);
        let answers = std::iter::repeat_with(move || Ok(answer.clone()));
        Ok(Response::new(stream::iter(answers.take(count))))
    }

    async fn streaming_both_ways(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
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
    Server::builder()
        .add_service(BenchmarkServiceServer::new(Echo))
        .serve_on(listener, std::future::pending())
        .await
        .unwrap();
}

pub async fn call(port: u16, load: Load) {
    let channel = Channel::connect(format!("http://127.0.0.1:{port}")).await;
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
