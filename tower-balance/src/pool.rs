//! Balances over endpoints that a task of its own keeps connected.
//!
//! A [`Balance`](crate::Balance) works while it is polled: between requests it follows no discovery and connects
//! to nobody, it belongs to one caller, and an endpoint that fails is gone. A [`Pool`] is for clients that live long
//! and have many callers:
//!
//! - **It is driven by its own task.** Discovery is followed and connections are made, and made anew with a
//!   jittered backoff, while nothing is asked.
//! - **It is shared.** A pool is cloned for each caller, for nothing. Callers pick and call an endpoint themselves,
//!   without the task, a channel or a lock that anyone waits for.
//! - **It says what it does.** The [states](Pool::states) of the endpoints are a stream, and a request that finds no
//!   endpoint fails with an [`Unavailable`] that tells why.
//! - **It leaves out who does badly**, for a while ([`Ejection`]), but not everybody (the
//!   [panic threshold](Builder::with_panic_threshold)).
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use tower_balance::pool::{Observed, Pool, State};
//! use tower_discover::Change;
//! use tower_service::Service;
//! use tokio_stream::StreamExt;
//! # use std::task::{Context, Poll};
//! # type Connection = tower_test::mock::Mock<&'static str, &'static str>;
//! # #[derive(Clone)]
//! # struct Connect(std::sync::Arc<std::sync::Mutex<Vec<tower_test::mock::Handle<&'static str, &'static str>>>>);
//! # impl Service<&'static str> for Connect {
//! #     type Response = Connection;
//! #     type Error = Infallible;
//! #     type Future = std::future::Ready<Result<Connection, Infallible>>;
//! #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
//! #     fn call(&mut self, _: &'static str) -> Self::Future {
//! #         let (mock, handle) = tower_test::mock::pair();
//! #         self.0.lock().unwrap().push(handle);
//! #         std::future::ready(Ok(mock))
//! #     }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let servers = std::sync::Arc::default();
//! # let connect = Connect(std::sync::Arc::clone(&servers));
//! // Addresses come from anywhere; a service connects to them.
//! let (changes, discover) = tokio::sync::mpsc::channel(8);
//! let discover = tokio_stream::wrappers::ReceiverStream::new(discover);
//! let pool = Pool::builder(discover, connect).spawn::<&str>()?;
//! let mut states = pool.states();
//! assert_eq!(states.next().await, Some(Observed::All(vec![])));
//!
//! changes.send(Ok::<_, Infallible>(Change::Insert("a", "10.0.0.1:80"))).await?;
//! loop {
//!     let Some(Observed::Changed { key: "a", to, .. }) = states.next().await else { unreachable!() };
//!     if to == Some(State::Ready) {
//!         break;
//!     }
//! }
//!
//! let mut caller = pool.clone();
//! std::future::poll_fn(|cx| caller.poll_ready(cx)).await?;
//! let response = tokio::spawn(caller.call("hello"));
//! # let mut server = servers.lock().unwrap().pop().unwrap();
//! # server.next_request().await.unwrap().1.send_response("world");
//! assert_eq!(response.await??, "world");
//! # Ok(())
//! # }
//! ```
//!
//! # When not to use it
//!
//! For one endpoint, or for a few that never change: then [`Balance`](crate::Balance) in a buffer is as good.
//!
//! # What it costs
//!
//! For each request a pick, two short latches, three counters that other callers of the same endpoint use, and a
//! reference count; no allocation, no clock, whatever the number of endpoints. A change of discovery takes some hundred
//! nanoseconds, for ten thousand endpoints as for ten. A request that waits is boxed. An endpoint takes some
//! hundred bytes; the memory of one that has gone is used for the next, and isn't given back.

mod alarms;
mod builder;
mod driver;
mod endpoint;
mod entry;
mod gauge;
mod latch;
mod link;
mod numbers;
mod observe;
mod outlier;
mod queued;
mod roster;
mod shared;
mod shortage;
mod slots;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_classify::{Classify, EveryErrorFails};
use tower_close::{Close, Closing, Task};
use tower_deadline::Deadline;
use tower_load::{CompleteOnResponse, TrackCompletion};
use tower_rng::SplitMix64;
use tower_service::Service;

