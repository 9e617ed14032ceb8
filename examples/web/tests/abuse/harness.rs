//! The server in a process of its own, and a healthy client beside each attack.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Tells the process that it is the server.
pub(crate) const ROLE: &str = "ABUSE_SERVER";
/// What precedes the address on the server's standard output.
pub(crate) const LISTENING: &str = "listening on ";
/// How much the server may grow under an attack, in KiB.
const GROWTH: u64 = 32 * 1024;
/// What a healthy client waits at most in 99 of 100 cases. A tenth of it is aimed at; the rest is for loaded machines.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Target {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_server_ends_with_its_input", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.unwrap().split_once(LISTENING)?.1.parse().unwrap()))
            .expect("the server listens");
        // What it says later goes nowhere, but doesn't fail.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// A figure of `/proc/PID/status`, in KiB.
    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Tells the server to end, and waits until it has, successfully.
    pub(crate) fn end(mut self) -> Duration {
        let start = Instant::now();
        drop(self.child.stdin.take());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return start.elapsed();
            }
            assert!(start.elapsed().as_secs() < 20, "the server doesn't end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an attack on a fresh server, with a healthy client beside it.
pub(crate) fn under(name: &str, attack: impl FnOnce(SocketAddr)) {
    let target = Target::start();
    for _ in 0..10 {
        assert!(ask(target.address, "/").starts_with("HTTP/1.1 200"));
    }
    let before = target.memory("VmRSS:");
    let (address, is_over) = (target.address, AtomicBool::new(false));
    let mut waits = thread::scope(|scope| {
        let healthy = scope.spawn(|| ask_until(address, &is_over));
        // Also where the attack panics, or the scope would wait for ever.
        let over = Over(&is_over);
        attack(address);
        drop(over);
        healthy.join().unwrap()
    });
    let growth = target.memory("VmHWM:").saturating_sub(before);
    waits.sort();
    let p99 = waits[waits.len() * 99 / 100];
    println!("{name}: p99 of {} {p99:?}, {growth} KiB more", waits.len());
    assert!(p99 <= PATIENCE, "{p99:?}");
    assert!(growth <= GROWTH, "{growth} KiB");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks on connections both new and kept, and tells how long each answer took.
fn ask_until(address: SocketAddr, is_over: &AtomicBool) -> Vec<Duration> {
    let mut waits = Vec::new();
    while waits.len() < 20 || !is_over.load(Ordering::Relaxed) {
        let mut start = Instant::now();
        let mut kept = connect(address);
        for _ in 0..10 {
            kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                .unwrap();
            let answer = read_to(&mut kept, "hello");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            waits.push(start.elapsed());
            thread::sleep(Duration::from_millis(5));
            start = Instant::now();
        }
    }
    waits
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client
}

/// Reads until what was read ends with this.
pub(crate) fn read_to(client: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut bytes = [0; 1024];
        let length = client.read(&mut bytes).unwrap();
        assert_ne!(
            length,
            0,
            "ended after {:?}",
            String::from_utf8_lossy(&read)
        );
        read.extend_from_slice(&bytes[..length]);
    }
    String::from_utf8(read).unwrap()
}

/// Reads until the server closes, be it by a reset, which it has to do within ten seconds.
pub(crate) fn read_all(client: &mut TcpStream) -> String {
    let mut read = Vec::new();
    if let Err(error) = client.read_to_end(&mut read) {
        let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!is_late, "open after {:?}", String::from_utf8_lossy(&read));
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// Sends a request, or part of one, and reads until the server closes.
pub(crate) fn converse(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut client = connect(address);
    // The server may close before all is written.
    let _ = client.write_all(request.as_ref());
    read_all(&mut client)
}

pub(crate) fn ask(address: SocketAddr, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    converse(address, request)
}
