//! What picking an endpoint costs, and whether it allocates.
//!
//! ```sh
//! cargo run --release --bin pickers
//! ```
//!
//! Medians of several rounds. Prequal's probes are answered at once, by a clock read and a lock each, so its row
//! "with three answers" has the cost of those as well; the plain row sends no probes and picks from those it has.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tower_balance::picker::{Picker, PowerOfTwo};
use tower_balance::prequal::{Prequal, Probe, Reply};
use tower_load::Constant;
use tower_load::meter::LoadReport;
use tower_rng::SplitMix64;

const ROUNDS: usize = 15;
const PICKS: u32 = 200_000;
const SERVERS: usize = 100;

/// Answers probes at once.
struct Server(LoadReport);

impl Probe for Server {
    fn probe(&self, reply: Reply) {
        reply.send(self.0);
    }
}

fn nanos(mut pick: impl FnMut()) -> f64 {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..PICKS).for_each(|_| pick());
            start.elapsed().as_nanos() as f64 / f64::from(PICKS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn row(name: &str, goal: Option<f64>, mut pick: impl FnMut()) {
    // Sets up what is set up once.
    (0..1000).for_each(|_| pick());
    let allocations = allocation_counter::measure(|| (0..1000).for_each(|_| pick())).count_total;
    let ns = nanos(pick);
    let goal = goal.map_or(String::new(), |goal| format!(" (≤ {goal})"));
    println!("| {name} | {ns:.1}{goal} | {allocations} |");
}

fn main() {
    println!("| picker over {SERVERS} endpoints | ns | allocations in 1000 picks |\n|---|---|---|");
    row("reading the clock", None, || {
        black_box(tokio::time::Instant::now());
    });

    let mut rng = SplitMix64::new(1);
    let loads: Vec<_> = (0..SERVERS).map(|load| Constant::new((), load)).collect();
    let mut p2c = PowerOfTwo::default();
    row("power of two choices", Some(30.0), || {
        black_box(p2c.pick(&loads[..], &mut rng));
    });

    let report = |index: usize| {
        let latency = Duration::from_millis(10 + index as u64 % 7);
        Server(LoadReport::new(index as u32 % 5, Some(latency)))
    };
    let servers: Vec<_> = (0..SERVERS).map(report).collect();
    let mut prequal = Prequal::new();
    row("Prequal, with three answers", None, || {
        black_box(prequal.prepare(&servers[..], &mut rng).is_some());
        black_box(prequal.pick(&servers[..], &mut rng));
    });

    // Few enough that probes are used until they are old, and a rate at which the pool stays full.
    let few = &servers[..16];
    let mut prequal = Prequal::new()
        .with_probes_per_request(0.01)
        .with_removals_per_request(0.0)
        .with_max_age(Duration::from_secs(3600));
    for _ in 0..100_000 {
        prequal.pick(few, &mut rng);
    }
    row("Prequal", Some(150.0), || {
        black_box(prequal.prepare(few, &mut rng).is_some());
        black_box(prequal.pick(few, &mut rng));
    });
}
