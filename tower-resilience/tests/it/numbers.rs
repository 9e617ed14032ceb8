//! What the parts tell the `metrics` facade.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use tokio::runtime::Builder;
use tower_balance::pool::Pool;
use tower_discover::Change;

use super::*;

/// Keeps every series in a map, by its name and labels.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, f64>>>);

struct Series(Kept, String);

impl Kept {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Series(self.clone(), name))
    }

    fn get(&self, name: &str) -> f64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0.0)
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value as f64;
    }

    fn absolute(&self, value: u64) {
        self.0
            .0
            .lock()
            .unwrap()
            .insert(self.1.clone(), value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }

    fn decrement(&self, value: f64) {
        GaugeFn::increment(self, -value);
    }

    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

/// Runs a scenario on paused time, and gives what it told.
fn kept<F: Future<Output = ()>>(scenario: impl FnOnce(Kept) -> F) -> Kept {
    let kept = Kept::default();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&kept, || {
        runtime.block_on(scenario(kept.clone()));
        drop(runtime);
    });
    kept
}

#[derive(Clone)]
struct Failing;

impl Service<u32> for Failing {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Err("out of order".into()))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to what fails, but not to zero.
struct Connect;

impl Service<u32> for Connect {
    type Response = Failing;
    type Error = BoxError;
    type Future = Ready<Result<Failing, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: u32) -> Self::Future {
        ready(match target {
            0 => Err("refused".into()),
            _ => Ok(Failing),
        })
    }
}

#[test]
fn a_pool_tells_its_endpoints_and_why_requests_failed_and_is_zero_when_it_ends() {
    let kept = kept(|kept| async move {
        let changes = [0, 1].map(|n: u32| Ok::<_, Infallible>(Change::Insert(n, n)));
        let discover = futures_util::StreamExt::chain(
            futures_util::stream::iter(changes),
            futures_util::stream::pending(),
        );
        let pool = Pool::builder(discover, Connect)
            .with_name("users")
            .with_backoff(SECOND * 60, SECOND * 60)
            .spawn::<u32>()
            .unwrap();
        tokio::time::sleep(MS).await;
        assert_eq!(
            kept.get("tower_pool_endpoints{pool=users,state=ready}"),
            1.0
        );
        assert_eq!(
            kept.get("tower_pool_endpoints{pool=users,state=failing}"),
            1.0
        );
        let mut client = pool.clone();
        for _ in 0..5 {
            let _ = call(&mut client).await;
        }
        tokio::time::sleep(MS).await;
        assert_eq!(kept.get("tower_pool_ejections_total{pool=users}"), 1.0);
        assert_eq!(
            kept.get("tower_pool_endpoint_failures_total{pool=users}"),
            1.0
        );
        // A recorder forgets what isn't set for long; a pool that lives says so.
        kept.0.lock().unwrap().clear();
        tokio::time::sleep(SECOND * 11).await;
        assert_eq!(
            kept.get("tower_pool_endpoints{pool=users,state=failing}"),
            1.0
        );
        drop((pool, client));
        tokio::time::sleep(MS).await;
    });
    let left = kept.0.lock().unwrap();
    let endpoints = left
        .iter()
        .filter(|(name, _)| name.starts_with("tower_pool_endpoints"));
    assert!(endpoints.clone().count() == 6 && endpoints.clone().all(|(_, count)| *count == 0.0));
}

#[test]
fn retries_breakers_limits_and_deadlines_tell_what_they_did() {
    let kept = kept(|_| async {
        let mut service = resilient(EveryErrorIsRetryable).layer(Failing);
        assert!(call(&mut service).await.is_err());
        let mut broken =
            BreakerLayer::new(Settings::default().with_faults_in_a_row(1)).layer(Failing);
        assert!(call(&mut broken).await.is_err());
        assert!(call(&mut broken).await.is_err());
        let mut full = BulkheadLayer::new(0).layer(Failing);
        assert!(full.call(1).await.is_err());
        let past = Deadline::after(Duration::ZERO);
        let _ = past.within(past.enter(|| service.call(1))).await;
    });
    assert_eq!(kept.get("tower_retry_retries_total{}"), 2.0);
    assert_eq!(kept.get("tower_retry_given_up_total{reason=tries}"), 1.0);
    assert_eq!(
        kept.get("tower_bulkhead_refused_total{reason=at_capacity}"),
        1.0
    );
    assert_eq!(kept.get("tower_breaker_changes_total{to=shut}"), 1.0);
    assert_eq!(kept.get("tower_breaker_refused_total{reason=shut}"), 1.0);
    assert_eq!(
        kept.get("tower_deadline_expired_total{when=before_work}"),
        1.0
    );
}

/// The series that a text names: what is quoted and begins with `tower_`.
fn series(text: &str, quote: char) -> impl Iterator<Item = String> {
    let names = text.split(quote).skip(1).step_by(2);
    names
        .filter(|name| name.starts_with("tower_") && name.len() > "tower_".len())
        .map(str::to_owned)
}

#[test]
fn the_guide_has_all_series_and_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = fs::read_to_string(root.join("tower/src/guide/resilience.md")).unwrap();
    let rows = guide.lines().filter(|line| line.starts_with("| `tower_"));
    let documented: BTreeSet<_> = rows.flat_map(|row| series(row, '`').next()).collect();

    let parts = [
        "balance", "breaker", "close", "deadline", "hedge", "limit", "load", "retry",
    ];
    let mut told = BTreeSet::new();
    let mut folders: Vec<_> = parts
        .iter()
        .map(|part| root.join(format!("tower-{part}/src")))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            for call in [
                "metrics::counter!(",
                "metrics::gauge!(",
                "metrics::histogram!(",
            ] {
                let calls = source.split(call).skip(1);
                told.extend(calls.flat_map(|call| series(call, '"').next()));
            }
        }
    }
    assert!(told.len() > 10, "{told:?}");
    assert_eq!(documented, told);
}
