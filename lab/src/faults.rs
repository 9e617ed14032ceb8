//! A pool of ten endpoints, one of which comes to harm: what a retry over it loses, and for how long it is slow.

use std::sync::Arc;

use serde::Deserialize;
use tower_balance::pool::{Ejection, Pool};
use tower_classify::EveryErrorIsRetryable;
use tower_discover::Change;
use tower_layer::Layer;
use tower_load::outcome::Outcomes;
use tower_retry::RetryLayer;
use tower_retry::backoff::ExponentialBackoffMaker;
use tower_retry::budget::TpsBudget;
use tower_retry::standard::StandardPolicy;
use tower_timeout::TimeoutLayer;

use crate::chance::{Poisson, Shared, TRUNCATED, stream, truncated_normal};
use crate::experiment::{Case, Experiment, Outcome, Plot, Report, Results, Verdict};
use crate::machine::{Connect, Health, Machine};
use crate::pooled::{Tell, discovery, oneshot};
use crate::record::{Latencies, Record};
use crate::server::Work;
use crate::world::{MILLI, Nanos, SECOND, World, duration, millis, seconds};

/// The file `experiments/faults.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Faults {
    pub(crate) endpoints: usize,
    pub(crate) rate: f64,
    pub(crate) processors: f64,
    pub(crate) work_ms: f64,
    pub(crate) connect_ms: f64,
    pub(crate) try_timeout_ms: f64,
    pub(crate) max_tries: u32,
    pub(crate) backoff_min_ms: f64,
    pub(crate) backoff_max_ms: f64,
    pub(crate) retry_ratio: f32,
    pub(crate) harm_from_s: f64,
    pub(crate) harm_until_s: f64,
    pub(crate) measured_s: f64,
    pub(crate) ejection_interval_s: f64,
    pub(crate) flap_s: f64,
    pub(crate) cold_factor: f64,
    pub(crate) cold_s: f64,
    pub(crate) slow_start_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// There is one endpoint less from the beginning, and none comes to harm.
    Absent,
    Killed,
    Stalled,
    Flapping,
    SlowToStart,
}

const HARMS: [(&str, Harm); 5] = [
    (ABSENT, Harm::Absent),
    ("killed", Harm::Killed),
    ("stalled", Harm::Stalled),
    ("flapping", Harm::Flapping),
    ("slow to start", Harm::SlowToStart),
];

/// What the others can bear, which no pool can better.
const ABSENT: &str = "absent";

const WITHOUT: &str = "without that endpoint, and without harm";

const UP: Health = Health::Up { slower: 1.0 };

pub(crate) fn experiment(parameters: &Faults) -> Experiment {
    let cases = HARMS.map(|(name, harm)| {
        let parameters = parameters.clone();
        Case {
            name: name.to_owned(),
            run: Box::new(move |seed| run(&parameters, name, harm, seed)),
        }
    });
    Experiment {
        name: "faults",
        what: "a retry over a pool of ten, one of which comes to harm from 10 to 40 s: requests lost, and p99 in ms \
               before, while the pool may still learn, after that",
        cases: cases.into(),
        report,
    }
}

fn run(p: &Faults, name: &str, harm: Harm, seed: u64) -> Outcome {
    let end = seconds(p.measured_s);
    let record = Record::new(SECOND, end);
    let (_kept, world) = World::run(end + 5 * SECOND, |world| {
        let machines = (0..p.endpoints).map(|_| Machine::new(world, p.processors));
        let machines = Arc::new(machines.collect::<Vec<_>>());
        let present = p.endpoints - usize::from(harm == Harm::Absent);
        let (tell, found) = discovery(present);
        let connect = Connect {
            machines: Arc::clone(&machines),
            takes: millis(p.connect_ms),
        };
        let mut pool = Pool::builder(found, connect)
            .with_gauge(Outcomes::new())
            // What the timeout of a try gives up was the endpoint's fault. Timers are good to a millisecond.
            .with_ejection(
                Ejection::default().with_given_up_after(duration(millis(p.try_timeout_ms - 1.0))),
            )
            .with_seed(seed);
        if harm == Harm::SlowToStart {
            pool = pool.with_slow_start(duration(seconds(p.slow_start_s)));
        }
        let pool = pool.spawn::<Work>().expect("there is a runtime");
        let each = TimeoutLayer::new(duration(millis(p.try_timeout_ms))).layer(pool);
        let (min, max) = (
            duration(millis(p.backoff_min_ms)),
            duration(millis(p.backoff_max_ms)),
        );
        let backoff = ExponentialBackoffMaker::new(min, max, 0.99, Shared::new(stream(seed, 2)));
        let policy = StandardPolicy::new(EveryErrorIsRetryable)
            .with_max_tries(p.max_tries)
            .with_budget(Arc::new(TpsBudget::new(
                duration(10 * SECOND),
                10,
                p.retry_ratio,
            )))
            .with_backoff(backoff.expect("the file has a valid backoff"));
        let service = RetryLayer::new(policy).layer(each);
        do_harm(p, harm, world, &machines[0], &tell);
        let arrivals = Poisson::new(stream(seed, 1), p.rate).take_while(move |&at| at < end);
        let (inner, record, mu) = (world.clone(), record.clone(), p.work_ms * 1e6 / TRUNCATED);
        let mut works = stream(seed, 3);
        world.spawn(async move {
            for at in arrivals {
                // Connections are there first.
                inner.sleep_until(at.max(10 * MILLI)).await;
                let (request, record, world) = (
                    oneshot(service.clone(), Work(truncated_normal(&mut works, mu))),
                    record.clone(),
                    inner.clone(),
                );
                inner.spawn(async move {
                    let succeeded = request.await.is_ok();
                    record.end(&world, at, succeeded);
                });
            }
        });
        tell
    });
    outcome(p, name, &record, world.trace())
}

