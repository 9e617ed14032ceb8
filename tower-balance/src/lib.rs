//! Balances requests over a changing set of services, by the power of two choices.
//!
//! For each request [`Balance`] draws two ready endpoints at random and takes the less loaded one. This
//! comes close to always taking the least loaded, but needs to look at two endpoints only, however many
//! there are; and as it doesn't send everybody to the same best endpoint, stale loads do little harm.
//!
//! Where the endpoints come from is a [`Discover`]; what loaded means is a [`Load`].
//!
//! A [`Balance`] has one caller, and works while it is polled. For a client that lives long and has many callers
//! there is the [`pool`]: a task of its own follows discovery and connects, and callers share it.
//!
//! # When not to use it
//!
//! Where the requests of one user or key must reach the same endpoint, hash them. Where the endpoints
//! differ in what they can do, steer.
//!
//! # Cost
//!
//! A request over ready endpoints costs some 10 ns, for ten thousand endpoints as for ten: no allocation,
//! lock or hashing. Loads that depend on time, such as
//! [`PeakEwma`](tower_load::peak_ewma::PeakEwma), add one reading of the clock per pick. A change of the
//! set of endpoints allocates and hashes.

mod made;
mod outcome_gauge;
mod patience;
mod pick;
pub mod picker;
pub mod pool;
pub mod prequal;
mod reported_gauge;

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_discover::{Change, Discover};
use tower_load::Load;
use tower_ready_cache::{Failed, NotReady, ReadyCache};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;

pub use self::made::{MakeBalance, MakeBalanceLayer, MakeFuture};

use crate::error::NoEndpoint;
use crate::patience::Patience;
use crate::pick::two_of;
use crate::picker::is_preferred;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that sends each request to the less loaded of two endpoints drawn at random.
///
/// Its endpoints are those of a [`Discover`]. Each tells its [`Load`].
///
/// # Readiness
///
/// Ready when one endpoint is. It follows discovery whenever its readiness is polled, and picks the
/// endpoint for the next call then; further polls check that this one is still ready, and pick another
/// if it isn't. Without endpoints, or with none ready, it waits: see
/// [`with_fail_fast`](Self::with_fail_fast) and [`with_max_wait`](Self::with_max_wait).
///
/// # Cancellation
///
/// Dropping a response future drops that of the endpoint.
///
/// # Errors
///
/// - An error of a response is that of the endpoint.
/// - An endpoint that fails to become ready is dropped, and only comes back if discovery inserts it
///   again. The others go on.
/// - An error of discovery fails `poll_ready` with [`error::Discover`]. The balancer keeps its endpoints
///   and may be polled again.
/// - A response is [`NoEndpoint`] if the service was called without being ready and no endpoint is, or if
///   the longest wait has passed. With `with_fail_fast`, `poll_ready` fails with it once there will
///   never be an endpoint again.
///
/// # Example
///
/// ```
/// use tower_balance::Balance;
/// use tower_discover::ServiceList;
/// use tower_load::Constant;
/// # use tower_service::Service;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let (a, mut a_handle) = tower_test::mock::pair::<&str, &str>();
/// # let (b, _b_handle) = tower_test::mock::pair::<&str, &str>();
///
/// let endpoints = ServiceList::new::<&str>([Constant::new(a, 1), Constant::new(b, 2)]);
/// let mut balance = Balance::new(endpoints);
///
/// // Two are drawn of two, so that the first one, which has less load, is taken always.
/// std::future::poll_fn(|cx| balance.poll_ready(cx)).await.unwrap();
/// let response = balance.call("hello");
/// let (request, send) = a_handle.next_request().await.unwrap();
/// assert_eq!(request, "hello");
///
/// send.send_response("world");
/// assert_eq!(response.await.unwrap(), "world");
/// # }
/// ```
pub struct Balance<D, Req>
where
    D: Discover,
    D::Key: Hash,
{
    discover: D,
    /// Whether `discover` has ended. It isn't polled any more then: not every stream can bear it.
    discovered_all: bool,
    endpoints: ReadyCache<D::Key, D::Service, Req>,
    chance: Chance,
    patience: Patience,
    fail_fast: bool,
    // As in `tower` 0.5, it isn't `Unpin` unless the request is.
    _request: PhantomData<Req>,
}

pin_project! {
    /// The response of a [`Balance`]: that of an endpoint, or [`NoEndpoint`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: ResponseState<F>,
    }
}

