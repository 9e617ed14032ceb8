//! tonic, as its generated code uses it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, StreamExt, iter};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use upstream::Service;

use crate::messages::{STREAM, SimpleRequest, SimpleResponse, UNARY, copies, echo, request};

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Benchmark;

impl NamedService for Benchmark {
    const NAME: &'static str = "grpc.testing.BenchmarkService";
}

struct Unary;

impl UnaryService<SimpleRequest> for Unary {
    type Response = SimpleResponse;
    type Future = Answering<Response<SimpleResponse>>;

    fn call(&mut self, request: Request<SimpleRequest>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(echo(request.into_inner()))) })
    }
}

struct Copies;

impl ServerStreamingService<SimpleRequest> for Copies {
    type Response = SimpleResponse;
    type ResponseStream = BoxStream<'static, Result<SimpleResponse, Status>>;
    type Future = Answering<Response<Self::ResponseStream>>;

    fn call(&mut self, request: Request<SimpleRequest>) -> Self::Future {
        Box::pin(async move {
            Ok(Response::new(
                iter(copies(request.into_inner()).map(Ok)).boxed(),
            ))
        })
    }
}

impl Service<http::Request<Body>> for Benchmark {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            UNARY => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<SimpleResponse, SimpleRequest>::default());
                Ok(grpc.unary(Unary, request).await)
            }),
            STREAM => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::<SimpleResponse, SimpleRequest>::default());
                Ok(grpc.server_streaming(Copies, request).await)
            }),
            path => panic!("unknown path {path}"),
        }
    }
}

pub async fn serve(listener: TcpListener) {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    // It never ends by itself.
    Server::builder()
        .add_service(Benchmark)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

pub async fn call(port: u16, calls: usize, at_once: usize) {
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            tokio::spawn(async move {
                let path = http::uri::PathAndQuery::from_static(UNARY);
                for _ in 0..calls / at_once {
                    grpc.ready().await.unwrap();
                    let codec = ProstCodec::<SimpleRequest, SimpleResponse>::default();
                    let message = Request::new(request(100));
                    grpc.unary(message, path.clone(), codec).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}
