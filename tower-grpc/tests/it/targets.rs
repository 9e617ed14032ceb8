//! What is fuzzed: functions of any bytes, which panic where tower-grpc breaks a promise.
//!
//! `corpus.rs` runs them over the files below `tests/corpus`, as they are and mutated, and `fuzz/` under libFuzzer. Each
//! compares what comes out with what a plain reading of the specification makes of the same bytes.

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tower_deadline::Deadline;
use tower_grpc::client::Client;
use tower_grpc::codec::{Codec, Decode, Encode, MessageBuf};
use tower_grpc::server::{self, Settings};
use tower_grpc::web::GrpcWebLayer;
use tower_grpc::{Code, Encoding, GrpcBody, Metadata, MetadataValue, Status};
use tower_layer::Layer;
use tower_service::Service;

/// How many bytes a message may have.
const MAX: usize = 600;
const PATH: &str = "/fuzz.Echo/Call";

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    const SUBTYPE: &'static str = "raw";
}

impl Encode<Bytes> for Raw {
    fn encode(&mut self, message: Bytes, buf: &mut BytesMut) -> Result<(), Status> {
        buf.put(message);
        Ok(())
    }
}

impl Decode<Bytes> for Raw {
    fn decode(&mut self, buf: &mut MessageBuf<'_>) -> Result<Bytes, Status> {
        Ok(buf.copy_to_bytes(buf.remaining()))
    }
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let work = tokio::time::timeout(Duration::from_secs(60), work);
        work.await.expect("it hangs");
    });
}

/// Settings that bound a message, and compress where the peer accepts it.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.set_max_decoding_message_size(MAX);
    settings.set_sent_encodings(Encoding::ALL.iter().copied());
    settings
}

/// Sends back every message.
fn echo<B>(request: Request<B>) -> server::ResponseFuture
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    server::streaming::<_, Raw, Bytes, _, _>(settings(), Raw, request, |request, reply| async {
        let messages = request.into_inner();
        Ok(reply.stream(tower_grpc::Response::new(messages)))
    })
}

fn post() -> http::request::Builder {
    Request::post(PATH).header("content-type", "application/grpc")
}

/// A body in pieces of so many bytes.
fn pieces(
    body: &[u8],
    size: usize,
) -> impl Body<Data = Bytes, Error = Infallible> + Send + use<> + 'static {
    let pieces: Vec<_> = body
        .chunks(size.max(1))
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    StreamBody::new(futures_util::stream::iter(pieces))
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("fuzzed messages are short");
    let mut frame = vec![flag];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// A response as it came: its head, its body, and its code from wherever it is.
struct Whole {
    headers: HeaderMap,
    body: Bytes,
    code: String,
}

async fn collect<B>(response: Response<B>) -> Whole
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let (head, body) = response.into_parts();
    let collected = body.collect().await.expect("a body doesn't fail");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let code = trailers
        .get("grpc-status")
        .or(head.headers.get("grpc-status"));
    Whole {
        code: code.map_or(String::new(), |code| code.to_str().unwrap().to_owned()),
        headers: head.headers,
        body: collected.to_bytes(),
    }
}

/// The messages in a body, and the code with which a server that echoes them ends.
fn messages_of(mut body: &[u8]) -> (Vec<&[u8]>, &'static str) {
    let mut messages = Vec::new();
    loop {
        let (flag, len, rest) = match body {
            [] => return (messages, "0"),
            [flag, a, b, c, d, rest @ ..] => (*flag, u32::from_be_bytes([*a, *b, *c, *d]), rest),
            _ => return (messages, "13"),
        };
        let len = len as usize;
        match rest.split_at_checked(len) {
            _ if flag > 1 => return (messages, "13"),
            _ if len > MAX => return (messages, "8"),
            // Nothing has said how it would be compressed.
            None => return (messages, "13"),
            Some(_) if flag == 1 => return (messages, "13"),
            Some((message, more)) => {
                messages.push(message);
                body = more;
            }
        }
    }
}