/// Sees to what happens to the machine, and when.
fn do_harm(p: &Faults, harm: Harm, world: &World, machine: &Machine, tell: &Tell) {
    let (from, until) = (seconds(p.harm_from_s), seconds(p.harm_until_s));
    let set_at = |at: Nanos, health| {
        let machine = machine.clone();
        world.at(at, move || machine.set(health));
    };
    match harm {
        Harm::Absent => {}
        Harm::Killed => {
            set_at(from, Health::Down);
            set_at(until, UP);
        }
        Harm::Stalled => {
            set_at(from, Health::Stalled);
            set_at(until, UP);
        }
        Harm::Flapping => {
            let half = seconds(p.flap_s);
            for down in (from..until).step_by(2 * half as usize) {
                set_at(down, Health::Down);
                set_at(down + half, UP);
            }
        }
        // It is replaced by one that is cold.
        Harm::SlowToStart => {
            let slower = p.cold_factor;
            set_at(from, Health::Up { slower });
            set_at(from + seconds(p.cold_s), UP);
            let tell = tell.clone();
            world.at(from, move || {
                for change in [Change::Remove(0), Change::Insert(0, 0)] {
                    tell.try_send(Ok(change)).expect("the channel has room");
                }
            });
        }
    }
}

fn outcome(p: &Faults, name: &str, record: &Record, trace: u64) -> Outcome {
    let all = record.all();
    let p99 = |from: f64, until: f64| {
        let window = seconds(from)..seconds(until);
        let requests = all.iter().filter(|request| window.contains(&request.began));
        Latencies::of(requests).quantile_ms(0.99)
    };
    let learned = p.harm_from_s + p.ejection_interval_s;
    let lost = all.iter().filter(|request| !request.succeeded).count();
    let mut by_second = Vec::new();
    for second in 1..p.measured_s as u32 {
        let from = f64::from(second);
        by_second.push((from, p99(from, from + 1.0)));
    }
    Outcome {
        values: [
            ("lost", lost as f64),
            (
                "slowest",
                all.iter().map(|request| request.took).max().unwrap_or(0) as f64 / MILLI as f64,
            ),
            ("before", p99(1.0, p.harm_from_s)),
            ("during", p99(p.harm_from_s, learned)),
            ("after", p99(learned, p.harm_until_s)),
        ]
        .into(),
        curves: [(name.to_owned(), by_second)].into(),
        trace,
    }
}

fn report(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let value = |value| format!("{:.1}", results.median(name, value));
        let lost = format!("{:.0}", results.max(name, "lost"));
        vec![
            name.to_owned(),
            lost,
            value("before"),
            value("during"),
            value("after"),
        ]
    });
    let (fewer, least_lost) = (results.median(ABSENT, "after"), results.max(ABSENT, "lost"));
    let harmed = results.names().filter(|&name| name != ABSENT);
    let verdicts = harmed.flat_map(|name| {
        let before = results.median(name, "before");
        let slower = results.median(name, "after") / before;
        [
            Verdict::at_most(
                format!("{name}: requests lost, of any seed"),
                results.max(name, "lost"),
                0.0,
            )
            .with_floor(least_lost, WITHOUT),
            Verdict::at_most(
                format!("{name}: p99 after the interval, of that before"),
                slower,
                1.2,
            )
            .with_floor(fewer / before, WITHOUT),
        ]
    });
    let curves = results.names().flat_map(|name| results.curves(name));
    Report {
        header: vec![
            "one of ten",
            "lost",
            "p99 before",
            "in the interval",
            "after",
        ],
        rows: rows.collect(),
        verdicts: verdicts.collect(),
        plots: vec![Plot {
            name: "faults",
            title: "One of ten endpoints comes to harm at 10 s: 99th percentile of each second",
            x: "s",
            y: "ms",
            log_y: true,
            curves: curves
                .map(|(name, points)| (name.clone(), points.clone()))
                .collect(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_a_harm_another() {
        let p: Faults =
            toml::from_str(include_str!("../experiments/faults.toml")).expect("the file is valid");
        let p = Faults {
            harm_from_s: 1.0,
            harm_until_s: 3.0,
            measured_s: 4.0,
            ejection_interval_s: 1.0,
            ..p
        };
        let trace = |(name, harm): (&str, Harm), seed| run(&p, name, harm, seed).trace;
        for harm in HARMS {
            assert_eq!(trace(harm, 1), trace(harm, 1), "{harm:?}");
            assert_ne!(trace(harm, 1), trace(harm, 2), "{harm:?}");
        }
        assert_ne!(trace(HARMS[1], 1), trace(HARMS[2], 1));
    }
}
