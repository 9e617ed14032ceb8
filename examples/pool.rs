//! A client over endpoints that come and go: a pool, its states as they change, and where requests go.
//!
//! Discovery says which endpoints there are. The pool follows it by itself, connects, and connects again after
//! a backoff where that fails; requests go to the less loaded of two that are ready. Around it stand a deadline,
//! retries within a budget and a timeout for each try. Watch the states below while endpoints come and go.
//!
//! ```sh
//! cargo run --example pool
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::balance::pool::{Observed, Pool, States};
use tower::classify::EveryErrorIsRetryable;
use tower::close::Close;
use tower::deadline::Deadline;
use tower::discover::Change;
use tower::resilience::ServiceBuilderExt;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

type Name = &'static str;
type Connection = BoxCloneSyncService<u32, Name, BoxError>;
type Client = BoxCloneSyncService<u32, Name, BoxError>;
type Discovery = mpsc::UnboundedSender<Result<Change<Name, Endpoint>, Infallible>>;

/// A machine that answers with its name.
#[derive(Clone, Debug)]
struct Endpoint {
    name: Name,
    latency: Duration,
    is_down: Arc<AtomicBool>,
}

impl Endpoint {
    fn new(name: Name, latency: Duration) -> Self {
        Self {
            name,
            latency,
            is_down: Arc::default(),
        }
    }

    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), BoxError> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err(format!("{} is down", self.name).into()),
            false => Ok(()),
        }
    }

    async fn connect(self) -> Result<Connection, BoxError> {
        sleep(5 * MS).await;
        self.check()?;
        let service = service_fn(move |_request: u32| {
            let endpoint = self.clone();
            async move {
                sleep(endpoint.latency).await;
                endpoint.check()?;
                Ok(endpoint.name)
            }
        });
        Ok(BoxCloneSyncService::new(service))
    }
}

/// What the application holds.
struct App {
    client: Client,
    states: States<Name>,
    closing: Box<dyn Close>,
}

fn app(seed: u64) -> Result<(App, Discovery), BoxError> {
    let (discovery, changes) = mpsc::unbounded_channel();
    let pool = Pool::builder(
        UnboundedReceiverStream::new(changes),
        service_fn(Endpoint::connect),
    )
    .with_backoff(50 * MS, 1_000 * MS)
    .with_seed(seed)
    .spawn::<u32>()?;
    let states = pool.states();
    let closing = Box::new(pool.clone());
    let client = ServiceBuilder::new()
        .resilient(EveryErrorIsRetryable)
        .service(pool);
    let app = App {
        client: BoxCloneSyncService::new(client),
        states,
        closing,
    };
    Ok((app, discovery))
}

/// Prints the states as they change.
async fn watch(mut states: States<Name>, start: Instant, log: Arc<Mutex<Vec<String>>>) {
    while let Some(observed) = states.next().await {
        let line = match observed {
            Observed::Changed { key, to, .. } => match to {
                Some(state) => format!("{key} is {state:?}"),
                None => format!("{key} is gone"),
            },
            _ => continue,
        };
        println!("  {:>5} ms  {line}", start.elapsed().as_millis());
        log.lock().unwrap().push(line);
    }
}

/// How many requests each endpoint has answered.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    by: BTreeMap<Name, u32>,
    failed: u32,
}

/// Sends a request every 2 ms.
async fn traffic(client: &Client, requests: u32) -> Answers {
    let mut tasks = Vec::new();
    for n in 0..requests {
        let mut client = client.clone();
        tasks.push(tokio::spawn(
            async move { client.ready().await?.call(n).await },
        ));
        sleep(2 * MS).await;
    }
    let mut answers = Answers::default();
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(name) => *answers.by.entry(name).or_default() += 1,
            Err(_) => answers.failed += 1,
        }
    }
    answers
}

/// What happens to the endpoints, and what becomes of the requests meanwhile.
async fn play(seed: u64) -> Result<(Vec<Answers>, Vec<String>), BoxError> {
    let (app, discovery) = app(seed)?;
    let log = Arc::default();
    let watching = tokio::spawn(watch(app.states, Instant::now(), Arc::clone(&log)));
    let mut answers = Vec::new();
    let mut send = async |what: &str| {
        println!("{what}");
        let answered = traffic(&app.client, 200).await;
        println!("            {answered}");
        answers.push(answered);
    };

    let [a, b, c] = [("a", 10 * MS), ("b", 10 * MS), ("c", 30 * MS)]
        .map(|(name, latency)| Endpoint::new(name, latency));
    for endpoint in [&a, &b] {
        discovery.send(Ok(Change::Insert(endpoint.name, endpoint.clone())))?;
    }
    send("two endpoints:").await;

    discovery.send(Ok(Change::Insert(c.name, c.clone())))?;
    send("a third, which is slow, and so gets less:").await;

    a.set_down(true);
    send("one goes down: it is ejected, and retries hide it:").await;

    discovery.send(Ok(Change::Remove(a.name)))?;
    a.set_down(false);
    send("discovery takes it away:").await;

    discovery.send(Ok(Change::Insert(a.name, a.clone())))?;
    send("and brings it back:").await;

    println!("closing:");
    app.closing.close(Deadline::after(1_000 * MS)).await?;
    watching.await?;
    let log = std::mem::take(&mut *log.lock().unwrap());
    Ok((answers, log))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    play(7).await?;
    Ok(())
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.by {
            write!(f, "{count} by {name}, ")?;
        }
        write!(f, "{} failed", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_request_is_lost_while_endpoints_come_and_go() {
        let (answers, log) = play(7).await.unwrap();
        assert!(
            answers.iter().all(|answers| answers.failed == 0),
            "{answers:?}"
        );
        let by = |round: usize, name: &str| answers[round].by.get(name).copied().unwrap_or(0);

        assert_eq!(by(0, "a") + by(0, "b"), 200);
        // The slow one has more in flight, and so gets fewer.
        assert!(by(1, "c") > 20 && by(1, "c") < 60, "{answers:?}");
        // A few have found it down, and were tried again.
        assert!(by(2, "a") < 10, "{answers:?}");
        assert_eq!(by(3, "a"), 0);
        assert!(by(4, "a") > 50, "{answers:?}");

        for line in [
            "a is Ready",
            "c is Ready",
            "a is Ejected",
            "a is Draining",
            "a is gone",
        ] {
            assert!(log.iter().any(|seen| seen == line), "{line}: {log:?}");
        }
    }
}
