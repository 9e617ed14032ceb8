//! The instructions that a server takes for a request, by valgrind.

use std::process::Command;

use crate::process::{Server, free_address};

/// Between 6 000 and 1 000 requests, setting up and tearing down cancel out.
pub fn instructions_of(peer: &str, path: &str) -> u64 {
    (total(peer, path, 6000) - total(peer, path, 1000)) / 5000
}

/// The instructions of a server that serves so many requests.
fn total(peer: &str, path: &str, requests: u32) -> u64 {
    let address = free_address();
    let (_, port) = address.rsplit_once(':').unwrap();
    let output = std::env::temp_dir().join(format!("web-{}-{port}.callgrind", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(std::env::current_exe().unwrap());
    let mut server = Server::start_by(valgrind, peer, address.clone(), 1);
    let mut load = Command::new("h2load");
    load.args(["--h1", "-c1", "-m1", &format!("-n{requests}")]);
    let body = std::env::temp_dir().join(format!("web-{}.json", std::process::id()));
    if path == "/echo" {
        std::fs::write(&body, "{\"message\":\"Hello, World!\"}").unwrap();
        load.arg("-d").arg(&body);
        load.args(["-H", "content-type: application/json"]);
    }
    let loaded = load
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("h2load");
    let said = String::from_utf8_lossy(&loaded.stdout);
    assert!(
        said.contains(&format!("{requests} succeeded")),
        "{peer} {path}: {said}"
    );
    let _ = std::fs::remove_file(&body);
    server.interrupt();
    let written = std::fs::read_to_string(&output).unwrap();
    let _ = std::fs::remove_file(&output);
    let total = written.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or_else(|| line.strip_prefix("summary: "))
    });
    total
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
