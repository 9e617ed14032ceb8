//! The messages of `grpc.testing.BenchmarkService`, as far as an echo needs them.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SimpleRequest {
    #[prost(int32, tag = "2")]
    pub response_size: i32,
    #[prost(message, optional, tag = "3")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SimpleResponse {
    #[prost(message, optional, tag = "1")]
    pub payload: Option<Payload>,
}

pub const UNARY: &str = "/grpc.testing.BenchmarkService/UnaryCall";
pub const STREAM: &str = "/grpc.testing.BenchmarkService/StreamingFromServer";

pub fn request(size: usize) -> SimpleRequest {
    SimpleRequest {
        response_size: 0,
        payload: Some(Payload {
            body: vec![7; size].into(),
        }),
    }
}

pub fn echo(request: SimpleRequest) -> SimpleResponse {
    SimpleResponse {
        payload: request.payload,
    }
}

/// As many copies of the payload as `response_size` says.
pub fn copies(request: SimpleRequest) -> impl Iterator<Item = SimpleResponse> + Send {
    let count = request.response_size;
    (0..count).map(move |_| SimpleResponse {
        payload: request.payload.clone(),
    })
}
