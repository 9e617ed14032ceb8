//! What generated servers call, for each kind of method.

use std::future::Future;

use bytes::Bytes;
use http_body::Body;

use super::answer::{Answer, Reply, Written, failure, write_single};
use super::incoming::{Single, stream};
use super::opening::Opened;
use super::refusal::Refusal;
use super::{ResponseFuture, Settings};
use crate::codec::{Decode, Encode};
use crate::streaming::Streaming;
use crate::{BoxError, Request, Response, Status};

/// Answers a method of one message each way. For generated code.
pub fn unary<B, C, Req, Res, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req> + Encode<Res>,
    Req: Send + 'static,
    Res: Send + 'static,
    // The handler.
    H: FnOnce(Request<Req>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
{
    let opened = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let writing = opened.writing;
    let handler = move |request, codec| Written::new(handler(request), codec, writing);
    let call = Single::new(opened.messages, opened.head, codec, handler);
    ResponseFuture::new(opened.deadline, call)
}

/// Answers a method of many messages to the server and one back. For generated code.
pub fn client_streaming<B, C, Req, Res, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req> + Encode<Res>,
    Req: Send + 'static,
    Res: Send + 'static,
    // The handler.
    H: FnOnce(Request<Streaming<Req>>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Res>, Status>> + Send,
{
    let opened = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let mut codec = codec;
    let (messages, head, writing) = (opened.messages, opened.head, opened.writing);
    ResponseFuture::new(opened.deadline, async move {
        match handler(stream::<B, C, Req>(messages, head)).await {
            Ok(response) => write_single(&mut codec, response, &writing),
            Err(status) => failure(status),
        }
    })
}

/// Answers a method of one message to the server and many back. For generated code.
///
/// The handler turns its stream into the answer itself, by [`Reply::stream`]: what it awaits for may borrow, what
/// it leaves may not.
pub fn server_streaming<B, C, Req, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The message.
    C: Decode<Req>,
    Req: Send + 'static,
    // The handler.
    H: FnOnce(Request<Req>, Reply<C>) -> F + Send + 'static,
    F: Future<Output = Result<Answer, Status>> + Send + 'static,
{
    let opened = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let (writing, deadline) = (opened.writing, opened.deadline);
    let handler = move |request, codec| {
        let reply = Reply {
            codec,
            writing,
            deadline,
        };
        let handling = handler(request, reply);
        async move { Answer::of(handling.await) }
    };
    let call = Single::new(opened.messages, opened.head, codec, handler);
    ResponseFuture::new(deadline, call)
}

/// Answers a method of many messages each way. For generated code.
///
/// See [`server_streaming`].
pub fn streaming<B, C, Req, H, F>(
    settings: Settings,
    codec: C,
    request: http::Request<B>,
    handler: H,
) -> ResponseFuture
where
    // The request.
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    // The messages.
    C: Decode<Req>,
    Req: Send + 'static,
    // The handler.
    H: FnOnce(Request<Streaming<Req>>, Reply<C>) -> F + Send + 'static,
    F: Future<Output = Result<Answer, Status>> + Send,
{
    let opened = match Opened::read(settings, C::SUBTYPE, request) {
        Ok(opened) => opened,
        Err((refusal, body)) => return refusal.answer(body),
    };
    let (messages, head) = (opened.messages, opened.head);
    let reply = Reply {
        codec,
        writing: opened.writing,
        deadline: opened.deadline,
    };
    ResponseFuture::new(opened.deadline, async move {
        Answer::of(handler(stream::<B, C, Req>(messages, head), reply).await)
    })
}

/// Answers a call of a method that there isn't. For generated code.
pub fn unimplemented<B>(request: http::Request<B>) -> ResponseFuture
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let refusal = Refusal::of_protocol(&request).unwrap_or_else(|| {
        let path = request.uri().path();
        Refusal::Failure(Status::unimplemented(format!("there is no method {path}")))
    });
    refusal.answer(request.into_body())
}
