//! What users of tower 0.5 rely on and no signature shows: auto traits and their absence, impls, constructors in
//! constants, object safety, and the texts of errors and of `Debug`.
//!
//! `api/compare` checks every item's signature, and the auto traits of every type. This test names those that matter
//! so that `cargo test` alone notices, and what rustdoc's JSON can't tell.

#![cfg(feature = "full")]

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::{Future, Pending, Ready, ready};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomPinned;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use tokio::sync::Semaphore;

use tower::balance::p2c::{self, Balance, MakeBalance, MakeBalanceLayer};
use tower::buffer::{self, Buffer, BufferLayer};
use tower::builder::ServiceBuilder;
use tower::discover::{Change, Discover, ServiceList};
use tower::filter::{
    self, AsyncFilter, AsyncFilterLayer, AsyncPredicate, Filter, FilterLayer, Predicate,
};
use tower::hedge::{self, Hedge};
use tower::layer::util::{Identity, Stack};
use tower::layer::{LayerFn, layer_fn};
use tower::limit::rate::Rate;
use tower::limit::{
    self, ConcurrencyLimit, ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimit,
    RateLimitLayer,
};
use tower::load::completion::TrackCompletionFuture;
use tower::load::{
    CompleteOnResponse, Constant, Load, PeakEwma, PeakEwmaDiscover, PendingRequests,
    PendingRequestsDiscover, TrackCompletion, peak_ewma, pending_requests,
};
use tower::load_shed::{self, LoadShed, LoadShedLayer};
use tower::make::{AsService, IntoService, MakeConnection, Shared};
use tower::ready_cache::ReadyCache;
use tower::reconnect::{self, Reconnect};
use tower::retry::backoff::{
    Backoff, ExponentialBackoff, ExponentialBackoffMaker, InvalidBackoff, MakeBackoff,
};
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{self, Policy, Retry, RetryLayer};
use tower::spawn_ready::{self, SpawnReady, SpawnReadyLayer};
use tower::steer::{Picker, Steer};
use tower::timeout::{self, Timeout, TimeoutLayer};
use tower::util::rng::{HasherRng, Rng};
use tower::util::{
    AndThen, AndThenLayer, BoxCloneService, BoxCloneServiceLayer, BoxCloneSyncService,
    BoxCloneSyncServiceLayer, BoxLayer, BoxService, CallAll, CallAllUnordered, Either,
    FutureService, MapErr, MapErrLayer, MapFuture, MapFutureLayer, MapRequest, MapRequestLayer,
    MapResponse, MapResponseLayer, MapResult, MapResultLayer, Oneshot, Optional, ReadyOneshot,
    ServiceFn, Then, ThenLayer, UnsyncBoxService,
};
use tower::{BoxError, Layer, MakeService, Service, ServiceExt};

/// Checks that the types implement all the traits.
macro_rules! assert_impl {
    ($traits:path: $($type:ty),+ $(,)?) => { assert_impl! { {$traits}: $($type),+ } };
    ({$($traits:tt)+}: $($type:ty),+ $(,)?) => {
        const _: fn() = || {
            fn assert<T: ?Sized + $($traits)+>() {}
            $(assert::<$type>();)+
        };
    };
}

/// Checks that the type does not implement the trait: if it did, `_` could be inferred in two ways.
macro_rules! assert_not_impl {
    ($trait:path: $($type:ty),+ $(,)?) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn check() {}
            }
            struct Implements;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $trait> Ambiguous<Implements> for T {}
            $(let _ = <$type as Ambiguous<_>>::check;)+
        };
    };
}

type Req = u32;
type Res = String;

/// A service with every auto trait, and a future that has them, too.
#[derive(Clone, Debug)]
struct Svc;

impl Service<Req> for Svc {
    type Response = Res;
    type Error = BoxError;
    type Future = Ready<Result<Res, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Req) -> Self::Future {
        ready(Ok(req.to_string()))
    }
}

impl Load for Svc {
    type Metric = u32;

    fn load(&self) -> u32 {
        0
    }
}

