//! Runs the processes, and prints what they cost.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

const PEERS: [&str; 5] = ["raw", "tonic", "volo", "connectrpc", "tower"];

/// Those that have a program of their own: what they depend on changes the features of what the others share, as volo has
/// `tracing` log.
const APART: [&str; 2] = ["volo", "connectrpc"];

/// What is measured, how it reads, and how ours is to stand to tonic and to h2 by hand.
struct Row {
    name: &'static str,
    measure: fn(&str) -> Option<f64>,
    /// How often the peers take turns: what depends on what else the machine does is the median of several.
    turns: usize,
    goals: &'static str,
}

const ROWS: [Row; 11] = [
    Row {
        name: "server, instructions a unary call",
        measure: |peer| Some(per_item(peer, "raw", Side::Server, "unary", 1000, 6000)),
        turns: 1,
        goals: "≤ 1.03 h2, ≤ 0.70 tonic",
    },
    Row {
        name: "client, instructions a unary call",
        measure: |peer| Some(per_item("raw", peer, Side::Client, "unary", 1000, 6000)),
        turns: 1,
        goals: "≤ 0.62 tonic",
    },
    Row {
        name: "server, instructions a streamed message",
        measure: |peer| {
            not_raw(peer, |peer| {
                per_item(peer, peer, Side::Server, "streaming", 10_000, 60_000)
            })
        },
        turns: 1,
        goals: "≤ 0.82 tonic",
    },
    Row {
        name: "client, instructions a streamed message",
        measure: |peer| {
            not_raw(peer, |peer| {
                per_item(peer, peer, Side::Client, "streaming", 10_000, 60_000)
            })
        },
        turns: 1,
        goals: "≤ 0.82 tonic",
    },
    Row {
        name: "1 MiB messages streamed, MB a second of CPU",
        measure: |peer| not_raw(peer, |peer| megabytes(peer, "large", 2000)),
        turns: 7,
        goals: "≥ 1.2 tonic",
    },
    Row {
        name: "1 MiB messages echoed, MB a second of CPU",
        measure: |peer| not_raw(peer, |peer| megabytes(peer, "large-unary", 1000)),
        turns: 7,
        goals: "≥ 1.2 tonic",
    },
    Row {
        name: "server, allocations a unary call",
        measure: |peer| Some(allocations(peer, "raw", Side::Server)),
        turns: 1,
        goals: "≤ 0.30 tonic",
    },
    Row {
        name: "client, allocations a unary call",
        measure: |peer| Some(allocations("raw", peer, Side::Client)),
        turns: 1,
        goals: "",
    },
    Row {
        name: "server, writes for 1000 unary calls",
        measure: |peer| Some(writes(peer)),
        turns: 1,
        goals: "≤ 1.00 h2",
    },
    Row {
        name: "server, µs of CPU a unary call, one core",
        measure: |peer| Some(cpu_time(peer)),
        turns: 7,
        goals: "≤ 0.70 tonic",
    },
    Row {
        name: "server, KiB of 1000 idle connections",
        measure: |peer| Some(idle(peer)),
        turns: 1,
        goals: "≤ 1.00 tonic",
    },
];

/// Prints the rows that have `word` in their name.
pub fn print(word: &str) {
    for peer in APART {
        build(peer);
    }
    println!(
        "| measure | h2 by hand | tonic | volo-grpc | connectrpc | ours | ours / h2 | ours / tonic | must be |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in ROWS.iter().filter(|row| row.name.contains(word)) {
        let [raw, tonic, volo, connectrpc, ours] = in_turn(row);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            figure(raw),
            figure(tonic),
            figure(volo),
            figure(connectrpc),
            figure(ours),
            ratio(ours, raw),
            ratio(ours, tonic),
            row.goals
        );
    }
}

/// Has the peers take turns, and takes the median of each.
fn in_turn(row: &Row) -> [Option<f64>; PEERS.len()] {
    let mut figures = [const { Vec::new() }; PEERS.len()];
    for _ in 0..row.turns {
        for (figures, peer) in figures.iter_mut().zip(PEERS) {
            figures.extend((row.measure)(peer));
        }
    }
    figures.map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    })
}

/// Builds the program of a peer beside this one.
fn build(peer: &str) {
    let manifest = format!("{}/{peer}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    let target = std::env::current_exe().unwrap();
    let target = target.ancestors().nth(2).unwrap();
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--quiet",
            "--manifest-path",
            &manifest,
            "--target-dir",
        ])
        .arg(target)
        .status();
    assert!(built.unwrap().success(), "{peer} can't be built");
}

