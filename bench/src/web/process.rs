//! A server in a process of its own, and what it has used.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends with its owner.
pub struct Server {
    child: Child,
    pub address: String,
}

/// An address of this host that nobody listens on.
pub fn free_address() -> String {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.unwrap().to_string()
}

impl Server {
    /// Starts this program as `web serve PEER ADDRESS THREADS`.
    pub fn start(peer: &str, threads: usize) -> Self {
        let command = Command::new(std::env::current_exe().unwrap());
        Self::start_by(command, peer, free_address(), threads)
    }

    /// The same by a command that takes the program's arguments.
    pub fn start_by(mut command: Command, peer: &str, address: String, threads: usize) -> Self {
        let child = command
            .args(["serve", peer, &address, &threads.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        while TcpStream::connect(&address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The CPU time of all its threads.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            let nanos = stat.split_whitespace().next().unwrap();
            nanos.parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// The memory that it has touched and holds, in KiB.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches("kB").trim();
        kib.parse().unwrap()
    }

    /// Ends it in a way that lets valgrind write what it has counted.
    pub fn interrupt(&mut self) {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const KEPT: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
pub const CLOSED: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Sends a request over a connection that is kept, and tells how long the response is.
pub fn exchange(stream: &mut TcpStream) -> usize {
    stream.write_all(KEPT).unwrap();
    let mut response = [0; 4096];
    let mut read = 0;
    while !response[..read].ends_with(b"Hello, World!") {
        let more = stream.read(&mut response[read..]).unwrap();
        assert_ne!(more, 0, "the server has closed the connection");
        read += more;
    }
    read
}

/// The middle one, and how far from it half of the others are at most, as a part of it.
pub fn median(mut values: Vec<f64>) -> (f64, f64) {
    let middle = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let median = middle(&mut values);
    let mut distances = values.iter().map(|value| (value - median).abs()).collect();
    (median, middle(&mut distances) / median)
}
