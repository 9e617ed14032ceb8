//! Many clients before many servers, some of which are slow: which picker bears how much.

use serde::Deserialize;
use tower_balance::picker::{Picker, PowerOfTwo, RoundRobin};
use tower_balance::prequal::{Mode, Prequal};
use tower_load::CompleteOnResponse;
use tower_load::meter::Meter;
use tower_load::outcome::{OutcomeLoad, Outcomes};
use tower_load::peak_ewma::PeakEwma;
use tower_load::pending_requests::PendingRequests;
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;
use tower_timeout::Timeout;

use crate::chance::{Poisson, TRUNCATED, stream, truncated_normal};
use crate::experiment::{Case, Experiment, Outcome, Parts, Plot, Report, Results, Verdict};
use crate::link::{AllKnowing, Client, Link};
use crate::record::Record;
use crate::server::{Failed, Server, Work};
use crate::world::{World, duration, millis, seconds};

/// The file `experiments/fleet.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    pub(crate) clients: usize,
    pub(crate) servers: usize,
    pub(crate) slow_share: f64,
    pub(crate) slow_capacity: f64,
    pub(crate) fast_capacity: f64,
    pub(crate) work_ms: f64,
    pub(crate) network_ms: f64,
    pub(crate) deadline_ms: f64,
    pub(crate) loads: Vec<f64>,
    pub(crate) warmup_s: f64,
    pub(crate) measured_s: f64,
    pub(crate) ewma: Ewma,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ewma {
    pub(crate) default_rtt_ms: f64,
    pub(crate) decay_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    RoundRobin,
    LeastLoaded,
    PeakEwma,
    Outcomes,
    Prequal,
    Asynchronous,
    AllKnowing,
}

const POLICIES: [Policy; 7] = [
    Policy::RoundRobin,
    Policy::LeastLoaded,
    Policy::PeakEwma,
    Policy::Outcomes,
    Policy::Prequal,
    Policy::Asynchronous,
    Policy::AllKnowing,
];

/// What draws from which generator.
const ARRIVALS: u64 = 1;
const WORK: u64 = 2;
const WHO: u64 = 3;
const PICKS: u64 = 4;

impl Policy {
    const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::LeastLoaded => "least-loaded of two",
            Self::PeakEwma => "peak EWMA",
            Self::Outcomes => "outcomes",
            Self::Prequal => "Prequal",
            Self::Asynchronous => "Prequal, asynchronous",
            Self::AllKnowing => "all-knowing",
        }
    }
}

pub(crate) fn experiment(fleet: &Fleet) -> Experiment {
    let cases = fleet.loads.iter().flat_map(|&load| {
        POLICIES.map(|policy| {
            let fleet = fleet.clone();
            Case {
                name: case(policy, &format!("{load:.2}")),
                run: Box::new(move |seed| run(&fleet, policy, load, seed)),
            }
        })
    });
    Experiment {
        name: "fleet",
        what: "100 clients, 100 servers, 20 % of the machines slow: latency in ms and errors by picker and load",
        cases: cases.collect(),
        report,
    }
}

fn case(policy: Policy, load: &str) -> String {
    format!("{load} {}", policy.name())
}

pub(crate) fn run(fleet: &Fleet, policy: Policy, load: f64, seed: u64) -> Outcome {
    match policy {
        Policy::RoundRobin => run_with(fleet, load, seed, |link| link, RoundRobin::default),
        Policy::LeastLoaded => run_with(
            fleet,
            load,
            seed,
            |link| PendingRequests::new(link, CompleteOnResponse::default()),
            PowerOfTwo::default,
        ),
        Policy::PeakEwma => run_with(
            fleet,
            load,
            seed,
            |link| {
                let default_rtt = duration(millis(fleet.ewma.default_rtt_ms));
                let decay = fleet.ewma.decay_s * 1e9;
                PeakEwma::new(link, default_rtt, decay, CompleteOnResponse::default())
            },
            PowerOfTwo::default,
        ),
        Policy::Outcomes => run_with(
            fleet,
            load,
            seed,
            |link| {
                let outcomes = Outcomes::new()
                    .with_default_rtt(duration(millis(fleet.ewma.default_rtt_ms)))
                    .with_decay(duration(seconds(fleet.ewma.decay_s)));
                OutcomeLoad::new(link).with_outcomes(outcomes)
            },
            PowerOfTwo::default,
        ),
        Policy::Prequal => run_with(fleet, load, seed, |link| link, Prequal::new),
        Policy::Asynchronous => run_with(
            fleet,
            load,
            seed,
            |link| link,
            || Prequal::new().with_mode(Mode::Asynchronous),
        ),
        Policy::AllKnowing => run_with(fleet, load, seed, |link| link, || AllKnowing),
    }
}

