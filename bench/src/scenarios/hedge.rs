// Second tries: how many there are, and whose answer counts.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::hedge::{Hedge, Policy};
use tower::util::service_fn;
use tower::{BoxError, Service, ServiceExt};

use super::best;
use super::fakes::Response;
use crate::harness::{Dice, MS, Outcome, SECOND, Scale, patiently, paused, percent};

/// Every request may be sent twice.
#[derive(Clone, Debug)]
pub struct Any;

impl Policy<u64> for Any {
    fn clone_request(&self, n: &u64) -> Option<u64> {
        Some(*n)
    }

    fn can_retry(&self, _: &u64) -> bool {
        true
    }
}

/// Draws a latency, in milliseconds.
type Draw = fn(&mut Dice) -> f64;

fn exponential(dice: &mut Dice) -> f64 {
    -100.0 * (1.0 - dice.next_f64()).ln()
}

/// One in twenty is slow.
fn bimodal(dice: &mut Dice) -> f64 {
    let slow = dice.next_f64() < 0.05;
    let (least, width) = if slow { (500.0, 1000.0) } else { (10.0, 90.0) };
    least + width * dice.next_f64()
}

#[derive(Clone)]
struct Random {
    draw: Draw,
    dice: Arc<Mutex<Dice>>,
    calls: Arc<AtomicU64>,
}

impl Random {
    fn new(draw: Draw) -> Self {
        let dice = Arc::new(Mutex::new(Dice(42)));
        let calls = Arc::default();
        Self { draw, dice, calls }
    }
}

impl Service<u64> for Random {
    type Response = u64;
    type Error = BoxError;
    type Future = Response;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, n: u64) -> Response {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let millis = (self.draw)(&mut self.dice.lock().unwrap());
        Box::pin(async move {
            sleep(Duration::from_secs_f64(millis / 1000.0)).await;
            Ok(n)
        })
    }
}

/// Makes `n` requests, evenly in `time`, and says which share of them was sent twice.
async fn extra<S>(service: &mut S, calls: &AtomicU64, n: u32, time: Duration) -> f64
where
    S: Service<u64, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    let before = calls.load(Ordering::Relaxed);
    for i in 0..n {
        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        tokio::spawn(service.call(u64::from(i)));
        sleep(time / n).await;
    }
    let sent = calls.load(Ordering::Relaxed) - before;
    sent as f64 / f64::from(n) - 1.0
}

const PERIOD: Duration = Duration::from_secs(100);

/// The extra load in the last half of a run.
fn steady_extra(draw: Draw, percentile: f32, scale: Scale) -> f64 {
    let periods = if scale == Scale::Quick { 20 } else { 100 };
    let inner = Random::new(draw);
    let calls = Arc::clone(&inner.calls);
    paused(async {
        let mut service = Hedge::new(inner, Any, 10, percentile, PERIOD);
        let mut shares = Vec::new();
        for _ in 0..periods {
            shares.push(extra(&mut service, &calls, 1000, PERIOD).await);
        }
        let late = &shares[periods / 2..];
        late.iter().sum::<f64>() / late.len() as f64
    })
}

pub fn extra_load(scale: Scale) -> Outcome {
    let tenth = steady_extra(exponential, 0.9, scale);
    let hundredth = steady_extra(bimodal, 0.99, scale);
    let said = format!(
        "{} at the 90th percentile of an exponential service, {} at the 99th of a bimodal one",
        percent(tenth),
        percent(hundredth)
    );
    let sound = (0.07..=0.12).contains(&tenth) && (0.007..=0.012).contains(&hundredth);
    Outcome::new(sound, said)
}

pub fn sudden_slowness(_: Scale) -> Outcome {
    let inner = Random::new(exponential);
    let calls = Arc::clone(&inner.calls);
    let share = paused(async {
        // It used to answer in a millisecond.
        let hedge = Hedge::new_with_mock_latencies(inner, Any, 1, 0.9, 10 * PERIOD, &[1]);
        let mut service = best::budgeted_hedge(hedge, 0.05);
        extra(&mut service, &calls, 1000, PERIOD).await
    });
    Outcome::new(share <= 0.0501, format!("{} more requests", percent(share)))
}

pub fn failing_second(_: Scale) -> Outcome {
    let tries = AtomicU64::new(0);
    let tries = Arc::new(tries);
    let service = service_fn(move |n: u64| -> Response {
        let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            if first {
                sleep(100 * MS).await;
                Ok(n)
            } else {
                Err("this replica is down".into())
            }
        })
    });
    paused(async {
        let hedge = Hedge::new_with_mock_latencies(service, Any, 1, 0.9, PERIOD, &[10]);
        let start = Instant::now();
        let answer = patiently(hedge.oneshot(1)).await.unwrap();
        let after = start.elapsed().as_millis();
        match answer {
            Ok(_) => Outcome::new(true, format!("the first try's answer, after {after} ms")),
            Err(error) => Outcome::new(false, format!("fails after {after} ms: `{error}`")),
        }
    })
}

pub fn layer(_: Scale) -> Outcome {
    let inner = Random::new(exponential);
    let calls = Arc::clone(&inner.calls);
    paused(async {
        let Some(mut service) = best::hedge_layer(inner, Any, 10, 0.9, PERIOD) else {
            return Outcome::missing("there is no layer");
        };
        extra(&mut service, &calls, 1000, PERIOD).await;
        sleep(SECOND).await;
        let share = extra(&mut service, &calls, 1000, PERIOD).await;
        let said = format!(
            "the layer's service hedges {} of the requests",
            percent(share)
        );
        Outcome::new((0.07..=0.13).contains(&share), said)
    })
}
