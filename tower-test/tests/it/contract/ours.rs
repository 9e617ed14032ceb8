//! Every middleware of ours keeps the contract.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_balance::Balance;
use tower_buffer::{Buffer, BufferLayer};
use tower_classify::Class;
use tower_discover::ServiceList;
use tower_filter::{AsyncFilter, Filter};
use tower_hedge::Hedge;
use tower_layer::Layer;
use tower_limit::bulkhead::Bulkhead;
use tower_limit::concurrency::ConcurrencyLimit;
use tower_limit::rate::{Rate, RateLimit, Window};
use tower_load::peak_ewma::PeakEwma;
use tower_load::pending_requests::PendingRequests;
use tower_load::{CompleteOnResponse, Constant, Load};
use tower_load_shed::LoadShed;
use tower_reconnect::Reconnect;
use tower_retry::Retry;
use tower_retry::standard::StandardPolicy;
use tower_rng::SplitMix64;
use tower_service::Service;
use tower_spawn_ready::SpawnReady;
use tower_steer::Steer;
use tower_test::contract::{self, Checker, Inner, Report, Request, Response};
use tower_timeout::Timeout;
use tower_util::optional::Optional;
use tower_util::{
    BoxCloneService, BoxCloneSyncService, BoxService, Either, FutureService, ServiceExt, ServiceFn,
    UnsyncBoxCloneService, UnsyncBoxService, option_layer, option_layer_into, service_fn,
};

use super::BoxError;

const SECOND: Duration = Duration::from_secs(1);

/// Checks a subject that is `Clone`.
#[track_caller]
fn keeps<S>(subject: impl Fn(Inner) -> S)
where
    S: Service<Request> + Clone + 'static,
    S::Error: fmt::Debug,
{
    contract::check(subject).assert();
}

/// Checks a subject that isn't.
fn unclonable<S>(subject: impl Fn(Inner) -> S) -> Report
where
    S: Service<Request> + 'static,
    S::Error: fmt::Debug,
{
    Checker::new().check_unclonable(subject)
}

#[test]
fn timeout() {
    keeps(|inner| Timeout::new(inner, SECOND));
    keeps(|inner| {
        Timeout::new(inner, SECOND)
            .with_readiness_timeout(SECOND)
            .with_total_timeout(2 * SECOND)
    });
}

#[test]
fn concurrency_limit() {
    keeps(|inner| ConcurrencyLimit::new(inner, 1));
    keeps(|inner| ConcurrencyLimit::new(inner, 3));
    keeps(|inner| ConcurrencyLimit::new(inner, 2).release_while_pending());
    keeps(|inner| ConcurrencyLimit::with_semaphore(inner, Arc::new(Semaphore::new(1))));
    keeps(|inner| ConcurrencyLimit::with_semaphore(inner, Arc::new(Semaphore::new(3))));
    keeps(|inner| {
        let semaphore = Arc::new(Semaphore::new(2));
        ConcurrencyLimit::with_semaphore(inner, semaphore).release_while_pending()
    });
}

#[test]
fn bulkhead() {
    keeps(|inner| Bulkhead::new(inner, 2));
    keeps(|inner| Bulkhead::new(inner, 2).with_max_wait(SECOND));
}

#[test]
fn rate_limit() {
    for window in [Window::Fixed, Window::Sliding] {
        for per_second in [1, 10] {
            let rate = Rate::new(per_second, SECOND);
            keeps(|inner| RateLimit::new(inner, rate).with_window(window));
        }
    }
}

#[test]
fn retry() {
    type Answer = Result<Response, BoxError>;
    let never = StandardPolicy::new(|_: &Request, _: &Answer| Class::Failure);
    keeps(|inner| Retry::new(never.clone(), inner));

    let errors = StandardPolicy::new(|_: &Request, answer: &Answer| match answer {
        Ok(_) => Class::Success,
        Err(_) => Class::Retryable { after: None },
    });
    Checker::new()
        .masks_errors()
        .check(|inner| Retry::new(errors.clone(), inner))
        .assert();
}

#[test]
fn a_stack_of_them() {
    keeps(|inner| {
        let limit = ConcurrencyLimit::new(inner, 2);
        LoadShed::new(Timeout::new(limit, SECOND))
    });
    keeps(|inner| {
        let semaphore = Arc::new(Semaphore::new(2));
        ConcurrencyLimit::with_semaphore(RateLimit::new(inner, Rate::new(5, SECOND)), semaphore)
    });
}

#[test]
fn load_shed() {
    keeps(LoadShed::new);
}

#[test]
fn filter() {
    keeps(|inner| Filter::new(inner, Ok::<Request, BoxError>));
    keeps(|inner| AsyncFilter::new(inner, |request: Request| ready(Ok::<_, BoxError>(request))));
    keeps(|inner| {
        AsyncFilter::new(inner, |request: Request| {
            Box::pin(async move {
                tokio::time::sleep(SECOND).await;
                Ok::<_, BoxError>(request)
            })
        })
    });
}

#[test]
fn steer() {
    keeps(|inner| Steer::new([inner.clone(), inner], |_: &Request, _: &[Inner]| 1));
}

