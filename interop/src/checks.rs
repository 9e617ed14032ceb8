//! The calls of each case, and what is checked of their outcome.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_grpc::{Code, Encoding, GrpcBody, Metadata, Request, Status, Streaming};
use tower_service::Service;

use crate::answers::payload_of;
use crate::cases::Failure;
use crate::testing::client::{TestServiceClient, UnimplementedServiceClient};
use crate::testing::{
    BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest,
    StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use crate::{ECHO_INITIAL, ECHO_TRAILING};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const LARGE_REQUEST: usize = 271_828;
pub(crate) const LARGE_RESPONSE: usize = 314_159;
const REQUEST_SIZES: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSE_SIZES: [usize; 4] = [31_415, 9, 2_653, 58_979];
const STATUS_MESSAGE: &str = "test status message";
const SPECIAL_MESSAGE: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
const INITIAL_VALUE: &str = "test_initial_metadata_value";
const TRAILING_VALUE: &[u8] = b"\xab\xab\xab";
/// How long a call is watched that should not end.
const WATCH: Duration = Duration::from_millis(100);

/// The cases that use one transport.
#[derive(Debug)]
pub(crate) struct Checks<S> {
    service: S,
}

impl<S> Checks<S> {
    pub(crate) fn new(service: S) -> Self {
        Self { service }
    }
}

impl<S, B> Checks<S>
where
    // A transport.
    S: Service<http::Request<GrpcBody>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    // Its responses.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn client(&self) -> TestServiceClient<S> {
        TestServiceClient::new(self.service.clone())
    }

    fn compressing_client(&self) -> TestServiceClient<S> {
        self.client().with_sent_encoding(Encoding::Gzip)
    }

    pub(crate) async fn empty_unary(&self) -> Result<(), Failure> {
        let response = self.client().empty_call(Empty {}).await?;
        check(
            *response.get_ref() == Empty {},
            "an answer that isn't empty",
        )
    }

    /// Whether a cache has answered the second call is for the cache to say: the answers are the same in any case.
    pub(crate) async fn cacheable_unary(&self) -> Result<(), Failure> {
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut request = Request::new(large(100, 100));
            insert(request.metadata_mut(), "x-user-ip", "1.2.3.4")?;
            answers.push(
                self.client()
                    .cacheable_unary_call(request)
                    .await?
                    .into_inner(),
            );
        }
        check_body(answers[0].payload.as_ref(), 100)?;
        check(answers[0] == answers[1], "two answers that differ")
    }

    pub(crate) async fn large_unary(
        &self,
        request_size: usize,
        response_size: usize,
    ) -> Result<(), Failure> {
        let request = large(request_size, response_size);
        let response = self.client().unary_call(request).await?;
        check_body(response.get_ref().payload.as_ref(), response_size)
    }

    pub(crate) async fn client_compressed_unary(&self) -> Result<(), Failure> {
        let call = async |announced, compressed| {
            let mut request = Request::new(SimpleRequest {
                expect_compressed: Some(BoolValue { value: announced }),
                ..large(LARGE_REQUEST, LARGE_RESPONSE)
            });
            request.compression().set(compressed);
            self.compressing_client().unary_call(request).await
        };
        // The probe: a server that can't tell would pass what follows.
        check_failure(call(true, false).await, Code::InvalidArgument, None)?;
        for compressed in [true, false] {
            let response = call(compressed, compressed).await?;
            check_body(response.get_ref().payload.as_ref(), LARGE_RESPONSE)?;
        }
        Ok(())
    }

    pub(crate) async fn server_compressed_unary(&self) -> Result<(), Failure> {
        for compressed in [true, false] {
            let request = SimpleRequest {
                response_compressed: Some(BoolValue { value: compressed }),
                ..large(LARGE_REQUEST, LARGE_RESPONSE)
            };
            let response = self.client().unary_call(request).await?;
            check_compressed(response.was_compressed(), compressed)?;
            check_body(response.get_ref().payload.as_ref(), LARGE_RESPONSE)?;
        }
        Ok(())
    }

    pub(crate) async fn client_streaming(&self) -> Result<(), Failure> {
        let requests = REQUEST_SIZES.map(|size| input(size, None));
        let response = self
            .client()
            .streaming_input_call(stream::iter(requests))
            .await?;
        check_total(
            response.get_ref().aggregated_payload_size,
            REQUEST_SIZES.iter().sum(),
        )
    }

    pub(crate) async fn client_compressed_streaming(&self) -> Result<(), Failure> {
        let mut probe = Request::new(stream::iter([input(27_182, Some(true))]));
        probe.compression().set(false);
        let refused = self.compressing_client().streaming_input_call(probe).await;
        check_failure(refused, Code::InvalidArgument, None)?;

        let sizes = [(27_182, true), (45_904, false)];
        let mut request = Request::new(());
        let compression = request.compression();
        let requests = stream::iter(sizes).map(move |(size, compressed)| {
            compression.set(compressed);
            input(size, Some(compressed))
        });
        let request = request.map(|()| requests);
        let response = self
            .compressing_client()
            .streaming_input_call(request)
            .await?;
        let total = sizes.iter().map(|(size, _)| size).sum();
        check_total(response.get_ref().aggregated_payload_size, total)
    }

    pub(crate) async fn server_streaming(&self) -> Result<(), Failure> {
        let request = output(RESPONSE_SIZES.map(|size| (size, None)), 0);
        let mut messages = self
            .client()
            .streaming_output_call(request)
            .await?
            .into_inner();
        for size in RESPONSE_SIZES {
            check_body(next(&mut messages).await?.payload.as_ref(), size)?;
        }
        check_end(&mut messages).await
    }

    pub(crate) async fn server_compressed_streaming(&self) -> Result<(), Failure> {
        let wanted = [(31_415, true), (92_653, false)];
        let request = output(wanted.map(|(size, compressed)| (size, Some(compressed))), 0);
        let mut messages = self
            .client()
            .streaming_output_call(request)
            .await?
            .into_inner();
        for (size, compressed) in wanted {
            check_body(next(&mut messages).await?.payload.as_ref(), size)?;
            check_compressed(messages.was_compressed(), compressed)?;
        }
        check_end(&mut messages).await
    }

    pub(crate) async fn ping_pong(&self) -> Result<(), Failure> {
        let (requests, received) = mpsc::unbounded_channel();
        let received = UnboundedReceiverStream::new(received);
        let mut messages = self.client().full_duplex_call(received).await?;
        for (request_size, response_size) in REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES) {
            send(&requests, output([(response_size, None)], request_size))?;
            check_body(next(&mut messages).await?.payload.as_ref(), response_size)?;
        }
        drop(requests);
        check_end(&mut messages).await
    }

    pub(crate) async fn empty_stream(&self) -> Result<(), Failure> {
        let mut messages = self.client().full_duplex_call(stream::empty()).await?;
        check_end(&mut messages).await
    }

    pub(crate) async fn status_code_and_message(&self) -> Result<(), Failure> {
        let response_status = Some(EchoStatus {
            code: Code::Unknown as i32,
            message: STATUS_MESSAGE.to_owned(),
        });
        let request = SimpleRequest {
            response_status: response_status.clone(),
            ..SimpleRequest::default()
        };
        let outcome = self.client().unary_call(request).await;
        check_failure(outcome, Code::Unknown, Some(STATUS_MESSAGE))?;

        let request = StreamingOutputCallRequest {
            response_status,
            ..StreamingOutputCallRequest::default()
        };
        let requests = stream::iter([request]);
        let outcome = match self.client().full_duplex_call(requests).await {
            Ok(mut messages) => messages.message().await,
            Err(status) => Err(status),
        };
        check_failure(outcome, Code::Unknown, Some(STATUS_MESSAGE))
    }

    pub(crate) async fn special_status_message(&self) -> Result<(), Failure> {
        let request = SimpleRequest {
            response_status: Some(EchoStatus {
                code: Code::Unknown as i32,
                message: SPECIAL_MESSAGE.to_owned(),
            }),
            ..SimpleRequest::default()
        };
        let outcome = self.client().unary_call(request).await;
        check_failure(outcome, Code::Unknown, Some(SPECIAL_MESSAGE))
    }

    pub(crate) async fn unimplemented_method(&self) -> Result<(), Failure> {
        let outcome = self.client().unimplemented_call(Empty {}).await;
        check_failure(outcome, Code::Unimplemented, None)
    }

    pub(crate) async fn unimplemented_service(&self) -> Result<(), Failure> {
        let mut client = UnimplementedServiceClient::new(self.service.clone());
        let outcome = client.unimplemented_call(Empty {}).await;
        check_failure(outcome, Code::Unimplemented, None)
    }

    /// Gives a call up that the server has to wait in, and sees that the connection has not suffered.
    pub(crate) async fn cancel_after_begin(&self) -> Result<(), Failure> {
        let mut client = self.client();
        let call = client.streaming_input_call(stream::pending());
        if let Ok(ended) = timeout(WATCH, call).await {
            let how = ended.map_or_else(
                |status| format!("{:?}", status.code()),
                |_| "well".to_owned(),
            );
            return Err(Failure::new(format!(
                "the call ended {how} before it was cancelled"
            )));
        }
        self.empty_unary().await
    }

    pub(crate) async fn cancel_after_first_response(&self) -> Result<(), Failure> {
        let request = output([(31_415, None)], 27_182);
        let requests = stream::iter([request]).chain(stream::pending());
        let mut messages = self.client().full_duplex_call(requests).await?;
        check_body(next(&mut messages).await?.payload.as_ref(), 31_415)?;
        if timeout(WATCH, messages.message()).await.is_ok() {
            return Err(Failure::new(
                "the call ended, or answered twice, before it was cancelled",
            ));
        }
        drop(messages);
        self.empty_unary().await
    }

    pub(crate) async fn timeout_on_sleeping_server(&self) -> Result<(), Failure> {
        let request = output([], 27_182);
        let requests = stream::iter([request]).chain(stream::pending());
        let request = Request::new(requests).with_timeout(Duration::from_millis(1));
        let outcome = match self.client().full_duplex_call(request).await {
            Ok(mut messages) => messages.message().await,
            Err(status) => Err(status),
        };
        check_failure(outcome, Code::DeadlineExceeded, None)
    }

    pub(crate) async fn custom_metadata(&self) -> Result<(), Failure> {
        let request = Request::new(large(LARGE_REQUEST, LARGE_RESPONSE)).with_metadata(to_echo()?);
        let response = self.client().unary_call(request).await?;
        check_echoes(response.metadata(), Some(response.trailers()))?;

        let requests = stream::iter([output([(LARGE_RESPONSE, None)], LARGE_REQUEST)]);
        let request = Request::new(requests).with_metadata(to_echo()?);
        let mut messages = self.client().full_duplex_call(request).await?;
        let headers = messages.metadata().await?.clone();
        check_body(next(&mut messages).await?.payload.as_ref(), LARGE_RESPONSE)?;
        check_end(&mut messages).await?;
        check_echoes(&headers, messages.trailers())
    }
}

