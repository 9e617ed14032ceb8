//! One client over a few endpoints, one of which is slow for a while, or fails: by which load they are picked.

use serde::Deserialize;
use tower_balance::picker::{Picker, PowerOfTwo, RoundRobin};
use tower_load::CompleteOnResponse;
use tower_load::outcome::{OutcomeLoad, Outcomes};
use tower_load::peak_ewma::PeakEwma;
use tower_load::pending_requests::PendingRequests;
use tower_service::Service;

use crate::chance::{Poisson, around, stream};
use crate::endpoint::Endpoint;
use crate::experiment::{Case, Experiment, Outcome, Plot, Report, Results, Verdict};
use crate::fleet::Ewma;
use crate::link::Client;
use crate::record::{Latencies, Record};
use crate::server::{Failed, Work};
use crate::world::{Nanos, SECOND, World, duration, millis, seconds};

/// The file `experiments/buoyant.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Buoyant {
    pub(crate) backends: usize,
    pub(crate) latency_ms: f64,
    pub(crate) spread_ms: f64,
    pub(crate) rate: f64,
    pub(crate) slow_ms: f64,
    pub(crate) slow_from_s: f64,
    pub(crate) slow_until_s: f64,
    pub(crate) measured_s: f64,
    pub(crate) bound_s: f64,
    pub(crate) ewma: Ewma,
}

/// The file `experiments/failing.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failing {
    pub(crate) endpoints: usize,
    pub(crate) latency_ms: f64,
    pub(crate) failing_ms: f64,
    pub(crate) rate: f64,
    pub(crate) measured_s: f64,
    pub(crate) ewma: Ewma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    RoundRobin,
    LeastLoaded,
    PeakEwma,
    Outcomes,
}

const POLICIES: [Policy; 4] = [
    Policy::RoundRobin,
    Policy::LeastLoaded,
    Policy::PeakEwma,
    Policy::Outcomes,
];

impl Policy {
    const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::LeastLoaded => "least-loaded of two",
            Self::PeakEwma => "peak EWMA",
            Self::Outcomes => "outcomes",
        }
    }
}

const ARRIVALS: u64 = 1;
const LATENCY: u64 = 2;
const PICKS: u64 = 4;

pub(crate) fn buoyant(parameters: &Buoyant) -> Experiment {
    let cases = POLICIES.map(|policy| {
        let parameters = parameters.clone();
        Case {
            name: policy.name().to_owned(),
            run: Box::new(move |seed| run_buoyant(&parameters, policy, seed)),
        }
    });
    Experiment {
        name: "buoyant",
        what: "11 backends of 167 ± 5 ms, one of them at 2 s from 15 to 45 s, 1000/s: share under a second",
        cases: cases.into(),
        report: report_buoyant,
    }
}

pub(crate) fn failing(parameters: &Failing) -> Experiment {
    let cases = POLICIES.map(|policy| {
        let parameters = parameters.clone();
        Case {
            name: policy.name().to_owned(),
            run: Box::new(move |seed| run_failing(&parameters, policy, seed)),
        }
    });
    Experiment {
        name: "failing",
        what: "one of ten endpoints fails within 1 ms, the others take 20 ms, 2000/s: share of successes",
        cases: cases.into(),
        report: report_failing,
    }
}

fn run_buoyant(p: &Buoyant, policy: Policy, seed: u64) -> Outcome {
    let slow = seconds(p.slow_from_s)..seconds(p.slow_until_s);
    let p = p.clone();
    let (latency, spread, slow_ms) = (p.latency_ms, p.spread_ms, p.slow_ms);
    let mut purposes = 10..;
    let endpoint = move |world: &World, index: usize| {
        let mut rng = stream(seed, LATENCY + purposes.next().unwrap_or(0));
        let slow = slow.clone();
        Endpoint::new(world, move |now| {
            let is_slow = index == 0 && slow.contains(&now);
            let mean = if is_slow { slow_ms } else { latency };
            (millis(around(&mut rng, mean, spread)), Ok(()))
        })
    };
    let (record, trace) = run(
        p.backends,
        p.rate,
        p.measured_s,
        p.ewma,
        policy,
        seed,
        endpoint,
    );
    let latencies = record.latencies();
    Outcome {
        values: [
            ("share", latencies.share_under(p.bound_s)),
            ("p99", latencies.quantile_ms(0.99)),
            ("p99.9", latencies.quantile_ms(0.999)),
            ("at best", at_best(&p)),
        ]
        .into(),
        curves: [(policy.name().to_owned(), p99_by_second(&record))].into(),
        trace,
    }
}

