//! Whole servers, on sockets or in memory.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower_close::{Close, NotClosed};
use tower_deadline::Deadline;
use tower_hyper::{Accept, ConnectInfo, Handle, Server, Workers};
use tower_util::service_fn;

use crate::support::{app, read_all, read_response};

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Yields what comes through a channel.
pub(crate) struct InMemory(mpsc::UnboundedReceiver<io::Result<DuplexStream>>);

impl Accept for InMemory {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<Option<(DuplexStream, ConnectInfo)>> {
        let io = self.0.recv().await.transpose()?;
        Ok(io.map(|io| (io, ConnectInfo::default())))
    }
}

pub(crate) struct Door(mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl Door {
    pub(crate) fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1024);
        let _ = self.0.send(Ok(server));
        client
    }
}

pub(crate) fn in_memory() -> (Door, Server<InMemory>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Door(sender), Server::new(InMemory(receiver)))
}

pub(crate) fn start(server: Server<InMemory>) -> (Handle, tokio::task::JoinHandle<()>) {
    let handle = server.handle();
    let serving = tokio::spawn(async { server.serve(service_fn(app)).await.unwrap() });
    (handle, serving)
}

#[tokio::test]
async fn tcp_is_served_with_facts_of_the_connection() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = tokio::spawn(server.serve(service_fn(app)));
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "GET /peer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let response = read_all(&mut client).await;
    let peer = client.local_addr().unwrap().to_string();
    assert!(response.contains(&peer), "{response}");
    handle.shutdown();
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_served() {
    let path = std::env::temp_dir().join(format!("tower-hyper-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let server = Server::bind_unix(&path).unwrap();
    let handle = server.handle();
    let serving = tokio::spawn(server.serve(service_fn(app)));
    let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
    client.write_all(GET).await.unwrap();
    read_response(&mut client, "hello").await;
    handle.shutdown();
    serving.await.unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_idle_connections_and_waits_for_busy_ones() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server);
    let (mut idle, mut silent, mut busy) = (door.connect(), door.connect(), door.connect());
    idle.write_all(GET).await.unwrap();
    read_response(&mut idle, "hello").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(SECOND).await;
    assert_eq!(handle.connections(), 3);

    let start = Instant::now();
    handle.shutdown();
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(read_all(&mut busy).await.ends_with("slow"));
    serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_at_the_end_of_the_drain_is_cut() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server.with_drain_timeout(SECOND * 3));
    let mut client = door.connect();
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(SECOND).await;
    let start = Instant::now();
    handle.shutdown();
    assert_eq!(read_all(&mut client).await, "");
    serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_handle_closes_by_a_deadline() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server);
    let mut client = door.connect();
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(SECOND).await;
    let closed = handle.close(Deadline::after(SECOND * 2)).await;
    assert_eq!(closed, Err(NotClosed::CutOff { unfinished: 1 }));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_began_before_the_drain_is_answered_and_closed() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server);
    let mut client = door.connect();
    // Not yet clear which protocol it is.
    client.write_all(b"P").await.unwrap();
    sleep(SECOND).await;
    handle.shutdown();
    sleep(SECOND).await;
    client
        .write_all(b"OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert!(read_all(&mut client).await.ends_with("hello"));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_signal_drains_too() {
    let (door, server) = in_memory();
    let serving = server.serve_with_shutdown(service_fn(app), sleep(SECOND * 5));
    let serving = tokio::spawn(serving);
    let mut client = door.connect();
    assert_eq!(read_all(&mut client).await, "");
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_server_ends_its_connections() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server);
    let mut client = door.connect();
    client
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(SECOND).await;
    serving.abort();
    assert_eq!(read_all(&mut client).await, "");
    sleep(SECOND).await;
    assert_eq!(handle.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_a_connection_waits_until_another_ends() {
    let (door, server) = in_memory();
    let (handle, _serving) = start(server.with_max_connections(1));
    let mut first = door.connect();
    first.write_all(GET).await.unwrap();
    read_response(&mut first, "hello").await;
    let mut second = door.connect();
    second.write_all(GET).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(handle.connections(), 1);
    drop(first);
    read_response(&mut second, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn out_of_descriptors_the_server_pauses_and_goes_on() {
    let (door, server) = in_memory();
    let (_handle, _serving) = start(server);
    let start = Instant::now();
    for _ in 0..4 {
        // EMFILE
        door.0.send(Err(io::Error::from_raw_os_error(24))).unwrap();
    }
    let mut client = door.connect();
    client.write_all(GET).await.unwrap();
    read_response(&mut client, "hello").await;
    assert_eq!(start.elapsed().as_millis(), 10 + 20 + 40 + 80);
}

/// Ends when its connection is to.
async fn endless(
    request: http::Request<tower_hyper::Incoming>,
) -> Result<http::Response<crate::support::Body>, String> {
    let draining = request.body().draining();
    assert!(!draining.has_begun());
    draining.wait().await;
    assert!(draining.has_begun());
    Ok(crate::support::full("goodbye"))
}

#[tokio::test(start_paused = true)]
async fn a_handler_and_a_handle_learn_of_a_drain() {
    let (door, server) = in_memory();
    let handle = server.handle();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.draining().await }
    });
    let serving = tokio::spawn(server.serve(service_fn(endless)));
    let mut client = door.connect();
    client.write_all(GET).await.unwrap();
    sleep(SECOND).await;
    assert!(!waiting.is_finished());
    handle.shutdown();
    assert!(read_all(&mut client).await.ends_with("goodbye"));
    waiting.await.unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_learns_that_its_connection_is_old() {
    let settings = tower_hyper::Settings::new().with_max_age(SECOND * 10);
    let (mut client, _server) = crate::support::serve_service(settings, service_fn(endless));
    let start = Instant::now();
    client.write_all(GET).await.unwrap();
    assert!(read_all(&mut client).await.ends_with("goodbye"));
    assert!((9..=11).contains(&start.elapsed().as_secs()));
}

#[tokio::test]
async fn without_a_connection_nothing_is_ever_drained() {
    let draining = tower_hyper::Incoming::empty().draining();
    assert!(!draining.has_begun());
    assert!(futures_util::poll!(std::pin::pin!(draining.wait())).is_pending());
}

async fn get(address: std::net::SocketAddr) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    read_all(&mut client).await
}

