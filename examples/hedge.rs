//! Sends what is unusually slow a second time, and shows what that does to the tail.
//!
//! The clock is paused: tokio moves it to the next timer whenever nothing else is left to do. So a minute of
//! traffic passes in a second, and each run prints the same. (`start_paused` needs tokio's feature
//! `test-util`; a real client has a real clock.)
//!
//! ```sh
//! cargo run --example hedge
//! ```

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower::hedge::{HedgeLayer, Policy};
use tower::retry::budget::TpsBudget;
use tower::util::rng::{Rng, SplitMix64};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// How many requests are measured, one a millisecond.
const REQUESTS: u32 = 20_000;

/// How many are sent before, so that there are latencies to go by.
const WARM_UP: u32 = 2_000;

/// A replicated service. Most answers take 5 to 10 ms; one of fifty meets a replica that is busy with
/// something else, and takes up to a second.
#[derive(Clone, Debug)]
struct Replicas {
    rng: Arc<Mutex<SplitMix64>>,
    calls: Arc<AtomicUsize>,
}

impl Replicas {
    fn new(seed: u64) -> Self {
        Self {
            rng: Arc::new(Mutex::new(SplitMix64::new(seed))),
            calls: Arc::default(),
        }
    }

    async fn answer(self, n: u32) -> Result<u32, BoxError> {
        self.calls.fetch_add(1, Relaxed);
        let latency = self.draw_latency();
        sleep(latency).await;
        Ok(n)
    }

    fn draw_latency(&self) -> Duration {
        let mut rng = self.rng.lock().unwrap();
        let millis = if rng.next_range(0..50) == 0 {
            rng.next_range(100..1_000)
        } else {
            rng.next_range(5..10)
        };
        Duration::from_millis(millis)
    }
}

/// Says what may be sent twice: here everything. A real policy says no to what does harm if done twice.
#[derive(Clone, Debug)]
struct Everything;

impl<Req: Clone> Policy<Req> for Everything {
    fn clone_request(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Req) -> bool {
        true
    }
}

/// Hedges what takes longer than 95 % of the requests of the second before.
fn app(
    replicas: Replicas,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone {
    let hedge = HedgeLayer::new(Everything, 100, 0.95, Duration::from_secs(1))
        // When all replicas are slow, second tries don't help: at most one for ten requests.
        .with_budget(TpsBudget::new(Duration::from_secs(10), 1, 0.1));
    ServiceBuilder::new().layer(hedge).service(plain(replicas))
}

/// The same without hedging.
fn plain(
    replicas: Replicas,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone {
    service_fn(move |n| replicas.clone().answer(n))
}

/// How long requests took, and what that cost.
#[derive(Debug)]
struct Measured {
    p50: Duration,
    p99: Duration,
    p999: Duration,
    extra_percent: f64,
}

/// Sends a request a millisecond, and measures those after the warm-up.
async fn measure<S>(app: S, replicas: &Replicas) -> Measured
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone,
{
    send(&app, WARM_UP).await;
    let before = replicas.calls.load(Relaxed);
    let mut latencies = send(&app, REQUESTS).await;
    let calls = replicas.calls.load(Relaxed) - before;

    latencies.sort_unstable();
    let percentile = |share: f64| latencies[(share * latencies.len() as f64) as usize];
    Measured {
        p50: percentile(0.5),
        p99: percentile(0.99),
        p999: percentile(0.999),
        extra_percent: 100.0 * (calls as f64 / latencies.len() as f64 - 1.0),
    }
}

async fn send<S>(app: &S, requests: u32) -> Vec<Duration>
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone,
{
    let requests = (0..requests).map(|n| {
        let app = app.clone();
        async move {
            sleep(Duration::from_millis(n.into())).await;
            let start = Instant::now();
            app.oneshot(n).await.expect("the replicas always answer");
            start.elapsed()
        }
    });
    join_all(requests).await
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let replicas = Replicas::new(7);
    let without = measure(plain(replicas.clone()), &replicas).await;
    let replicas = Replicas::new(7);
    let with = measure(app(replicas.clone()), &replicas).await;

    println!("{REQUESTS} requests, one a millisecond, simulated:");
    println!("                      p50      p99    p99.9   extra load");
    for (name, measured) in [("without hedging", without), ("with hedging", with)] {
        let [p50, p99, p999] =
            [measured.p50, measured.p99, measured.p999].map(|latency| latency.as_millis());
        println!(
            "  {name:<16} {p50:>4} ms  {p99:>4} ms  {p999:>4} ms  {:>8.1} %",
            measured.extra_percent
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cuts_the_tail_for_a_few_requests_more() {
        let replicas = Replicas::new(7);
        let without = measure(plain(replicas.clone()), &replicas).await;
        assert!(without.p99 >= Duration::from_millis(300), "{without:?}");
        assert_eq!(without.extra_percent, 0.0);

        let replicas = Replicas::new(7);
        let with = measure(app(replicas.clone()), &replicas).await;
        assert!(with.p50 <= without.p50, "{with:?}");
        assert!(with.p99 <= Duration::from_millis(25), "{with:?}");
        assert!(with.p999 <= without.p999 / 4, "{with:?}");
        assert!((1.0..7.0).contains(&with.extra_percent), "{with:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn second_tries_are_bounded_where_all_replicas_are_slow() {
        // A policy that hedges half of the requests is held to a tenth.
        let replicas = Replicas::new(7);
        let eager = HedgeLayer::new(Everything, 100, 0.5, Duration::from_secs(1))
            .with_budget(TpsBudget::new(Duration::from_secs(10), 0, 0.1));
        let app = ServiceBuilder::new()
            .layer(eager)
            .service(plain(replicas.clone()));
        let Measured { extra_percent, .. } = measure(app, &replicas).await;
        assert!((5.0..=11.0).contains(&extra_percent), "{extra_percent}");
    }
}