pub use self::builder::Builder;
pub use self::endpoint::Completion;
use self::endpoint::Flight;
pub use self::gauge::{Attach, Gauge, InFlight, Member};
use self::observe::Newcomers;
pub use self::observe::{Observed, State, States};
pub use self::outlier::Ejection;
use self::queued::{Doorstep, Queued};
use self::shared::{Called, Chooser, Seeds, Shared};
pub use self::shortage::{Census, Reason, Unavailable};
use crate::picker::{Picker, PowerOfTwo, Preparation};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Balances over endpoints that its own task keeps connected; see the [module](self).
///
/// `K` are the keys of discovery, `S` the services of the endpoints, `P` picks, `G` measures their load, `C`
/// says which responses count against them, and `T` when a request is no longer in flight.
///
/// **Readiness.** Ready when an endpoint is, or when the request would find a place in the queue. It reserves
/// neither: where another caller takes the last place first, the call fails with
/// [`Reason::QueueFull`]. Waiting for a place is bounded as waiting in the queue is; then it says ready,
/// and the call tells why nothing was.
///
/// **Cancellation.** Dropping a response future drops the endpoint's, or leaves the queue.
///
/// **Errors.** Those of the endpoint, boxed, and [`Unavailable`]. An endpoint that fails to become ready is made
/// anew, and the request goes to another one.
///
/// **Panics.** One in the call of an endpoint, or in its future, reaches the caller. An endpoint that panics, there or
/// while it is connected to or polled, has failed as by an error. What ends the pool's task, such as a panic of
/// discovery, is told by [`Reason::Panicked`].
///
/// **Closing.** It takes no more requests, finishes those that wait and those in flight, and drops its endpoints.
/// Without being closed, its task ends with the last clone and the last request that waits.
pub struct Pool<
    K,
    S,
    P = PowerOfTwo,
    G: Gauge = InFlight,
    C = EveryErrorFails,
    T = CompleteOnResponse,
> {
    core: Arc<Core<K, S, G>>,
    chooser: Chooser<P, SplitMix64>,
    classify: C,
    completion: T,
    door: Door<K, S, G>,
}

/// Whether a handle has to wait for a place in the queue.
enum Door<K, S, G: Gauge> {
    Open,
    Waiting(Box<Doorstep<K, S, G>>),
    /// It was in vain or has ended: the next call tells which.
    Passed,
}

struct Core<K, S, G: Gauge> {
    shared: Arc<Shared<S, G>>,
    newcomers: Arc<Newcomers<K>>,
    task: Task,
    seeds: Seeds,
    max_wait: Duration,
}

pin_project! {
    /// The response of a [`Pool`]: that of an endpoint, or [`Unavailable`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<K, S, P, G, C, T, Req>
    where
        S: Service<Req>,
        G: Gauge,
    {
        #[pin]
        state: Response<K, S, P, G, Req, S::Future>,
        classify: C,
        completion: T,
    }
}

pin_project! {
    #[project = ResponseProj]
    enum Response<K, S, P, G, Req, F>
    where
        G: Gauge,
    {
        Called {
            #[pin]
            future: F,
            flight: Flight<S, G>,
        },
        Queued { queued: Box<Queued<K, S, P, G, Req>> },
        Failed { error: Option<BoxError> },
    }
}

impl Pool<(), ()> {
    /// Begins a pool over what `discover` finds and `make` connects to.
    ///
    /// What is discovered are targets, such as addresses: they are cloned each time that a connection is made.
    pub fn builder<D, M>(discover: D, make: M) -> Builder<D, M> {
        Builder::new(discover, make)
    }
}

impl<K, S, P, G: Gauge, C, T> Pool<K, S, P, G, C, T> {
    /// Watches the endpoints: first all of them, then every change.
    ///
    /// An observer that is too slow for every change is told [all](Observed::All) again. The stream ends with the
    /// pool, and doesn't keep it.
    pub fn states(&self) -> States<K> {
        self.core.newcomers.add()
    }

    /// Counts the endpoints by what they are doing.
    pub fn census(&self) -> Census {
        self.core.shared.report().census
    }

    /// How many requests wait, for an endpoint or for what their [picker](Picker::prepare) needs.
    pub fn queued(&self) -> usize {
        self.core.shared.waiting()
    }
}

impl<K, S, G: Gauge> Core<K, S, G> {
    #[cold]
    fn unavailable(&self, reason: Reason, waited: Duration) -> BoxError {
        let report = self.shared.report().clone();
        let panic = self.task.panic_message();
        let reason = panic.map_or(reason, |_| Reason::Panicked);
        self.shared.metrics.unavailable(reason);
        Box::new(Unavailable {
            reason,
            census: report.census,
            last_failure: panic.map(Arc::from).or(report.last_failure),
            waited,
        })
    }
}

