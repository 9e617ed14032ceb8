//! gRPC-Web: for browsers, which can't see HTTP's trailers.
//!
//! [`GrpcWebLayer`] goes around a generated server, or a router of them. It turns calls of gRPC-Web, binary and
//! text, into those of gRPC, and lets gRPC pass. Browsers also ask whether a page may call: [`CorsLayer`] answers.
//!
//! Serve it over HTTP/1 as well, since browsers without TLS speak nothing else: gRPC-Web needs no HTTP/2.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use tower_grpc::health::health_reporter;
//! use tower_grpc::web::{CorsLayer, GrpcWebLayer};
//! use tower_layer::Layer;
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let (_reporter, health) = health_reporter();
//! let cors = CorsLayer::new().with_origin("https://shop.example")?;
//! let mut server = cors.layer(GrpcWebLayer::new().layer(health));
//!
//! let request = http::Request::post("/grpc.health.v1.Health/Check")
//!     .header("content-type", "application/grpc-web+proto")
//!     .header("origin", "https://shop.example")
//!     .body(Full::new(Bytes::from_static(&[0; 5])))?;
//! let response = server.call(request).await?;
//! assert_eq!(response.headers()["access-control-allow-origin"], "https://shop.example");
//! let body = response.into_body().collect().await?.to_bytes();
//! // The message, and the trailers after it.
//! assert_eq!(&body[..], b"\0\0\0\0\x02\x08\x01\x80\0\0\0\x0fgrpc-status:0\r\n");
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxError, GrpcBody, Status};

mod cors;
mod text;

pub use self::cors::{Cors, CorsLayer, InvalidOrigin};

use self::text::Unarmor;

/// Wraps servers in [`GrpcWeb`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcWebLayer(());

/// A server of gRPC that also answers gRPC-Web; see the [module](self).
///
/// **Readiness.** The inner service's.
///
/// **Errors.** The inner service's.
#[derive(Clone, Copy, Debug)]
pub struct GrpcWeb<S> {
    inner: S,
}

impl GrpcWebLayer {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for GrpcWebLayer {
    type Service = GrpcWeb<S>;

    fn layer(&self, inner: S) -> GrpcWeb<S> {
        GrpcWeb { inner }
    }
}

/// What gRPC-Web calls are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Text,
}

const WEB: &str = "application/grpc-web";
const WEB_TEXT: &str = "application/grpc-web-text";

impl Form {
    /// The form that a content type names, and what follows in it: `+proto`.
    fn read(content_type: &str) -> Option<(Self, &str)> {
        let strip = |name: &str| {
            let (base, rest) = content_type.split_at_checked(name.len())?;
            base.eq_ignore_ascii_case(name).then_some(rest)
        };
        let (form, rest) = match (strip(WEB_TEXT), strip(WEB)) {
            (Some(rest), _) => (Self::Text, rest),
            (None, Some(rest)) => (Self::Binary, rest),
            (None, None) => return None,
        };
        matches!(rest.as_bytes().first(), None | Some(b'+' | b';' | b' ')).then_some((form, rest))
    }

    /// The form that the client wants to be answered in, if it says so.
    fn wanted(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let mut accepted = accepted.filter_map(|value| value.to_str().ok());
        accepted.find_map(|list| {
            let mut list = list.split(',').map(str::trim_ascii);
            list.find_map(|one| Self::read(one).map(|(form, _)| form))
        })
    }

    fn content_type(self, rest: &str) -> HeaderValue {
        let name = match self {
            Self::Binary => WEB,
            Self::Text => WEB_TEXT,
        };
        HeaderValue::try_from(format!("{name}{rest}")).unwrap_or(HeaderValue::from_static(WEB))
    }
}

impl<S, B, ResBody> Service<Request<B>> for GrpcWeb<S>
where
    // The service.
    S: Service<Request<WebBody<B>>, Response = Response<ResBody>>,
    // The bodies.
    B: Body<Data = Bytes>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<GrpcBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let form = request.headers().get(header::CONTENT_TYPE);
        let form = form.and_then(|value| Form::read(value.to_str().ok()?));
        let Some((form, rest)) = form else {
            let request = request.map(|body| WebBody {
                body,
                unarmor: None,
            });
            return ResponseFuture {
                response: self.inner.call(request),
                form: None,
            };
        };
        let content_type = HeaderValue::try_from(format!("application/grpc{rest}"));
        let headers = request.headers_mut();
        if let Ok(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let answer = Form::wanted(request.headers()).unwrap_or(form);
        let unarmor = (form == Form::Text).then(Unarmor::default);
        ResponseFuture {
            response: self
                .inner
                .call(request.map(|body| WebBody { body, unarmor })),
            form: Some(answer),
        }
    }
}

pin_project! {
    /// The response of a [`GrpcWeb`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        response: F,
        form: Option<Form>,
    }
}

impl<F, ResBody, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<GrpcBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx))?;
        Poll::Ready(Ok(match *this.form {
            Some(form) => translate(response, form),
            None => response.map(GrpcBody::new),
        }))
    }
}

/// Makes a response of gRPC-Web of one of gRPC. Any other, as from another layer, stays as it is.
fn translate<B>(mut response: Response<B>, form: Form) -> Response<GrpcBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let rest = content_type.and_then(|value| value.to_str().ok()?.strip_prefix("application/grpc"));
    let Some(content_type) = rest.map(|rest| form.content_type(rest)) else {
        return response.map(GrpcBody::new);
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response.map(|body| GrpcBody::streaming(Translated { body, form }))
}

pin_project! {
    /// The body of a request, out of base64 where that is its form.
    ///
    /// **Errors.** [`Status`]: `INTERNAL` where it isn't base64.
    pub struct WebBody<B> {
        #[pin]
        body: B,
        unarmor: Option<Unarmor>,
    }
}

impl<B> std::fmt::Debug for WebBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebBody").finish_non_exhaustive()
    }
}

impl<B> Body for WebBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let frame = match (frame, this.unarmor) {
            (Some(Err(error)), _) => Some(Err(Status::from_error(error))),
            (Some(Ok(frame)), None) => Some(Ok(frame)),
            (Some(Ok(frame)), Some(unarmor)) => Some(match frame.into_data() {
                Ok(data) => unarmor.push(&data).map(Frame::data),
                Err(frame) => Ok(frame),
            }),
            (None, None) => None,
            (None, Some(unarmor)) => unarmor.end().err().map(Err),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The text may have ended too soon, which only a poll tells.
        self.unarmor.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.unarmor {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

pin_project! {
    /// The body of a response, with its trailers as a last frame.
    struct Translated<B> {
        #[pin]
        body: B,
        form: Form,
    }
}

impl<B> Body for Translated<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let form = *this.form;
        let frame = ready!(this.body.poll_frame(cx));
        let translate = |frame: Frame<Bytes>| {
            let bytes = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let all = frame.into_trailers();
                    all.map_or(Bytes::new(), |all| trailers(&all))
                }
            };
            Frame::data(match form {
                Form::Binary => bytes,
                // Each with its padding: the chunks stand one after the other.
                Form::Text => STANDARD.encode(bytes).into(),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(translate).map_err(Status::from_error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Trailers as a message: marked by the highest bit of its flag, with a line each as in HTTP/1.
fn trailers(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_slice(&[0x80, 0, 0, 0, 0]);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_u8(b':');
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    // Headers are far shorter than 4 GiB.
    let len = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[1..5].copy_from_slice(&len.to_be_bytes());
    frame.freeze()
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
