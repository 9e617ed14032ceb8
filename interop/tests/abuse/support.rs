//! The process that attacks: its hold on the server, a client that means well, and those that may send anything.

use std::collections::HashMap;
use std::fs;
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use interop::testing::SimpleRequest;
use interop::testing::client::BenchmarkServiceClient;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_grpc::client::Channel;

use crate::victim::{LISTENING, ROLE, TOLD};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How much the server may grow under an attack, in KiB.
const GROWTH: u64 = 32 * 1024;
/// What a client that means well waits at most in 99 of 100 cases. A tenth of it is aimed at, and a hundredth usual; the rest
/// is for loaded machines.
const WAIT: Duration = Duration::from_secs(1);

/// One attack after the other: what one costs isn't to be told of another.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server that runs, with the defaults, and a client that means well beside what is done to it. When it is dropped both
/// are judged.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    child: Child,
    output: Receiver<String>,
    /// On a connection of its own.
    good: BenchmarkServiceClient<Channel>,
    healthy: Option<Healthy>,
    before: u64,
    may_grow: u64,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

pub(crate) async fn run() -> Running {
    let turn = TURN.lock().await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "victim::the_server_ends_with_its_input",
            "--nocapture",
        ])
        .env(ROLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (heard, output) = channel();
    thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| heard.send(line))
    });
    let address = hear(&output, LISTENING).parse().unwrap();
    let mut good = client(address).await;
    for _ in 0..10 {
        good.unary_call(SimpleRequest::default()).await.unwrap();
    }
    Running {
        address,
        good,
        healthy: Some(Healthy::start(address)),
        before: memory(&child, "VmRSS:"),
        may_grow: GROWTH,
        child,
        output,
        _turn: turn,
    }
}

/// What follows these words in what the server says.
fn hear(output: &Receiver<String>, words: &str) -> String {
    loop {
        let line = output.recv_timeout(PATIENCE).expect("the server lives");
        if let Some((_, rest)) = line.split_once(words) {
            return rest.to_owned();
        }
    }
}

/// A figure of `/proc/PID/status`, in KiB.
fn memory(process: &Child, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the server's handlers have seen.
pub(crate) struct Seen {
    /// Handlers and streams that have begun and not ended.
    pub(crate) alive: usize,
    /// Messages that endless streams have made.
    pub(crate) made: usize,
    /// How often each unary call has run, by its name.
    pub(crate) runs: HashMap<String, usize>,
    /// Whether it serves no more.
    ended: bool,
}

impl Running {
    fn say(&self, word: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{word}").unwrap();
    }

    pub(crate) fn seen(&self) -> Seen {
        self.say("tell");
        let told = hear(&self.output, TOLD);
        let mut words = told.split(' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        let (alive, made, ended) = (number(), number(), number() > 0);
        let mut runs = HashMap::new();
        while let (Some(name), Some(count)) = (words.next(), words.next()) {
            runs.insert(name.to_owned(), count.parse().unwrap());
        }
        Seen {
            alive,
            made,
            runs,
            ended,
        }
    }

    /// By how much the server has grown till now, in KiB.
    pub(crate) fn growth(&self) -> u64 {
        memory(&self.child, "VmRSS:").saturating_sub(self.before)
    }

    /// Allows for more growth than an attack's.
    pub(crate) fn may_grow_by(&mut self, kib: u64) {
        self.may_grow = kib;
    }

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
        let start = Instant::now();
        while self.seen().alive > 0 {
            assert!(start.elapsed() < PATIENCE, "handlers are left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tells the server to end, when the client that means well has.
    pub(crate) fn stop(&mut self) {
        self.judge();
        self.say("stop");
    }

    /// It ends by itself.
    pub(crate) async fn ended(self) {
        let start = Instant::now();
        // Its clients are here, and go when they are told to.
        while !self.seen().ended {
            assert!(start.elapsed() < PATIENCE, "the server doesn't end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn judge(&mut self) {
        let Some(healthy) = self.healthy.take() else {
            return;
        };
        let mut waits = healthy.end();
        let growth = memory(&self.child, "VmHWM:").saturating_sub(self.before);
        waits.sort();
        let p99 = waits[waits.len() * 99 / 100];
        let test = thread::current();
        let name = test.name().unwrap_or_default();
        println!("{name}: p99 of {} {p99:?}, {growth} KiB more", waits.len());
        assert!(p99 <= WAIT, "{p99:?}");
        assert!(growth <= self.may_grow, "{growth} KiB");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.judge();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that means well, in a thread of its own.
struct Healthy {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Duration>>,
}

impl Healthy {
    fn start(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || runtime.block_on(call_until(address, &over)));
        Self { is_over, thread }
    }

    /// How long each of its calls took.
    fn end(self) -> Vec<Duration> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("its calls are answered")
    }
}

/// Calls on connections both new and kept.
async fn call_until(address: SocketAddr, is_over: &AtomicBool) -> Vec<Duration> {
    let mut waits = Vec::new();
    while waits.len() < 100 || !is_over.load(Ordering::Relaxed) {
        let mut start = Instant::now();
        let mut client = client(address).await;
        for _ in 0..10 {
            client.unary_call(SimpleRequest::default()).await.unwrap();
            waits.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
            start = Instant::now();
        }
    }
    waits
}

pub(crate) async fn client(address: SocketAddr) -> BenchmarkServiceClient<Channel> {
    let channel = Channel::connect(format!("http://{address}")).await;
    BenchmarkServiceClient::new(channel.unwrap())
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
