//! connectrpc, speaking gRPC.
#![allow(refining_impl_trait, reason = "the types themselves are shorter")]

use std::sync::Arc;

use connectrpc::client::{ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{
    InboundStream, Protocol, RequestContext, Response, Router, Server, ServiceRequest,
    ServiceResult, ServiceStream,
};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;

use self::pb::grpc::testing::{
    BenchmarkService, BenchmarkServiceClient, Payload, SimpleRequest, SimpleResponse,
};
use crate::load::{IN_FLIGHT, LARGE, Load, SMALL};

#[allow(warnings, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/connectrpc.rs"));
}

struct Echo;

impl BenchmarkService for Echo {
    async fn unary_call(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SimpleRequest>,
    ) -> ServiceResult<SimpleResponse> {
        Response::ok(echo(request.to_owned_message()))
    }

    async fn streaming_call(
        &self,
        _: RequestContext,
        requests: InboundStream<SimpleRequest>,
    ) -> ServiceResult<ServiceStream<SimpleResponse>> {
        let answers = requests.map(|request| Ok(echo(request?.to_owned_message())));
        Response::ok(Box::pin(answers))
    }

    async fn streaming_from_client(
        &self,
        _: RequestContext,
        mut requests: InboundStream<SimpleRequest>,
    ) -> ServiceResult<SimpleResponse> {
        while requests.next().await.transpose()?.is_some() {}
        Response::ok(SimpleResponse::default())
    }

    async fn streaming_from_server(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SimpleRequest>,
    ) -> ServiceResult<ServiceStream<SimpleResponse>> {
        let request = request.to_owned_message();
        let count = request.response_size as usize;
        let answer = echo(request);
        let answers = std::iter::repeat_with(move || Ok(answer.clone()));
        let answers = stream::iter(answers.take(count));
        Response::ok(Box::pin(answers))
    }

    async fn streaming_both_ways(
        &self,
        context: RequestContext,
        requests: InboundStream<SimpleRequest>,
    ) -> ServiceResult<ServiceStream<SimpleResponse>> {
        self.streaming_call(context, requests).await
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
        payload: buffa::MessageField::some(Payload {
            body: vec![7; size].into(),
            ..Payload::default()
        }),
        response_size: i32::try_from(count).unwrap(),
        ..SimpleRequest::default()
    }
}

pub async fn serve(listener: TcpListener) {
    let router = Router::new().add_service(Arc::new(Echo));
    Server::from_listener(listener).serve(router).await.unwrap();
}

pub async fn call(port: u16, load: Load) {
    let origin: http::Uri = format!("http://127.0.0.1:{port}").parse().unwrap();
    let connection = Http2Connection::connect_plaintext(origin.clone()).await;
    let config = ClientConfig::new(origin).with_protocol(Protocol::Grpc);
    let client = BenchmarkServiceClient::new(connection.unwrap().shared(1024), config);
    match load {
        Load::Unary(calls) => {
            let message = request(SMALL, 0);
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

async fn receive(client: BenchmarkServiceClient<SharedHttp2Connection>, size: usize, count: usize) {
    let answers = client.streaming_from_server(request(size, count)).await;
    let mut answers = answers.unwrap();
    let mut received = 0;
    while let Some(answer) = answers.message::<SimpleResponse>().await.unwrap() {
        received += answer.view().payload.body.len();
    }
    assert_eq!(received, size * count);
}