fn check(holds: bool, what: impl Into<String>) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::new(what))
    }
}

fn check_body(payload: Option<&Payload>, size: usize) -> Result<(), Failure> {
    let body = payload.map(|payload| &payload.body[..]).unwrap_or_default();
    check(
        body.len() == size,
        format!("a payload of {} bytes instead of {size}", body.len()),
    )?;
    check(
        body.iter().all(|&byte| byte == 0),
        "a payload that isn't zeroes",
    )
}

fn check_total(is: i32, wanted: usize) -> Result<(), Failure> {
    check(
        usize::try_from(is) == Ok(wanted),
        format!("a total of {is} bytes instead of {wanted}"),
    )
}

fn check_compressed(is: bool, wanted: bool) -> Result<(), Failure> {
    let what = if wanted {
        "a message that isn't compressed"
    } else {
        "a message that is compressed"
    };
    check(is == wanted, what)
}

fn check_failure<T>(
    outcome: Result<T, Status>,
    code: Code,
    message: Option<&str>,
) -> Result<(), Failure> {
    let Err(status) = outcome else {
        return Err(Failure::new(format!(
            "the call succeeded instead of failing with {code:?}"
        )));
    };
    if status.code() != code {
        return Err(status.into());
    }
    match message {
        Some(message) => check(
            status.message() == message,
            format!("the message {:?}", status.message()),
        ),
        None => Ok(()),
    }
}

