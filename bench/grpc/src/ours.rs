//! tower-grpc, as its generated code uses it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::stream::iter;
use tokio::net::TcpListener;
use tower_grpc::client::{Channel, Client};
use tower_grpc::codec::Prost;
use tower_grpc::generated::{Body, BoxError, Bytes, Service, http};
use tower_grpc::server::{GrpcService, ResponseFuture, Server, Settings};
use tower_grpc::{GrpcBody, Request, Response, Status};

use crate::messages::{STREAM, SimpleRequest, SimpleResponse, UNARY, copies, echo, request};

#[derive(Clone)]
struct Benchmark;

impl<B> Service<http::Request<B>> for Benchmark
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<GrpcBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        self.handle(request)
    }
}

impl<B> GrpcService<B> for Benchmark
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    const NAME: &'static str = "grpc.testing.BenchmarkService";

    fn handle(&self, request: http::Request<B>) -> ResponseFuture {
        let settings = Settings::default();
        match request.uri().path() {
            UNARY => tower_grpc::server::unary(
                settings,
                Prost,
                request,
                async move |request: Request<SimpleRequest>| {
                    Ok::<_, Status>(Response::new(echo(request.into_inner())))
                },
            ),
            STREAM => tower_grpc::server::server_streaming(
                settings,
                Prost,
                request,
                async move |request: Request<SimpleRequest>, answer| {
                    let copies = copies(request.into_inner()).map(Ok::<_, Status>);
                    Ok(answer.stream(Response::new(iter(copies))))
                },
            ),
            _ => tower_grpc::server::unimplemented(request),
        }
    }
}

pub async fn serve(listener: TcpListener) {
    // It never ends by itself.
    Server::builder()
        .add_service(Benchmark)
        .serve_on(listener, std::future::pending())
        .await
        .unwrap();
}

pub async fn call(port: u16, calls: usize, at_once: usize) {
    let channel = Channel::connect(format!("http://127.0.0.1:{port}"))
        .await
        .unwrap();
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let mut client = Client::new(channel.clone());
            tokio::spawn(async move {
                for _ in 0..calls / at_once {
                    let codec = Prost;
                    let message = Request::new(request(100));
                    let _: Response<SimpleResponse> =
                        client.unary(UNARY, codec, message).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}
