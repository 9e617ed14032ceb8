//! The server that is attacked, in a process of its own, so that its memory is.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use interop::testing::server::{BenchmarkService, BenchmarkServiceServer};
use interop::testing::{SimpleRequest, SimpleResponse};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_grpc::server::Server;
use tower_grpc::{Request, Response, Status, Streaming};

/// Tells the process that it is the server.
pub(crate) const ROLE: &str = "ABUSE_SERVER";
/// What precedes the address on its standard output …
pub(crate) const LISTENING: &str = "listening on ";
/// … and what it has seen.
pub(crate) const TOLD: &str = "seen: ";

/// Serves with the defaults, and does what its input says, until that ends. Started as any other test, it has none to do.
#[test]
fn the_server_ends_with_its_input() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let witness = Witness::default();
    let served = Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{LISTENING}{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let server = BenchmarkServiceServer::new(witness.clone());
        let seen = witness.clone();
        std::thread::spawn(move || obey(&seen, stop));
        let server = Server::builder().add_service(server);
        let stopped = async { drop(stopped.await) };
        server.serve_on(listener, stopped).await
    });
    served.unwrap();
    witness.ended.store(true, Ordering::SeqCst);
    // What it has seen may still be asked for.
    loop {
        std::thread::park();
    }
}

fn obey(witness: &Witness, stop: oneshot::Sender<()>) {
    let mut stop = Some(stop);
    for line in std::io::stdin().lines() {
        match &*line.unwrap() {
            "tell" => println!("{}", witness.tell()),
            "stop" => drop(stop.take()),
            other => panic!("what is {other}?"),
        }
    }
    std::process::exit(0);
}

/// A handler of this `response_size` never answers.
pub(crate) const NEVER: i32 = -1;

/// The server's handlers, and what they have seen.
#[derive(Clone, Default)]
struct Witness {
    /// How often each unary call has run, by the name that it gives in `response_status`.
    runs: Arc<Mutex<HashMap<String, usize>>>,
    /// Handlers and streams that have begun and not ended.
    alive: Arc<AtomicUsize>,
    /// Messages that endless streams have made.
    made: Arc<AtomicUsize>,
    /// Whether all is over.
    ended: Arc<AtomicBool>,
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

    /// A line for the process that attacks.
    fn tell(&self) -> String {
        let alive = self.alive.load(Ordering::SeqCst);
        let made = self.made.load(Ordering::SeqCst);
        let ended = u8::from(self.ended.load(Ordering::SeqCst));
        let runs = self.runs.lock().unwrap();
        let runs = runs.iter().map(|(name, count)| format!(" {name} {count}"));
        format!("{TOLD}{alive} {made} {ended}{}", runs.collect::<String>())
    }
}

impl BenchmarkService for Witness {
    /// Answers after `response_size` milliseconds.
    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        // One that is answered at once can't be left over.
        let _alive = (request.response_size != 0).then(|| self.enter());
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
