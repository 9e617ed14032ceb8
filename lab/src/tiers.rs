//! Three tiers under overload: what is done for callers that have given up.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_deadline::{Carry, Deadline, DeadlineLayer};
use tower_layer::Layer;
use tower_limit::concurrency::ConcurrencyLimit;
use tower_service::Service;
use tower_timeout::TimeoutLayer;

use crate::chance::{Poisson, stream};
use crate::experiment::{Case, Experiment, Outcome, Report, Results, Verdict};
use crate::record::Record;
use crate::server::{Server, Work};
use crate::world::{Nanos, SECOND, World, duration, millis, seconds};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The file `experiments/tiers.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiers {
    pub(crate) overload: f64,
    pub(crate) deadline_ms: f64,
    pub(crate) network_ms: f64,
    pub(crate) tier_work_ms: f64,
    pub(crate) work_ms: f64,
    pub(crate) workers: usize,
    pub(crate) measured_s: f64,
}

/// A request on the wire.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// When its first caller gives up: for the laboratory to know, not for the tiers.
    given_up_at: Nanos,
    /// What it carries, if deadlines are honoured.
    left: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct LeftField;

impl Carry<Call> for LeftField {
    fn read(&self, call: &Call, now: Instant) -> Option<Deadline> {
        now.checked_add(call.left?).map(Deadline::at)
    }

    fn write(&self, call: &mut Call, deadline: Deadline, now: Instant) {
        call.left = Some(deadline.remaining_at(now));
    }
}

/// What was begun, and of that what was begun too late.
#[derive(Clone, Debug, Default)]
struct Begun {
    all: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
}

/// The next tier, some time away: it doesn't learn that its caller has gone.
#[derive(Clone)]
struct Hop<S> {
    world: World,
    one_way: Nanos,
    next: S,
}

/// Does some work, and then asks the next tier.
#[derive(Clone)]
struct Tier<S> {
    worker: Worker,
    next: S,
}

/// Works, with its processors.
#[derive(Clone)]
struct Worker {
    world: World,
    server: Server,
    work: f64,
    begun: Begun,
}

/// Waits until the service inside is ready within the response's future, where the deadline reaches it.
#[derive(Clone)]
struct Waiting<S>(S);

const CASES: [(&str, bool); 2] = [("timeouts", false), ("deadlines", true)];

pub(crate) fn experiment(parameters: &Tiers) -> Experiment {
    let cases = CASES.map(|(name, honoured)| {
        let parameters = parameters.clone();
        Case {
            name: name.to_owned(),
            run: Box::new(move |seed| run(&parameters, honoured, seed)),
        }
    });
    Experiment {
        name: "tiers",
        what: "three tiers, the last at 1.5 × of what it can do, callers that give up after 100 ms",
        cases: cases.into(),
        report,
    }
}

fn run(p: &Tiers, honoured: bool, seed: u64) -> Outcome {
    let end = seconds(p.measured_s);
    let record = Record::new(2 * SECOND, end);
    let begun = Begun::default();
    let ((), world) = World::run(end + 5 * SECOND, |world| {
        let worker = |processors: usize, work_ms: f64| Worker {
            world: world.clone(),
            server: Server::new(world, processors as f64),
            work: work_ms * 1e6,
            begun: begun.clone(),
        };
        let plenty = 4 * p.workers;
        if honoured {
            // At each tier the deadline comes in with the request, and goes out with what it asks for. The last one
            // looks again once the request has had its turn, as it may have waited long.
            let (edge, out) = (
                DeadlineLayer::new().with_carry(LeftField),
                DeadlineLayer::new().with_carry(LeftField),
            );
            let min_time = |ms| DeadlineLayer::new().with_min_time(duration(millis(ms)));
            let last = min_time(p.work_ms).layer(worker(p.workers, p.work_ms));
            let last = edge.layer(Waiting(ConcurrencyLimit::new(last, p.workers)));
            let next = out.layer(Hop::new(world, p, last));
            let middle = edge.layer(Tier {
                worker: worker(plenty, p.tier_work_ms),
                next,
            });
            let next = out.layer(Hop::new(world, p, middle));
            let first = edge.layer(Tier {
                worker: worker(plenty, p.tier_work_ms),
                next,
            });
            offer(p, world, Hop::new(world, p, first), true, seed, &record);
        } else {
            let last = Waiting(ConcurrencyLimit::new(
                worker(p.workers, p.work_ms),
                p.workers,
            ));
            let middle = Tier {
                worker: worker(plenty, p.tier_work_ms),
                next: Hop::new(world, p, last),
            };
            let first = Tier {
                worker: worker(plenty, p.tier_work_ms),
                next: Hop::new(world, p, middle),
            };
            offer(p, world, Hop::new(world, p, first), false, seed, &record);
        }
    });
    Outcome {
        values: [
            ("late", begun.late.load(Relaxed) as f64),
            (
                "share late",
                begun.late.load(Relaxed) as f64 / begun.all.load(Relaxed).max(1) as f64,
            ),
            ("success", 1.0 - record.latencies().failed()),
        ]
        .into(),
        curves: [].into(),
        trace: world.trace(),
    }
}

fn offer<S>(p: &Tiers, world: &World, tiers: S, honoured: bool, seed: u64, record: &Record)
where
    S: Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let (end, patience) = (seconds(p.measured_s), millis(p.deadline_ms));
    let rate = p.overload * p.workers as f64 * 1e3 / p.work_ms;
    let arrivals = Poisson::new(stream(seed, 1), rate).take_while(move |&at| at < end);
    let client = TimeoutLayer::new(duration(patience)).layer(tiers);
    let (world, record) = (world.clone(), record.clone());
    world.clone().spawn(async move {
        for at in arrivals {
            world.sleep_until(at).await;
            let call = Call {
                given_up_at: at + patience,
                left: honoured.then(|| duration(patience)),
            };
            let mut client = client.clone();
            let (record, inner) = (record.clone(), world.clone());
            world.spawn(async move {
                let succeeded = client.call(call).await.is_ok();
                record.end(&inner, at, succeeded);
            });
        }
    });
}

impl<S> Hop<S> {
    fn new(world: &World, p: &Tiers, next: S) -> Self {
        Self {
            world: world.clone(),
            one_way: millis(p.network_ms),
            next,
        }
    }
}

impl<S> Service<Call> for Hop<S>
where
    S: Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        let (world, one_way, mut next) = (self.world.clone(), self.one_way, self.next.clone());
        self.world.spawn(async move {
            world.sleep(one_way).await;
            let result = match poll_fn(|cx| next.poll_ready(cx)).await {
                Ok(()) => next.call(call).await,
                Err(error) => Err(error),
            };
            world.sleep(one_way).await;
            // Whoever asked may have gone.
            let _ = answer.send(result);
        });
        Box::pin(async move { answered.await.unwrap_or_else(|gone| Err(gone.into())) })
    }
}

impl<S> Service<Call> for Tier<S>
where
    S: Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (work, mut next) = (self.worker.call(call), self.next.clone());
        Box::pin(async move {
            work.await?;
            poll_fn(|cx| next.poll_ready(cx)).await?;
            next.call(call).await
        })
    }
}

impl Service<Call> for Worker {
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        self.begun.all.fetch_add(1, Relaxed);
        if self.world.now() >= call.given_up_at {
            self.begun.late.fetch_add(1, Relaxed);
        }
        let response = self.server.call(Work(self.work));
        Box::pin(async move { response.await.map_err(Into::into) })
    }
}

impl<S> Service<Call> for Waiting<S>
where
    S: Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let mut inner = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| inner.poll_ready(cx)).await?;
            inner.call(call).await
        })
    }
}

fn report(results: &Results) -> Report {
    let rows = results.names().map(|name| {
        let percent = |value| format!("{:.2} %", 100.0 * results.median(name, value));
        let late = format!("{:.0}", results.max(name, "late"));
        vec![
            name.to_owned(),
            late,
            percent("share late"),
            percent("success"),
        ]
    });
    Report {
        header: vec![
            "",
            "work begun too late",
            "of all",
            "requests answered in time",
        ],
        rows: rows.collect(),
        verdicts: vec![Verdict::at_most(
            "work begun after its caller gave up, of any seed",
            results.max("deadlines", "late"),
            0.0,
        )],
        plots: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_deadlines_spare_work() {
        let p: Tiers =
            toml::from_str(include_str!("../experiments/tiers.toml")).expect("the file is valid");
        let p = Tiers {
            measured_s: 2.5,
            ..p
        };
        for (name, honoured) in CASES {
            assert_eq!(run(&p, honoured, 1), run(&p, honoured, 1), "{name}");
            let trace = |seed| run(&p, honoured, seed).trace;
            assert_ne!(trace(1), trace(2), "{name}");
        }
        assert!(run(&p, false, 1).values["late"] > 0.0);
        assert_eq!(run(&p, true, 1).values["late"], 0.0);
    }
}