#[tokio::test]
async fn workers_serve_on_threads_of_their_own_and_drain() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let app = service_fn(|_: http::Request<tower_hyper::Incoming>| async {
        let name = std::thread::current().name().map(ToOwned::to_owned);
        Ok::<_, String>(crate::support::full(name.unwrap_or_default()))
    });
    let serving = tokio::spawn(server.serve_on(Workers::new(2), app, std::future::pending()));
    for _ in 0..20 {
        let response = get(address).await;
        assert!(response.contains("tower-hyper-"), "{response}");
    }
    handle.shutdown();
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn workers_may_have_sockets_of_their_own() {
    let listener = tower_hyper::Tcp::bind_reusing_port("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = Server::new(listener);
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let app = service_fn(app);
    let serving = tokio::spawn(server.serve_on(Workers::new(2), app, std::future::pending()));
    // Until the first socket is closed, its backlog has some connections that nobody accepts.
    while TcpStream::connect(address).await.is_err() {}
    handle.shutdown();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn several_loops_may_accept() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let server = server.with_accept_loops(3).unwrap();
    let (address, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = tokio::spawn(server.serve(service_fn(app)));
    for _ in 0..20 {
        assert!(get(address).await.ends_with("hello"));
    }
    handle.shutdown();
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn under_load_a_drain_breaks_no_response_off() {
    let (door, server) = in_memory();
    let (handle, serving) = start(server.with_drain_timeout(SECOND * 60));
    let clients: Vec<_> = (0..50)
        .map(|index| {
            let mut client = door.connect();
            let path = if index % 5 == 0 { "/slow" } else { "/" };
            tokio::spawn(async move {
                let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
                let mut answered = 0;
                while client.write_all(request.as_bytes()).await.is_ok() {
                    let mut bytes = [0; 1024];
                    let length = tokio::io::AsyncReadExt::read(&mut client, &mut bytes)
                        .await
                        .unwrap();
                    if length == 0 {
                        break;
                    }
                    let response = std::str::from_utf8(&bytes[..length]).unwrap();
                    assert!(response.ends_with("hello") || response.ends_with("slow"));
                    answered += 1;
                    sleep(Duration::from_millis(200)).await;
                }
                answered
            })
        })
        .collect();
    sleep(SECOND * 15).await;
    handle.shutdown();
    serving.await.unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let (_sender, receiver) = mpsc::unbounded_channel();
    let serving = Server::new(InMemory(receiver)).serve(service_fn(app));
    let mut serving = std::pin::pin!(serving);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = serving.as_mut().poll(&mut cx) else {
        panic!("it waits");
    };
    assert_eq!(
        result.unwrap_err().kind(),
        tower_hyper::ErrorKind::NoRuntime
    );
}