/// The program that a peer is in; the others are in this one.
fn program(peer: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    match APART.contains(&peer) {
        true => this.with_file_name(format!("bench-grpc-{peer}")),
        false => this,
    }
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn ratio(ours: Option<f64>, peer: Option<f64>) -> String {
    match (ours, peer) {
        (Some(ours), Some(peer)) => format!("{:.2}", ours / peer),
        _ => "–".into(),
    }
}

fn not_raw(peer: &str, measure: impl Fn(&str) -> f64) -> Option<f64> {
    (peer != "raw").then(|| measure(peer))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Server,
    Client,
}

/// A process of this program, perhaps within another one.
struct One {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl One {
    fn start(around: &[String], arguments: &[&str]) -> Self {
        let program = program(arguments[1]);
        let mut command = match around {
            [] => Command::new(program),
            [tool, options @ ..] => {
                let mut command = Command::new(tool);
                command.args(options).arg(program);
                command
            }
        };
        let mut child = command
            .arg("--one")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Runs a server and a client, one of them within a tool; the seconds that both had the processor.
fn run(server: &str, client: &str, load: &str, count: usize, around: &[String], side: Side) -> f64 {
    let within = |one| if one == side { around } else { &[] };
    let mut server = One::start(within(Side::Server), &["server", server]);
    let (port, count) = (server.line(), count.to_string());
    let arguments = ["client", client, &port, load, &count];
    let mut client = One::start(within(Side::Client), &arguments);
    assert_eq!(client.line(), "done", "the client has failed");
    let ticks = ticks(client.child.id()) + ticks(server.child.id());
    client.end();
    server.end();
    ticks / TICKS
}

/// What one more call or message costs: what is done once cancels out.
fn per_item(server: &str, client: &str, side: Side, load: &str, few: usize, many: usize) -> f64 {
    let file = scratch("callgrind");
    let around = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={file}"),
    ];
    let [few_cost, many_cost] = [few, many].map(|count| {
        run(server, client, load, count, &around, side);
        let profile = std::fs::read_to_string(&file).unwrap();
        let total = profile
            .lines()
            .find_map(|line| line.strip_prefix("totals: "));
        total.unwrap().trim().parse::<f64>().unwrap()
    });
    (many_cost - few_cost) / (many - few) as f64
}

fn allocations(server: &str, client: &str, side: Side) -> f64 {
    let file = scratch("memcheck");
    let around = [
        "valgrind".to_owned(),
        "--leak-check=no".to_owned(),
        format!("--log-file={file}"),
    ];
    let [few, many] = [1000, 6000].map(|count| {
        run(server, client, "unary", count, &around, side);
        let log = std::fs::read_to_string(&file).unwrap();
        let (_, usage) = log.split_once("total heap usage: ").unwrap();
        let (count, _) = usage.split_once(" allocs").unwrap();
        count.replace(',', "").parse::<f64>().unwrap()
    });
    (many - few) / 5000.0
}

fn writes(server: &str) -> f64 {
    let file = scratch("strace");
    let around = [
        "strace".to_owned(),
        "-fc".to_owned(),
        format!("-o{file}"),
        "-etrace=write,writev,sendto,sendmsg".to_owned(),
    ];
    run(server, "raw", "unary", 20_000, &around, Side::Server);
    let counts = std::fs::read_to_string(&file).unwrap();
    let writes = counts.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_write = ["write", "writev", "sendto", "sendmsg"].contains(fields.last()?);
        is_write.then(|| fields[3].parse::<f64>().unwrap())
    });
    writes.sum::<f64>() / 20.0
}

/// With client and server on one core, as otherwise it depends on where the kernel puts them: half of the time goes to
/// waking one another where they have a core each.
fn cpu_time(server: &str) -> f64 {
    const CALLS: usize = 100_000;
    let one_core = ["taskset", "-c", "0"].map(str::to_owned);
    let mut server = One::start(&one_core, &["server", server]);
    let port = server.line();
    let before = ticks(server.child.id());
    let client = ["client", "raw", &port, "unary", &CALLS.to_string()];
    let mut client = One::start(&one_core, &client);
    client.line();
    client.end();
    let after = ticks(server.child.id());
    server.end();
    (after - before) / TICKS * 1e6 / CALLS as f64
}

/// A second's, on Linux.
const TICKS: f64 = 100.0;

/// How long a process has had the processor, for itself and in the kernel.
fn ticks(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may have spaces: the state is the first field, user and system time are the 12th
    // and 13th.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

fn idle(server: &str) -> f64 {
    let mut server = One::start(&[], &["server", server]);
    let port = server.line();
    let resident = |process: u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    let before = resident(server.child.id());
    let mut clients = One::start(&[], &["idle", &port, "1000"]);
    clients.line();
    let after = resident(server.child.id());
    clients.end();
    server.end();
    after - before
}

/// What goes through in a second of the processor's time, both sides' together.
fn megabytes(peer: &str, load: &str, count: usize) -> f64 {
    count as f64 * 1.048_576 / run(peer, peer, load, count, &[], Side::Server)
}

/// A file for a tool's output, of this process.
fn scratch(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("bench-grpc-table-{name}-{}", std::process::id()));
    path.to_str().unwrap().to_owned()
}
