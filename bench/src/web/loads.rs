//! Loads that keep-alive requests, one at a time, don't show. Peers take turns, and each figure is a median.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::process::{CLOSED, KEPT, Server, exchange, median};

/// Peers that there are only where they were asked for.
pub const OTHERS: &[&str] = if cfg!(feature = "actix") {
    &["actix"]
} else {
    &[]
};

/// What a load costs, one way or the other.
#[derive(Default)]
struct Samples {
    /// Requests a second.
    rates: Vec<f64>,
    /// Microseconds of the server's CPU a request.
    costs: Vec<f64>,
}

/// Prints a row for each peer, beside the first.
fn print(peers: &[&str], samples: Vec<Samples>) {
    println!("peer | requests/s | x {0} | CPU, us | x {0}", peers[0]);
    let rows: Vec<_> = samples
        .into_iter()
        .map(|Samples { rates, costs }| (median(rates), median(costs)))
        .collect();
    let ((first_rate, _), (first_cost, _)) = rows[0];
    for (peer, ((rate, rate_spread), (cost, cost_spread))) in peers.iter().zip(rows) {
        println!(
            "{peer} | {rate:.0} +-{:.0} % | {:.2} | {cost:.2} +-{:.0} % | {:.2}",
            rate_spread * 100.0,
            rate / first_rate,
            cost_spread * 100.0,
            cost / first_cost,
        );
    }
}

/// Runs `load` on each peer's server in turn; it tells how many requests were answered.
fn interleave(peers: &[&str], threads: usize, rounds: usize, load: impl Fn(&Server) -> u32) {
    let servers: Vec<_> = peers
        .iter()
        .map(|peer| Server::start(peer, threads))
        .collect();
    let mut samples: Vec<_> = peers.iter().map(|_| Samples::default()).collect();
    for round in 0..=rounds {
        for turn in 0..servers.len() {
            // Nobody is always the first, or always after the same one.
            let index = (turn + round) % servers.len();
            let server = &servers[index];
            let (began, used) = (Instant::now(), server.cpu());
            let requests = f64::from(load(server));
            let (took, used) = (began.elapsed(), server.cpu() - used);
            // The first round warms up.
            if round > 0 {
                samples[index].rates.push(requests / took.as_secs_f64());
                samples[index]
                    .costs
                    .push(used.as_secs_f64() * 1e6 / requests);
            }
        }
    }
    print(peers, samples);
}

/// A new connection for each request, from four threads, to a server of two.
pub fn churn(rounds: usize) {
    const CLIENTS: u32 = 4;
    const EACH: u32 = 1000;
    // The last of ours has a socket with `SO_REUSEPORT` for each thread, where the others share one.
    let peers = ["axum", "app", "workers", "bare-workers", "port-workers"];
    let peers = [&peers, OTHERS].concat();
    interleave(&peers, 2, rounds, |server| {
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut response = Vec::new();
                    for _ in 0..EACH {
                        let mut stream = server.connect();
                        stream.write_all(CLOSED).unwrap();
                        response.clear();
                        stream.read_to_end(&mut response).unwrap();
                        assert!(response.ends_with(b"Hello, World!"));
                    }
                });
            }
        });
        CLIENTS * EACH
    });
}

/// Sixteen requests at once, over each of eight connections, to a server of one thread.
pub fn pipeline(rounds: usize) {
    const DEPTH: usize = 16;
    const BATCHES: usize = 500;
    let peers = ["hyper-flush", "hyper", "axum", "bare", "ours"];
    let peers = [&peers, OTHERS].concat();
    interleave(&peers, 1, rounds, |server| {
        let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
        let length = streams.iter_mut().map(exchange).max().unwrap();
        let requests = KEPT.repeat(DEPTH);
        let mut responses = vec![0; length * DEPTH];
        for stream in &mut streams {
            stream.write_all(&requests).unwrap();
        }
        for batch in 1..=BATCHES {
            for stream in &mut streams {
                stream.read_exact(&mut responses).unwrap();
                assert!(responses.ends_with(b"Hello, World!"));
                if batch < BATCHES {
                    stream.write_all(&requests).unwrap();
                }
            }
        }
        u32::try_from(streams.len() * (DEPTH * BATCHES + 1)).unwrap()
    });
}

/// What kept connections hold that have had one response each: between 1 000 and 4 000 of them.
pub fn idle(rounds: usize) {
    let peers = [&["axum", "hyper", "bare", "ours"], OTHERS].concat();
    let mut samples = vec![Vec::new(); peers.len()];
    for _ in 0..rounds {
        for (peer, samples) in peers.iter().zip(&mut samples) {
            let server = Server::start(peer, 1);
            let mut streams = Vec::new();
            let mut hold = |count: usize| {
                while streams.len() < count {
                    let mut stream = server.connect();
                    exchange(&mut stream);
                    streams.push(stream);
                }
                std::thread::sleep(Duration::from_millis(100));
                server.resident()
            };
            let before = hold(1000);
            samples.push((hold(4000) - before) / 3.0);
        }
    }
    println!("peer | KiB a 1000 connections | x axum");
    let rows: Vec<_> = samples.into_iter().map(median).collect();
    let (axum, _) = rows[0];
    for (peer, (kib, spread)) in peers.iter().zip(rows) {
        let spread = spread * 100.0;
        println!("{peer} | {kib:.0} +-{spread:.0} % | {:.2}", kib / axum);
    }
}