/// `data` as the body of a request, cut into pieces as its first byte says.
pub(crate) fn frames(data: &[u8]) {
    let Some((size, body)) = data.split_first() else {
        return;
    };
    let (messages, code) = messages_of(body);
    run(async {
        let request = post().body(pieces(body, usize::from(*size))).unwrap();
        let response = collect(echo(request).await.unwrap()).await;
        assert_eq!(response.code, code);
        let echoed: Vec<u8> = messages.iter().flat_map(|one| framed(0, one)).collect();
        assert_eq!(response.body, echoed);
    });
}

/// `data` as a compressed message, in the way that its first byte says; and compressed.
pub(crate) fn compressed(data: &[u8]) {
    let Some((which, message)) = data.split_first() else {
        return;
    };
    let encoding = Encoding::ALL[usize::from(*which) % Encoding::ALL.len()];
    run(async {
        let request = post()
            .header("grpc-encoding", encoding.name())
            .body(Full::new(Bytes::from(framed(1, message))));
        let response = collect(echo(request.unwrap()).await.unwrap()).await;
        let (messages, _) = messages_of_any(&response.body);
        match &*response.code {
            "0" => assert!(messages.len() == 1 && messages[0].len() <= MAX),
            code => assert!(matches!(code, "8" | "13") && messages.is_empty(), "{code}"),
        }
        let message = Bytes::copy_from_slice(&message[..message.len().min(MAX)]);
        let mut client = Client::new(Here)
            .with_sent_encoding(encoding)
            .with_accepted_encodings([encoding]);
        let request = tower_grpc::Request::new(message.clone());
        let answer: tower_grpc::Response<Bytes> = client.unary(PATH, Raw, request).await.unwrap();
        assert!(answer.was_compressed());
        assert_eq!(answer.into_inner(), message);
    });
}

/// The messages in a body that this side has written, with their flags.
fn messages_of_any(mut body: &[u8]) -> (Vec<&[u8]>, Vec<u8>) {
    let (mut messages, mut flags) = (Vec::new(), Vec::new());
    while let [flag, a, b, c, d, rest @ ..] = body {
        let (message, more) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        messages.push(message);
        flags.push(*flag);
        body = more;
    }
    assert!(body.is_empty());
    (messages, flags)
}

/// The echo, for clients.
#[derive(Clone)]
struct Here;

impl Service<Request<GrpcBody>> for Here {
    type Response = Response<GrpcBody>;
    type Error = Infallible;
    type Future = server::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GrpcBody>) -> server::ResponseFuture {
        echo(request)
    }
}

/// `data` as headers, a line each; the handler sees them, and puts them into its response.
pub(crate) fn metadata(data: &[u8]) {
    let mut sent = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        let value = HeaderValue::from_bytes(value.strip_prefix(b": ").unwrap_or_default());
        match (HeaderName::from_bytes(name), value) {
            // A time, an encoding or a content type has a target of its own.
            (Ok(name), Ok(value)) if is_metadata(&name) => drop(sent.append(name, value)),
            _ => {}
        }
    }
    run(async {
        let mut request = post().body(Full::new(Bytes::from(framed(0, b"")))).unwrap();
        request.headers_mut().extend(sent.clone());
        let received = collect(see(request, sent.clone()).await.unwrap()).await;
        assert_eq!(received.code, "0");
        for name in sent.keys().filter(|name| *name != "user-agent") {
            let (ours, theirs) = (sent.get_all(name), received.headers.get_all(name));
            assert!(ours.iter().eq(theirs.iter()), "{name}");
        }
    });
}

/// Looks at the metadata of a request, and sends it back.
fn see(request: Request<Full<Bytes>>, expected: HeaderMap) -> server::ResponseFuture {
    let handler = move |request: tower_grpc::Request<Bytes>| async move {
        let metadata = request.metadata().clone();
        judge_metadata(&metadata, &expected);
        Ok(tower_grpc::Response::new(request.into_inner()).with_metadata(metadata))
    };
    server::unary(settings(), Raw, request, handler)
}

fn is_metadata(name: &HeaderName) -> bool {
    let mut metadata = Metadata::new();
    let name = name.as_str();
    metadata.append(name, "").is_ok() || metadata.append_bin(name, "").is_ok()
}

