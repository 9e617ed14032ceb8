//! A server that answers one case wrongly, and all others rightly.

use futures_util::{Stream, StreamExt, stream};
use interop::answers::{Answers, payload_of};
use interop::testing::server::{TestService, UnimplementedService, UnimplementedServiceServer};
use interop::testing::{
    Empty, SimpleRequest, SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use tower_grpc::{Request, Response, Status, Streaming};

/// Breaks the case of this name.
#[derive(Debug)]
pub(crate) struct Broken {
    case: &'static str,
}

impl Broken {
    pub(crate) fn new(case: &'static str) -> Self {
        Self { case }
    }

    fn breaks(&self, cases: &[&str]) -> bool {
        cases.contains(&self.case)
    }
}

type Outputs = Result<StreamingOutputCallResponse, Status>;

/// A service that should not be there.
pub(crate) fn implemented() -> UnimplementedServiceServer<Implemented> {
    UnimplementedServiceServer::new(Implemented)
}

#[derive(Debug)]
pub(crate) struct Implemented;

impl UnimplementedService for Implemented {
    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }
}

fn output(size: usize) -> Outputs {
    Ok(StreamingOutputCallResponse {
        payload: Some(payload_of(size)),
    })
}

impl TestService for Broken {
    async fn empty_call(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        if self.breaks(&["empty_unary"]) {
            return Err(Status::unknown("broken"));
        }
        Answers.empty_call(request).await
    }

    async fn unary_call(
        &self,
        mut request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let message = request.get_mut();
        match self.case {
            // A server that can't tell whether a message was compressed.
            "client_compressed_unary" => message.expect_compressed = None,
            "server_compressed_unary" => message.response_compressed = None,
            "status_code_and_message" => {
                if let Some(status) = &mut message.response_status {
                    status.message.push('!');
                }
            }
            "special_status_message" => {
                if let Some(status) = &mut message.response_status {
                    status.message = status.message.trim().to_owned();
                }
            }
            _ => {}
        }
        if self.breaks(&["custom_metadata"]) {
            request.metadata_mut().remove(interop::ECHO_TRAILING);
        }
        let mut response = TestService::unary_call(&Answers, request).await?;
        if self.breaks(&["large_unary", "rpc_soak", "channel_soak"]) {
            response.get_mut().payload = Some(payload_of(314_158));
        }
        Ok(response)
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut response = Answers.cacheable_unary_call(request).await?;
        if self.breaks(&["cacheable_unary"]) {
            response.get_mut().payload = None;
        }
        Ok(response)
    }

    async fn streaming_output_call(
        &self,
        mut request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<impl Stream<Item = Outputs> + Send + 'static>, Status> {
        let parameters = &mut request.get_mut().response_parameters;
        match self.case {
            "server_streaming" => parameters.swap(0, 1),
            "server_compressed_streaming" => parameters
                .iter_mut()
                .for_each(|each| each.compressed = None),
            _ => {}
        }
        Answers.streaming_output_call(request).await
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        match self.case {
            // Doesn't wait for the client's end.
            "cancel_after_begin" => Ok(Response::default()),
            "client_compressed_streaming" => Ok(Response::new(StreamingInputCallResponse {
                aggregated_payload_size: 73_086,
            })),
            "client_streaming" => {
                let mut response = Answers.streaming_input_call(request).await?;
                response.get_mut().aggregated_payload_size -= 1;
                Ok(response)
            }
            _ => Answers.streaming_input_call(request).await,
        }
    }

    async fn full_duplex_call(
        &self,
        mut request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<impl Stream<Item = Outputs> + Send + 'static>, Status> {
        if self.breaks(&["custom_metadata"]) {
            request.metadata_mut().remove(interop::ECHO_INITIAL);
        }
        let response = Answers.full_duplex_call(request).await?;
        let case = self.case;
        Ok(response.map(|answers| match case {
            // A message that nobody asked for.
            "empty_stream" => answers.chain(stream::iter([output(1)])).boxed(),
            // Ends where it should wait for more.
            "cancel_after_first_response" => answers.take(1).boxed(),
            "timeout_on_sleeping_server" => stream::empty().boxed(),
            "ping_pong" => answers.map(|_| output(31_415)).boxed(),
            _ => answers.boxed(),
        }))
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<impl Stream<Item = Outputs> + Send + 'static>, Status> {
        Answers.half_duplex_call(request).await
    }

    async fn unimplemented_call(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        if self.breaks(&["unimplemented_method"]) {
            return Ok(Response::new(Empty {}));
        }
        Answers.unimplemented_call(request).await
    }
}