pin_project! {
    #[project = ResponseStateProj]
    #[derive(Debug)]
    enum ResponseState<F> {
        Called { #[pin] response: F },
        Failed { reason: NoEndpoint },
        Done,
    }
}

/// Where the balancer draws from. The default is no trait object, so that a draw is a few instructions.
enum Chance {
    Default(SplitMix64),
    Custom(Box<dyn Rng + Send + Sync>),
}

impl<D, Req> Balance<D, Req>
where
    D: Discover,
    D::Key: Hash,
    D::Service: Service<Req>,
    <D::Service as Service<Req>>::Error: Into<BoxError>,
{
    /// Balances over the endpoints that `discover` finds.
    pub fn new(discover: D) -> Self {
        Self::with_chance(discover, Chance::Default(SplitMix64::from_entropy()))
    }

    /// Balances over the endpoints that `discover` finds, and draws them from `rng`.
    ///
    /// Each pick among more than one endpoint draws 64 bits.
    pub fn from_rng<R: Rng + Send + Sync + 'static>(discover: D, rng: R) -> Self {
        Self::with_chance(discover, Chance::Custom(Box::new(rng)))
    }

    /// Makes `poll_ready` fail with [`NoEndpoint::Finished`] once discovery has ended and no endpoint is
    /// left, instead of waiting for ever.
    #[must_use]
    pub fn with_fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Bounds how long a caller waits for a ready endpoint.
    ///
    /// When `most` has passed since `poll_ready` first found none, it says ready, and the response of the
    /// next call is the [`NoEndpoint`] that tells why. The balancer stays in use; a new wait begins with
    /// the next `poll_ready`.
    ///
    /// Outside of a tokio runtime there are no timers; there the task is woken over and over while it
    /// waits.
    #[must_use]
    pub fn with_max_wait(mut self, most: Duration) -> Self {
        self.patience = Patience::at_most(most);
        self
    }

    /// Counts the endpoints, ready or not.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Tells whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    fn with_chance(discover: D, chance: Chance) -> Self {
        tracing::trace!("balancing by the power of two choices");
        Self {
            discover,
            discovered_all: false,
            endpoints: ReadyCache::default(),
            chance,
            patience: Patience::endless(),
            fail_fast: false,
            _request: PhantomData,
        }
    }

    /// Says why no endpoint can take a request.
    fn why(&self) -> NoEndpoint {
        match self.endpoints.len() {
            0 if self.discovered_all => NoEndpoint::Finished,
            0 => NoEndpoint::NoneKnown,
            known => NoEndpoint::NoneReady { known },
        }
    }
}

impl<D, Req> Balance<D, Req>
where
    D: Discover + Unpin,
    D::Key: Hash + Clone,
    D::Error: Into<BoxError>,
    D::Service: Service<Req> + Load,
    <D::Service as Service<Req>>::Error: Into<BoxError>,
{
    /// Takes in the changes that discovery has for now. Apart, so that `poll_ready` is short.
    #[inline(never)]
    fn follow_discovery(&mut self, cx: &mut Context<'_>) -> Result<(), BoxError> {
        while !self.discovered_all {
            match Pin::new(&mut self.discover).poll_discover(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(change))) => self.apply(change),
                Poll::Ready(Some(Err(error))) => return Err(error::Discover(error.into()).into()),
                Poll::Ready(None) => self.discovered_all = true,
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: Change<D::Key, D::Service>) {
        match change {
            // The endpoint that it replaces stays until the new one is ready, and then passes its index on.
            Change::Insert(key, service) => self.endpoints.push(key, service),
            // A pick of it ends with it.
            Change::Remove(key) => {
                self.endpoints.evict(&key);
            }
        }
    }

    /// Makes those endpoints ready that are.
    #[inline]
    fn promote_pending(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Err(failed)) = self.endpoints.poll_pending(cx) {
            note_failed(failed);
        }
    }

    /// Picks an endpoint, unless one is picked, and makes sure that it is ready.
    #[inline]
    fn poll_pick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.endpoints.check_picked(cx) {
            Ok(true) => return Poll::Ready(()),
            Ok(false) => {}
            Err(failed) => note_failed(failed),
        }
        loop {
            let len = self.endpoints.ready_len();
            let picked = if len > 1 {
                let two = two_of(len, self.chance.next_u64());
                self.endpoints.pick_of_two(cx, two, is_preferred)
            } else if len == 1 {
                self.endpoints.pick(cx, 0)
            } else {
                return Poll::Pending;
            };
            match picked {
                Ok(true) => return Poll::Ready(()),
                // It isn't ready after all, and has left the ready ones, so that this ends.
                Ok(false) => {}
                Err(failed) => note_failed(failed),
            }
        }
    }

    /// Calls an endpoint that no poll has picked. Those that are ready were polled and not called since,
    /// but for the last that was called.
    #[cold]
    #[inline(never)]
    fn call_unpicked(
        &mut self,
        req: Req,
    ) -> Result<<D::Service as Service<Req>>::Future, NoEndpoint> {
        self.patience.reset();
        self.endpoints.end_turn();
        let index = match self.endpoints.ready_len() {
            0 | 1 => 0,
            len => {
                let (first, second) = two_of(len, self.chance.next_u64());
                let service = |index| {
                    self.endpoints
                        .get_ready_index(index)
                        .map(|(_, service)| service)
                };
                match (service(first), service(second)) {
                    (Some(a), Some(b)) if !is_preferred(a, b) => second,
                    _ => first,
                }
            }
        };
        self.endpoints
            .try_call_ready_index(index, req)
            .map_err(|_| self.why())
    }

    /// What becomes of a poll that found no endpoint.
    #[cold]
    fn poll_without_endpoint(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.fail_fast && self.why() == NoEndpoint::Finished {
            return Poll::Ready(Err(NoEndpoint::Finished.into()));
        }
        self.patience.poll(cx).map(Ok)
    }
}

