// Limits of how many requests are in flight, and of how many start in a period.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::limit::RateLimit;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::best;
use super::fakes::{Echo, Slow, Stuck};
use crate::harness::{MS, Outcome, SECOND, Scale, chain, implements, patiently, paused, poll_once};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn starved(_: Scale) -> Outcome {
    paused(async {
        let semaphore = Arc::new(Semaphore::new(1));
        let mut stuck = best::limit_with_semaphore(Stuck, Arc::clone(&semaphore));
        assert!(poll_once(stuck.ready()).is_pending());
        let sound = best::limit_with_semaphore(Echo, semaphore);
        match patiently(sound.oneshot(1)).await {
            Some(_) => Outcome::new(true, "the other service is served at once"),
            None => Outcome::new(false, "the other service still waits after an hour"),
        }
    })
}

pub fn reject(_: Scale) -> Outcome {
    paused(async {
        let at_once = second_request(best::rejecting_limit(Slow::new(DAY), 1)).await;
        let bounded = second_request(best::patient_limit(Slow::new(DAY), 1, 100 * MS)).await;
        match (at_once, bounded) {
            (None, None) => Outcome::new(false, "the second request still waits after an hour"),
            (Some((at_once, error)), Some((bounded, _))) => Outcome::new(
                at_once.is_zero() && (100 * MS..=101 * MS).contains(&bounded),
                format!("it fails at once (`{error}`), or after the longest wait of 100 ms"),
            ),
            _ => Outcome::new(false, "one of the options waits for ever"),
        }
    })
}

/// How long a request over the limit waits, and how it fails.
async fn second_request<S>(service: S) -> Option<(Duration, String)>
where
    S: Service<u64, Error = BoxError> + Clone,
{
    let mut first = service.clone();
    let _ = first.ready().await;
    let _in_flight = first.call(1);
    let start = Instant::now();
    let error = patiently(service.oneshot(2)).await?.err()?;
    Some((start.elapsed(), chain(&*error)))
}

pub fn shared_rate(_: Scale) -> Outcome {
    let layer = best::shared_rate_limit_layer(5, SECOND);
    let started = paused(async {
        let connections = (0..10).map(|_| layer.layer(Echo));
        connections
            .map(|mut connection| {
                let mut started = 0;
                while poll_once(connection.ready()).is_ready() {
                    drop(connection.call(1));
                    started += 1;
                }
                started
            })
            .sum::<u32>()
    });
    let clone = implements!(RateLimit<Echo>: Clone);
    let said = format!(
        "`Clone`: {}; 10 connections at a limit of 5 a second start {started} at once",
        if clone { "yes" } else { "no" }
    );
    Outcome::new(clone && started == 5, said)
}

pub fn window_edge(_: Scale) -> Outcome {
    paused(async {
        let mut service = best::smooth_rate_limit(Echo, 100, SECOND);
        let start = Instant::now();
        let mut starts = Vec::new();
        let mut call = async |service: &mut RateLimit<Echo>| {
            service.ready().await.unwrap().call(1).await.unwrap();
            starts.push(start.elapsed());
        };
        // The first opens a window, and all others come about its end.
        call(&mut service).await;
        sleep_until(start + 995 * MS).await;
        let burst = async {
            loop {
                call(&mut service).await;
            }
        };
        timeout_at(start + 1005 * MS, burst).await.unwrap_err();
        let burst = starts.iter().filter(|at| **at >= 995 * MS).count();
        let of_a_second = |from: &Duration| {
            let second = *from..*from + SECOND;
            starts.iter().filter(|at| second.contains(at)).count()
        };
        let most = starts.iter().map(of_a_second).max().unwrap();
        let said = format!("{burst} requests start within 10 ms, {most} within a second");
        Outcome::new(most == 100, said)
    })
}
