//! A request that waits for the slowest of a hundred: what a second try after a percentile is worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::join_all;
use serde::Deserialize;
use tower_hedge::{HedgeLayer, Policy};
use tower_layer::Layer;
use tower_retry::budget::TpsBudget;
use tower_rng::Rng;
use tower_service::Service;

use crate::chance::{Poisson, exponential, pareto, stream};
use crate::endpoint::Endpoint;
use crate::experiment::{Case, Experiment, Outcome, Plot, Report, Results, Verdict};
use crate::pooled::{oneshot, pool_of};
use crate::record::Record;
use crate::server::Work;
use crate::world::{SECOND, World, duration, millis, seconds};

/// The file `experiments/hedging.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hedging {
    pub(crate) fan_out: usize,
    pub(crate) servers: usize,
    pub(crate) rate: f64,
    pub(crate) base_ms: f64,
    pub(crate) more_ms: f64,
    pub(crate) tail_share: f64,
    pub(crate) tail_ms: f64,
    pub(crate) tail_shape: f64,
    pub(crate) cut_ms: f64,
    pub(crate) percentile: f32,
    pub(crate) period_s: f64,
    pub(crate) min_data_points: u64,
    pub(crate) budget: f32,
    pub(crate) warmup_s: f64,
    pub(crate) measured_s: f64,
}

const CASES: [(&str, bool); 2] = [("once", false), ("hedged", true)];

/// Everything may be sent twice.
#[derive(Clone, Debug)]
struct Always;

impl Policy<Work> for Always {
    fn clone_request(&self, request: &Work) -> Option<Work> {
        Some(*request)
    }

    fn can_retry(&self, _: &Work) -> bool {
        true
    }
}

pub(crate) fn experiment(parameters: &Hedging) -> Experiment {
    let cases = CASES.map(|(name, hedged)| {
        let parameters = parameters.clone();
        Case {
            name: name.to_owned(),
            run: Box::new(move |seed| run(&parameters, hedged, seed)),
        }
    });
    Experiment {
        name: "hedging",
        what: "fan-out of 100 over a pool of 100 heavy-tailed servers: latency in ms, and tries for each request",
        cases: cases.into(),
        report,
    }
}

pub(crate) fn run(p: &Hedging, hedged: bool, seed: u64) -> Outcome {
    let end = seconds(p.warmup_s + p.measured_s);
    let record = Record::new(seconds(p.warmup_s), end);
    let (asked, tried) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (_, world) = World::run(end + 6 * SECOND, |world| {
        let servers = (0..p.servers).map(|index| server(p, world, seed, index, &tried));
        let (tell, pool) = pool_of(servers.collect(), seed);
        let pool = pool
            .without_ejection()
            .spawn::<Work>()
            .expect("there is a runtime");
        if hedged {
            let period = duration(seconds(p.period_s));
            let layer = HedgeLayer::new(Always, p.min_data_points, p.percentile, period)
                .with_budget(TpsBudget::new(duration(10 * SECOND), 1, p.budget));
            offer(p, world, layer.layer(pool), seed, &record, &asked);
        } else {
            offer(p, world, pool, seed, &record, &asked);
        }
        tell
    });
    let latencies = record.latencies();
    let tries = tried.load(Relaxed) as f64 / asked.load(Relaxed).max(1) as f64;
    let curve = [0.5, 0.9, 0.95, 0.99, 0.995, 0.999]
        .map(|share: f64| (-(1.0 - share).log10(), latencies.quantile_ms(share)));
    Outcome {
        values: [
            ("p50", latencies.quantile_ms(0.5)),
            ("p99", latencies.quantile_ms(0.99)),
            ("p99.9", latencies.quantile_ms(0.999)),
            ("tries", tries),
            ("errors", latencies.failed()),
        ]
        .into(),
        curves: [(
            if hedged { "hedged" } else { "once" }.to_owned(),
            curve.into(),
        )]
        .into(),
        trace: world.trace(),
    }
}

fn server(p: &Hedging, world: &World, seed: u64, index: usize, tried: &Arc<AtomicU64>) -> Endpoint {
    let (p, tried) = (p.clone(), Arc::clone(tried));
    let mut rng = stream(seed, 100 + index as u64);
    Endpoint::new(world, move |_| {
        tried.fetch_add(1, Relaxed);
        let ms = if rng.next_f64() < p.tail_share {
            pareto(&mut rng, p.tail_ms, p.tail_shape).min(p.cut_ms)
        } else {
            p.base_ms + exponential(&mut rng, p.more_ms)
        };
        (millis(ms), Ok(()))
    })
}

fn offer<S>(
    p: &Hedging,
    world: &World,
    service: S,
    seed: u64,
    record: &Record,
    asked: &Arc<AtomicU64>,
) where
    S: Service<Work, Response = (), Future: Send, Error: Send> + Clone + Send + 'static,
{
    let end = seconds(p.warmup_s + p.measured_s);
    let arrivals = Poisson::new(stream(seed, 1), p.rate).take_while(move |&at| at < end);
    let (fan_out, record, asked, world) =
        (p.fan_out, record.clone(), Arc::clone(asked), world.clone());
    world.clone().spawn(async move {
        for at in arrivals {
            world.sleep_until(at).await;
            asked.fetch_add(fan_out as u64, Relaxed);
            let tries = (0..fan_out).map(|_| oneshot(service.clone(), Work(0.0)));
            let (all, record, inner) = (join_all(tries), record.clone(), world.clone());
            world.spawn(async move {
                let succeeded = all.await.iter().all(Result::is_ok);
                record.end(&inner, at, succeeded);
            });
        }
    });
}

fn report(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let value = |value| format!("{:.0}", results.median(name, value));
        let tries = format!("{:.4}", results.median(name, "tries"));
        vec![
            name.to_owned(),
            value("p50"),
            value("p99"),
            value("p99.9"),
            tries,
        ]
    });
    let cut = results.median("once", "p99.9") / results.median("hedged", "p99.9");
    let more = 100.0 * (results.max("hedged", "tries") - 1.0);
    let curves = results.names().flat_map(|name| results.curves(name));
    Report {
        header: vec!["", "p50", "p99", "p99.9", "tries"],
        rows: rows.collect(),
        verdicts: vec![
            Verdict::at_least("p99.9 cut by a factor of", cut, 5.0),
            Verdict::at_most("more load, of any seed, %", more, 3.0),
        ],
        plots: vec![Plot {
            name: "hedging",
            title: "The slowest of a hundred answers, by percentile",
            x: "nines",
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
    fn a_second_try_cuts_the_tail_for_little_load_and_replays() {
        let p: Hedging =
            toml::from_str(include_str!("../experiments/hedging.toml")).expect("the file is valid");
        let p = Hedging {
            measured_s: 5.0,
            ..p
        };
        let (once, hedged) = (run(&p, false, 1), run(&p, true, 1));
        assert!(hedged.values["p99"] < 0.5 * once.values["p99"]);
        assert!(hedged.values["tries"] < 1.03);
        assert_eq!(hedged.values["errors"], 0.0);
        assert_eq!(run(&p, true, 1), hedged);
    }
}
