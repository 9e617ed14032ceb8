//! A dependency that fails for a while: what retries make of its load.

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tower_classify::EveryErrorIsRetryable;
use tower_layer::Layer;
use tower_retry::RetryLayer;
use tower_retry::backoff::ExponentialBackoffMaker;
use tower_retry::budget::{Budget, TpsBudget};
use tower_retry::standard::StandardPolicy;

use crate::chance::{Poisson, Shared, stream};
use crate::endpoint::Endpoint;
use crate::experiment::{Case, Experiment, Outcome, Plot, Report, Results, Verdict};
use crate::pooled::oneshot;
use crate::record::Record;
use crate::server::{Failed, Work};
use crate::world::{MILLI, Nanos, SECOND, World, duration, millis, seconds};

/// The file `experiments/storm.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storm {
    pub(crate) rate: f64,
    pub(crate) latency_ms: f64,
    pub(crate) failing_ms: f64,
    pub(crate) fails_from_s: f64,
    pub(crate) fails_until_s: f64,
    pub(crate) measured_s: f64,
    pub(crate) max_tries: u32,
    pub(crate) backoff_min_ms: f64,
    pub(crate) backoff_max_ms: f64,
    pub(crate) retry_ratio: f32,
    pub(crate) reserve_per_s: u32,
    pub(crate) window_s: f64,
    pub(crate) long_window_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Each request is tried as often as it may be.
    None,
    Long,
    Short,
}

const BOUNDS: [(&str, Bound); 3] = [
    ("no budget", Bound::None),
    ("budget of the last 10 s", Bound::Long),
    ("budget of the last second", Bound::Short),
];

/// Grants everything.
struct Unbounded;

impl Budget for Unbounded {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        true
    }
}

pub(crate) fn experiment(parameters: &Storm) -> Experiment {
    let cases = BOUNDS.map(|(name, bound)| {
        let parameters = parameters.clone();
        Case {
            name: name.to_owned(),
            run: Box::new(move |seed| run(&parameters, name, bound, seed)),
        }
    });
    Experiment {
        name: "storm",
        what: "a dependency fails for 10 s, three tries for each request: its load, in terms of the requests",
        cases: cases.into(),
        report,
    }
}

fn run(p: &Storm, name: &str, bound: Bound, seed: u64) -> Outcome {
    let end = seconds(p.measured_s);
    let record = Record::new(0, end);
    let tries = Arc::new(Mutex::new(Vec::new()));
    let arrivals: Vec<_> = Poisson::new(stream(seed, 1), p.rate)
        .take_while(|&at| at < end)
        .collect();
    let window = match bound {
        Bound::Long => p.long_window_s,
        // No budget has a shorter one.
        _ => p.window_s.max(1.0),
    };
    let ((), world) = World::run(end + 5 * SECOND, |world| {
        let dependency = dependency(p, world, &tries);
        let budget: Arc<dyn Budget + Send + Sync> = match bound {
            Bound::None => Arc::new(Unbounded),
            _ => Arc::new(TpsBudget::new(
                duration(seconds(window)),
                p.reserve_per_s,
                p.retry_ratio,
            )),
        };
        let (min, max) = (
            duration(millis(p.backoff_min_ms)),
            duration(millis(p.backoff_max_ms)),
        );
        let backoff = ExponentialBackoffMaker::new(min, max, 0.99, Shared::new(stream(seed, 2)));
        let policy = StandardPolicy::new(EveryErrorIsRetryable)
            .with_max_tries(p.max_tries)
            .with_budget(budget)
            .with_backoff(backoff.expect("the file has a valid backoff"));
        let service = RetryLayer::new(policy).layer(dependency);
        let (inner, record, arrivals) = (world.clone(), record.clone(), arrivals.clone());
        world.spawn(async move {
            for at in arrivals {
                inner.sleep_until(at).await;
                let (request, record, world) = (
                    oneshot(service.clone(), Work(0.0)),
                    record.clone(),
                    inner.clone(),
                );
                inner.spawn(async move {
                    let succeeded = request.await.is_ok();
                    record.end(&world, at, succeeded);
                });
            }
        });
    });
    let tries = tries.lock().expect("nobody panics with it").clone();
    let reserve = f64::from(p.reserve_per_s) * window;
    Outcome {
        values: [
            ("second", most_over(&tries, &arrivals, SECOND, 0.0)),
            (
                "window",
                most_over(&tries, &arrivals, seconds(window), reserve),
            ),
            ("recovery", recovery_s(&record, seconds(p.fails_until_s))),
            ("allowed", 1.0 + f64::from(p.retry_ratio)),
        ]
        .into(),
        curves: [(name.to_owned(), by_second(&tries))].into(),
        trace: world.trace(),
    }
}

