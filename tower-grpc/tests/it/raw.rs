//! Requests and responses as bytes, for what generated code wouldn't do.

use std::convert::Infallible;
use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use tower_service::Service;

use crate::echo::Say;

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    /// The code, from wherever it is.
    pub(crate) fn code(&self) -> &str {
        let trailers = self
            .trailers
            .as_ref()
            .and_then(|all| all.get("grpc-status"));
        let code = trailers.or(self.headers.get("grpc-status"));
        code.expect("there is a grpc-status").to_str().unwrap()
    }

    /// Whether the head has said it all.
    pub(crate) fn is_trailers_only(&self) -> bool {
        self.trailers.is_none() && self.body.is_empty() && self.headers.contains_key("grpc-status")
    }
}

/// A message with its prefix.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::from(&[flag][..]);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

pub(crate) fn said(text: &str) -> Bytes {
    framed(0, &crate::echo::say(text).encode_to_vec())
}

/// The messages in a body; all of them plain.
pub(crate) fn messages(mut body: &[u8]) -> Vec<Say> {
    let mut all = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        assert_eq!(*flag, 0);
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        all.push(Say::decode(&rest[..len]).unwrap());
        body = &rest[len..];
    }
    all
}

/// A request for a method of the echo service, with what every client sends.
pub(crate) fn post(method: &str) -> http::request::Builder {
    Request::post(format!("http://test/tower.grpc.test.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

pub(crate) async fn send<S, B, R>(server: &mut S, request: Request<B>) -> Whole
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    poll_fn(|cx| server.poll_ready(cx)).await.unwrap();
    let (head, body) = server.call(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    Whole {
        status: head.status,
        headers: head.headers,
        trailers: collected.trailers().cloned(),
        body: collected.to_bytes(),
    }
}

/// Calls a method with a body of bytes, as `change` has the head.
pub(crate) async fn call(
    method: &str,
    body: impl Into<Bytes>,
    change: impl FnOnce(http::request::Builder) -> http::request::Builder,
) -> Whole {
    let request = change(post(method)).body(Full::new(body.into())).unwrap();
    send(&mut crate::echo::server(), request).await
}

/// A body of frames, with errors among them.
pub(crate) fn frames(
    frames: Vec<Result<Frame<Bytes>, std::io::Error>>,
) -> UnsyncBoxBody<Bytes, std::io::Error> {
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}
