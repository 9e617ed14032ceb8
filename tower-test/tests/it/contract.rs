//! The checker of contracts: what keeps the contract passes, and each rule bites.

mod broken;
mod ours;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;
use tower_service::Service;
use tower_test::contract::{self, Checker, Inner, Report, Request, Response, Rule};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Reply = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

/// A middleware written as two functions over the inner service and some state.
#[derive(Clone)]
struct Hand<T> {
    inner: Inner,
    state: T,
    ready: fn(&mut Inner, &mut T, &mut Context<'_>) -> Poll<Result<(), BoxError>>,
    call: fn(&mut Inner, &mut T) -> Reply,
}

impl<T> Service<Request> for Hand<T> {
    type Response = Response;
    type Error = BoxError;
    type Future = Reply;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (self.ready)(&mut self.inner, &mut self.state, cx)
    }

    fn call(&mut self, _: Request) -> Reply {
        (self.call)(&mut self.inner, &mut self.state)
    }
}

/// What every one of them does unless it is about that.
fn ready<T>(inner: &mut Inner, _: &mut T, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
    poll_inner(inner, cx)
}

fn call<T>(inner: &mut Inner, _: &mut T) -> Reply {
    call_inner(inner)
}

fn poll_inner(inner: &mut Inner, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
    Service::<Request>::poll_ready(inner, cx)
}

fn call_inner(inner: &mut Inner) -> Reply {
    Box::pin(inner.call(Request::default()))
}

fn broken(report: &Report) -> Vec<Rule> {
    report.violations().iter().map(|v| v.rule()).collect()
}

#[test]
fn a_clean_middleware_keeps_every_rule() {
    contract::check(|inner| Hand {
        inner,
        state: (),
        ready,
        call,
    })
    .assert();
}

#[test]
fn a_clean_middleware_that_is_not_clone_keeps_every_rule() {
    Checker::new()
        .check_unclonable(|inner| {
            Box::new(inner)
                as Box<dyn Service<Request, Response = Response, Error = BoxError, Future = _>>
        })
        .assert();
}

#[test]
fn taking_the_ready_handle_into_the_future_keeps_every_rule() {
    contract::check(|inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, _| {
            let clone = inner.clone();
            let mut inner = std::mem::replace(inner, clone);
            Box::pin(async move { inner.call(Request::default()).await })
        },
    })
    .assert();
}

#[test]
fn a_service_that_is_always_ready_and_waits_in_the_future_keeps_every_rule() {
    contract::check(|inner| Hand {
        inner,
        state: (),
        ready: |_, _, _| Poll::Ready(Ok(())),
        call: |inner, _| {
            let mut inner = inner.clone();
            Box::pin(async move {
                std::future::poll_fn(|cx| poll_inner(&mut inner, cx)).await?;
                call_inner(&mut inner).await
            })
        },
    })
    .assert();
}

#[test]
fn a_service_that_takes_its_time_keeps_every_rule() {
    contract::check(|inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, _| {
            let reply = call_inner(inner);
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                reply.await
            })
        },
    })
    .assert();
}

#[test]
fn a_fallback_must_declare_that_it_masks_errors() {
    let fallback = |inner| Hand {
        inner,
        state: (),
        ready,
        call: |inner, _| {
            let reply = call_inner(inner);
            Box::pin(async move { Ok(reply.await.unwrap_or_default()) })
        },
    };
    let report = contract::check(fallback);
    assert_eq!(broken(&report), [Rule::ResponseError], "{report}");
    Checker::new().masks_errors().check(fallback).assert();
}

#[test]
fn requests_and_responses_may_be_of_any_type() {
    Checker::new()
        .requests(|| String::from("any"))
        .responses(|| 7_u8)
        .check(|inner| inner)
        .assert();
}

#[test]
#[should_panic(expected = "call it from a plain #[test]")]
fn the_checker_says_that_it_needs_no_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let _ = contract::check(|inner| inner);
    });
}

#[test]
fn every_rule_is_named_and_explained_once() {
    let mut ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), Rule::ALL.len());
    for rule in Rule::ALL {
        assert_eq!(rule.to_string(), rule.id());
        assert!(!rule.statement().is_empty() && !rule.reason().is_empty());
        assert!(!rule.mend().is_empty());
    }
}
