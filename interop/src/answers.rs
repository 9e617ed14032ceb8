//! What a server of the tests answers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tower_grpc::{Code, Compression, Encoding, Request, Response, Status, Streaming};

use crate::testing::server::{
    BenchmarkService, BenchmarkServiceServer, TestService, TestServiceServer,
};
use crate::testing::{
    BoolValue, EchoStatus, Empty, Payload, PayloadType, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};
use crate::{ECHO_INITIAL, ECHO_TRAILING};

/// How many bytes a client may ask for in one message.
const MAX_PAYLOAD: i32 = 64 * 1024 * 1024;

/// The services `TestService` and `BenchmarkService`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Answers;

/// `TestService`, with the encodings that its cases need.
pub fn test_service<T: TestService>(service: T) -> TestServiceServer<T> {
    TestServiceServer::new(service).with_sent_encodings([Encoding::Gzip, Encoding::Deflate])
}

/// `BenchmarkService`.
pub fn benchmark_service() -> BenchmarkServiceServer<Answers> {
    BenchmarkServiceServer::new(Answers)
}

impl TestService for Answers {
    async fn empty_call(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        echo(&request, Empty {})
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let wanted = request.get_ref();
        check_compression(wanted.expect_compressed, request.was_compressed())?;
        check_status(wanted.response_status.as_ref())?;
        let compressed = is_true(wanted.response_compressed);
        let answer = SimpleResponse {
            payload: Some(zeroes(wanted.response_size)?),
            ..SimpleResponse::default()
        };
        let mut response = echo(&request, answer)?;
        response.compression().set(compressed);
        Ok(response)
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut response = TestService::unary_call(self, request).await?;
        let metadata = response.metadata_mut();
        metadata
            .insert("cache-control", "max-age=60, public")
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(response)
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<
        Response<impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send + 'static>,
        Status,
    > {
        let mut response = echo(&request, ())?;
        let compression = response.compression();
        Ok(response.map(|()| outputs(request.into_inner(), compression)))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut response = echo(&request, StreamingInputCallResponse::default())?;
        let mut inputs = request.into_inner();
        while let Some(input) = inputs.message().await? {
            check_compression(input.expect_compressed, inputs.was_compressed())?;
            let total = &mut response.get_mut().aggregated_payload_size;
            *total = total.saturating_add(size(input.payload.as_ref()));
        }
        Ok(response)
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<
        Response<impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send + 'static>,
        Status,
    > {
        let mut response = echo(&request, ())?;
        let compression = response.compression();
        let requests = request.into_inner();
        Ok(response.map(|()| {
            requests
                .map_ok(move |request| outputs(request, compression.clone()))
                .try_flatten()
        }))
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<
        Response<impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send + 'static>,
        Status,
    > {
        let mut response = echo(&request, ())?;
        let compression = response.compression();
        let requests: Vec<_> = request.into_inner().try_collect().await?;
        let all =
            stream::iter(requests).flat_map(move |request| outputs(request, compression.clone()));
        Ok(response.map(|()| all))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "no server of the tests implements this",
        ))
    }
}

impl BenchmarkService for Answers {
    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        answer(request.get_ref()).map(Response::new)
    }

    async fn streaming_call(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        let answers = request.into_inner().map(|request| answer(&request?));
        Ok(Response::new(answers))
    }

    async fn streaming_from_client(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut requests = request.into_inner();
        let mut last = SimpleRequest::default();
        while let Some(request) = requests.message().await? {
            last = request;
        }
        answer(&last).map(Response::new)
    }

    async fn streaming_from_server(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        let answer = answer(request.get_ref())?;
        Ok(Response::new(stream::repeat_with(move || {
            Ok(answer.clone())
        })))
    }

    async fn streaming_both_ways(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        self.streaming_call(request).await
    }
}

fn answer(request: &SimpleRequest) -> Result<SimpleResponse, Status> {
    Ok(SimpleResponse {
        payload: Some(zeroes(request.response_size)?),
        ..SimpleResponse::default()
    })
}

/// Each message that a request asks for, after the time that it asks for, and then its status.
fn outputs(
    request: StreamingOutputCallRequest,
    compression: Compression,
) -> impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send + 'static {
    let end = check_status(request.response_status.as_ref())
        .err()
        .map(Err);
    let messages = stream::iter(request.response_parameters).then(move |wanted| {
        let compression = compression.clone();
        async move {
            if let Ok(pause @ 1..) = u64::try_from(wanted.interval_us) {
                tokio::time::sleep(Duration::from_micros(pause)).await;
            }
            compression.set(is_true(wanted.compressed));
            Ok(StreamingOutputCallResponse {
                payload: Some(zeroes(wanted.size)?),
            })
        }
    });
    messages.chain(stream::iter(end))
}

/// A response with what the client wants echoed.
fn echo<T, U>(request: &Request<T>, message: U) -> Result<Response<U>, Status> {
    let mut response = Response::new(message);
    // A client asks for these to be compressed.
    response.compression().set(false);
    let refused = |error: tower_grpc::InvalidMetadata| Status::internal(error.to_string());
    for value in request.metadata().get_all(ECHO_INITIAL) {
        response
            .metadata_mut()
            .append(ECHO_INITIAL, value)
            .map_err(refused)?;
    }
    for value in request.metadata().get_all_bin(ECHO_TRAILING) {
        response
            .trailers_mut()
            .append_bin(ECHO_TRAILING, value)
            .map_err(refused)?;
    }
    Ok(response)
}

fn check_compression(expected: Option<BoolValue>, was_compressed: bool) -> Result<(), Status> {
    match expected {
        Some(BoolValue { value }) if value != was_compressed => Err(Status::invalid_argument(
            "the message was not compressed as announced",
        )),
        _ => Ok(()),
    }
}

fn check_status(wanted: Option<&EchoStatus>) -> Result<(), Status> {
    match wanted {
        Some(status) if status.code != 0 => {
            Err(Status::new(Code::from_i32(status.code), &status.message))
        }
        _ => Ok(()),
    }
}

fn is_true(value: Option<BoolValue>) -> bool {
    value.is_some_and(|BoolValue { value }| value)
}

fn size(payload: Option<&Payload>) -> i32 {
    payload.map_or(0, |payload| {
        i32::try_from(payload.body.len()).unwrap_or(i32::MAX)
    })
}

fn zeroes(size: i32) -> Result<Payload, Status> {
    if size > MAX_PAYLOAD {
        return Err(Status::invalid_argument(format!(
            "a payload has at most {MAX_PAYLOAD} bytes"
        )));
    }
    let size = usize::try_from(size)
        .map_err(|_| Status::invalid_argument("a payload has a size of 0 or more"))?;
    Ok(payload_of(size))
}

/// As many zeroes.
pub fn payload_of(size: usize) -> Payload {
    Payload {
        r#type: PayloadType::Compressable.into(),
        body: Bytes::from(vec![0; size]),
    }
}
