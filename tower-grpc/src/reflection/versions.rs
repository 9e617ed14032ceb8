//! The two versions of the protocol, which differ in their name.

use futures_core::Stream;

use super::{Answer, Question, Reflection, ReflectionService, answer_all};
use crate::{Code, Request, Response, Status, Streaming};

macro_rules! version {
    ($version:ident, $file:literal, $package:literal) => {
#[doc = concat!("The generated code of `", $package, "`: a client of it, above all.")]
        #[allow(missing_docs, reason = "the protocol's own documentation says it")]
        #[allow(clippy::doc_lazy_continuation, reason = "prost's own comments")]
        #[rustfmt::skip]
        pub mod $version {
            include!($file);
        }

        impl Reflection {
            #[doc = concat!("The service `", $package, ".ServerReflection`.")]
            pub fn $version(&self) -> $version::server::ServerReflectionServer<ReflectionService> {
                $version::server::ServerReflectionServer::new(self.service())
            }
        }

        impl $version::server::ServerReflection for ReflectionService {
            async fn server_reflection_info(
                &self,
                request: Request<Streaming<$version::ServerReflectionRequest>>,
            ) -> Result<
                Response<
                    impl Stream<Item = Result<$version::ServerReflectionResponse, Status>>
                    + Send
                    + 'static,
                >,
                Status,
            > {
                Ok(answer_all(self, request, |reflection, request| {
                    let answer = reflection.answer(Question::from(&request));
                    $version::ServerReflectionResponse {
                        valid_host: request.host.clone(),
                        original_request: Some(request),
                        message_response: Some(answer.into()),
                    }
                }))
            }
        }

        impl From<&$version::ServerReflectionRequest> for Question {
            fn from(request: &$version::ServerReflectionRequest) -> Self {
                use $version::server_reflection_request::MessageRequest;

                match request.message_request.clone() {
                    None => Self::None,
                    Some(MessageRequest::FileByFilename(name)) => Self::File(name),
                    Some(MessageRequest::FileContainingSymbol(name)) => Self::Symbol(name),
                    Some(MessageRequest::FileContainingExtension(extension)) => {
                        Self::Extension(extension.containing_type, extension.extension_number)
                    }
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => Self::Extensions(name),
                    Some(MessageRequest::ListServices(_)) => Self::Services,
                }
            }
        }

        impl From<Answer> for $version::server_reflection_response::MessageResponse {
            fn from(answer: Answer) -> Self {
                let failed = |code: Code, message: &str| {
                    Self::ErrorResponse($version::ErrorResponse {
                        error_code: code.into(),
                        error_message: message.to_owned(),
                    })
                };
                match answer {
                    Answer::Services(names) => {
                        let named = |name| $version::ServiceResponse { name };
                        Self::ListServicesResponse($version::ListServiceResponse {
                            service: names.into_iter().map(named).collect(),
                        })
                    }
                    Answer::Files(file_descriptor_proto) => {
                        Self::FileDescriptorResponse($version::FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    Answer::Extensions(base_type_name, extension_number) => {
                        Self::AllExtensionNumbersResponse($version::ExtensionNumberResponse {
                            base_type_name,
                            extension_number,
                        })
                    }
                    Answer::NotFound => failed(Code::NotFound, "it isn't known"),
                    Answer::Nothing => failed(Code::InvalidArgument, "nothing is asked"),
                }
            }
        }
    };
}

version!(v1, "../pb/grpc.reflection.v1.rs", "grpc.reflection.v1");
version!(
    v1alpha,
    "../pb/grpc.reflection.v1alpha.rs",
    "grpc.reflection.v1alpha"
);