/// The share under the bound if nothing were sent to the slow backend from the moment that it can be known to be slow,
/// which is when the first request is out for longer than any took before.
fn at_best(p: &Buoyant) -> f64 {
    let unknowing_s = (p.latency_ms + p.spread_ms) / 1e3;
    let sent = unknowing_s * p.rate / p.backends as f64;
    1.0 - sent / (p.rate * p.measured_s)
}

fn run_failing(p: &Failing, policy: Policy, seed: u64) -> Outcome {
    let (latency, failing) = (millis(p.latency_ms), millis(p.failing_ms));
    let endpoint = move |world: &World, index: usize| {
        Endpoint::new(world, move |_| match index {
            0 => (failing, Err(Failed::Faulty)),
            _ => (latency, Ok(())),
        })
    };
    let (record, trace) = run(
        p.endpoints,
        p.rate,
        p.measured_s,
        p.ewma,
        policy,
        seed,
        endpoint,
    );
    Outcome {
        values: [("success", 1.0 - record.latencies().failed())].into(),
        curves: [].into(),
        trace,
    }
}

/// The 99th percentile of the requests that began in each second, in seconds and milliseconds.
fn p99_by_second(record: &Record) -> Vec<(f64, f64)> {
    let mut by_second: Vec<Vec<_>> = Vec::new();
    for request in record.all() {
        let second = (request.began / SECOND) as usize;
        by_second.resize(by_second.len().max(second + 1), Vec::new());
        by_second[second].push(request);
    }
    let p99 = by_second
        .iter()
        .map(|requests| Latencies::of(requests).quantile_ms(0.99));
    (0..).map(f64::from).zip(p99).collect()
}

fn run(
    endpoints: usize,
    rate: f64,
    measured_s: f64,
    ewma: Ewma,
    policy: Policy,
    seed: u64,
    mut endpoint: impl FnMut(&World, usize) -> Endpoint,
) -> (Record, u64) {
    let end = seconds(measured_s);
    let record = Record::new(0, end);
    let (default_rtt, decay) = (
        duration(millis(ewma.default_rtt_ms)),
        duration(seconds(ewma.decay_s)),
    );
    let ((), world) = World::run(end + 5 * SECOND, |world| {
        let endpoints = (0..endpoints).map(|index| endpoint(world, index));
        let complete = CompleteOnResponse::default();
        match policy {
            Policy::RoundRobin => {
                offer(
                    world,
                    endpoints.collect(),
                    RoundRobin::default(),
                    rate,
                    end,
                    seed,
                    &record,
                );
            }
            Policy::LeastLoaded => {
                let endpoints = endpoints.map(|inner| PendingRequests::new(inner, complete));
                offer(
                    world,
                    endpoints.collect(),
                    PowerOfTwo::default(),
                    rate,
                    end,
                    seed,
                    &record,
                );
            }
            Policy::PeakEwma => {
                let decay = decay.as_nanos() as f64;
                let endpoints =
                    endpoints.map(|inner| PeakEwma::new(inner, default_rtt, decay, complete));
                offer(
                    world,
                    endpoints.collect(),
                    PowerOfTwo::default(),
                    rate,
                    end,
                    seed,
                    &record,
                );
            }
            Policy::Outcomes => {
                let outcomes = Outcomes::new()
                    .with_default_rtt(default_rtt)
                    .with_decay(decay);
                let endpoints =
                    endpoints.map(|inner| OutcomeLoad::new(inner).with_outcomes(outcomes.fork()));
                offer(
                    world,
                    endpoints.collect(),
                    PowerOfTwo::default(),
                    rate,
                    end,
                    seed,
                    &record,
                );
            }
        }
    });
    (record, world.trace())
}

