//! Under load and attack: nothing is lost, nothing is done twice, nothing is kept.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::oneshot;
use tower_h2::client::{self, Connection};
use tower_h2::{Error, RecvBody, server};
use tower_service::Service;
use tower_util::{ServiceExt, service_fn};

use crate::support::echo;
use crate::wire::{END_HEADERS, HEADERS, RST_STREAM, Wire, post};

type Client = Connection<Full<Bytes>>;

fn numbered(number: usize) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(number.to_string()));
    Request::post("http://localhost/").body(body).unwrap()
}

/// Connects to a server that notes what it is asked, and can be told to go.
async fn connect(
    seen: Arc<Mutex<Vec<usize>>>,
) -> (
    Client,
    oneshot::Sender<()>,
    tokio::task::JoinHandle<Result<(), Error>>,
) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let service = service_fn(move |request: Request<RecvBody>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let number = std::str::from_utf8(&body).unwrap().parse().unwrap();
            seen.lock().unwrap().push(number);
            tokio::time::sleep(Duration::from_millis(number as u64 % 7)).await;
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let connection = server::Builder::new().serve_connection(far, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = stopped => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    (client, stop, server)
}

async fn ask(mut client: Client, number: usize) -> Result<usize, Error> {
    let response = client.ready().await?.call(numbered(number)).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(std::str::from_utf8(&body).unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_goaway_under_load_loses_no_request_and_has_none_run_twice() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut answered = HashSet::new();
    let mut left: Vec<usize> = (0..1000).collect();
    let mut connections = 0;
    while !left.is_empty() {
        connections += 1;
        assert!(connections < 100, "{} are left", left.len());
        let (client, stop, server) = connect(seen.clone()).await;
        let calls: Vec<_> = left
            .drain(..)
            .map(|number| (number, tokio::spawn(ask(client.clone(), number))))
            .collect();
        drop(client);
        tokio::time::sleep(Duration::from_millis(9)).await;
        let _ = stop.send(());
        for (number, call) in calls {
            match call.await.unwrap() {
                Ok(answer) => assert!(number == answer && answered.insert(answer)),
                Err(error) => {
                    assert!(error.is_unprocessed(), "{number}: {error:?}");
                    left.push(number);
                }
            }
        }
        server.await.unwrap().unwrap();
    }
    assert!(connections > 1, "the shutdown came in between");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1000, "each ran once");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 1000);
}

/// Counts those alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_leave_no_handler_and_no_stream_behind() {
    let alive = Arc::new(AtomicUsize::new(0));
    let service = {
        let alive = alive.clone();
        service_fn(move |_: Request<RecvBody>| {
            let alive = Alive::new(&alive);
            async move {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                drop(alive);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        })
    };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let builder = server::Builder::new().with_max_resets(100_000);
    tokio::spawn(builder.serve_connection(far, service));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    for round in 0..50 {
        let calls: Vec<_> = (0..100)
            .map(|n| tokio::spawn(ask(client.clone(), n)))
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(alive.load(Ordering::Relaxed), 100, "round {round}");
        for call in calls {
            call.abort();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(alive.load(Ordering::Relaxed), 0, "round {round}");
        assert_eq!(client.open_streams(), 0, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_client_vanishes_ends_in_an_error_and_not_as_if_it_were_whole() {
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RecvBody>| {
        let told = told.clone();
        // A handler that is waited for by nobody goes on in a task of its own.
        tokio::spawn(async move {
            let whole = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            told.send(whole.is_ok()).unwrap();
        });
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    // By a reset, even one that says that nothing is wrong, and by the end of the connection.
    for reset in [Some(0_u32), Some(8), None] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(server::Builder::new().serve_connection(far, service.clone()));
        let mut wire = Wire::client(near).await;
        wire.send(HEADERS, END_HEADERS, 1, &post(&[])).await;
        wire.send(0, 0, 1, b"a part").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        match reset {
            Some(code) => wire.send(RST_STREAM, 0, 1, &code.to_be_bytes()).await,
            None => drop(wire),
        }
        assert!(!tell.recv().await.unwrap(), "{reset:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_beside_a_stream_that_nobody_reads() {
    let service = service_fn(|request: Request<RecvBody>| async move {
        if request.uri().path() == "/endless" {
            let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 4096])));
            let chunks = futures_util::stream::repeat_with(chunk);
            return Ok::<_, Infallible>(Response::new(BodyExt::boxed(StreamBody::new(chunks))));
        }
        let body = echo(request).await?.into_body();
        Ok(Response::new(BodyExt::boxed(body)))
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(far, service));
    let (client, driver) = client::Builder::new().handshake(near).await.unwrap();
    tokio::spawn(driver);
    let endless = Request::get("http://localhost/endless")
        .body(Full::default())
        .unwrap();
    let _unread = client.clone().oneshot(endless).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..100 {
        assert_eq!(ask(client.clone(), number).await.unwrap(), number);
    }
}