/// Everything that was sent is there, once, and nothing of the protocol's own.
fn judge_metadata(metadata: &Metadata, sent: &HeaderMap) {
    let mut copy = Metadata::new();
    for (name, value) in metadata.iter() {
        let copied = match value {
            // HTTP lets a tab pass, and gRPC doesn't.
            MetadataValue::Ascii(text) if text.contains('\t') => Ok(()),
            MetadataValue::Ascii(text) => copy.append(name, text),
            MetadataValue::Binary(bytes) => copy.append_bin(name, bytes),
            other => panic!("{other:?}"),
        };
        copied.expect("what is received may be sent");
    }
    for name in sent.keys() {
        let values = || sent.get_all(name).iter();
        if name.as_str().ends_with("-bin") {
            let expected = values().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
            let expected = expected.filter_map(|text| unbase64(text.trim_ascii()));
            assert!(metadata.get_all_bin(name.as_str()).eq(expected), "{name}");
            assert!(
                copy.get_all_bin(name.as_str())
                    .eq(metadata.get_all_bin(name.as_str()))
            );
        } else {
            let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
            let expected = values().filter(|value| value.as_bytes().iter().all(is_text));
            let texts = metadata.get_all(name.as_str()).map(str::as_bytes);
            assert!(texts.eq(expected.map(HeaderValue::as_bytes)), "{name}");
        }
    }
}

/// Base64 (RFC 4648, section 4) with or without padding; `None` for what is none, or has bits that count for nothing.
fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > (4 - digits.len() % 4) % 4 {
        return None;
    }
    let mut bits = (0_u32, 0);
    let mut bytes = Vec::new();
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits.0 << 6 | u32::from(value), bits.1 + 6);
        if bits.1 >= 8 {
            bytes.push((bits.0 >> (bits.1 - 8)) as u8);
            bits = (bits.0 & ((1 << (bits.1 - 8)) - 1), bits.1 - 8);
        }
    }
    (bits.0 == 0 && bits.1 < 6).then_some(bytes)
}

/// `data` as the time of a call.
pub(crate) fn timeout(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let expected = duration(data);
    run(async {
        let request = post().header("grpc-timeout", value);
        let request = request
            .body(Full::new(Bytes::from(framed(0, b""))))
            .unwrap();
        let response = collect(tell_time(request).await.unwrap()).await;
        let Some(expected) = expected else {
            assert_eq!(response.code, "13");
            return;
        };
        // Nothing is left of no time, be it noticed before the handler or after.
        match &*response.code {
            "4" => assert!(expected.is_zero()),
            code => assert_eq!((code, told(&response.body)), ("0", expected)),
        }
        // And on its way out, in eight digits.
        let call = tower_grpc::Request::new(Bytes::new()).with_timeout(expected);
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        let mut client = Client::new(Header(Some(sender)));
        let _: Result<tower_grpc::Response<Bytes>, _> = client.unary(PATH, Raw, call).await;
        let Ok(Some(sent)) = receiver.try_recv() else {
            assert!(expected.is_zero() || expected > Duration::from_secs(1 << 30));
            return;
        };
        let sent = duration(sent.as_bytes()).expect("it is well-formed");
        assert!(
            sent >= expected && sent - expected <= expected / 100_000 + Duration::from_nanos(1)
        );
    });
}

/// A number of up to eight digits, and a unit.
fn duration(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let nanos: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let nanos = nanos * u128::from(number);
    let secs = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(secs, (nanos % 1_000_000_000) as u32))
}

/// Answers with the time that is left.
fn tell_time(request: Request<Full<Bytes>>) -> server::ResponseFuture {
    let handler = |request: tower_grpc::Request<Bytes>| async move {
        let left = Deadline::current().map(Deadline::remaining);
        assert_eq!(left, request.timeout());
        let nanos = left.unwrap_or_default().as_nanos().to_be_bytes();
        Ok(tower_grpc::Response::new(Bytes::copy_from_slice(&nanos)))
    };
    server::unary(settings(), Raw, request, handler)
}