impl<D, Req> Service<Req> for Balance<D, Req>
where
    D: Discover + Unpin,
    D::Key: Hash + Clone,
    D::Error: Into<BoxError>,
    D::Service: Service<Req> + Load,
    <D::Service as Load>::Metric: fmt::Debug,
    <D::Service as Service<Req>>::Error: Into<BoxError>,
{
    type Response = <D::Service as Service<Req>>::Response;
    type Error = BoxError;
    type Future = ResponseFuture<<D::Service as Service<Req>>::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.discovered_all {
            self.follow_discovery(cx)?;
        }
        self.promote_pending(cx);
        if self.poll_pick(cx).is_pending() {
            return self.poll_without_endpoint(cx);
        }
        self.patience.reset();
        Poll::Ready(Ok(()))
    }

    // Always: else the endpoint's future is handed over through memory.
    #[inline(always)]
    fn call(&mut self, req: Req) -> Self::Future {
        let called = match self.endpoints.call_picked(req) {
            Ok(response) => Ok(response),
            Err(NotReady(req)) => self.call_unpicked(req),
        };
        ResponseFuture {
            state: match called {
                Ok(response) => ResponseState::Called { response },
                Err(reason) => ResponseState::Failed { reason },
            },
        }
    }
}

#[cold]
fn note_failed<K>(Failed(_, error): Failed<K>) {
    tracing::debug!(%error, "dropping an endpoint that failed");
}

impl<D, Req> fmt::Debug for Balance<D, Req>
where
    D: Discover + fmt::Debug,
    D::Key: Hash + fmt::Debug,
    D::Service: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("discover", &self.discover)
            .field("discovered_all", &self.discovered_all)
            .field("endpoints", &self.endpoints)
            .field("patience", &self.patience)
            .field("fail_fast", &self.fail_fast)
            .finish_non_exhaustive()
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    // Always: the drop of the endpoint's future makes it look large, and what it does costs less than a call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let ResponseStateProj::Called { response } = state.as_mut().project() else {
            return Poll::Ready(Err(state.fail()));
        };
        let result = ready!(response.poll(cx));
        // What the endpoint's future holds, such as a permit, isn't kept until this one is dropped.
        state.set(ResponseState::Done);
        Poll::Ready(result.map_err(Into::into))
    }
}

impl<F> ResponseState<F> {
    #[cold]
    #[inline(never)]
    fn fail(mut self: Pin<&mut Self>) -> BoxError {
        let ResponseStateProj::Failed { reason } = self.as_mut().project() else {
            panic!("`ResponseFuture` polled after completion");
        };
        let error = (*reason).into();
        self.set(Self::Done);
        error
    }
}

impl Chance {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        match self {
            Self::Default(rng) => rng.next_u64(),
            Self::Custom(rng) => rng.next_u64(),
        }
    }
}

/// What a balancer itself can fail with. All else are errors of its endpoints.
pub mod error {
    use std::error::Error;
    use std::fmt;

    use super::BoxError;

    /// The source of endpoints failed.
    #[derive(Debug)]
    pub struct Discover(pub(crate) BoxError);

    /// There is no endpoint that could take the request, and this is why.
    ///
    /// A balancer waits for one unless it is told otherwise; see
    /// [`Balance`](crate::Balance#errors) for when this error comes.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    #[non_exhaustive]
    pub enum NoEndpoint {
        /// No endpoint is known at present.
        NoneKnown,
        /// Endpoints are known, but none is ready.
        #[non_exhaustive]
        NoneReady {
            /// How many endpoints are known.
            known: usize,
        },
        /// No endpoint is known, and none will be: discovery has finished.
        Finished,
    }

    impl fmt::Display for Discover {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "load balancer discovery error: {}", self.0)
        }
    }

    impl Error for Discover {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    impl fmt::Display for NoEndpoint {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::NoneKnown => f.write_str("no endpoint is known"),
                Self::NoneReady { known } => write!(f, "none of {known} known endpoints is ready"),
                Self::Finished => f.write_str("no endpoint is left, and discovery has finished"),
            }
        }
    }

    impl Error for NoEndpoint {}
}
