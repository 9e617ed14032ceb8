//! The server that is abused, and clients that may send anything.

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode};
use interop::testing::client::BenchmarkServiceClient;
use interop::testing::server::{BenchmarkService, BenchmarkServiceServer};
use interop::testing::{SimpleRequest, SimpleResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_grpc::client::Channel;
use tower_grpc::server::Server;
use tower_grpc::{Request, Response, Status, Streaming};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A handler of this `response_size` never answers.
pub(crate) const NEVER: i32 = -1;

/// The server's handlers, and what they have seen.
#[derive(Clone, Default)]
pub(crate) struct Witness {
    /// How often each unary call has run, by the name that it gives in `response_status`.
    pub(crate) runs: Arc<Mutex<HashMap<String, usize>>>,
    /// Handlers and streams that have begun and not ended.
    pub(crate) alive: Arc<AtomicUsize>,
    /// Messages that endless streams have made.
    pub(crate) made: Arc<AtomicUsize>,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Witness {
    fn enter(&self) -> Alive {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Alive(self.alive.clone())
    }
}

impl BenchmarkService for Witness {
    /// Answers after `response_size` milliseconds.
    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let _alive = self.enter();
        let request = request.into_inner();
        if let Some(name) = request.response_status {
            *self.runs.lock().unwrap().entry(name.message).or_default() += 1;
        }
        match u64::try_from(request.response_size) {
            Ok(0) => {}
            Ok(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Err(_) => pending().await,
        }
        Ok(Response::new(SimpleResponse {
            payload: request.payload,
            ..SimpleResponse::default()
        }))
    }

    async fn streaming_call(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        let alive = self.enter();
        let answers = request.into_inner().map(move |request| {
            let _alive = &alive;
            Ok(SimpleResponse {
                payload: request?.payload,
                ..SimpleResponse::default()
            })
        });
        Ok(Response::new(answers))
    }

    /// Refuses after the first message, and reads no more.
    async fn streaming_from_client(
        &self,
        request: Request<Streaming<SimpleRequest>>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let _alive = self.enter();
        request.into_inner().message().await?;
        Err(Status::failed_precondition("that is enough"))
    }

    /// Answers of 16 KiB without end.
    async fn streaming_from_server(
        &self,
        _: Request<SimpleRequest>,
    ) -> Result<Response<impl Stream<Item = Result<SimpleResponse, Status>> + Send + 'static>, Status>
    {
        let (alive, made) = (self.enter(), self.made.clone());
        let answer = SimpleResponse {
            payload: Some(interop::answers::payload_of(16 * 1024)),
            ..SimpleResponse::default()
        };
        Ok(Response::new(stream::repeat_with(move || {
            let _alive = &alive;
            made.fetch_add(1, Ordering::SeqCst);
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

/// A server that runs, with the defaults.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) witness: Witness,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
    /// A client that does nothing wrong, on a connection of its own.
    good: BenchmarkServiceClient<Channel>,
}

pub(crate) async fn run() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let witness = Witness::default();
    let (stop, stopped) = oneshot::channel();
    let server = Server::builder().add_service(BenchmarkServiceServer::new(witness.clone()));
    let task = tokio::spawn(server.serve_on(listener, async {
        if stopped.await.is_err() {
            pending::<()>().await;
        }
    }));
    Running {
        address,
        witness,
        stop: Some(stop),
        task,
        good: client(address).await,
    }
}

pub(crate) async fn client(address: SocketAddr) -> BenchmarkServiceClient<Channel> {
    let channel = Channel::connect(format!("http://{address}")).await;
    BenchmarkServiceClient::new(channel.unwrap())
}

impl Running {
    /// Calls are answered, on a connection that was there before and on a new one.
    pub(crate) async fn is_well(&self) {
        for mut client in [self.good.clone(), client(self.address).await] {
            let call = client.unary_call(SimpleRequest::default());
            let answered = timeout(PATIENCE, call).await.expect("no answer");
            answered.expect("a failure");
        }
    }

    /// All that was begun ends.
    pub(crate) async fn calms_down(&self) {
        let ended = async {
            while self.witness.alive.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let alive = &self.witness.alive;
        let waited = timeout(PATIENCE, ended).await;
        assert!(waited.is_ok(), "{alive:?} handlers are left");
    }

    /// Tells the server to end.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn ended(self) {
        let Self { task, good, .. } = self;
        drop(good);
        timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }
}

/// Connects without a client's manners.
pub(crate) async fn raw(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    raw_with(address, &h2::client::Builder::new()).await
}

pub(crate) async fn raw_with(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> h2::client::SendRequest<Bytes> {
    let io = TcpStream::connect(address).await.unwrap();
    let (send, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    send
}

pub(crate) fn post(method: &str) -> http::request::Builder {
    let uri = format!("http://localhost/grpc.testing.BenchmarkService/{method}");
    http::Request::post(uri)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
}

/// A message with its prefix, which may lie.
pub(crate) fn framed(flag: u8, len: u32, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(len);
    bytes.put_slice(message);
    bytes.freeze()
}

pub(crate) fn encoded(request: &SimpleRequest) -> Bytes {
    use prost::Message;
    let message = request.encode_to_vec();
    framed(0, u32::try_from(message.len()).unwrap(), &message)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Outcome {
    /// The `grpc-status`, in the trailers or in their place.
    pub(crate) fn code(&self) -> Option<&str> {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        trailers.get("grpc-status")?.to_str().ok()
    }
}

/// Sends a request, and its end where `ends`; reads the response to its end.
pub(crate) async fn exchange(
    send: &mut h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
    body: Bytes,
    ends: bool,
) -> Result<Outcome, h2::Error> {
    let exchange = async {
        poll_fn(|cx| send.poll_ready(cx)).await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(body, ends)?;
        let outcome = read(response).await;
        drop(stream);
        outcome
    };
    timeout(PATIENCE, exchange).await.expect("no answer")
}

pub(crate) async fn read(response: h2::client::ResponseFuture) -> Result<Outcome, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.put_slice(&chunk);
    }
    Ok(Outcome {
        http: head.status,
        headers: head.headers,
        body: bytes.freeze(),
        trailers: body.trailers().await?,
    })
}