fn told(body: &[u8]) -> Duration {
    let (messages, _) = messages_of(body);
    let nanos = u128::from_be_bytes(messages[0].try_into().unwrap());
    Duration::new(
        (nanos / 1_000_000_000) as u64,
        (nanos % 1_000_000_000) as u32,
    )
}

/// Keeps the time that a request gives, and answers nothing.
struct Header(Option<tokio::sync::oneshot::Sender<Option<HeaderValue>>>);

impl Service<Request<GrpcBody>> for Header {
    type Response = Response<GrpcBody>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<GrpcBody>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GrpcBody>) -> Self::Future {
        let value = request.headers().get("grpc-timeout").cloned();
        let _ = self.0.take().expect("it is called once").send(value);
        std::future::ready(Err(Status::unavailable("nobody is here")))
    }
}

/// `data` as the end of a call: its code, its message and its details, a line each.
pub(crate) fn status(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut fields = HeaderMap::new();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            fields.insert(name, value);
        }
    }
    run(async {
        let only_trailers = answered(fields.clone(), None).await;
        let after_a_message = answered(HeaderMap::new(), Some(fields.clone())).await;
        let Some(code) = fields.get("grpc-status") else {
            return;
        };
        let code = std::str::from_utf8(code.as_bytes()).ok();
        // Without a sign and without zeroes before it, which `parse` would take.
        let code = code.filter(|text| {
            text.parse::<i32>()
                .is_ok_and(|code| code.to_string() == *text)
        });
        match code.map_or(2, |code| code.parse::<i32>().unwrap_or(2)) {
            0 => {
                // There is a message after all, or there is none where one is due.
                assert!(after_a_message.is_ok());
                assert_eq!(only_trailers.unwrap_err().code(), Code::Unimplemented);
            }
            code => {
                let message = fields
                    .get("grpc-message")
                    .map(|value| unescape(value.as_bytes()));
                for status in [only_trailers.unwrap_err(), after_a_message.unwrap_err()] {
                    assert_eq!(status.code(), Code::from_i32(code));
                    assert_eq!(status.message(), message.clone().unwrap_or_default());
                    let _ = status.rpc_status();
                }
            }
        }
        // And any text on its way through a server.
        let text = String::from_utf8_lossy(data).into_owned();
        let request = post().body(Full::new(Bytes::from(framed(0, b"")))).unwrap();
        let sent = text.clone();
        let handler = move |_: tower_grpc::Request<Bytes>| async move {
            Err::<tower_grpc::Response<Bytes>, _>(Status::aborted(sent))
        };
        let response = server::unary(settings(), Raw, request, handler)
            .await
            .unwrap();
        let status = answered(response.headers().clone(), None)
            .await
            .unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, &*text));
    });
}

/// What a client makes of an answer of these headers, and of a message with these trailers after it.
async fn answered(headers: HeaderMap, trailers: Option<HeaderMap>) -> Result<(), Status> {
    let mut response = Response::builder().header("content-type", "application/grpc");
    response
        .headers_mut()
        .expect("it is in order")
        .extend(headers);
    let frames = trailers.map(|trailers| {
        [
            Frame::data(Bytes::from(framed(0, b""))),
            Frame::trailers(trailers),
        ]
        .map(Ok::<_, Status>)
    });
    let body = StreamBody::new(futures_util::stream::iter(frames.into_iter().flatten()));
    let mut response = Some(response.body(body).unwrap());
    let server = tower_util::service_fn(move |_: Request<GrpcBody>| {
        std::future::ready(Ok::<_, Status>(response.take().expect("it is called once")))
    });
    let request = tower_grpc::Request::new(Bytes::new());
    let answer: tower_grpc::Response<Bytes> = Client::new(server).unary(PATH, Raw, request).await?;
    assert!(answer.get_ref().is_empty());
    Ok(())
}

/// Takes percent-encoding away, where it is well-formed.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match (text[at], hex) {
            (b'%', Some(hex)) => {
                let hex = std::str::from_utf8(hex).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                at += 3;
            }
            (byte, _) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `data` as the body of a call from a page: the lowest bit of its first byte says whether it is base64, the others how
