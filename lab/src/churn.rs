//! A pool that nobody uses, while ten thousand endpoints come and go.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::Deserialize;
use tower_balance::pool::Pool;
use tower_discover::Change;

use crate::experiment::{Case, Experiment, Outcome, Report, Results, Verdict};
use crate::machine::{Connect, Machine};
use crate::pooled::discovery;
use crate::server::Work;
use crate::world::{MILLI, World, millis, seconds};

/// The file `experiments/churn.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Churn {
    pub(crate) endpoints: usize,
    pub(crate) arrive_s: f64,
    pub(crate) replaced_per_s: f64,
    pub(crate) churn_s: f64,
    pub(crate) settle_s: f64,
    pub(crate) connect_ms: f64,
}

pub(crate) fn experiment(parameters: &Churn) -> Experiment {
    let parameters = parameters.clone();
    Experiment {
        name: "churn",
        what: "a pool without a request in flight, 10 000 endpoints, 5000 replaced a second",
        cases: vec![Case {
            name: "idle".to_owned(),
            run: Box::new(move |seed| run(&parameters, seed)),
        }],
        report,
    }
}

fn run(p: &Churn, seed: u64) -> Outcome {
    let (arrive, churn) = (seconds(p.arrive_s), seconds(p.churn_s));
    let until = arrive + churn + seconds(p.settle_s);
    let ((pool, machine, most, left), world) = World::run(until, |world| {
        let machine = Machine::new(world, 1.0);
        let connect = Connect {
            machines: Arc::new(vec![machine.clone()]),
            takes: millis(p.connect_ms),
        };
        let (tell, found) = discovery(0);
        let pool = Pool::builder(found, connect)
            .with_seed(seed)
            .spawn::<Work>()
            .expect("there is a runtime");
        let most = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(0));
        let (p, inner, seen, waiting) = (
            p.clone(),
            world.clone(),
            Arc::clone(&most),
            Arc::clone(&left),
        );
        let watched = machine.clone();
        world.spawn(async move {
            // Every millisecond a batch.
            let steps = |per_step: f64, step: u64| {
                ((step + 1) as f64 * per_step) as usize - (step as f64 * per_step) as usize
            };
            let mut next = 0;
            let arriving = p.endpoints as f64 / (arrive / MILLI) as f64;
            for step in 0..(arrive + churn) / MILLI {
                inner.sleep_until(step * MILLI).await;
                let is_arriving = step < arrive / MILLI;
                let per_step = if is_arriving {
                    arriving
                } else {
                    p.replaced_per_s / 1e3
                };
                for _ in 0..steps(per_step, step) {
                    // The key is new, the target always the same machine.
                    let _ = tell.send(Ok(Change::Insert(next, 0))).await;
                    if !is_arriving {
                        let _ = tell.send(Ok(Change::Remove(next - p.endpoints))).await;
                    }
                    next += 1;
                }
                let connections = watched.connections();
                inner.note(connections as u64);
                seen.fetch_max(connections, Relaxed);
            }
            inner.sleep(seconds(p.settle_s) / 2).await;
            waiting.store(tell.max_capacity() - tell.capacity(), Relaxed);
            // Discovery goes on, and has nothing to tell.
            pending::<()>().await;
            drop(tell);
        });
        (pool, machine, most, left)
    });
    let census = pool.census();
    world.note(census.ready as u64);
    Outcome {
        values: [
            ("wanted", p.endpoints as f64),
            ("known", census.known() as f64),
            ("ready", census.ready as f64),
            ("unread", left.load(Relaxed) as f64),
            ("connections", most.load(Relaxed) as f64),
            ("now", machine.connections() as f64),
        ]
        .into(),
        curves: [].into(),
        trace: world.trace(),
    }
}

fn report(results: &Results) -> Report {
    let value = |value| results.median("idle", value);
    let row = ["known", "ready", "connections"].map(|name| format!("{:.0}", value(name)));
    Report {
        header: vec!["known at the end", "ready", "most connections at once"],
        rows: vec![row.into()],
        verdicts: vec![
            Verdict::at_least(
                "endpoints known and ready",
                value("known").min(value("ready")),
                value("wanted"),
            ),
            Verdict::at_most(
                "changes that weren't consumed",
                results.max("idle", "unread"),
                0.0,
            ),
            Verdict::at_most(
                "connections at once, of any seed",
                results.max("idle", "connections"),
                // A few of the old ones, while they are closed.
                1.02 * value("wanted"),
            ),
        ],
        plots: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_nothing_is_left_out() {
        let p: Churn =
            toml::from_str(include_str!("../experiments/churn.toml")).expect("the file is valid");
        let p = Churn {
            endpoints: 1000,
            replaced_per_s: 500.0,
            ..p
        };
        let first = run(&p, 1);
        assert_eq!(run(&p, 1), first);
        assert_eq!(first.values["ready"], 1000.0);
        assert_eq!(first.values["unread"], 0.0);
    }
}
