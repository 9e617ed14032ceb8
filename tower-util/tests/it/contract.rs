//! Everything that forwards to a service keeps the contract of `Service`.

use std::future::ready;

use tower_layer::{Identity, Layer};
use tower_service::Service;
use tower_test::contract::{Checker, Inner, Report, Response, check};
use tower_util::{
    BoxCloneService, BoxCloneSyncService, BoxService, Either, FutureService, MapRequestLayer,
    ServiceExt, UnsyncBoxCloneService, UnsyncBoxService, option_layer, option_layer_into,
    optional::Optional, service_fn,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Req = tower_test::contract::Request;

#[test]
fn the_combinators_keep_the_contract() {
    check(|inner| MapRequestLayer::new(|req: Req| req).layer(inner)).assert();
    check(|inner: Inner| tower_util::MapResponse::new(inner, |response: Response| response))
        .assert();
    check(|inner: Inner| tower_util::MapErr::new(inner, |error: BoxError| error)).assert();
    check(|inner: Inner| {
        tower_util::MapResult::new(inner, |result: Result<Response, BoxError>| result)
    })
    .assert();
    check(|inner: Inner| {
        tower_util::AndThen::new(inner, |response: Response| {
            ready(Ok::<_, BoxError>(response))
        })
    })
    .assert();
    check(|inner: Inner| {
        tower_util::Then::new(inner, |result: Result<Response, BoxError>| ready(result))
    })
    .assert();
    check(|inner: Inner| {
        tower_util::MapFuture::new(inner, |response: tower_test::contract::ResponseFuture| {
            response
        })
    })
    .assert();
}

#[test]
fn the_boxes_keep_the_contract() {
    fn unclonable<S>(subject: fn(Inner) -> S) -> Report
    where
        S: Service<Req, Error = BoxError> + 'static,
    {
        Checker::new().check_unclonable(subject)
    }

    unclonable(BoxService::new).assert();
    unclonable(UnsyncBoxService::new).assert();
    check(BoxCloneService::<Req, _, _>::new).assert();
    check(BoxCloneSyncService::<Req, _, _>::new).assert();
    check(UnsyncBoxCloneService::<Req, _, _>::new).assert();
}

#[test]
fn a_choice_keeps_the_contract_whichever_way_it_is_made() {
    check(Either::<Inner, Inner>::Left).assert();
    check(Either::<Inner, Inner>::Right).assert();
    check(|inner: Inner| option_layer(Some(Identity::new())).layer(inner)).assert();
    check(|inner: Inner| option_layer_into(Some(Identity::new())).layer(inner)).assert();
    check(|inner: Inner| option_layer_into(None::<Identity>).layer(inner)).assert();
    Checker::new()
        .check_unclonable(|inner: Inner| Optional::new::<Req>(Some(inner)))
        .assert();
}

#[test]
fn services_made_of_functions_and_futures_keep_the_contract() {
    check(|_| service_fn(|_: Req| ready(Ok::<_, BoxError>(())))).assert();
    Checker::new()
        .panics_when_not_ready()
        .check_unclonable::<_, _, Req, _>(|inner: Inner| {
            FutureService::new(ready(Ok::<_, BoxError>(inner)))
        })
        .assert();
    Checker::new()
        .panics_when_not_ready()
        .check_unclonable(|inner: Inner| {
            let made = async move {
                tokio::task::yield_now().await;
                Ok::<_, BoxError>(inner)
            };
            FutureService::new(Box::pin(made))
        })
        .assert();
}

#[test]
fn one_request_of_a_service_keeps_the_contract() {
    // A service that sends each request through a `oneshot` of a clone, as many do.
    check(|inner: Inner| service_fn(move |req: Req| inner.clone().oneshot(req))).assert();
    check(|inner: Inner| {
        service_fn(move |req: Req| {
            let inner = inner.clone();
            async move {
                ServiceExt::<Req>::ready_oneshot(inner)
                    .await?
                    .call(req)
                    .await
            }
        })
    })
    .assert();
}