/// Runs the fleet, each client with links that are measured by `measure`, and a picker of its own.
fn run_with<S, P>(
    fleet: &Fleet,
    load: f64,
    seed: u64,
    measure: impl Fn(Link) -> S,
    picker: impl Fn() -> P,
) -> Outcome
where
    S: Service<Work, Response = (), Error = Failed, Future: Send> + Send + 'static,
    P: Picker<S> + Send + 'static,
{
    let end = seconds(fleet.warmup_s + fleet.measured_s);
    let record = Record::new(seconds(fleet.warmup_s), end);
    let until = end + millis(fleet.deadline_ms) + seconds(0.1);
    let (servers, world) = World::run(until, |world| {
        let servers = servers(fleet, world);
        let mut picks = stream(seed, PICKS);
        let clients: Vec<_> = (0..fleet.clients)
            .map(|first| {
                let links = servers.iter().map(|(server, meter)| {
                    let one_way = millis(fleet.network_ms);
                    measure(Link::new(world, server.clone(), meter.clone(), one_way))
                });
                let mut links: Vec<_> = links.collect();
                // Nobody has the same order as another, which matters where they are taken in turn.
                links.rotate_left(first % fleet.servers);
                let client = Client::new(links, picker(), picks.split());
                Timeout::new(client, duration(millis(fleet.deadline_ms)))
            })
            .collect();
        offer(fleet, load, seed, world, clients, &record);
        servers
    });
    drop(servers);
    outcome(&record, fleet.busy(load), world.trace())
}

fn servers(fleet: &Fleet, world: &World) -> Vec<(Server, Meter)> {
    fleet
        .capacities()
        .map(|capacity| (Server::new(world, capacity), Meter::new()))
        .collect()
}

impl Fleet {
    /// Of each server, in processors.
    fn capacities(&self) -> impl Iterator<Item = f64> {
        let slow = (self.slow_share * self.servers as f64).round() as usize;
        (0..self.servers).map(move |index| {
            if index < slow {
                self.slow_capacity
            } else {
                self.fast_capacity
            }
        })
    }

    /// The part of all processors that are there which a load of the allocation needs.
    fn busy(&self, load: f64) -> f64 {
        load * self.servers as f64 / self.capacities().sum::<f64>()
    }
}

