//! The contract checker over crates.io's middleware, through `tower-compat`: what it finds there.

use std::fmt;
use std::future::{Ready, ready};
use std::time::Duration;

use tower_compat::{FromCratesIo, ToCratesIo};
use tower_test::contract::{Checker, Inner, Report, Request, Rule};
use upstream::buffer::Buffer;
use upstream::limit::{ConcurrencyLimit, RateLimit, rate::Rate};
use upstream::load_shed::LoadShed;
use upstream::reconnect::Reconnect;
use upstream::spawn_ready::SpawnReady;
use upstream::steer::Steer;
use upstream::timeout::Timeout;
use upstream::util::BoxCloneService;
use upstream::{BoxError, Service, service_fn};

/// The scripted service, as crates.io's `Service`.
type TheirInner = ToCratesIo<Inner>;

const SECOND: Duration = Duration::from_secs(1);

fn broken<S>(subject: impl Fn(TheirInner) -> S) -> Vec<Rule>
where
    S: Service<Request> + Clone + 'static,
    S::Error: fmt::Debug,
{
    let subject = |inner| FromCratesIo::new(subject(ToCratesIo::new(inner)));
    rules(&Checker::new().check(subject))
}

fn broken_unclonable<S>(subject: impl Fn(TheirInner) -> S) -> Vec<Rule>
where
    S: Service<Request> + 'static,
    S::Error: fmt::Debug,
{
    // `Reconnect` connects again when a connection has failed.
    let subject = |inner| FromCratesIo::new(subject(ToCratesIo::new(inner)));
    rules(&Checker::new().masks_errors().check_unclonable(subject))
}

fn rules(report: &Report) -> Vec<Rule> {
    println!("{report}");
    report.violations().iter().map(|v| v.rule()).collect()
}

#[test]
fn concurrency_limit_buffer_reconnect_and_rate_limit_panic_when_called_unready() {
    let unready = [Rule::CallWithoutReady];
    assert_eq!(broken(|inner| ConcurrencyLimit::new(inner, 1)), unready);
    assert_eq!(broken(|inner| Buffer::new(inner, 2)), unready);
    assert_eq!(broken_unclonable(reconnect), unready);
    let rate = Rate::new(1, SECOND);
    assert_eq!(
        broken_unclonable(|inner| RateLimit::new(inner, rate)),
        unready
    );
}

fn reconnect(inner: TheirInner) -> Reconnect<Connect, ()> {
    let connect = move |()| ready(Ok(inner.clone()));
    Reconnect::new(service_fn(Box::new(connect)), ())
}

type Connect = upstream::util::ServiceFn<Box<dyn Fn(()) -> Ready<Result<TheirInner, BoxError>>>>;

#[test]
fn steer_panics_when_called_unready_and_its_clones_copy_who_is_ready() {
    let routes =
        |inner: TheirInner| Steer::new([inner.clone(), inner], |_: &Request, _: &[TheirInner]| 0);
    let both = [Rule::CallWithoutReady, Rule::CloneInheritsNothing];
    assert_eq!(broken(routes), both);
}

#[test]
fn timeout_makes_its_timer_in_call() {
    assert_eq!(broken(|inner| Timeout::new(inner, SECOND)), [Rule::OffTask]);
}

#[test]
fn load_shed_spawn_ready_and_the_boxes_keep_the_contract() {
    assert_eq!(broken(LoadShed::new), []);
    assert_eq!(broken(BoxCloneService::<Request, _, _>::new), []);
    assert_eq!(broken_unclonable(SpawnReady::new), []);
}
