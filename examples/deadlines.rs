//! A deadline across two hops: each knows how much time its caller has left, and doesn't begin what can't be done.
//!
//! A gateway gets requests with a timeout, as a protocol would carry it, and asks a backend. It keeps some time to
//! answer in; the backend refuses what it can't do in the time that is left, and what is overtaken is dropped.
//!
//! ```sh
//! cargo run --example deadlines
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::deadline::{Carry, Deadline, DeadlineLayer, Expired};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

/// A request as it goes over the wire: the time that is left travels with it, as in `grpc-timeout`.
#[derive(Clone, Debug)]
struct Request {
    timeout: Option<Duration>,
    /// How long the gateway itself works before it asks the backend.
    preparation: Duration,
}

/// Reads the timeout where a request comes in, and writes it where it goes out.
#[derive(Clone, Copy)]
struct Timeout;

impl Carry<Request> for Timeout {
    fn read(&self, request: &Request, now: Instant) -> Option<Deadline> {
        now.checked_add(request.timeout?).map(Deadline::at)
    }

    fn write(&self, request: &mut Request, deadline: Deadline, now: Instant) {
        request.timeout = Some(deadline.remaining_at(now));
    }
}

/// What the backend was asked, and finished.
#[derive(Clone, Debug, Default)]
struct Counts {
    started: Arc<AtomicU32>,
    finished: Arc<AtomicU32>,
}

/// The second hop, which takes at least 50 ms.
fn backend(
    counts: Counts,
    takes: Duration,
) -> impl Service<Request, Response = String, Error = BoxError, Future: Send> + Clone {
    let layer = DeadlineLayer::new()
        .with_carry(Timeout)
        .with_min_time(50 * MS);
    ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(move |request: Request| {
            let counts = counts.clone();
            async move {
                counts.started.fetch_add(1, Ordering::Relaxed);
                sleep(takes).await;
                counts.finished.fetch_add(1, Ordering::Relaxed);
                Ok::<_, BoxError>(format!(
                    "backend had {} ms",
                    request.timeout.unwrap_or_default().as_millis()
                ))
            }
        }))
}

/// The first hop. It gives the backend 10 ms less than it has.
fn gateway<S>(
    backend: S,
) -> impl Service<Request, Response = String, Error = BoxError, Future: Send> + Clone
where
    S: Service<Request, Response = String, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let towards_backend = DeadlineLayer::new()
        .with_carry(Timeout)
        .with_reserve(10 * MS);
    let client = ServiceBuilder::new()
        .layer(towards_backend)
        .service(backend);
    let edge = DeadlineLayer::new()
        .with_carry(Timeout)
        .with_max(1_000 * MS);
    ServiceBuilder::new()
        .layer(edge)
        .service(service_fn(move |request: Request| {
            let client = client.clone();
            async move {
                sleep(request.preparation).await;
                client.oneshot(request).await
            }
        }))
}

/// Asks once, and says what came of it and how long that took.
async fn ask(
    timeout: Option<Duration>,
    preparation: Duration,
    takes: Duration,
) -> (String, u128, u32, u32) {
    let counts = Counts::default();
    let app = gateway(backend(counts.clone(), takes));
    let start = Instant::now();
    let answer = match app
        .oneshot(Request {
            timeout,
            preparation,
        })
        .await
    {
        Ok(answer) => answer,
        Err(error) => match error.downcast_ref::<Expired>() {
            Some(expired) if expired.was_started() => "dropped on the way".to_owned(),
            Some(_) => "refused before it began".to_owned(),
            None => error.to_string(),
        },
    };
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    (
        answer,
        start.elapsed().as_millis(),
        count(&counts.started),
        count(&counts.finished),
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for (what, timeout, preparation, takes) in [
        ("time enough", Some(200 * MS), 20 * MS, 60 * MS),
        ("no timeout: the edge sets one", None, 20 * MS, 60 * MS),
        (
            "the gateway used up most of it",
            Some(100 * MS),
            60 * MS,
            60 * MS,
        ),
        ("the backend is too slow", Some(150 * MS), 20 * MS, 400 * MS),
    ] {
        let (answer, took, started, finished) = ask(timeout, preparation, takes).await;
        println!(
            "{what}:\n  {answer}, after {took} ms; the backend began {started} and finished {finished}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_hop_has_what_the_first_has_left_less_the_reserve() {
        let (answer, took, ..) = ask(Some(200 * MS), 20 * MS, 60 * MS).await;
        assert_eq!(answer, "backend had 170 ms");
        assert_eq!(took, 80);
        let (answer, ..) = ask(None, 20 * MS, 60 * MS).await;
        assert_eq!(answer, "backend had 970 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_done_in_time_is_not_begun() {
        let (answer, took, started, _) = ask(Some(100 * MS), 60 * MS, 60 * MS).await;
        assert_eq!(answer, "refused before it began");
        assert_eq!((took, started), (60, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_overtaken_is_dropped_in_both_hops() {
        let (answer, took, started, finished) = ask(Some(150 * MS), 20 * MS, 400 * MS).await;
        assert_eq!(answer, "dropped on the way");
        assert_eq!((took, started, finished), (140, 1, 0));
    }
}