/// Always retries: a policy for `Retry` and, by another trait of that name, for `Hedge`.
#[derive(Clone, Debug)]
struct Always;

impl<T: Clone, U, E> Policy<T, U, E> for Always {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut T, _: &mut Result<U, E>) -> Option<Ready<()>> {
        Some(ready(()))
    }

    fn clone_request(&mut self, req: &T) -> Option<T> {
        Some(req.clone())
    }
}

impl<T: Clone> hedge::Policy<T> for Always {
    fn clone_request(&self, req: &T) -> Option<T> {
        Some(req.clone())
    }

    fn can_retry(&self, _: &T) -> bool {
        true
    }
}

type Fut<T = Res> = Ready<Result<T, BoxError>>;
type Closure = fn(Req) -> Req;
type Endpoints = ServiceList<Vec<Svc>>;
type Responses<S> = <S as Service<Req>>::Future;

// Services over a service that is Send, Sync and Unpin are so, too.
assert_impl!({Send + Sync + Unpin + Debug}:
    AsyncFilter<Svc, Closure>, Balance<Endpoints, Req>, BoxService<Req, Res, BoxError>,
    BoxCloneSyncService<Req, Res, BoxError>, Buffer<Req, Fut>, ConcurrencyLimit<Svc>,
    Constant<Svc, u32>, Either<Svc, Svc>, Filter<Svc, Closure>, FutureService<Ready<Svc>, Svc>,
    Hedge<Svc, Always>, IntoService<Svc, Req>, LoadShed<Svc>, MakeBalance<Svc, Req>,
    MapErr<Svc, Closure>, MapFuture<Svc, Closure>, MapRequest<Svc, Closure>,
    MapResponse<Svc, Closure>, MapResult<Svc, Closure>, AndThen<Svc, Closure>, Then<Svc, Closure>,
    Optional<Svc>, PeakEwma<Svc>, PendingRequests<Svc>, RateLimit<Svc>, ReadyCache<u32, Svc, Req>,
    Retry<Always, Svc>, ServiceBuilder<Identity>, Shared<Svc>, SpawnReady<Svc>,
    Steer<Svc, Closure, Req>, Timeout<Svc>, ServiceFn<Closure>,
);
assert_impl!({Send + Sync + Unpin}: AsService<'static, Svc, Req>, ReadyCache<u32, Svc, Req>);

// So are their futures, over a future that is.
assert_impl!({Future + Send + Sync + Unpin}:
    Responses<AndThen<Svc, fn(Res) -> Fut>>,
    Responses<AsyncFilter<Svc, fn(Req) -> Fut<Req>>>,
    Responses<ConcurrencyLimit<Svc>>, Responses<Either<Svc, Svc>>,
    Responses<Filter<Svc, fn(Req) -> Result<Req, BoxError>>>, Responses<LoadShed<Svc>>,
    Responses<MapErr<Svc, fn(BoxError) -> BoxError>>, Responses<MapResponse<Svc, fn(Res) -> Res>>,
    Responses<Optional<Svc>>, Responses<PeakEwma<Svc>>, Responses<PendingRequests<Svc>>,
    Responses<Retry<Always, Svc>>, Responses<RateLimit<Svc>>, Responses<SpawnReady<Svc>>,
    Oneshot<Svc, Req>, tower::util::Ready<'static, Svc, Req>, ReadyOneshot<Svc, Req>,
);
// These hold a timer, or a future in a box, which may be neither moved nor shared.
assert_impl!({Future + Send}:
    Responses<Timeout<Svc>>, Responses<Hedge<Svc, Always>>, Responses<Buffer<Req, Fut>>,
    Responses<Balance<Endpoints, Req>>, Responses<BoxService<Req, Res, BoxError>>,
    Responses<BoxCloneService<Req, Res, BoxError>>,
    Responses<BoxCloneSyncService<Req, Res, BoxError>>,
);
assert_not_impl!(Sync: Responses<BoxService<Req, Res, BoxError>>);
assert_not_impl!(Send: Responses<UnsyncBoxService<Req, Res, BoxError>>);

// What a box hides decides what the box may promise.
assert_impl!({Send + Unpin + Clone + Debug}: BoxCloneService<Req, Res, BoxError>);
assert_not_impl!(Sync: BoxCloneService<Req, Res, BoxError>);
assert_impl!({Send + Sync + Unpin + Clone + Debug}: BoxCloneSyncService<Req, Res, BoxError>);
assert_not_impl!(Clone: BoxService<Req, Res, BoxError>);
assert_impl!({Unpin + Debug}: UnsyncBoxService<Req, Res, BoxError>);
assert_not_impl!(Send: UnsyncBoxService<Req, Res, BoxError>);
assert_not_impl!(Sync: UnsyncBoxService<Req, Res, BoxError>);
assert_not_impl!(Clone: UnsyncBoxService<Req, Res, BoxError>);
// A boxed service is so whatever its request is.
assert_impl!({Send + Sync}: BoxService<Rc<()>, Rc<()>, Rc<()>>, BoxCloneSyncService<Rc<()>, Rc<()>, Rc<()>>);

// A middleware takes no auto trait that its service has not.
assert_not_impl!(Send: Timeout<Rc<()>>, ConcurrencyLimit<Rc<()>>, RateLimit<Rc<()>>, LoadShed<Rc<()>>, Retry<Always, Rc<()>>);
assert_not_impl!(Sync: Timeout<Cell<()>>, ConcurrencyLimit<Cell<()>>, RateLimit<Cell<()>>, LoadShed<Cell<()>>);
assert_not_impl!(Unpin: timeout::future::ResponseFuture<PhantomPinned>, load_shed::future::ResponseFuture<PhantomPinned>);
// A buffer shares nothing of a request but the right to send it.
assert_impl!({Send + Sync + Unpin + Clone}: Buffer<Cell<()>, Pending<Result<(), BoxError>>>);
assert_not_impl!(Send: Buffer<Rc<()>, Fut>);

// What is Clone, and what must not be.
assert_impl!(Clone:
    AndThen<Svc, Closure>, AsyncFilter<Svc, Closure>, Buffer<Req, Fut>, ConcurrencyLimit<Svc>,
    Either<Svc, Svc>, Filter<Svc, Closure>, FutureService<Ready<Svc>, Svc>, IntoService<Svc, Req>,
    LoadShed<Svc>, MakeBalance<Svc, Req>, MapErr<Svc, Closure>, MapFuture<Svc, Closure>,
    MapRequest<Svc, Closure>, MapResponse<Svc, Closure>, MapResult<Svc, Closure>,
    Retry<Always, Svc>, ServiceFn<Closure>, Shared<Svc>, Steer<Svc, Closure, Req>,
    Then<Svc, Closure>, Timeout<Svc>, TpsBudgetHandle,
);
assert_not_impl!(Clone: SpawnReady<Svc>, PeakEwma<Svc>, PendingRequests<Svc>, Balance<Endpoints, Req>, TpsBudget);
type TpsBudgetHandle = Arc<TpsBudget>;

// Layers are cloned with the routers that hold them.
assert_impl!({Clone + Send + Sync + Unpin + Debug}:
    AndThenLayer<Closure>, AsyncFilterLayer<Closure>, BoxCloneServiceLayer<Svc, Req, Res, BoxError>,
    BoxCloneSyncServiceLayer<Svc, Req, Res, BoxError>, BoxLayer<Svc, Req, Res, BoxError>,
    BufferLayer<Req>, ConcurrencyLimitLayer, FilterLayer<Closure>, GlobalConcurrencyLimitLayer,
    Identity, LayerFn<Closure>, LoadShedLayer, MakeBalanceLayer<Svc, Req>, MapErrLayer<Closure>,
    MapFutureLayer<Closure>, MapRequestLayer<Closure>, MapResponseLayer<Closure>,
    MapResultLayer<Closure>, RateLimitLayer, RetryLayer<Always>, ServiceBuilder<Identity>,
    SpawnReadyLayer, Stack<Identity, Identity>, ThenLayer<Closure>, TimeoutLayer,
    Either<Identity, Identity>,
);
assert_impl!(Copy: BufferLayer<Rc<()>>, LayerFn<Closure>, ServiceFn<Closure>, Rate, CompleteOnResponse, Either<u8, u8>);
assert_impl!(Default:
    CompleteOnResponse, ExponentialBackoffMaker, HasherRng, Identity, LoadShedLayer,
    MakeBalanceLayer<Svc, Req>, ReadyCache<u32, Svc, Req>, ServiceBuilder<Identity>,
    SpawnReadyLayer, TpsBudget, timeout::error::Elapsed, load_shed::error::Overloaded,
    pending_requests::Count,
);
assert_impl!({PartialOrd + Copy + Debug + Send + Sync}: peak_ewma::Cost, pending_requests::Count);
assert_impl!({Ord + Eq}: pending_requests::Count);

// Errors fit into a `BoxError`.
assert_impl!({Error + Send + Sync + Unpin + 'static}:
    tower::balance::error::Discover, buffer::error::Closed, buffer::error::ServiceError,
    load_shed::error::Overloaded, timeout::error::Elapsed, tower::ready_cache::error::Failed<u32>,
    tower::util::error::optional::None, InvalidBackoff, tower_test::mock::error::Closed,
);

// Services that are made of others are services.
assert_impl!({Service<Req, Response = Res, Error = BoxError>}:
    Balance<Endpoints, Req>, Buffer<Req, Fut>, ConcurrencyLimit<Svc>, LoadShed<Svc>, Timeout<Svc>,
    RateLimit<Svc>, Retry<Always, Svc>, Hedge<Svc, Always>, SpawnReady<Svc>,
    Either<Svc, Timeout<Svc>>, Optional<Svc>, Box<Svc>, &'static mut Svc,
    BoxService<Req, Res, BoxError>, UnsyncBoxService<Req, Res, BoxError>, Constant<Svc, u32>,
    Box<dyn Service<Req, Response = Res, Error = BoxError, Future = Fut>>,
    Reconnect<Shared<Svc>, ()>, Steer<Svc, fn(&Req, &[Svc]) -> usize, Req>,
);
assert_impl!({Load<Metric = u32>}: ConcurrencyLimit<Svc>, RateLimit<Svc>, Constant<Svc, u32>);
assert_impl!({Load<Metric = peak_ewma::Cost>}: PeakEwma<Svc>);
assert_impl!({Load<Metric = pending_requests::Count>}: PendingRequests<Svc>);
assert_impl!(Discover:
    Endpoints, Constant<Endpoints, u32>, PeakEwmaDiscover<Endpoints>,
    PendingRequestsDiscover<Endpoints>, stream::Empty<Result<Change<u32, Svc>, Infallible>>,
);
assert_impl!({Discover<Key = usize, Service = Svc, Error = Infallible>}: Endpoints);
assert_impl!({MakeService<(), Req, Service = Svc, Response = Res, Error = BoxError, MakeError = Infallible>}: Shared<Svc>);
assert_impl!({Predicate<Req, Request = u64>}: fn(Req) -> Result<u64, Infallible>);
assert_impl!({AsyncPredicate<Req, Request = u64>}: fn(Req) -> Ready<Result<u64, Infallible>>);
assert_impl!({Picker<Svc, Req>}: fn(&Req, &[Svc]) -> usize);
assert_impl!({TrackCompletion<Rc<()>, Res, Output = Res>}: CompleteOnResponse);
assert_impl!(Rng: HasherRng, HasherRng<RandomState>, Box<dyn Rng>, Box<dyn Rng + Send + Sync>);
assert_impl!({Backoff<Future = tokio::time::Sleep>}: ExponentialBackoff);
assert_impl!({MakeBackoff<Backoff = ExponentialBackoff>}: ExponentialBackoffMaker);
assert_impl!(Budget: TpsBudget);
assert_impl!({Layer<Svc, Service = Timeout<ConcurrencyLimit<Svc>>>}: (TimeoutLayer, ConcurrencyLimitLayer));
assert_impl!({Layer<Svc, Service = Svc>}: (), (Identity,), Identity, &'static Identity);
assert_impl!({Layer<Svc, Service = BoxService<Req, Res, BoxError>>}: BoxLayer<Svc, Req, Res, BoxError>);

// The futures go by upstream's paths.
assert_impl!({Future<Output = Result<Res, BoxError>>}:
    buffer::future::ResponseFuture<Fut>, timeout::future::ResponseFuture<Fut>,
    load_shed::future::ResponseFuture<Fut>, limit::concurrency::future::ResponseFuture<Fut>,
    retry::future::ResponseFuture<Always, Svc, Req>, filter::future::ResponseFuture<Res, Fut>,
    spawn_ready::future::ResponseFuture<Fut, BoxError>, reconnect::ResponseFuture<Fut, BoxError>,
    tower::util::future::optional::ResponseFuture<Fut>,
    tower::util::future::EitherResponseFuture<Fut, Fut>,
    filter::future::AsyncResponseFuture<fn(Req) -> Fut<Req>, Svc, Req>,
    TrackCompletionFuture<Fut, CompleteOnResponse, Rc<()>>,
);
assert_impl!({Future<Output = Result<Balance<Endpoints, Req>, Infallible>>}:
    p2c::MakeFuture<Ready<Result<Endpoints, Infallible>>, Req>,
);

// Traits that users hold as `dyn`: an object's type implements its trait.
assert_impl!({Service<Req>}: dyn Service<Req, Response = Res, Error = BoxError, Future = Fut>);
assert_impl!(Layer<Svc>: dyn Layer<Svc, Service = Svc>);
assert_impl!({Policy<Req, Res, BoxError>}: dyn Policy<Req, Res, BoxError, Future = Ready<()>> + Send);
assert_impl!(hedge::Policy<Req>: dyn hedge::Policy<Req>);
assert_impl!(Predicate<Req>: dyn Predicate<Req, Request = Req>);
assert_impl!(AsyncPredicate<Req>: dyn AsyncPredicate<Req, Request = Req, Future = Fut<Req>>);
assert_impl!(Load: dyn Load<Metric = u32>);
assert_impl!(Budget: dyn Budget + Send + Sync);
assert_impl!(Backoff: dyn Backoff<Future = Pending<()>>);
assert_impl!(Rng: dyn Rng);
assert_impl!({Picker<Svc, Req>}: dyn Picker<Svc, Req>);

/// A generic user's code needs no bound that upstream's did not ask for.
#[allow(dead_code, reason = "it is enough that it compiles")]
mod generic {
    use super::*;

    fn send_and_sync<S: Send + Sync>() {
        fn assert<T: Send + Sync>() {}
        assert::<Timeout<S>>();
        assert::<ConcurrencyLimit<S>>();
        assert::<RateLimit<S>>();
        assert::<LoadShed<S>>();
        assert::<SpawnReady<S>>();
        assert::<timeout::future::ResponseFuture<S>>();
        assert::<limit::concurrency::future::ResponseFuture<S>>();
    }

    fn unpin<S: Unpin>() {
        fn assert<T: Unpin>() {}
        assert::<Timeout<S>>();
        assert::<ConcurrencyLimit<S>>();
        assert::<RateLimit<S>>();
        assert::<LoadShed<S>>();
        assert::<load_shed::future::ResponseFuture<S>>();
        assert::<limit::concurrency::future::ResponseFuture<S>>();
    }

    fn clones_of_a_buffer<R: Send + 'static, F: Send + 'static>() {
        fn assert<T: Clone + Send + Sync + Unpin>() {}
        assert::<Buffer<R, F>>();
    }

    fn a_layer_fits_any_service<S>(inner: S) -> Timeout<ConcurrencyLimit<S>> {
        ServiceBuilder::new()
            .timeout(Duration::MAX)
            .concurrency_limit(1)
            .service(inner)
    }

    fn hashers<H: BuildHasher>(rng: HasherRng<H>) -> impl Rng {
        rng
    }

    fn a_balancer<D>(
        discover: D,
    ) -> BoxService<Req, <D::Service as Service<Req>>::Response, BoxError>
    where
        D: Discover + Unpin + Send + 'static,
        D::Key: Hash + Clone + Send,
        D::Error: Into<BoxError>,
        D::Service: Service<Req> + Load + Send + 'static,
        <D::Service as Load>::Metric: Debug,
        <D::Service as Service<Req>>::Error: Into<BoxError>,
        <D::Service as Service<Req>>::Future: Send,
    {
        BoxService::new(Balance::new(discover))
    }

    fn a_connection<C>(connect: C) -> impl MakeConnection<Req>
    where
        C: Service<Req>,
        C::Response: tokio::io::AsyncRead + tokio::io::AsyncWrite,
    {
        connect
    }

    fn generic_parameters_have_their_defaults(
        _: ExponentialBackoffMaker,
        _: ExponentialBackoff,
        _: HasherRng,
        _: PeakEwma<Svc>,
    ) {
    }
}

// Constructors that upstream has as `const fn`.
const _: Identity = Identity::new();
const _: Stack<Identity, Identity> = Stack::new(Identity::new(), Identity::new());
const _: ServiceBuilder<Identity> = ServiceBuilder::new();
const _: Timeout<Svc> = Timeout::new(Svc, Duration::ZERO);
const _: TimeoutLayer = TimeoutLayer::new(Duration::ZERO);
const _: timeout::error::Elapsed = timeout::error::Elapsed::new();
const _: LoadShed<Svc> = LoadShed::new(Svc);
const _: LoadShedLayer = LoadShedLayer::new();
const _: load_shed::error::Overloaded = load_shed::error::Overloaded::new();
const _: BufferLayer<Req> = BufferLayer::new(1);
const _: ConcurrencyLimitLayer = ConcurrencyLimitLayer::new(1);
const _: RateLimitLayer = RateLimitLayer::new(1, Duration::from_secs(1));
const _: Rate = Rate::new(1, Duration::from_secs(1));
const _: Retry<Always, Svc> = Retry::new(Always, Svc);
const _: RetryLayer<Always> = RetryLayer::new(Always);
const _: SpawnReady<Svc> = SpawnReady::new(Svc);
const _: Filter<Svc, ()> = Filter::new(Svc, ());
const _: FilterLayer<()> = FilterLayer::new(());
const _: AsyncFilter<Svc, ()> = AsyncFilter::new(Svc, ());
const _: AsyncFilterLayer<()> = AsyncFilterLayer::new(());
const _: Constant<Svc, u8> = Constant::new(Svc, 1);
const _: TrackCompletionFuture<(), (), ()> = TrackCompletionFuture::new((), (), ());
const _: Shared<Svc> = Shared::new(Svc);
const _: MakeBalance<Svc, Req> = MakeBalance::new(Svc);
const _: MakeBalanceLayer<Svc, Req> = MakeBalanceLayer::new();
const _: AndThen<Svc, ()> = AndThen::new(Svc, ());
const _: AndThenLayer<()> = AndThenLayer::new(());
const _: FutureService<(), Svc> = FutureService::new(());
const _: MapErr<Svc, ()> = MapErr::new(Svc, ());
const _: MapErrLayer<()> = MapErrLayer::new(());
const _: MapFuture<Svc, ()> = MapFuture::new(Svc, ());
const _: MapFutureLayer<()> = MapFutureLayer::new(());
const _: MapRequest<Svc, ()> = MapRequest::new(Svc, ());
const _: MapRequestLayer<()> = MapRequestLayer::new(());
const _: MapResponse<Svc, ()> = MapResponse::new(Svc, ());
const _: MapResponseLayer<()> = MapResponseLayer::new(());
const _: MapResult<Svc, ()> = MapResult::new(Svc, ());
const _: MapResultLayer<()> = MapResultLayer::new(());
const _: Then<Svc, ()> = Then::new(Svc, ());
const _: ThenLayer<()> = ThenLayer::new(());
const _: Optional<Svc> = Optional::new::<Req>(Some(Svc));
const _: Oneshot<Svc, Req> = Oneshot::new(Svc, 1);
const _: ReadyOneshot<Svc, Req> = ReadyOneshot::new(Svc);
const _: Reconnect<Shared<Svc>, ()> = Reconnect::new(Shared::new(Svc), ());

/// Fails as it is told to.
#[derive(Clone, Debug)]
struct Broken(&'static str);

impl Service<Req> for Broken {
    type Response = Res;
    type Error = BoxError;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err(self.0.into()))
    }

    fn call(&mut self, _: Req) -> Fut {
        ready(Err(self.0.into()))
    }
}

async fn error_of<S>(service: S) -> BoxError
where
    S: Service<Req, Response = Res, Error = BoxError>,
{
    service
        .oneshot(1)
        .await
        .expect_err("the service should fail")
}

fn display_and_debug(error: &(impl Display + Debug)) -> (String, String) {
    (error.to_string(), format!("{error:?}"))
}

#[test]
fn errors_made_by_hand_print_as_upstreams() {
    let overloaded = load_shed::error::Overloaded::new();
    assert_eq!(
        display_and_debug(&overloaded),
        ("service overloaded".into(), "Overloaded".into())
    );
    let elapsed = timeout::error::Elapsed::new();
    assert_eq!(
        display_and_debug(&elapsed),
        ("request timed out".into(), "Elapsed(())".into())
    );
    assert_eq!(
        format!("{elapsed:>20}|{elapsed:.7}"),
        "   request timed out|request"
    );
    let failed = tower::ready_cache::error::Failed(1, BoxError::from("no route"));
    assert_eq!(failed.to_string(), "no route");
}

#[tokio::test]
async fn buffers_errors_print_as_upstreams_and_name_their_source() {
    let error = error_of(Buffer::new(Broken("no route"), 1)).await;
    assert_eq!(error.to_string(), "buffered service failed: no route");
    assert!(error.is::<buffer::error::ServiceError>());
    assert_eq!(error.source().expect("a source").to_string(), "no route");

    let (buffer, worker) = Buffer::pair(Svc, 1);
    drop(worker);
    let error = error_of(buffer).await;
    assert_eq!(
        display_and_debug(&error),
        (
            "buffer's worker closed unexpectedly".into(),
            "Closed".into()
        )
    );
    assert!(error.is::<buffer::error::Closed>());
}

#[tokio::test]
async fn a_balancers_error_prints_as_upstreams() {
    let discover = stream::iter([Err::<Change<u32, Svc>, _>("no route")]);
    let error = error_of(Balance::new(discover)).await;
    assert_eq!(error.to_string(), "load balancer discovery error: no route");
    assert_eq!(error.source().expect("a source").to_string(), "no route");
}

#[tokio::test(start_paused = true)]
async fn a_timeouts_error_is_elapsed() {
    let slow = tower::service_fn(|_: Req| std::future::pending::<Result<Res, BoxError>>());
    let error = error_of(Timeout::new(slow, Duration::from_secs(1))).await;
    assert!(error.is::<timeout::error::Elapsed>());
}

#[tokio::test]
async fn an_absent_service_and_a_closed_mock_print_as_upstreams() {
    let error = error_of(Optional::new::<Req>(None::<Svc>)).await;
    assert_eq!(error.to_string(), "None");
    assert!(error.is::<tower::util::error::optional::None>());

    let (mock, handle) = tower_test::mock::pair::<Req, Res>();
    drop(handle);
    let error = error_of(mock).await;
    assert_eq!(error.to_string(), "service closed");
    assert!(error.is::<tower_test::mock::error::Closed>());
}

#[test]
fn an_invalid_backoff_says_what_is_wrong_with_it() {
    let invalid = |min, max, jitter| {
        let made = ExponentialBackoffMaker::new(
            Duration::from_secs(min),
            Duration::from_secs(max),
            jitter,
            HasherRng::new(),
        );
        made.expect_err("it should be refused").to_string()
    };
    assert_eq!(
        invalid(2, 1, 0.0),
        "invalid backoff: maximum must not be less than minimum"
    );
    assert_eq!(
        invalid(0, 0, 0.0),
        "invalid backoff: maximum must be non-zero"
    );
    assert_eq!(
        invalid(1, 2, -0.1),
        "invalid backoff: jitter must not be negative"
    );
    assert_eq!(
        invalid(1, 2, 100.1),
        "invalid backoff: jitter must not be greater than 100"
    );
    assert_eq!(
        invalid(1, 2, f64::NAN),
        "invalid backoff: jitter must not be NaN"
    );
}

#[test]
#[should_panic]
fn a_rate_of_nothing_panics() {
    let _ = Rate::new(0, Duration::from_secs(1));
}

#[test]
#[should_panic]
fn a_rate_over_no_time_panics() {
    let _ = Rate::new(1, Duration::ZERO);
}

#[test]
fn a_budget_out_of_range_panics() {
    for (ttl, min_per_sec, percent) in [
        (0, 1, 0.1),
        (61, 1, 0.1),
        (1, 1, -0.1),
        (1, 1, 1000.1),
        (1, u32::MAX, 0.1),
    ] {
        let made = std::panic::catch_unwind(|| {
            TpsBudget::new(Duration::from_secs(ttl), min_per_sec, percent)
        });
        assert!(
            made.is_err(),
            "{ttl} s, {min_per_sec} per second, {percent}"
        );
    }
}

#[test]
fn debug_prints_layers_flat_and_closures_by_their_type() {
    let stack = Stack::new(
        TimeoutLayer::new(Duration::from_secs(1)),
        Stack::new(Identity::new(), LoadShedLayer::new()),
    );
    let flat = format!("{:?}", stack);
    assert!(flat.starts_with("LoadShedLayer"), "{flat}");
    assert!(flat.contains(", Identity, TimeoutLayer"), "{flat}");
    assert_eq!(
        format!("{:?}", ServiceBuilder::new()),
        "ServiceBuilder(Identity)"
    );
    let builder = format!("{:?}", ServiceBuilder::new().load_shed());
    assert_eq!(builder, "ServiceBuilder(Identity, LoadShedLayer)");
    assert_eq!(
        format!("{:#?}", Stack::new(Identity::new(), Identity::new())),
        "Identity,\nIdentity"
    );

    let closure = |inner: Svc| inner;
    let name = std::any::type_name_of_val(&closure);
    assert_eq!(
        format!("{:?}", layer_fn(closure)),
        format!("LayerFn {{ f: {name} }}")
    );
    for text in [
        format!("{:?}", tower::service_fn(closure)),
        format!("{:?}", MapErr::new(Svc, closure)),
        format!("{:?}", AndThen::new(Svc, closure)),
        format!("{:?}", MapFuture::new(Svc, closure)),
    ] {
        assert!(text.contains(name), "{text}");
    }
    let future = FutureService::<_, Svc>::new(Broken("later"));
    let text = format!("{future:?}");
    assert!(
        text.starts_with("FutureService { state: State::Future(<") && text.ends_with("Broken>) }"),
        "{text}"
    );
}

#[tokio::test]
async fn a_mutable_reference_and_a_shared_semaphore_serve() {
    let semaphore = Arc::new(Semaphore::new(1));
    let mut limited = ConcurrencyLimit::with_semaphore(Svc, semaphore.clone());
    assert_eq!(
        limited
            .ready()
            .await
            .expect("ready")
            .call(7)
            .await
            .expect("a response"),
        "7"
    );
    let dynamic: &mut dyn Service<Req, Response = Res, Error = BoxError, Future = Fut> = &mut Svc;
    assert_eq!(Oneshot::new(dynamic, 7).await.expect("a response"), "7");
    assert_eq!(semaphore.available_permits(), 1);
    let all = CallAll::new(Svc, stream::iter([1, 2])).unordered();
    let _: &CallAllUnordered<Svc, _> = &all;
}
