//! A circuit breaker, seen shutting and opening again.
//!
//! The service fails for a while. After three faults in a row the breaker shuts: requests fail at once, with the
//! time to wait, and the service is left alone. Then one trial is let through; it fails, and the wait doubles. The next
//! one succeeds, and the breaker opens. Words are Tower's: a breaker that is *open* lets requests through.
//!
//! ```sh
//! cargo run --example breaker
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::breaker::{BreakerLayer, Handle, Refused, Settings, State};
use tower::util::rng::SplitMix64;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

/// A service that can be told to fail.
#[derive(Clone, Debug, Default)]
struct Dependency {
    is_down: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
}

impl Dependency {
    async fn answer(self, request: u32) -> Result<u32, BoxError> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        sleep(MS).await;
        match self.is_down.load(Ordering::Relaxed) {
            true => Err("out of order".into()),
            false => Ok(request),
        }
    }
}

fn handle(seed: u64) -> Handle {
    let settings = Settings::default()
        .with_faults_in_a_row(3)
        .with_backoff(100 * MS, 2_000 * MS);
    Handle::with_rng(settings, SplitMix64::new(seed))
}

fn app(
    dependency: Dependency,
    handle: Handle,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone {
    ServiceBuilder::new()
        .layer(BreakerLayer::with_handle(handle))
        .service(service_fn(move |request| {
            dependency.clone().answer(request)
        }))
}

/// What the requests of a while came to.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    answered: u32,
    failed: u32,
    refused: u32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            failed,
            refused,
        } = self;
        write!(f, "{answered} answered, {failed} failed, {refused} refused")
    }
}

/// Sends a request every 10 ms.
async fn traffic<S>(app: &S, requests: u32) -> Outcome
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone,
{
    let mut outcome = Outcome::default();
    for n in 0..requests {
        match app.clone().oneshot(n).await {
            Ok(_) => outcome.answered += 1,
            Err(error) if error.is::<Refused>() => outcome.refused += 1,
            Err(_) => outcome.failed += 1,
        }
        sleep(9 * MS).await;
    }
    outcome
}

/// Prints the states as they change, and keeps them.
async fn watch(handle: Handle, seen: Arc<Mutex<Vec<State>>>) {
    let start = Instant::now();
    let mut states = handle.watch();
    while states.changed().await.is_ok() {
        let state = *states.borrow_and_update();
        println!("  {:>5} ms  {state:?}", start.elapsed().as_millis());
        seen.lock().unwrap().push(state);
    }
}

async fn play(seed: u64) -> ([Outcome; 3], Vec<State>, u32) {
    let (dependency, handle) = (Dependency::default(), handle(seed));
    let app = app(dependency.clone(), handle.clone());
    let seen = Arc::default();
    let watching = tokio::spawn(watch(handle, Arc::clone(&seen)));

    println!("all is well:");
    let well = traffic(&app, 20).await;
    println!("            {well}");

    println!("it is out of order for 400 ms:");
    dependency.is_down.store(true, Ordering::Relaxed);
    let before = dependency.tries.load(Ordering::Relaxed);
    let down = traffic(&app, 40).await;
    let tries = dependency.tries.load(Ordering::Relaxed) - before;
    println!("            {down}; it was asked {tries} times");

    println!("it works again, which shows when the wait is over and a trial succeeds:");
    dependency.is_down.store(false, Ordering::Relaxed);
    let healed = traffic(&app, 100).await;
    println!("            {healed}");

    watching.abort();
    let states = std::mem::take(&mut *seen.lock().unwrap());
    ([well, down, healed], states, tries)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    play(7).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_shuts_after_three_faults_and_opens_by_a_trial() {
        let ([well, down, healed], states, tries) = play(7).await;
        assert_eq!((well.answered, well.failed, well.refused), (20, 0, 0));
        assert_eq!(down.answered, 0);
        // Three faults, and a trial after each wait: the service is left alone.
        assert_eq!(down.failed, tries);
        assert!((4..=6).contains(&tries), "{tries}");
        assert!(healed.answered > 40 && healed.failed == 0, "{healed:?}");
        assert_eq!(states.first(), Some(&State::Shut));
        assert_eq!(&states[states.len() - 2..], [State::Limited, State::Open]);
    }
}
