//! A server in the world: a service whose requests are jobs that share its processors.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tower_service::Service;

use crate::sharing::{Job, Sharing};
use crate::world::{Nanos, World};

/// A request: how long it keeps a processor busy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work(pub(crate) f64);

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Nobody is there.
    Refused,
    /// The server answered that it can't.
    Faulty,
    /// The server went away with the request.
    Gone,
}

/// Clones are the same server.
///
/// **Cancellation.** Dropping a response future takes the job away at once.
#[derive(Clone)]
pub(crate) struct Server {
    world: World,
    state: Arc<Mutex<State>>,
}

struct State {
    sharing: Sharing,
    waiting: BTreeMap<Job, oneshot::Sender<()>>,
    /// When the driver of the world will look for ended jobs.
    scheduled: Option<Nanos>,
    /// How much work was done for requests that ended.
    served: u64,
}

/// The response of a [`Server`].
pub(crate) struct Response {
    server: Server,
    job: Option<Job>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Makes a server with some processors.
    pub(crate) fn new(world: &World, capacity: f64) -> Self {
        Self {
            world: world.clone(),
            state: Arc::new(Mutex::new(State {
                sharing: Sharing::new(capacity),
                waiting: BTreeMap::new(),
                scheduled: None,
                served: 0,
            })),
        }
    }

    /// Counts the requests that ended.
    #[cfg(test)]
    pub(crate) fn served(&self) -> u64 {
        self.state().served
    }

    /// How many requests each processor would have with one more.
    pub(crate) fn crowding(&self) -> f64 {
        self.state().sharing.crowding()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.state().sharing.len()
    }

    /// Drops all jobs: their responses fail with [`Failed::Gone`].
    pub(crate) fn drop_all(&self) {
        let now = self.world.now();
        let mut state = self.state();
        for (job, _) in std::mem::take(&mut state.waiting) {
            state.sharing.remove(job, now);
        }
    }

    /// Ends the jobs that are due, and has itself called again when the next is.
    fn schedule(&self) {
        let now = self.world.now();
        let mut state = self.state();
        while let Some(job) = state.sharing.take_ended(now) {
            state.served += 1;
            if let Some(waiting) = state.waiting.remove(&job) {
                // Whoever has gone has taken the job away, or is about to.
                let _ = waiting.send(());
            }
        }
        let next = state.sharing.next_end();
        if let Some(at) = next {
            if state.scheduled.is_none_or(|scheduled| at < scheduled) {
                state.scheduled = Some(at);
                let server = self.clone();
                self.world.at(at, move || server.wake(at));
            }
        }
    }

