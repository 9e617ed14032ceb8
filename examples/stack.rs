//! Composes a stack: what each layer does, in which order, and what a caller sees.
//!
//! ```sh
//! cargo run --example stack
//! ```

use std::time::Duration;

use futures_util::future::join_all;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::util::find_source;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// The work: sleeps for as many milliseconds as it is asked to.
async fn work(millis: u64) -> Result<String, BoxError> {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(format!("slept {millis} ms"))
}

/// A request passes the layers from the first to the last, its response from the last to the first.
fn app() -> impl Service<u64, Response = String, Error = BoxError, Future: Send> + Clone {
    ServiceBuilder::new()
        // 1. Where everything below is full, say so at once instead of making the caller wait.
        .load_shed()
        // 2. What waits below is part of the time that the caller waits.
        .timeout(Duration::from_millis(100))
        // 3. Two wait here, besides the one that is next. The queue also makes the rest `Clone`.
        .buffer(2)
        // 4. One after the other.
        .concurrency_limit(1)
        // 5. Nearest to the service: what it is asked, and what it answers.
        .map_request(|millis: u64| millis.min(10_000))
        .map_response(|text: String| format!("{text}, and well"))
        .service(service_fn(work))
}

/// What a caller does with each kind of failure.
fn advice(error: &BoxError) -> &'static str {
    if find_source::<Overloaded>(&**error).is_some() {
        "shed: try another server"
    } else if find_source::<Elapsed>(&**error).is_some() {
        "timed out: it may have happened or not"
    } else {
        "failed: see the log"
    }
}

#[tokio::main]
async fn main() {
    let app = app();
    println!("alone:");
    report(10, app.clone().oneshot(10).await);
    report(500, app.clone().oneshot(500).await);

    println!("six at once, of 40 ms each, one after the other, at most 100 ms:");
    let requests = (0..6).map(|_| app.clone().oneshot(40));
    for result in join_all(requests).await {
        report(40, result);
    }
}

fn report(millis: u64, result: Result<String, BoxError>) {
    match result {
        Ok(text) => println!("  {millis} ms: {text}"),
        Err(error) => println!("  {millis} ms: {} ({error})", advice(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_times_out_and_sheds() {
        let app = app();
        let alone = app.clone().oneshot(10).await.unwrap();
        assert_eq!(alone, "slept 10 ms, and well");

        let requests = (0..6).map(|_| app.clone().oneshot(40));
        let outcomes: Vec<_> = join_all(requests)
            .await
            .iter()
            .map(|result| result.as_ref().map_or_else(advice, |_| "done"))
            .collect();
        let count = |what| outcomes.iter().filter(|o| o.starts_with(what)).count();
        // One runs, one is next, two are queued: four get in, and two of 40 ms fit into 100 ms.
        assert_eq!(count("done"), 2, "{outcomes:?}");
        assert_eq!(count("timed out"), 2, "{outcomes:?}");
        assert_eq!(count("shed"), 2, "{outcomes:?}");
    }
}