/// Has the clients send requests at the rate that makes the load.
fn offer<S>(
    fleet: &Fleet,
    load: f64,
    seed: u64,
    world: &World,
    mut clients: Vec<S>,
    record: &Record,
) where
    S: Service<Work, Future: Send> + Send + 'static,
{
    let mean_work_s = fleet.work_ms * TRUNCATED / 1e3;
    let rate = load * fleet.servers as f64 / mean_work_s;
    let end = seconds(fleet.warmup_s + fleet.measured_s);
    let arrivals = Poisson::new(stream(seed, ARRIVALS), rate).take_while(move |&at| at < end);
    let (mut who, mut work): (SplitMix64, SplitMix64) = (stream(seed, WHO), stream(seed, WORK));
    let (mu, record, world) = (fleet.work_ms * 1e6, record.clone(), world.clone());
    world.clone().spawn(async move {
        for at in arrivals {
            world.sleep_until(at).await;
            let client = who.next_range(0..clients.len() as u64) as usize;
            let response = clients[client].call(Work(truncated_normal(&mut work, mu)));
            let (record, world) = (record.clone(), world.clone());
            world.clone().spawn(async move {
                let succeeded = response.await.is_ok();
                record.end(&world, at, succeeded);
            });
        }
    });
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn outcome(record: &Record, busy: f64, trace: u64) -> Outcome {
    let latencies = record.latencies();
    let mut values: std::collections::BTreeMap<_, _> = QUANTILES
        .map(|(name, share)| (name, latencies.quantile_ms(share)))
        .into();
    values.insert("errors", latencies.failed());
    values.insert("requests", latencies.len() as f64);
    values.insert("busy", busy);
    Outcome {
        values,
        curves: [].into(),
        trace,
    }
}

fn report(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let (load, policy) = name.split_once(' ').unwrap_or(("", name));
        let quantiles = QUANTILES.map(|(value, _)| format!("{:.0}", results.median(name, value)));
        let errors = format!("{:.3} %", 100.0 * results.median(name, "errors"));
        let head = [load.to_owned(), policy.to_owned()];
        head.into_iter().chain(quantiles).chain([errors]).collect()
    });
    // The second load and the last: their figures change where loads are varied.
    let loads = results.names().filter_map(|name| {
        let (load, policy) = name.split_once(' ')?;
        (policy == Policy::Prequal.name()).then_some(load)
    });
    let loads: Vec<_> = loads.collect();
    let (usual, most) = (loads[1], loads[loads.len() - 1]);
    let p99 = |policy: Policy, load| results.median(&case(policy, load), "p99");
    // The better of the two that follow peaks.
    let ewma = p99(Policy::PeakEwma, usual).min(p99(Policy::Outcomes, usual));
    let parts = |policy, load, compared| Parts {
        judged: p99(policy, load),
        compared,
        busy: results.median(&case(policy, load), "busy"),
    };
    let of_ewma = |policy| parts(policy, usual, ewma);
    let rise = |policy| parts(policy, most, p99(policy, usual));
    let ratio = |parts: Parts| parts.judged / parts.compared;
    let most_errors = results.max(&case(Policy::Prequal, most), "errors");
    Report {
        header: vec!["load", "picker", "p50", "p90", "p99", "p99.9", "errors"],
        rows: rows.collect(),
        verdicts: vec![
            Verdict::ratio_at_most(
                format!("Prequal's p99 at {usual}, of the best peak EWMA's"),
                of_ewma(Policy::Prequal),
                0.5,
            )
            .with_floor(ratio(of_ewma(Policy::AllKnowing)), "who knows all"),
            Verdict::ratio_at_most(
                format!("Prequal's p99 at {most}, of its own at {usual}"),
                rise(Policy::Prequal),
                1.3,
            )
            .with_floor(ratio(rise(Policy::AllKnowing)), "who knows all"),
            Verdict::at_most(
                format!("Prequal's errors at {most}, of any seed"),
                most_errors,
                0.0,
            ),
        ],
        plots: vec![plot(results)],
    }
}

/// The 99th percentile over the load, a curve for each picker.
fn plot(results: &Results) -> Plot {
    let curve = |policy: Policy| {
        let points = results.names().filter_map(|name| {
            let (load, picker) = name.split_once(' ')?;
            let load: f64 = load.parse().ok()?;
            (picker == policy.name()).then(|| (load, results.median(name, "p99")))
        });
        (policy.name().to_owned(), points.collect())
    };
    Plot {
        name: "fleet",
        title: "A fleet with a fifth of its machines slow: 99th percentile",
        x: "load, of the allocation",
        y: "ms",
        log_y: true,
        curves: POLICIES.map(curve).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenth of the experiment.
    fn small() -> Fleet {
        let fleet: Fleet =
            toml::from_str(include_str!("../experiments/fleet.toml")).expect("the file is valid");
        Fleet {
            clients: 20,
            servers: 20,
            warmup_s: 2.0,
            measured_s: 8.0,
            ..fleet
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_another() {
        for policy in POLICIES {
            let trace = |seed| run(&small(), policy, 0.9, seed).trace;
            assert_eq!(trace(1), trace(1), "{policy:?}");
            assert_ne!(trace(1), trace(2), "{policy:?}");
        }
    }

    #[test]
    fn a_load_of_the_allocation_is_less_of_what_the_machines_can() {
        // 4 of 20 have 0.75 processors, 16 have two.
        assert!((small().busy(1.27) - 1.27 / 1.75).abs() < 1e-9);
        assert!((small().busy(1.75) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn requests_arrive_at_the_rate_that_makes_the_load() {
        let requests = |load| run(&small(), Policy::RoundRobin, load, 1).values["requests"];
        // 20 processors, 51.5 ms: 388 a second. Five standard deviations of a Poisson process.
        let expected = 8.0 * 20.0 / (0.040 * TRUNCATED);
        for load in [0.7, 1.27] {
            let deviation = (load * expected).sqrt();
            assert!((requests(load) - load * expected).abs() < 5.0 * deviation);
        }
    }

    #[test]
    fn prequal_bears_what_round_robin_does_not() {
        let p99 = |policy| run(&small(), policy, 0.9, 1).values["p99"];
        assert!(p99(Policy::Prequal) < 0.5 * p99(Policy::RoundRobin));
    }
}