fn offer<S, P>(
    world: &World,
    endpoints: Vec<S>,
    picker: P,
    rate: f64,
    end: Nanos,
    seed: u64,
    record: &Record,
) where
    S: Service<Work, Error = Failed, Future: Send> + Send + 'static,
    S::Response: Send,
    P: Picker<S> + Send + 'static,
{
    let mut client = Client::new(endpoints, picker, stream(seed, PICKS));
    let arrivals = Poisson::new(stream(seed, ARRIVALS), rate).take_while(move |&at| at < end);
    let (record, world) = (record.clone(), world.clone());
    world.clone().spawn(async move {
        for at in arrivals {
            world.sleep_until(at).await;
            let response = client.call(Work(0.0));
            let (record, inner) = (record.clone(), world.clone());
            world.spawn(async move {
                let succeeded = response.await.is_ok();
                record.end(&inner, at, succeeded);
            });
        }
    });
}

fn report_buoyant(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let share = format!("{:.3} %", 100.0 * results.median(name, "share"));
        let quantile = |value| format!("{:.0}", results.median(name, value));
        vec![name.to_owned(), share, quantile("p99"), quantile("p99.9")]
    });
    let share = 100.0 * results.median(Policy::Outcomes.name(), "share");
    let curves = results.names().flat_map(|name| results.curves(name));
    Report {
        header: vec!["load", "under 1 s", "p99", "p99.9"],
        rows: rows.collect(),
        verdicts: vec![
            Verdict::at_least("share under a second by outcomes, %", share, 99.93).with_floor(
                100.0 * results.median(Policy::Outcomes.name(), "at best"),
                "at best, as the first to be slow must be waited for",
            ),
        ],
        plots: vec![Plot {
            name: "buoyant",
            title: "One of eleven backends slow from 15 to 45 s: 99th percentile of each second",
            x: "s",
            y: "ms",
            log_y: true,
            curves: curves
                .map(|(name, points)| (name.clone(), points.clone()))
                .collect(),
        }],
    }
}

fn report_failing(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let success = format!("{:.2} %", 100.0 * results.median(name, "success"));
        vec![name.to_owned(), success]
    });
    let success = 100.0 * results.median(Policy::Outcomes.name(), "success");
    Report {
        header: vec!["load", "success"],
        rows: rows.collect(),
        verdicts: vec![Verdict::at_least("successes by outcomes, %", success, 97.0)],
        plots: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> (Buoyant, Failing) {
        let buoyant = toml::from_str(include_str!("../experiments/buoyant.toml"));
        let failing = toml::from_str(include_str!("../experiments/failing.toml"));
        (
            buoyant.expect("the file is valid"),
            failing.expect("the file is valid"),
        )
    }

    #[test]
    fn a_failing_endpoint_gets_next_to_nothing_by_outcomes_and_more_than_its_share_by_latency() {
        let (_, failing) = parameters();
        let success = |policy| run_failing(&failing, policy, 1).values["success"];
        assert!(success(Policy::Outcomes) > 0.97);
        assert!((success(Policy::RoundRobin) - 0.9).abs() < 0.001);
        assert!(success(Policy::PeakEwma) < 0.9);
    }

    #[test]
    fn at_best_only_those_are_slow_that_were_sent_before_it_could_be_known() {
        let (buoyant, _) = parameters();
        // 172 ms of 91 requests a second, of 60 000.
        assert!((at_best(&buoyant) - 0.999_739).abs() < 1e-6);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let (buoyant, failing) = parameters();
        let short = Buoyant {
            measured_s: 3.0,
            slow_from_s: 1.0,
            ..buoyant
        };
        let failing = Failing {
            measured_s: 2.0,
            ..failing
        };
        for policy in POLICIES {
            let trace = |seed| run_buoyant(&short, policy, seed).trace;
            assert_eq!(trace(1), trace(1), "{policy:?}");
            assert_ne!(trace(1), trace(2), "{policy:?}");
            let trace = |seed| run_failing(&failing, policy, seed).trace;
            assert_eq!(trace(1), trace(1), "{policy:?}");
            assert_ne!(trace(1), trace(2), "{policy:?}");
        }
    }
}
