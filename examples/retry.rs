//! Retries with a budget and backoff, against a dependency that fails for a while.
//!
//! Retries help where a failure is short and rare. In an outage they multiply the load on what is down
//! already, so a budget grants them as a share of what has succeeded. Watch the tries below.
//!
//! ```sh
//! cargo run --example retry
//! ```

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower::classify::Class;
use tower::retry::RetryLayer;
use tower::retry::backoff::{ExponentialBackoffMaker, Jitter};
use tower::retry::budget::TpsBudget;
use tower::retry::standard::StandardPolicy;
use tower::util::rng::SplitMix64;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// How often a request is tried, the first time included.
const MAX_TRIES: u32 = 4;

/// How many requests [`traffic`] sends.
const REQUESTS: u64 = 100;

/// A database of users whose names are numbers below a hundred. It may be down.
#[derive(Clone, Debug, Default)]
struct Dependency {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    down_until: Option<Instant>,
    tries: Vec<Instant>,
}

#[derive(Clone, Debug, PartialEq)]
enum Failure {
    /// Another try may succeed.
    Refused,
    /// Another try would be told the same.
    NoSuchUser,
}

impl Dependency {
    /// Refuses everything for so long.
    fn fail_for(&self, outage: Duration) {
        self.state.lock().unwrap().down_until = Some(Instant::now() + outage);
    }

    /// When it was tried since it was last asked.
    fn take_tries(&self) -> Vec<Instant> {
        std::mem::take(&mut self.state.lock().unwrap().tries)
    }

    async fn look_up(self, user: u64) -> Result<String, Failure> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        state.tries.push(now);
        if state.down_until.is_some_and(|until| now < until) {
            Err(Failure::Refused)
        } else if user < 100 {
            Ok(format!("user {user}"))
        } else {
            Err(Failure::NoSuchUser)
        }
    }
}

/// Says what is worth another try. What the caller did wrong isn't.
fn classify(_user: &u64, result: &Result<String, Failure>) -> Class {
    match result {
        Ok(_) => Class::Success,
        Err(Failure::Refused) => Class::RejectedBeforeWork { after: None },
        Err(Failure::NoSuchUser) => Class::InvalidRequest,
    }
}

/// Puts the retries around the dependency.
fn app(
    dependency: Dependency,
    budget: Arc<TpsBudget>,
    seed: u64,
) -> impl Service<u64, Response = String, Error = Failure, Future: Send> + Clone {
    // 20 ms, 40 ms, 80 ms, …; chance takes off up to a half, so that those who failed together don't
    // come back together.
    let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
    let backoff = ExponentialBackoffMaker::new(min, max, 0.0, SplitMix64::new(seed))
        .expect("the delays are in order")
        .with_jitter(Jitter::Equal);
    let policy = StandardPolicy::new(classify)
        .with_max_tries(MAX_TRIES)
        .with_budget(budget)
        .with_backoff(backoff);
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .service(service_fn(move |user| dependency.clone().look_up(user)))
}

/// One retry for every five requests that succeeded in the last ten seconds.
///
/// Nothing in reserve, to show what that does; `TpsBudget::default()` has ten retries a second.
fn budget() -> Arc<TpsBudget> {
    Arc::new(TpsBudget::new(Duration::from_secs(10), 0, 0.2))
}

/// What became of a number of requests.
#[derive(Debug, PartialEq)]
struct Outcome {
    answered: usize,
    failed: usize,
    tries: usize,
}

