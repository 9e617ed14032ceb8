//! How fast ours is beside crates.io's tower 0.5.3: the same source over both, in one run.
//!
//! ```sh
//! cargo run --release --bin speed            # the table; instruction counts need valgrind
//! cargo run --release --bin speed -- --quick # fewer rounds, for CI
//! ```
//!
//! Nanoseconds are medians over interleaved rounds of the whole call (readiness, call, response). Instructions
//! are callgrind's, of a long run less a short one, so that setting up cancels out. Allocations are counted by the
//! allocator, on the calling thread. Rows marked "over bare" have the bare service's figure subtracted.

use std::process::Command;
use std::time::Duration;

mod suite_ours {
    use ours as tower;
    include!("suite.rs");
}

mod suite_upstream {
    use upstream as tower;
    include!("suite.rs");
}

/// A row of the table, and what it is to reach.
struct Case {
    name: &'static str,
    /// Whose figure is subtracted.
    bare: Option<&'static str>,
    /// The goals for ours/upstream, of instructions and of nanoseconds. Without a goal for instructions they
    /// aren't counted.
    goals: Option<(Option<f64>, f64)>,
    /// Calls per round.
    calls: u64,
    workers: usize,
}

const fn case(name: &'static str, instructions: f64, nanoseconds: f64) -> Case {
    Case {
        name,
        bare: None,
        goals: Some((Some(instructions), nanoseconds)),
        calls: 100_000,
        workers: 0,
    }
}

const CASES: &[Case] = &[
    Case {
        goals: None,
        ..case("bare", 0.0, 0.0)
    },
    case("timeout, ready", 0.35, 0.5),
    Case {
        bare: Some("bare, two polls"),
        ..case("timeout, two polls", 0.6, 0.6)
    },
    case("concurrency limit", 0.35, 0.6),
    case("concurrency limit, semaphore", 0.65, 0.95),
    case("rate limit", 1.2, 1.2),
    case("load shed", 1.0, 1.1),
    case("filter", 1.0, 1.1),
    case("map_request", 1.0, 1.1),
    case("map_response", 1.0, 1.1),
    case("map_err", 1.0, 1.1),
    case("map_result", 1.0, 1.1),
    case("retry", 1.0, 1.1),
    case("boxed", 1.0, 1.1),
    case("boxed clone", 1.0, 1.1),
    case("buffer, one caller", 0.5, 0.5),
    Case {
        goals: Some((None, 0.5)),
        calls: 256 * 2_000,
        workers: 2,
        ..case("buffer, 256 tasks", 0.0, 0.5)
    },
    case("p2c, 10 endpoints", 0.1, 0.1),
    case("p2c, 10000 endpoints", 0.1, 0.1),
    case("p2c, peak ewma", 0.3, 0.3),
    case("shed + limit + retry + timeout", 0.4, 0.5),
];

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Upstream,
    Ours,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Upstream, Self::Ours];

    const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Ours => "ours",
        }
    }

    async fn run(self, case: &str, n: u64) -> Duration {
        match self {
            Self::Upstream => suite_upstream::run(case, n).await,
            Self::Ours => suite_ours::run(case, n).await,
        }
        .unwrap_or_else(|| panic!("no such case: {case}"))
    }
}

fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_time().build().expect("a runtime")
}

/// Nanoseconds per call, one round.
fn nanoseconds(side: Side, case: &Case) -> f64 {
    let run = |name: &str| {
        let took = runtime(case.workers).block_on(side.run(name, case.calls));
        took.as_nanos() as f64 / case.calls as f64
    };
    run(case.name) - case.bare.map_or(0.0, run)
}

/// Allocations per call on the calling thread.
fn allocations(side: Side, case: &Case) -> f64 {
    let count = |n: u64| {
        let runtime = runtime(0);
        allocation_counter::measure(|| {
            runtime.block_on(side.run(case.name, n));
        })
        .count_total as f64
    };
    let n = 4096;
    (count(2 * n) - count(n)) / n as f64
}

/// Instructions per call under callgrind; `None` where valgrind is missing.
fn instructions(side: Side, case: &Case) -> Option<f64> {
    let run = |name: &str| {
        let n = 2_000;
        Some((callgrind(side, name, 3 * n)? - callgrind(side, name, n)?) / (2 * n) as f64)
    };
    Some(run(case.name)? - case.bare.map_or(Some(0.0), run)?)
}

fn callgrind(side: Side, name: &str, n: u64) -> Option<f64> {
    let exe = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(exe)
        .args(["--one", side.name(), name, &n.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|l| l.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Measures a case and prints its row. `None` where there is no goal to reach.
fn row(case: &Case, rounds: usize) -> Option<bool> {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Interleaved, and in alternating order, so that a slow spell hits both sides.
        for i in 0..2 {
            let side = (round + i) % 2;
            samples[side].push(nanoseconds(Side::BOTH[side], case));
        }
    }
    let ns = samples.map(median);
    let (ir_goal, ns_goal) = case.goals.unzip();
    let ir_goal = ir_goal.flatten();
    // Several threads don't run the same instructions twice.
    let ir = Side::BOTH.map(|side| {
        (case.workers == 0)
            .then(|| instructions(side, case))
            .flatten()
    });
    let allocations = Side::BOTH.map(|side| allocations(side, case));

    let ns_ratio = ns[1] / ns[0];
    let ir_ratio = ir[0].zip(ir[1]).map(|(up, our)| our / up);
    let met = ns_goal.map(|goal| {
        let fewer = ir_ratio.zip(ir_goal);
        ns_ratio <= goal && fewer.is_none_or(|(ratio, goal)| ratio <= goal)
    });
    let over = case.bare.map_or("", |_| ", over bare");
    let whole = |x: Option<f64>| x.map_or("–".to_owned(), |x| format!("{x:.0}"));
    let goal = |x: Option<f64>| x.map_or(String::new(), |x| format!(" (≤ {x})"));
    println!(
        "| {}{over} | {:.1} | {:.1} | {ns_ratio:.2}{} | {} | {} | {}{} | {:.2} | {:.2} | {} |",
        case.name,
        ns[0],
        ns[1],
        goal(ns_goal),
        whole(ir[0]),
        whole(ir[1]),
        ir_ratio.map_or("–".to_owned(), |x| format!("{x:.3}")),
        goal(ir_goal),
        allocations[0],
        allocations[1],
        met.map_or("–", |met| if met { "yes" } else { "**no**" }),
    );
    met
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--one", side, case, n] => {
            let side = Side::BOTH
                .into_iter()
                .find(|s| s.name() == side)
                .expect("`ours` or `upstream`");
            let n = n.parse().expect("a number of calls");
            runtime(0).block_on(side.run(case, n));
        }
        [] => table(CASES, 31),
        ["--quick"] => table(CASES, 5),
        ["--case", part] => {
            let cases = CASES.iter().filter(|c| c.name.contains(part));
            header();
            for case in cases {
                row(case, 31);
            }
        }
        _ => {
            eprintln!("usage: speed [--quick | --case PART]");
            std::process::exit(2);
        }
    }
}

fn header() {
    println!(
        "| case | ns, upstream | ns, ours | ratio | instructions, upstream | ours | ratio | allocations, upstream | ours | met |"
    );
    println!("{}|", "|---".repeat(10));
}

fn table(cases: &[Case], rounds: usize) {
    header();
    let reached: Vec<bool> = cases.iter().filter_map(|case| row(case, rounds)).collect();
    let met = reached.iter().filter(|&&met| met).count();
    println!("\n{met} of {} rows reach their goals.", reached.len());
}
