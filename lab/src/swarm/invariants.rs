//! What is counted while a scenario runs, and what must hold of it in the end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use tower_balance::pool::{Gauge, Pool};
use tower_retry::budget::{Budget, TpsBudget};
use tower_service::Service;

use super::{DROPPED, RATIO, RESERVE_PER_S, Scenario};
use crate::server::Work;
use crate::world::{SECOND, duration};

/// What is counted while a scenario runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) began: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) tries: AtomicU64,
    pub(super) in_flight: AtomicUsize,
    pub(super) most_in_flight: AtomicUsize,
    /// The endpoints that were ejected above what is allowed, at most.
    pub(super) ejected_above: AtomicUsize,
    pub(super) known: AtomicUsize,
    pub(super) usable: AtomicUsize,
    pub(super) tasks_left: AtomicUsize,
    pub(super) connections_left: AtomicUsize,
}

/// Counts what a budget grants.
#[derive(Debug)]
pub(super) struct Counting {
    budget: TpsBudget,
    deposits: AtomicU64,
    granted: AtomicU64,
}

/// Counts the tries that are in flight.
#[derive(Clone)]
pub(super) struct Counted<S> {
    pub(super) inner: S,
    pub(super) counts: Arc<Counts>,
}

pub(super) struct CountedFuture<F> {
    inner: Pin<Box<F>>,
    counts: Arc<Counts>,
}

impl Scenario {
    /// Says which invariant is broken, if one is.
    pub(super) fn check(
        &self,
        counts: &Counts,
        [retries, hedges]: &[Arc<Counting>; 2],
    ) -> Result<(), String> {
        let get = |count: &AtomicU64| count.load(Relaxed);
        let require = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        let (began, ended) = (get(&counts.began), get(&counts.ended));
        require(
            began == ended,
            format!("{began} requests began and {ended} ended"),
        )?;
        let most = counts.most_in_flight.load(Relaxed);
        require(
            most <= self.limit,
            format!("{most} in flight at a limit of {}", self.limit),
        )?;
        let (tries, granted) = (
            get(&counts.tries),
            get(&retries.granted) + get(&hedges.granted),
        );
        require(
            tries <= began + granted,
            format!("{tries} tries of {began} requests with {granted} granted"),
        )?;
        for (name, budget) in [("retries", retries), ("hedges", hedges)] {
            // The reserve of each second, and what the successes earned.
            let seconds = (DROPPED / SECOND + 1) as f64;
            let most = seconds * f64::from(RESERVE_PER_S)
                + f64::from(RATIO) * get(&budget.deposits) as f64;
            let granted = get(&budget.granted);
            require(
                granted as f64 <= most,
                format!("{granted} {name}, and {most} allowed"),
            )?;
        }
        let above = counts.ejected_above.load(Relaxed);
        require(above == 0, format!("{above} more ejected than allowed"))?;
        let (known, usable) = (counts.known.load(Relaxed), counts.usable.load(Relaxed));
        let endpoints = self.endpoints;
        require(
            known == endpoints,
            format!("{known} of {endpoints} endpoints known in the end"),
        )?;
        require(
            usable == endpoints,
            format!("{usable} of {endpoints} endpoints connected in the end"),
        )?;
        let left = counts.tasks_left.load(Relaxed);
        require(left == 0, format!("{left} tasks left after their owners"))?;
        let left = counts.connections_left.load(Relaxed);
        require(left == 0, format!("{left} connections left after the pool"))
    }
}

/// What is watched of a pool: how many endpoints are known, connected, and ejected.
pub(super) trait Census {
    fn census(&self) -> (usize, usize, usize);
}

impl<K, S, P, G, C> Census for Pool<K, S, P, G, C>
where
    G: Gauge,
{
    fn census(&self) -> (usize, usize, usize) {
        let census = Self::census(self);
        (
            census.known(),
            census.ready + census.ejected,
            census.ejected,
        )
    }
}

impl Counting {
    /// Makes a budget as the scenarios have it.
    pub(super) fn new() -> Self {
        Self {
            budget: TpsBudget::new(duration(SECOND), RESERVE_PER_S, RATIO),
            deposits: AtomicU64::new(0),
            granted: AtomicU64::new(0),
        }
    }
}

impl Budget for Counting {
    fn deposit(&self) {
        self.deposits.fetch_add(1, Relaxed);
        self.budget.deposit();
    }

    fn withdraw(&self) -> bool {
        let granted = self.budget.withdraw();
        self.granted.fetch_add(u64::from(granted), Relaxed);
        granted
    }
}

impl<S> Service<Work> for Counted<S>
where
    S: Service<Work>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, work: Work) -> Self::Future {
        self.counts.tries.fetch_add(1, Relaxed);
        let in_flight = self.counts.in_flight.fetch_add(1, Relaxed) + 1;
        self.counts.most_in_flight.fetch_max(in_flight, Relaxed);
        CountedFuture {
            inner: Box::pin(self.inner.call(work)),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl<F: Future> Future for CountedFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl<F> Drop for CountedFuture<F> {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_invariant_is_told_when_it_is_broken() {
        let scenario = Scenario::of(1);
        let budgets = || [(); 2].map(|()| Arc::new(Counting::new()));
        let well = || {
            let counts = Counts::default();
            counts.known.store(scenario.endpoints, Relaxed);
            counts.usable.store(scenario.endpoints, Relaxed);
            counts
        };
        assert_eq!(scenario.check(&well(), &budgets()), Ok(()));
        let breaks: [fn(&Counts); 8] = [
            |counts| counts.began.store(1, Relaxed),
            |counts| counts.tries.store(1, Relaxed),
            |counts| counts.most_in_flight.store(1000, Relaxed),
            |counts| counts.ejected_above.store(1, Relaxed),
            |counts| counts.known.store(0, Relaxed),
            |counts| counts.usable.store(0, Relaxed),
            |counts| counts.tasks_left.store(1, Relaxed),
            |counts| counts.connections_left.store(1, Relaxed),
        ];
        for (index, r#break) in breaks.iter().enumerate() {
            let counts = well();
            r#break(&counts);
            assert!(scenario.check(&counts, &budgets()).is_err(), "{index}");
        }
        let overspent = budgets();
        overspent[0].granted.store(10_000, Relaxed);
        assert!(scenario.check(&well(), &overspent).is_err());
    }
}
