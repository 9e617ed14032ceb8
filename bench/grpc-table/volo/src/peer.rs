//! volo-grpc.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use volo::net::Address;
use volo::net::incoming::DefaultIncoming;
use volo_grpc::server::{Server, ServiceBuilder};
use volo_grpc::{BoxStream, RecvStream, Request, Response, Status};

use self::pb::volo::grpc::testing::{
    BenchmarkService, BenchmarkServiceClient, BenchmarkServiceClientBuilder,
    BenchmarkServiceServer, Payload, SimpleRequest, SimpleResponse,
};
use crate::load::{IN_FLIGHT, LARGE, Load, SMALL};

#[allow(warnings, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/volo.rs"));
}

struct Echo;

type Answers = BoxStream<'static, Result<SimpleResponse, Status>>;

impl BenchmarkService for Echo {
    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        Ok(Response::new(echo(request.into_inner())))
    }

    async fn streaming_call(
        &self,
        request: Request<RecvStream<SimpleRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = request.into_inner().map(|request| Ok(echo(request?)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn streaming_from_client(
        &self,
        request: Request<RecvStream<SimpleRequest>>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut requests = request.into_inner();
        while requests.next().await.transpose()?.is_some() {}
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
        request: Request<RecvStream<SimpleRequest>>,
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
    let service = ServiceBuilder::new(BenchmarkServiceServer::new(Echo)).build();
    Server::new()
        .add_service(service)
        .run(DefaultIncoming::from(listener))
        .await
        .unwrap();
}

pub async fn call(port: u16, load: Load) {
    let address = Address::Ip(([127, 0, 0, 1], port).into());
    let client: BenchmarkServiceClient = BenchmarkServiceClientBuilder::new("benchmark")
        .address(address)
        .build();
    match load {
        Load::Unary(calls) => {
            let message = request(SMALL, 0);
            // The first makes the connection, which ten at once would do ten times.
            client.unary_call(message.clone()).await.unwrap();
            let workers: Vec<_> = (0..IN_FLIGHT)
                .map(|_| {
                    let (client, message) = (client.clone(), message.clone());
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

async fn receive(client: BenchmarkServiceClient, size: usize, count: usize) {
    let answers = client.streaming_from_server(request(size, count)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut received = 0;
    while let Some(answer) = answers.next().await {
        received += answer.unwrap().payload.unwrap().body.len();
    }
    assert_eq!(received, size * count);
}
