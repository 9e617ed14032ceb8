// The services that the scenarios are played over.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower::{BoxError, Service};

/// Ready at once, and answers at once.
#[derive(Clone, Debug)]
pub struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, n: u64) -> Self::Future {
        ready(Ok(n))
    }
}

/// Never ready.
#[derive(Clone, Debug)]
pub struct Stuck;

impl Service<u64> for Stuck {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, n: u64) -> Self::Future {
        ready(Ok(n))
    }
}

pub type Response = Pin<Box<dyn Future<Output = Result<u64, BoxError>> + Send>>;

/// Ready at once, and takes its time to answer.
#[derive(Clone, Debug)]
pub struct Slow {
    pub latency: Duration,
    pub flights: Flights,
}

/// How many requests are in flight, and were at most.
#[derive(Clone, Debug, Default)]
pub struct Flights {
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

/// A request in flight.
struct Flight(Flights);

impl Slow {
    pub fn new(latency: Duration) -> Self {
        let flights = Flights::default();
        Self { latency, flights }
    }
}

impl Service<u64> for Slow {
    type Response = u64;
    type Error = BoxError;
    type Future = Response;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, n: u64) -> Response {
        let flight = self.flights.start();
        let latency = self.latency;
        Box::pin(async move {
            sleep(latency).await;
            drop(flight);
            Ok(n)
        })
    }
}

impl Flights {
    fn start(&self) -> Flight {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Flight(self.clone())
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ready after a time, and takes a time to answer.
#[derive(Debug)]
pub struct Warming {
    ready: Pin<Box<Sleep>>,
    slow: Slow,
}

impl Warming {
    pub fn new(readiness: Duration, latency: Duration) -> Self {
        Self {
            ready: Box::pin(sleep_until(Instant::now() + readiness)),
            slow: Slow::new(latency),
        }
    }
}

impl Service<u64> for Warming {
    type Response = u64;
    type Error = BoxError;
    type Future = Response;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, n: u64) -> Response {
        self.slow.call(n)
    }
}