impl<K, S, P, G, C, T, Req> Service<Req> for Pool<K, S, P, G, C, T>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    P: Picker<Member<G>> + Clone,
    G: Gauge,
    C: Classify<(), S::Response, S::Error> + Clone,
    T: TrackCompletion<Completion<S, G>, S::Response> + Clone,
{
    type Response = T::Output;
    type Error = BoxError;
    type Future = ResponseFuture<K, S, P, G, C, T, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.core.shared.has_room() {
            self.door = Door::Open;
            return Poll::Ready(Ok(()));
        }
        self.poll_door(cx).map(Ok)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = &self.core.shared;
        let state = if shared.is_closing() {
            self.refuse(request)
        } else if let Some(preparation) = self.chooser.prepare(shared) {
            self.prepare(preparation, request)
        } else {
            match shared.dispatch(request, &mut self.chooser) {
                Ok(called) => called.into(),
                Err(miss) => self.refuse(miss.request),
            }
        };
        self.door = Door::Open;
        ResponseFuture {
            state,
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<K, S, P, G, C, T> Pool<K, S, P, G, C, T>
where
    G: Gauge,
{
    #[cold]
    fn poll_door(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.door {
                Door::Open => {
                    self.door = Door::Waiting(Box::new(Doorstep::new(&self.core)));
                }
                // To `Passed`, in which it stays ready, whether there is room or not.
                Door::Waiting(doorstep) => {
                    ready!(doorstep.poll(cx));
                    self.door = Door::Passed;
                }
                Door::Passed => return Poll::Ready(()),
            }
        }
    }

    /// Queues a request that found no endpoint, or refuses it.
    #[cold]
    fn refuse<Req>(&self, request: Req) -> Response<K, S, P, G, Req, S::Future>
    where
        S: Service<Req>,
        P: Clone,
    {
        match Queued::new(&self.core, || self.fork_chooser(), request) {
            Ok(queued) => Response::Queued {
                queued: Box::new(queued),
            },
            Err(error) => Response::Failed { error: Some(error) },
        }
    }

    /// Has a request wait for what the picker needs.
    #[cold]
    fn prepare<Req>(
        &self,
        preparation: Preparation,
        request: Req,
    ) -> Response<K, S, P, G, Req, S::Future>
    where
        S: Service<Req>,
        P: Clone,
    {
        let queued = Queued::preparing(&self.core, self.fork_chooser(), preparation, request);
        Response::Queued {
            queued: Box::new(queued),
        }
    }

    /// One that draws other numbers.
    fn fork_chooser(&self) -> Chooser<P, SplitMix64>
    where
        P: Clone,
    {
        Chooser {
            picker: self.chooser.picker.clone(),
            rng: self.core.seeds.next(),
            blame: self.chooser.blame,
        }
    }
}

impl<K, S, P, G, C, T> Close for Pool<K, S, P, G, C, T>
where
    G: Gauge,
{
    fn close(&self, by: Deadline) -> Closing {
        self.core.shared.begin_closing();
        self.core.task.close(by)
    }
}

impl<K, S, P, G, C, T> Clone for Pool<K, S, P, G, C, T>
where
    P: Clone,
    G: Gauge,
    C: Clone,
    T: Clone,
{
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            chooser: self.fork_chooser(),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
            door: Door::Open,
        }
    }
}

impl<K, S, P, G, C, T, Req> Future for ResponseFuture<K, S, P, G, C, T, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    P: Picker<Member<G>>,
    G: Gauge,
    C: Classify<(), S::Response, S::Error>,
    T: TrackCompletion<Completion<S, G>, S::Response>,
{
    type Output = Result<T::Output, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                ResponseProj::Called { future, flight } => {
                    let Poll::Ready(result) = future.poll(cx) else {
                        flight.waits();
                        return Poll::Pending;
                    };
                    let class = this.classify.classify(&(), &result);
                    return Poll::Ready(match result {
                        Ok(response) => {
                            let completion = flight.answered(class);
                            Ok(this.completion.track_completion(completion, response))
                        }
                        Err(error) => {
                            flight.finish(class);
                            Err(error.into())
                        }
                    });
                }
                // Queued → Called | Failed
                ResponseProj::Queued { queued } => {
                    let next = match ready!(queued.poll(cx)) {
                        Ok(called) => called.into(),
                        Err(error) => Response::Failed { error: Some(error) },
                    };
                    this.state.set(next);
                }
                ResponseProj::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<K, S, P, G: Gauge, Req, F> From<Called<F, S, G>> for Response<K, S, P, G, Req, F> {
    #[inline]
    fn from(Called { future, flight }: Called<F, S, G>) -> Self {
        Self::Called { future, flight }
    }
}

impl<K, S, P, G: Gauge, C, T> fmt::Debug for Pool<K, S, P, G, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("census", &self.census())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

impl<K, S, P, G, C, T, Req> fmt::Debug for ResponseFuture<K, S, P, G, C, T, Req>
where
    S: Service<Req>,
    G: Gauge,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            Response::Called { .. } => "ResponseFuture(called)",
            Response::Queued { .. } => "ResponseFuture(queued)",
            Response::Failed { .. } => "ResponseFuture(failed)",
        })
    }
}