    fn wake(&self, at: Nanos) {
        {
            let mut state = self.state();
            // An earlier one has come in between, and will see to the rest.
            if state.scheduled != Some(at) {
                return;
            }
            state.scheduled = None;
        }
        self.schedule();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Work> for Server {
    type Response = ();
    type Error = Failed;
    type Future = Response;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Work(work): Work) -> Response {
        let (end, ended) = oneshot::channel();
        let job = {
            let mut state = self.state();
            let job = state.sharing.add(work, self.world.now());
            state.waiting.insert(job, end);
            job
        };
        self.schedule();
        Response {
            server: self.clone(),
            job: Some(job),
            ended,
        }
    }
}

impl Future for Response {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.ended).poll(cx).map(|ended| {
            self.job = None;
            ended.map_err(|_| Failed::Gone)
        })
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        let now = self.server.world.now();
        let was_waiting = {
            let mut state = self.server.state();
            let was_waiting = state.waiting.remove(&job).is_some();
            if was_waiting {
                state.sharing.remove(job, now);
            }
            was_waiting
        };
        if was_waiting {
            self.server.schedule();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Faulty => "the server failed",
            Self::Gone => "the server went away",
        })
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Poisson, evenly, exponential, stream};
    use crate::world::{MILLI, SECOND};
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Sends the requests of a flow, and counts them.
    fn send(
        world: &World,
        server: &Server,
        flow: impl Iterator<Item = Nanos> + Send + 'static,
        mut work: impl FnMut() -> f64 + Send + 'static,
    ) -> Arc<AtomicU64> {
        let offered = Arc::new(AtomicU64::new(0));
        let (count, inner, mut server) = (Arc::clone(&offered), world.clone(), server.clone());
        world.spawn(async move {
            for at in flow {
                inner.sleep_until(at).await;
                count.fetch_add(1, Relaxed);
                let response = server.call(Work(work()));
                inner.spawn(async move {
                    let _ = response.await;
                });
            }
        });
        offered
    }

    fn is_within_half_a_percent(actual: u64, expected: f64) -> bool {
        (actual as f64 - expected).abs() <= 0.005 * expected
    }

    #[test]
    fn what_is_offered_and_served_is_what_was_asked_for() {
        // Gaps of 0.43 ms and jobs of 0.7 ms: both would be a whole number of milliseconds on tokio's timers.
        const RATE: f64 = 2333.0;
        let ((server, offered), _) = World::run(20 * SECOND, |world| {
            let server = Server::new(world, 2.0);
            let offered = send(world, &server, evenly(RATE), || 700_000.0);
            (server, offered)
        });
        let offered = offered.load(Relaxed);
        assert!(is_within_half_a_percent(offered, 20.0 * RATE), "{offered}");
        let served = server.served();
        assert!(is_within_half_a_percent(served, 20.0 * RATE), "{served}");
    }

    #[test]
    fn a_server_that_is_overloaded_serves_what_its_processors_can() {
        // 1.5 processors and 0.7 ms a job are 2143 jobs a second.
        let (served, _) = World::run(21 * SECOND, |world| {
            let server = Server::new(world, 1.5);
            // As many clients as keep it busy: each sends its next request when the last has ended.
            for _ in 0..10 {
                let (inner, mut server) = (world.clone(), server.clone());
                inner.spawn(async move { while server.call(Work(700_000.0)).await.is_ok() {} });
            }
            let served = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&served);
            world.at(20 * SECOND, move || count.store(server.served(), Relaxed));
            served
        });
        let served = served.load(Relaxed);
        assert!(
            is_within_half_a_percent(served, 20.0 * 1.5 / 0.0007),
            "{served}"
        );
    }

    #[test]
    fn processor_sharing_has_the_mean_that_theory_gives_it() {
        // M/M/1-PS at half load: as many in the system as ρ / (1 − ρ) = 1.
        let (rng, mut work) = (stream(1, 1), stream(1, 2));
        let samples = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&samples);
        World::run(400 * SECOND, move |world| {
            let server = Server::new(world, 1.0);
            let flow = Poisson::new(rng, 500.0);
            send(world, &server, flow, move || exponential(&mut work, 1e6));
            let inner = world.clone();
            world.spawn(async move {
                for at in evenly(100.0) {
                    inner.sleep_until(at).await;
                    seen.fetch_add(server.in_flight() as u64, Relaxed);
                }
            });
        });
        let mean = samples.load(Relaxed) as f64 / 40_000.0;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_request_that_is_cancelled_leaves_the_processor_to_the_others() {
        let (at, _) = World::run(SECOND, |world| {
            let mut server = Server::new(world, 1.0);
            let (mut kept, cancelled) = (server.call(Work(10e6)), server.call(Work(10e6)));
            world.at(10 * MILLI, move || drop(cancelled));
            let at = Arc::new(AtomicU64::new(0));
            let (end, inner) = (Arc::clone(&at), world.clone());
            world.spawn(async move {
                assert_eq!((&mut kept).await, Ok(()));
                end.store(inner.now(), Relaxed);
            });
            at
        });
        assert_eq!(at.load(Relaxed), 15 * MILLI);
    }

    #[test]
    fn jobs_that_are_dropped_fail() {
        World::run(SECOND, |world| {
            let mut server = Server::new(world, 1.0);
            let response = server.call(Work(10e6));
            world.at(5 * MILLI, move || server.drop_all());
            world.spawn(async move { assert_eq!(response.await, Err(Failed::Gone)) });
        });
    }
}
