//! A middleware of one's own: counts the requests in flight and how they ended.
//!
//! ```sh
//! cargo run --example middleware
//! ```
//!
//! Its test checks it against the contract of services, in one line:
//!
//! ```
//! tower_test::contract::check(|inner| layer.layer(inner)).assert();
//! ```
//!
//! ```sh
//! cargo test --example middleware
//! ```
//!
//! To see what a breach looks like, call a clone in `call` below, `self.inner.clone().call(req)`, and run the
//! test again: it names the rule, shows what happened, and says how to mend it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// What has been counted, for all services of a layer and their clones.
#[derive(Debug, Default)]
struct Counters {
    in_flight: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

/// The layer holds what its services share.
#[derive(Clone, Debug)]
struct CountLayer {
    counters: Arc<Counters>,
}

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count {
            inner,
            counters: self.counters.clone(),
        }
    }
}

/// The middleware: a service around a service.
#[derive(Clone, Debug)]
struct Count<S> {
    inner: S,
    counters: Arc<Counters>,
}

// Generic over the request, as it doesn't look at it; the bounds are only what it needs.
impl<S, Req> Service<Req> for Count<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CountFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, req: Req) -> Self::Future {
        CountFuture {
            // The same `inner` that was polled ready, not a clone of it.
            inner: self.inner.call(req),
            in_flight: Some(InFlight::enter(&self.counters)),
        }
    }
}

/// A request that is in flight until this is dropped.
#[derive(Debug)]
struct InFlight {
    counters: Arc<Counters>,
    /// Whether the request succeeded; `None` while there is no result.
    succeeded: Option<bool>,
}

impl InFlight {
    fn enter(counters: &Arc<Counters>) -> Self {
        counters.in_flight.fetch_add(1, Relaxed);
        Self {
            counters: counters.clone(),
            succeeded: None,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Counters {
            in_flight,
            succeeded,
            failed,
            abandoned,
        } = &*self.counters;
        in_flight.fetch_sub(1, Relaxed);
        let ended = match self.succeeded {
            Some(true) => succeeded,
            Some(false) => failed,
            None => abandoned,
        };
        ended.fetch_add(1, Relaxed);
    }
}

pin_project! {
    /// The response future. Dropping it is how a caller cancels, so that is counted, too.
    #[derive(Debug)]
    struct CountFuture<F> {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
    }
}

impl<F, T, E> Future for CountFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(mut in_flight) = this.in_flight.take() {
            in_flight.succeeded = Some(result.is_ok());
        }
        Poll::Ready(result)
    }
}

fn app(
    counters: Arc<Counters>,
) -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    ServiceBuilder::new()
        .layer(CountLayer { counters })
        .timeout(Duration::from_millis(100))
        .service(service_fn(async |millis: u64| {
            if millis == 13 {
                return Err(BoxError::from("unlucky"));
            }
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(millis)
        }))
}

#[tokio::main]
async fn main() {
    let counters = Arc::new(Counters::default());
    let mut app = app(counters.clone());
    for millis in [1, 13, 20, 1000] {
        match app.clone().oneshot(millis).await {
            Ok(_) => println!("{millis} ms: done"),
            Err(error) => println!("{millis} ms: {error}"),
        }
    }
    // A caller that gives up drops the response future.
    drop(app.ready().await.expect("always ready").call(5));
    println!("5 ms: the caller gave up");
    println!("{counters:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counters: &Counters) -> [u64; 4] {
        let Counters {
            in_flight,
            succeeded,
            failed,
            abandoned,
        } = counters;
        [in_flight, succeeded, failed, abandoned].map(|n| n.load(Relaxed))
    }

    #[test]
    fn keeps_the_contract() {
        let layer = CountLayer {
            counters: Arc::default(),
        };
        // A plain test: the checker has a runtime, and a paused clock, of its own.
        tower_test::contract::check(|inner| layer.layer(inner)).assert();
        // It has dropped all responses, and each was counted once.
        assert_eq!(counts(&layer.counters)[0], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_every_way_to_end() {
        let counters = Arc::new(Counters::default());
        let mut app = app(counters.clone());

        app.ready().await.unwrap().call(1).await.unwrap();
        assert_eq!(counts(&counters), [0, 1, 0, 0]);

        app.ready().await.unwrap().call(1000).await.unwrap_err();
        assert_eq!(counts(&counters), [0, 1, 1, 0]);

        let response = app.ready().await.unwrap().call(1);
        assert_eq!(counts(&counters), [1, 1, 1, 0]);
        drop(response);
        assert_eq!(counts(&counters), [0, 1, 1, 1]);
    }
}