fn check_echoes(headers: &Metadata, trailers: Option<&Metadata>) -> Result<(), Failure> {
    check(
        headers.get(ECHO_INITIAL) == Some(INITIAL_VALUE),
        "no echo in the headers",
    )?;
    let trailing = trailers.and_then(|trailers| trailers.get_bin(ECHO_TRAILING));
    check(
        trailing.as_deref() == Some(TRAILING_VALUE),
        "no echo in the trailers",
    )
}

async fn next(
    messages: &mut Streaming<StreamingOutputCallResponse>,
) -> Result<StreamingOutputCallResponse, Failure> {
    messages
        .message()
        .await?
        .ok_or_else(|| Failure::new("the stream ended early"))
}

async fn check_end(messages: &mut Streaming<StreamingOutputCallResponse>) -> Result<(), Failure> {
    check(messages.message().await?.is_none(), "a message too many")
}

fn send<T>(requests: &mpsc::UnboundedSender<T>, request: T) -> Result<(), Failure> {
    requests
        .send(request)
        .map_err(|_| Failure::new("the call ended early"))
}

fn to_echo() -> Result<Metadata, Failure> {
    let mut metadata = Metadata::new();
    insert(&mut metadata, ECHO_INITIAL, INITIAL_VALUE)?;
    metadata
        .insert_bin(ECHO_TRAILING, TRAILING_VALUE)
        .map_err(|error| Failure::new(error.to_string()))?;
    Ok(metadata)
}

fn insert(metadata: &mut Metadata, name: &str, value: &str) -> Result<(), Failure> {
    metadata
        .insert(name, value)
        .map_err(|error| Failure::new(error.to_string()))
}

fn large(request_size: usize, response_size: usize) -> SimpleRequest {
    SimpleRequest {
        response_size: to_i32(response_size),
        payload: Some(payload_of(request_size)),
        ..SimpleRequest::default()
    }
}

fn input(size: usize, compressed: Option<bool>) -> StreamingInputCallRequest {
    StreamingInputCallRequest {
        payload: Some(payload_of(size)),
        expect_compressed: compressed.map(|value| BoolValue { value }),
    }
}

fn output<const N: usize>(
    responses: [(usize, Option<bool>); N],
    request_size: usize,
) -> StreamingOutputCallRequest {
    let parameters = responses.map(|(size, compressed)| ResponseParameters {
        size: to_i32(size),
        interval_us: 0,
        compressed: compressed.map(|value| BoolValue { value }),
    });
    StreamingOutputCallRequest {
        response_parameters: parameters.into(),
        payload: (request_size > 0).then(|| payload_of(request_size)),
        ..StreamingOutputCallRequest::default()
    }
}

/// Sizes that come from flags may be anything; the server refuses what is too large.
fn to_i32(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}