fn dependency(p: &Storm, world: &World, tries: &Arc<Mutex<Vec<Nanos>>>) -> Endpoint {
    let failing = seconds(p.fails_from_s)..seconds(p.fails_until_s);
    let (usual, quick) = (millis(p.latency_ms), millis(p.failing_ms));
    let tries = Arc::clone(tries);
    Endpoint::new(world, move |now| {
        tries.lock().expect("nobody panics with it").push(now);
        if failing.contains(&now) {
            (quick, Err(Failed::Faulty))
        } else {
            (usual, Ok(()))
        }
    })
}

/// The most tries for each request, over any window that begins at a whole tenth of a second. `reserve` are free.
fn most_over(tries: &[Nanos], requests: &[Nanos], window: Nanos, reserve: f64) -> f64 {
    let within = |instants: &[Nanos], from: Nanos| {
        let count = |until| instants.partition_point(|&at| at < until);
        (count(from + window) - count(from)) as f64
    };
    let last = requests.last().copied().unwrap_or(0).saturating_sub(window);
    (0..=last / (100 * MILLI))
        .map(|tenth| tenth * 100 * MILLI)
        .map(|from| (within(tries, from) - reserve) / within(requests, from).max(1.0))
        .fold(0.0, f64::max)
}

/// How long after `from` requests that began still failed, in seconds.
fn recovery_s(record: &Record, from: Nanos) -> f64 {
    let all = record.all();
    let failed = all
        .iter()
        .filter(|request| !request.succeeded && request.began >= from);
    let last = failed.map(|request| request.began - from).max();
    last.unwrap_or(0) as f64 / SECOND as f64
}

fn by_second(tries: &[Nanos]) -> Vec<(f64, f64)> {
    let seconds = tries.last().map_or(0, |last| last / SECOND);
    (0..seconds)
        .map(|second| {
            let count = tries.iter().filter(|&&at| at / SECOND == second).count();
            (second as f64, count as f64)
        })
        .collect()
}

fn report(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let value = |value| format!("{:.2}", results.median(name, value));
        vec![
            name.to_owned(),
            value("second"),
            value("window"),
            value("recovery"),
        ]
    });
    let (bounded, _) = BOUNDS[2];
    let curves = results.names().flat_map(|name| results.curves(name));
    Report {
        header: vec![
            "",
            "worst second",
            "worst window, less the reserve",
            "recovered after, s",
        ],
        rows: rows.collect(),
        verdicts: vec![
            Verdict::at_most(
                "load over any window less the reserve",
                results.median(bounded, "window"),
                1.2,
            )
            .with_floor(
                results.median(bounded, "allowed"),
                "what the ratio of the budget allows",
            ),
            Verdict::at_most("load in any second", results.median(bounded, "second"), 1.5),
            Verdict::at_most(
                "recovered after, of any seed, s",
                results.max(bounded, "recovery"),
                1.0,
            ),
        ],
        plots: vec![Plot {
            name: "storm",
            title: "A dependency of 1000 requests/s fails from 20 to 30 s: tries",
            x: "s",
            y: "tries/s",
            log_y: false,
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
    fn windows_are_compared_with_the_requests_in_them() {
        let requests: Vec<_> = (0..1000).map(|n| n * 10 * MILLI).collect();
        assert_eq!(most_over(&requests, &requests, SECOND, 0.0), 1.0);
        let mut tries = requests.clone();
        tries.extend((0..50).map(|n| 5 * SECOND + n * MILLI));
        tries.sort_unstable();
        assert_eq!(most_over(&tries, &requests, SECOND, 0.0), 1.5);
        assert_eq!(most_over(&tries, &requests, SECOND, 50.0), 1.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let p: Storm =
            toml::from_str(include_str!("../experiments/storm.toml")).expect("the file is valid");
        let p = Storm {
            fails_from_s: 1.0,
            fails_until_s: 2.0,
            measured_s: 4.0,
            ..p
        };
        for (name, bound) in BOUNDS {
            assert_eq!(run(&p, name, bound, 1), run(&p, name, bound, 1));
            assert_ne!(run(&p, name, bound, 1).trace, run(&p, name, bound, 2).trace);
        }
    }
}
