//! Each layer by its method of the builder: alone, and all in one stack, it keeps the contract.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use tower::breaker::Settings;
use tower::builder::ServiceBuilder;
use tower::classify::EveryErrorIsRetryable;
use tower::close::{Close, DrainLayer, IsClosed};
use tower::deadline::Deadline;
use tower::discover::ServiceList;
use tower::hedge::Policy;
use tower::layer::util::Identity;
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer, bulkhead};
use tower::load::Constant;
use tower::load::meter::Meter;
use tower::load_shed::LoadShedLayer;
use tower::resilience::ServiceBuilderExt;
use tower::retry::standard::StandardPolicy;
use tower::timeout::error::Elapsed;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_test::contract::{Checker, Inner, Report, Request, Response};

const SECOND: Duration = Duration::from_secs(1);

/// Checks what a stack makes.
fn check<L>(stack: impl Fn() -> ServiceBuilder<L>) -> Report
where
    L: Layer<Inner>,
    L::Service: Service<Request> + Clone + 'static,
    <L::Service as Service<Request>>::Error: fmt::Debug,
{
    Checker::new().check(|inner| stack().service(inner))
}

/// As [`check`], where errors don't get through to the caller.
fn check_masking<L>(stack: impl Fn() -> ServiceBuilder<L>) -> Report
where
    L: Layer<Inner>,
    L::Service: Service<Request> + Clone + 'static,
    <L::Service as Service<Request>>::Error: fmt::Debug,
{
    Checker::new()
        .masks_errors()
        .check(|inner| stack().service(inner))
}

/// As [`check`], where the service isn't `Clone`.
fn check_unclonable<L>(stack: impl Fn() -> ServiceBuilder<L>) -> Report
where
    L: Layer<Inner>,
    L::Service: Service<Request> + 'static,
    <L::Service as Service<Request>>::Error: fmt::Debug,
{
    Checker::new().check_unclonable(|inner| stack().service(inner))
}

fn stack() -> ServiceBuilder<Identity> {
    ServiceBuilder::new()
}

/// Sends everything again.
#[derive(Clone)]
struct Again;

impl Policy<Request> for Again {
    fn clone_request(&self, request: &Request) -> Option<Request> {
        Some(*request)
    }

    fn can_retry(&self, _: &Request) -> bool {
        true
    }
}

/// Retries what fails.
fn errors() -> StandardPolicy<EveryErrorIsRetryable> {
    StandardPolicy::new(EveryErrorIsRetryable)
}

/// The checker lets dozens of requests fail in a row, and expects an answer to the next.
fn lenient() -> Settings {
    Settings::default()
        .with_faults_in_a_row(1_000)
        .without_success_rate()
}

/// Answers at once.
fn fallback() -> impl Service<Request, Response = Response, Error = BoxError, Future: Send> + Clone
{
    service_fn(|_: Request| ready(Ok::<_, BoxError>(Response::default())))
}

#[test]
fn layers_with_tower_0_5s_names_keep_the_contract() {
    check(|| stack().layer(Identity::new())).assert();
    check(|| stack().layer_fn(Box::new)).assert();
    check(|| stack().option_layer(Some(LoadShedLayer::new()))).assert();
    check(|| stack().option_layer(None::<LoadShedLayer>)).assert();
    check(|| stack().buffer::<Request>(1)).assert();
    check(|| stack().concurrency_limit(1)).assert();
    check(|| stack().load_shed()).assert();
    check(|| stack().rate_limit(2, SECOND)).assert();
    check_masking(|| stack().retry(errors())).assert();
    check(|| stack().timeout(SECOND)).assert();
    check(|| stack().filter(Ok::<Request, BoxError>)).assert();
    check(|| stack().filter_async(|request: Request| ready(Ok::<_, BoxError>(request)))).assert();
    check(|| stack().map_request(|request: Request| request)).assert();
    check(|| stack().map_response(|response: Response| response)).assert();
    check(|| stack().map_err(|error: BoxError| error)).assert();
    check(|| stack().map_future(Box::pin)).assert();
    check(|| stack().then(|result: Result<Response, BoxError>| ready(result))).assert();
    check(|| stack().and_then(|response: Response| ready(Ok::<_, BoxError>(response)))).assert();
    check(|| stack().map_result(|result: Result<Response, BoxError>| result)).assert();
    check_unclonable(|| stack().boxed()).assert();
    check(|| stack().boxed_clone()).assert();
    check(|| stack().boxed_clone_sync()).assert();
}

#[test]
fn layers_with_names_of_ours_keep_the_contract() {
    check(|| stack().option_layer_into(Some(ConcurrencyLimitLayer::new(1)))).assert();
    check(|| stack().option_layer_into(None::<RateLimitLayer>)).assert();
    check(|| stack().breaker(lenient())).assert();
    check_masking(|| stack().breaker_with_fallback(lenient(), fallback())).assert();
    check(|| stack().bulkhead(2)).assert();
    check(|| stack().global_bulkhead(2)).assert();
    check(|| stack().global_concurrency_limit(1)).assert();
    check(|| stack().global_rate_limit(2, SECOND)).assert();
    check(|| stack().deadline(SECOND)).assert();
    check(|| stack().drain(&DrainLayer::new())).assert();
    check(|| stack().hedge(Again, 10, 0.9, SECOND)).assert();
    check(|| stack().meter(&Meter::new())).assert();
    check_masking(|| stack().resilient(EveryErrorIsRetryable)).assert();
    check_unclonable(|| stack().spawn_ready()).assert();
}