/// it is cut.
pub(crate) fn web(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let is_text = first & 1 == 1;
    let content_type = match is_text {
        true => "application/grpc-web-text",
        false => "application/grpc-web",
    };
    let (plain, is_whole) = match is_text {
        true => unarmor(body),
        false => (body.to_vec(), true),
    };
    let (messages, code) = messages_of(&plain);
    run(async {
        let request = Request::post(PATH)
            .header("content-type", content_type)
            .body(pieces(body, usize::from(first >> 1)))
            .unwrap();
        let mut server = GrpcWebLayer::new().layer(tower_util::service_fn(echo));
        let response = collect(server.call(request).await.unwrap()).await;
        assert_eq!(
            response.headers["content-type"].as_bytes()[..content_type.len()],
            *content_type.as_bytes()
        );
        let (body, is_well_formed) = match is_text {
            true => unarmor(&response.body),
            false => (response.body.to_vec(), true),
        };
        assert!(is_well_formed);
        let (mut echoed, flags) = messages_of_any(&body);
        // Where there was no message the head may have said it all.
        let trailers = match flags.last() {
            Some(0x80) => String::from_utf8(echoed.pop().unwrap().to_vec()).unwrap(),
            _ => format!("grpc-status:{}\r\n", response.code),
        };
        let is_ended_with = |code| trailers.contains(&format!("grpc-status:{code}\r\n"));
        if is_whole {
            assert!(is_ended_with(code), "{trailers}");
            assert_eq!(echoed, messages);
        } else {
            // What stands in one piece with what is no base64 is lost.
            assert!(is_ended_with("13") || is_ended_with(code), "{trailers}");
            assert_eq!(echoed, messages[..echoed.len()]);
        }
    });
}

/// Groups of base64 up to the first that is none, and whether that is all.
fn unarmor(text: &[u8]) -> (Vec<u8>, bool) {
    let mut plain = Vec::new();
    for group in text.chunks(4) {
        match unbase64(group).filter(|_| group.len() == 4) {
            Some(bytes) => plain.extend(bytes),
            None => return (plain, false),
        }
    }
    (plain, true)
}

/// `data` as what is said of encodings: how the message is compressed, and what may be sent back, a line each.
pub(crate) fn encodings(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let [announced, accepted] = [(); 2].map(|()| {
        lines
            .next()
            .and_then(|line| HeaderValue::from_bytes(line).ok())
    });
    let known = |name: &[u8]| {
        Encoding::ALL
            .iter()
            .any(|one| one.name().as_bytes() == name)
    };
    let is_known = announced
        .as_ref()
        .is_none_or(|name| name == "identity" || known(name.as_bytes()));
    run(async {
        let mut request = post()
            .body(Full::new(Bytes::from(framed(0, b"hello"))))
            .unwrap();
        let headers = request.headers_mut();
        if let Some(announced) = announced {
            headers.insert("grpc-encoding", announced);
        }
        if let Some(accepted) = &accepted {
            headers.insert("grpc-accept-encoding", accepted.clone());
        }
        let response = collect(echo(request).await.unwrap()).await;
        if !is_known {
            assert_eq!(response.code, "12");
            let list = response.headers["grpc-accept-encoding"].to_str().unwrap();
            assert!(Encoding::ALL.iter().all(|one| list.contains(one.name())));
            return;
        }
        assert_eq!(response.code, "0");
        let (messages, flags) = messages_of_any(&response.body);
        match response.headers.get("grpc-encoding") {
            None => assert_eq!(
                (&messages[..], &flags[..]),
                (&[&b"hello"[..]][..], &[0][..])
            ),
            Some(used) => {
                let accepted = accepted.expect("it would be plain");
                let mut accepted = accepted.as_bytes().split(|byte| *byte == b',');
                assert!(accepted.any(|name| name.trim_ascii() == used.as_bytes()));
                assert_eq!(flags, [1]);
            }
        }
    });
}
