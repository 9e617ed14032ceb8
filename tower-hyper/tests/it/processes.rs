//! What is about a process as a whole, tried in one of its own: this program again, with one of the tests below that serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_hyper::Server;
use tower_util::service_fn;

use crate::support::app;

/// Tells a test that it is the child, and what it is to serve.
const ROLE: &str = "TOWER_HYPER_TEST_ROLE";

/// Says that the server listens, and where.
const LISTENING: &str = "listening on ";

/// A server in a process of its own, which ends with its owner.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    /// Runs the test named `test` as a child, by a shell that first does `prepare`.
    fn start(test: &str, prepare: &str, stdin: impl Into<Stdio>) -> Self {
        let script = format!("{prepare} exec \"$0\" --exact {test} --nocapture --test-threads 1");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(ROLE, test)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.unwrap().split_once(LISTENING)?.1.parse().unwrap()))
            .expect("the child serves");
        // It may go on to write.
        std::thread::spawn(move || lines.count());
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_child(test: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == test)
}

fn tell(address: SocketAddr) {
    println!("{LISTENING}{address}");
}

/// Sends a request, and whether it is answered.
fn asks(client: &mut TcpStream) -> bool {
    let sent = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut received = [0; 512];
    match sent.and_then(|()| client.read(&mut received)) {
        Ok(length) => received[..length].ends_with(b"hello"),
        Err(_) => false,
    }
}

#[cfg(feature = "listenfd")]
#[tokio::test]
async fn serves_what_it_inherits() {
    if !is_child("processes::serves_what_it_inherits") {
        return;
    }
    let mut inherited = tower_hyper::Tcp::inherited().unwrap();
    assert_eq!(inherited.len(), 1);
    assert!(tower_hyper::Tcp::inherited().unwrap().is_empty());
    let server = Server::new(inherited.remove(0));
    tell(server.local_addr().unwrap());
    server.serve(service_fn(app)).await.unwrap();
}

#[cfg(feature = "listenfd")]
#[test]
fn a_socket_that_a_supervisor_passes_on_is_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // As systemd does it: the first is descriptor 3, and the process's own number says that they are for it.
    let served = Served::start(
        "processes::serves_what_it_inherits",
        "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$;",
        std::os::fd::OwnedFd::from(listener),
    );
    assert_eq!(served.address, address);
    assert!(asks(&mut served.connect()));
}

#[test]
fn without_a_supervisor_nothing_is_inherited() {
    #[cfg(feature = "listenfd")]
    assert!(tower_hyper::Tcp::inherited().unwrap().is_empty());
}

#[tokio::test]
async fn serves_with_few_descriptors() {
    if !is_child("processes::serves_with_few_descriptors") {
        return;
    }
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    tell(server.local_addr().unwrap());
    server.serve(service_fn(app)).await.unwrap();
}

#[test]
fn a_process_out_of_descriptors_serves_who_is_there_and_the_others_later() {
    let served = Served::start(
        "processes::serves_with_few_descriptors",
        "ulimit -n 40;",
        Stdio::null(),
    );
    let mut first = served.connect();
    assert!(asks(&mut first));
    // They fill the process, and then the backlog.
    let mut others: Vec<_> = (0..80).map(|_| served.connect()).collect();
    let answered = others.iter_mut().take(10).all(asks);
    assert!(answered);
    let last = others.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(!asks(last), "there are more descriptors than expected");
    // Who is served already doesn't notice.
    let start = Instant::now();
    assert!(asks(&mut first));
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut last = others.pop().unwrap();
    drop(others);
    last.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut received = [0; 512];
    let length = last.read(&mut received).unwrap();
    assert!(received[..length].ends_with(b"hello"));
    assert!(asks(&mut served.connect()));
}