/// Sends a request every 2 ms.
async fn traffic<S>(app: &S, dependency: &Dependency) -> Outcome
where
    S: Service<u64, Response = String, Error = Failure> + Clone,
{
    let requests = (0..REQUESTS).map(|user| {
        let app = app.clone();
        async move {
            sleep(Duration::from_millis(2) * user as u32).await;
            app.oneshot(user).await
        }
    });
    let results = join_all(requests).await;
    let answered = results.iter().filter(|result| result.is_ok()).count();
    Outcome {
        answered,
        failed: results.len() - answered,
        tries: dependency.take_tries().len(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (dependency, budget) = (Dependency::default(), budget());
    let app = app(dependency.clone(), budget.clone(), 7);

    println!(
        "{REQUESTS} requests in 200 ms, each tried {MAX_TRIES} times at most, if the budget allows:"
    );
    println!(
        "  all is well:              {}",
        traffic(&app, &dependency).await
    );

    dependency.fail_for(Duration::from_millis(20));
    println!(
        "  it is down for 20 ms:     {}",
        traffic(&app, &dependency).await
    );
    println!("  the budget now:           {budget:?}");

    dependency.fail_for(Duration::from_millis(300));
    println!(
        "  down for longer:          {}",
        traffic(&app, &dependency).await
    );
    println!("  the budget is exhausted:  {budget:?}");

    sleep(Duration::from_millis(150)).await;
    println!(
        "  it has recovered:         {}",
        traffic(&app, &dependency).await
    );
    println!("  and so has the budget:    {budget:?}");

    println!("one request while it is down for 60 ms:");
    let start = Instant::now();
    dependency.fail_for(Duration::from_millis(60));
    let answer = app.clone().oneshot(42).await;
    for (n, at) in dependency.take_tries().into_iter().enumerate() {
        println!("  try {} after {:>3} ms", n + 1, (at - start).as_millis());
    }
    println!("  {answer:?}");

    println!("one for a user that isn't there:");
    let answer = app.oneshot(404).await;
    println!("  {answer:?}, tries: {}", dependency.take_tries().len());
    Ok(())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            failed,
            tries,
        } = self;
        write!(
            f,
            "{answered:>3} answered, {failed:>3} failed, {tries:>3} tries"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (
        Dependency,
        impl Service<u64, Response = String, Error = Failure> + Clone,
    ) {
        let dependency = Dependency::default();
        let app = app(dependency.clone(), budget(), 7);
        (dependency, app)
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_failure_is_hidden_and_a_long_one_is_not_multiplied() {
        let (dependency, app) = setup();
        let all = REQUESTS as usize;
        let well = Outcome {
            answered: all,
            failed: 0,
            tries: all,
        };
        assert_eq!(traffic(&app, &dependency).await, well);

        // It refuses ten requests or so, once or twice each.
        dependency.fail_for(Duration::from_millis(20));
        let Outcome { failed, tries, .. } = traffic(&app, &dependency).await;
        assert_eq!(failed, 0);
        assert!((all + 10..=all + 20).contains(&tries), "{tries}");

        // The budget has what 200 successes earned, less what the short failure cost.
        let left = 200 / 5 - (tries - all);
        dependency.fail_for(Duration::from_millis(300));
        let Outcome { failed, tries, .. } = traffic(&app, &dependency).await;
        assert_eq!(failed, all);
        assert_eq!(tries, all + left);

        sleep(Duration::from_millis(150)).await;
        assert_eq!(traffic(&app, &dependency).await, well);
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_between_the_tries_of_a_request() {
        let (dependency, app) = setup();
        traffic(&app, &dependency).await;
        dependency.fail_for(Duration::from_secs(10));
        let error = app.oneshot(42).await.unwrap_err();
        assert_eq!(error, Failure::Refused);

        let tries = dependency.take_tries();
        assert_eq!(tries.len(), MAX_TRIES as usize);
        for (n, pair) in tries.windows(2).enumerate() {
            let waited = pair[1] - pair[0];
            let base = Duration::from_millis(20 << n);
            assert!(waited >= base / 2, "{waited:?}");
            // The timer's resolution is a millisecond.
            assert!(waited <= base + Duration::from_millis(1), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_caller_did_wrong_is_tried_once() {
        let (dependency, app) = setup();
        traffic(&app, &dependency).await;
        assert_eq!(app.oneshot(404).await, Err(Failure::NoSuchUser));
        assert_eq!(dependency.take_tries().len(), 1);
    }
}
