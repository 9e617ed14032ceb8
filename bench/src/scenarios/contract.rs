// What becomes of a call that nobody reserved, and of services that are made outside of a runtime.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::limit::rate::Rate;
use tower::limit::{ConcurrencyLimit, RateLimit};
use tower::load::Constant;
use tower::reconnect::Reconnect;
use tower::spawn_ready::SpawnReady;
use tower::steer::Steer;
use tower::timeout::Timeout;
use tower::util::{FutureService, service_fn};
use tower::{BoxError, Service, ServiceExt};

use super::fakes::{Echo, Stuck};
use crate::harness::{Outcome, SECOND, Scale, caught, patiently, paused, poll_once, poll_pinned};

/// What was seen of each of several middlewares.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, Vec<&'static str>>);

const PANICS: &str = "panics";

impl Seen {
    /// Notes what a middleware does, as `play` says, unless it panics.
    fn play(&mut self, middleware: &'static str, play: impl FnOnce() -> &'static str) {
        let does = caught(play).unwrap_or(PANICS);
        self.0.entry(does).or_default().push(middleware);
    }

    fn outcome(self, may_panic: &[&str]) -> Outcome {
        let sound = self.0.get(PANICS).is_none_or(|names| names == may_panic);
        let said = self
            .0
            .iter()
            .map(|(does, names)| format!("{does}: {}", names.join(", ")));
        Outcome::new(sound, said.collect::<Vec<_>>().join("; "))
    }
}

pub fn call_without_readiness(_: Scale) -> Outcome {
    let mut seen = Seen::default();
    seen.play("`ConcurrencyLimit`", || paused(concurrency_limit()));
    seen.play("`RateLimit`", || paused(rate_limit()));
    seen.play("`Balance`", || paused(balance()));
    seen.play("`Buffer`", || paused(buffer()));
    seen.play("`Reconnect`", || paused(reconnect()));
    seen.play("`SpawnReady`", || paused(spawn_ready()));
    seen.play("`Steer`", || paused(steer()));
    seen.play("`FutureService`", || paused(future_service()));
    // It has no service to call yet, and no future of its own to fail with.
    seen.outcome(&["`FutureService`"])
}

async fn concurrency_limit() -> &'static str {
    let mut first = ConcurrencyLimit::new(Echo, 1);
    let mut second = first.clone();
    first.ready().await.unwrap();
    let in_flight = first.call(1);
    let mut response = pin!(second.call(2));
    assert!(poll_pinned(response.as_mut()).is_pending());
    drop(in_flight);
    assert_eq!(patiently(response).await.unwrap().unwrap(), 2);
    "waits"
}

async fn rate_limit() -> &'static str {
    let mut service = RateLimit::new(Echo, Rate::new(1, SECOND));
    let start = Instant::now();
    for n in 0..3 {
        assert_eq!(service.call(n).await.unwrap(), n);
    }
    service.ready().await.unwrap();
    assert!(start.elapsed() >= 3 * SECOND);
    "forwards, and repays"
}

async fn balance() -> &'static str {
    let endpoints = ServiceList::new::<u64>([Constant::new(Stuck, 1)]);
    fails(Balance::new(endpoints).call(1).await)
}

async fn buffer() -> &'static str {
    let mut first = Buffer::new(Stuck, 1);
    let mut second = first.clone();
    first.ready().await.unwrap();
    fails(second.call(1).await)
}

async fn reconnect() -> &'static str {
    let connect = service_fn(|()| ready(Ok::<_, BoxError>(Echo)));
    fails(Reconnect::new(connect, ()).call(1).await)
}

async fn spawn_ready() -> &'static str {
    let mut service = SpawnReady::new(Stuck);
    assert!(poll_once(ServiceExt::<u64>::ready(&mut service)).is_pending());
    fails(service.call(1).await)
}

async fn steer() -> &'static str {
    let limited = || RateLimit::new(Echo, Rate::new(1, SECOND));
    let mut service = Steer::new([limited(), limited()], |_: &u64, _: &[_]| 0);
    let start = Instant::now();
    assert_eq!(service.call(1).await.unwrap(), 1);
    service.ready().await.unwrap();
    assert!(start.elapsed() >= SECOND);
    "forwards, and repays"
}

async fn future_service() -> &'static str {
    let mut service = FutureService::new(pending::<Result<Echo, BoxError>>());
    fails(service.call(1).await)
}

fn fails<T>(result: Result<T, BoxError>) -> &'static str {
    match result {
        Ok(_) => "forwards",
        Err(_) => "fails with an error",
    }
}

pub fn outside_of_a_runtime(_: Scale) -> Outcome {
    let mut seen = Seen::default();
    seen.play("`Timeout`", || {
        let response = poll_once(Timeout::new(Echo, SECOND).call(1));
        assert!(matches!(response, Poll::Ready(Ok(1))));
        "works"
    });
    seen.play("`RateLimit`", || {
        let mut service = RateLimit::new(Echo, Rate::new(1, SECOND));
        assert!(poll_once(service.ready()).is_ready());
        assert!(matches!(poll_once(service.call(1)), Poll::Ready(Ok(1))));
        "works"
    });
    seen.play("`Buffer`", || {
        let mut service = Buffer::new(Echo, 1);
        match poll_once(ServiceExt::<u64>::ready(&mut service)) {
            Poll::Ready(result) => fails(result),
            Poll::Pending => "waits",
        }
    });
    seen.outcome(&[])
}