#[test]
fn balance() {
    // An endpoint that fails is dropped, and the other one answers; when none is left, a balancer waits
    // for the discovery of more unless it is told to fail.
    fn over<L>(load: impl Fn(Inner) -> L)
    where
        L: Service<Request, Error = BoxError> + Load + 'static,
        L::Metric: fmt::Debug,
    {
        Checker::new()
            .masks_errors()
            .check_unclonable(|inner| {
                let endpoints = [load(inner.clone()), load(inner)];
                let endpoints = ServiceList::new::<Request>(endpoints);
                Balance::from_rng(endpoints, SplitMix64::new(7)).with_fail_fast()
            })
            .assert();
    }

    over(|inner| Constant::new(inner, 1));
    over(|inner| PendingRequests::new(inner, CompleteOnResponse::default()));
    over(|inner| PeakEwma::new(inner, SECOND, 1e9, CompleteOnResponse::default()));
}

#[test]
fn balance_over_one_endpoint() {
    unclonable(|inner| {
        let endpoints = ServiceList::new::<Request>([Constant::new(inner, 1)]);
        Balance::new(endpoints).with_fail_fast()
    })
    .assert();
}

#[test]
fn load() {
    unclonable(|inner| Constant::new(inner, 1)).assert();
    unclonable(|inner| PendingRequests::new(inner, CompleteOnResponse::default())).assert();
    unclonable(|inner| PeakEwma::new(inner, SECOND, 1e9, CompleteOnResponse::default())).assert();
}

#[test]
fn buffer() {
    keeps(|inner| Buffer::new(inner, 1));
    keeps(|inner| Buffer::new(inner, 3));
    keeps(|inner| BufferLayer::new(3).with_in_flight_limit(2).layer(inner));
    keeps(|inner| Buffer::rebuilding(move || inner.clone(), 2));
    keeps(|inner| LoadShed::new(Buffer::new(inner, 2)));
    keeps(|inner| ConcurrencyLimit::new(Buffer::new(inner, 2), 2));
}

#[test]
fn hedge() {
    /// Sends each request again, or none.
    #[derive(Clone)]
    struct Again(bool);

    impl tower_hedge::Policy<Request> for Again {
        fn clone_request(&self, request: &Request) -> Option<Request> {
            Some(*request)
        }

        fn can_retry(&self, _: &Request) -> bool {
            self.0
        }
    }

    for again in [true, false] {
        keeps(|inner| Hedge::new::<Request>(inner, Again(again), 10, 0.9, SECOND));
        keeps(|inner| {
            let latencies = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
            let policy = Again(again);
            Hedge::new_with_mock_latencies::<Request>(inner, policy, 10, 0.9, SECOND, &latencies)
        });
    }
}

#[test]
fn spawn_ready() {
    unclonable(SpawnReady::new).assert();
}

#[test]
fn reconnect() {
    type Connect = ServiceFn<Box<dyn Fn(()) -> Ready<Result<Inner, BoxError>>>>;

    fn connect(inner: Inner) -> Connect {
        service_fn(Box::new(move |()| ready(Ok(inner.clone()))))
    }

    // It connects again when a connection has failed.
    Checker::new()
        .masks_errors()
        .check_unclonable(|inner| Reconnect::new(connect(inner), ()))
        .assert();
    Checker::new()
        .masks_errors()
        .check_unclonable(|inner| Reconnect::with_connection(inner.clone(), connect(inner), ()))
        .assert();
}

#[test]
fn combinators() {
    keeps(|inner| inner.map_request(|request: Request| request));
    keeps(|inner| ServiceExt::<Request>::map_response(inner, |response| (response, 1)));
    keeps(|inner| ServiceExt::<Request>::map_err(inner, |error| error.to_string()));
    keeps(|inner| ServiceExt::<Request>::map_result(inner, |result| result));
    keeps(|inner| ServiceExt::<Request>::map_future(inner, |future| future));
    keeps(|inner| ServiceExt::<Request>::then(inner, ready));
    keeps(|inner| {
        ServiceExt::<Request>::and_then(inner, |response| async move {
            tokio::time::sleep(SECOND).await;
            Ok::<_, BoxError>(response)
        })
    });
}

#[test]
fn boxed() {
    keeps(BoxCloneService::<Request, _, _>::new);
    keeps(BoxCloneSyncService::<Request, _, _>::new);
    keeps(UnsyncBoxCloneService::<Request, _, _>::new);
    unclonable(BoxService::<Request, _, _>::new).assert();
    unclonable(UnsyncBoxService::<Request, _, _>::new).assert();
}

#[test]
fn either_and_optional() {
    keeps(Either::<_, Inner>::Left);
    keeps(Either::<Inner, _>::Right);
    keeps(|inner| option_layer(Some(tower_layer::layer_fn(Box::new))).layer(inner));
    keeps(|inner| option_layer_into(Some(tower_layer::layer_fn(LoadShed::new))).layer(inner));
    unclonable(|inner| Optional::new::<Request>(Some(inner))).assert();
    keeps(Box::new);
}

#[test]
fn services_without_an_inner_one() {
    keeps(|_| service_fn(|_: Request| async { Ok::<_, Infallible>(Response::default()) }));
    unclonable(|_| Optional::new::<Request>(Some(service_fn(answer)))).assert();
}

fn answer(_: Request) -> impl Future<Output = Result<Response, BoxError>> {
    ready(Ok(Response::default()))
}

#[test]
fn future_service() {
    // It documents that it panics where it is called before its service is there.
    Checker::new()
        .panics_when_not_ready()
        .check_unclonable(|inner| FutureService::new(ready(Ok::<_, BoxError>(inner))))
        .assert();
}
