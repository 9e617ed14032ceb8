//! Balances requests over endpoints that come and go.
//!
//! ```sh
//! cargo run --example balance
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PendingRequests};
use tower::util::BoxService;
use tower::util::rng::SplitMix64;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// An endpoint answers with its name, after its latency.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    name: &'static str,
    latency: Duration,
}

impl Endpoint {
    const fn new(name: &'static str, millis: u64) -> Self {
        Self {
            name,
            latency: Duration::from_millis(millis),
        }
    }

    /// The endpoint as a service. A real one would be a connection.
    fn service(self) -> BoxService<u64, &'static str, BoxError> {
        BoxService::new(service_fn(move |_request: u64| async move {
            tokio::time::sleep(self.latency).await;
            Ok(self.name)
        }))
    }
}

/// What discovery says: an endpoint has come, or the one of this name has gone.
type Discovered = Change<&'static str, Endpoint>;

/// A balancer over what discovery says, behind a queue so that many tasks can share it.
fn app(
    discovery: mpsc::Receiver<Discovered>,
    seed: u64,
) -> impl Service<u64, Response = &'static str, Error = BoxError, Future: Send> + Clone {
    // Discovery is a stream of changes. Here each endpoint becomes a service, with a load that the
    // balancer compares: the number of its requests that are pending.
    let endpoints = ReceiverStream::new(discovery).map(|change| {
        Ok::<_, Infallible>(match change {
            Change::Insert(name, endpoint) => {
                let service = endpoint.service();
                Change::Insert(
                    name,
                    PendingRequests::new(service, CompleteOnResponse::default()),
                )
            }
            Change::Remove(name) => Change::Remove(name),
        })
    });
    ServiceBuilder::new()
        .buffer(128)
        .service(Balance::from_rng(endpoints, SplitMix64::new(seed)))
}

/// Lets ten clients send ten requests each, one after the other, and counts who answered.
async fn load<S>(app: &S) -> BTreeMap<&'static str, usize>
where
    S: Service<u64, Response = &'static str, Error = BoxError> + Clone,
{
    let clients = (0..10).map(|_| async {
        let mut answers = Vec::new();
        for n in 0..10 {
            answers.push(app.clone().oneshot(n).await);
        }
        answers
    });
    let mut answered = BTreeMap::new();
    for answer in join_all(clients).await.into_iter().flatten() {
        *answered.entry(answer.unwrap_or("(failed)")).or_default() += 1;
    }
    answered
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (discovery, changes) = mpsc::channel(16);
    let app = app(changes, 7);
    let (fast, slow) = (Endpoint::new("fast", 10), Endpoint::new("slow", 40));

    discovery.send(Change::Insert("a", fast)).await?;
    println!("Who answers 100 requests of ten clients:");
    println!("  one endpoint:       {:?}", load(&app).await);

    discovery.send(Change::Insert("b", slow)).await?;
    println!("  a slow one comes:   {:?}", load(&app).await);

    discovery
        .send(Change::Insert("c", Endpoint::new("new", 10)))
        .await?;
    println!("  a third one comes:  {:?}", load(&app).await);

    discovery.send(Change::Remove("a")).await?;
    println!("  the first one goes: {:?}", load(&app).await);

    // The balancer waits where there is no endpoint; so does its caller, unless it bounds the wait.
    discovery.send(Change::Remove("b")).await?;
    discovery.send(Change::Remove("c")).await?;
    let bounded = ServiceBuilder::new().timeout(Duration::from_millis(50));
    let waited = bounded.service(app).oneshot(0).await;
    println!("  nobody is left:     {}", waited.unwrap_err());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_discovery_and_prefers_the_idle() {
        let (discovery, changes) = mpsc::channel(16);
        let app = app(changes, 7);

        discovery
            .send(Change::Insert("a", Endpoint::new("fast", 10)))
            .await
            .unwrap();
        assert_eq!(load(&app).await, BTreeMap::from([("fast", 100)]));

        discovery
            .send(Change::Insert("b", Endpoint::new("slow", 40)))
            .await
            .unwrap();
        let answered = load(&app).await;
        assert_eq!(answered.values().sum::<usize>(), 100);
        assert!(answered["fast"] >= 2 * answered["slow"], "{answered:?}");

        discovery.send(Change::Remove("a")).await.unwrap();
        assert_eq!(load(&app).await, BTreeMap::from([("slow", 100)]));
    }
}