/// All of them, in the order that a client would have them.
macro_rules! all {
    ($drain:expr, $meter:expr) => {
        ServiceBuilder::new()
            .map_result(|result: Result<Response, BoxError>| result)
            .map_err(|error: BoxError| error)
            .deadline(10 * SECOND)
            .drain($drain)
            .load_shed()
            .filter(Ok::<Request, BoxError>)
            .filter_async(|request: Request| ready(Ok::<_, BoxError>(request)))
            .global_bulkhead(3)
            .bulkhead(3)
            .global_concurrency_limit(3)
            .concurrency_limit(3)
            .global_rate_limit(100, SECOND)
            .rate_limit(100, SECOND)
            .retry(errors())
            .hedge(Again, 10, 0.9, SECOND)
            .timeout(SECOND)
            .boxed_clone_sync()
            .breaker_with_fallback(Settings::default(), fallback())
            .breaker(Settings::default())
            .map_request(|request: Request| request)
            .then(|result: Result<Response, BoxError>| ready(result))
            .and_then(|response: Response| ready(Ok::<_, BoxError>(response)))
            .map_response(|response: Response| response)
            .map_future(Box::pin)
            .option_layer(Some(LoadShedLayer::new()))
            .option_layer_into(None::<RateLimitLayer>)
            .meter($meter)
            .buffer::<Request>(2)
            .spawn_ready()
            .layer_fn(Box::new)
    };
}

#[test]
fn all_layers_in_one_stack_keep_the_contract() {
    let report = Checker::new().masks_errors().check(|inner| {
        let (drain, meter) = (DrainLayer::new(), Meter::new());
        all!(&drain, &meter).service(inner)
    });
    report.assert();
}

#[tokio::test(start_paused = true)]
async fn all_layers_in_one_stack_pass_a_request_on_and_each_can_be_seen() {
    let (drain, meter) = (DrainLayer::new(), Meter::new());
    let answers = service_fn(|_: Request| async {
        tokio::time::sleep(SECOND / 10).await;
        Ok::<_, BoxError>(Response::default())
    });
    let mut service = all!(&drain, &meter).service(answers);
    let response = tokio::spawn(service.ready().await.unwrap().call(Request::default()));
    tokio::time::sleep(SECOND / 20).await;
    assert_eq!(meter.report().in_flight, 1);
    assert_eq!(response.await.unwrap().unwrap(), Response::default());
    drain.close(Deadline::after(SECOND)).await.unwrap();
    let error = service.oneshot(Request::default()).await.unwrap_err();
    assert!(tower::util::find_source::<IsClosed>(&*error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_global_limit_of_a_stack_holds_for_all_that_it_is_put_around() {
    let stuck = || service_fn(|_: ()| std::future::pending::<Result<(), BoxError>>());
    let stack = ServiceBuilder::new().global_bulkhead(1);
    let (mut first, mut second) = (stack.service(stuck()), stack.service(stuck()));
    let _held = first.ready().await.unwrap().call(());
    let refused = second.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(refused.is::<bulkhead::AtCapacity>());

    let stack = ServiceBuilder::new().global_concurrency_limit(1);
    let (mut first, mut second) = (stack.service(stuck()), stack.service(stuck()));
    let _held = first.ready().await.unwrap().call(());
    let waits = tokio::time::timeout(SECOND, second.ready()).await;
    assert!(waits.is_err());

    let stack = ServiceBuilder::new()
        .timeout(SECOND / 2)
        .global_rate_limit(1, SECOND);
    let (mut first, mut second) = (stack.service(stuck()), stack.service(stuck()));
    let late = first.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(late.is::<Elapsed>());
    let waits = tokio::time::timeout(SECOND / 4, second.ready()).await;
    assert!(waits.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stack_makes_balancers_of_discoveries() {
    let discover = service_fn(|names: Vec<&'static str>| async move {
        let endpoints: Vec<_> = names.into_iter().map(answering).collect();
        Ok::<_, BoxError>(ServiceList::new::<()>(endpoints))
    });
    let stack = ServiceBuilder::new().make_balance::<_, ()>();
    let mut balance = stack
        .service(discover)
        .oneshot(vec!["a", "a"])
        .await
        .unwrap();
    assert_eq!(balance.ready().await.unwrap().call(()).await.unwrap(), "a");
}

fn answering(
    name: &'static str,
) -> Constant<impl Service<(), Response = &'static str, Error = BoxError>, u32> {
    Constant::new(service_fn(move |()| ready(Ok::<_, BoxError>(name))), 1)
}
