//! Every task in the background ends with its owner, and on being closed.
//!
//! A row is something that has a task, or holds what has one, caught at work. What has no task of its own (a hedge, a
//! reconnect) is here over services whose futures own one: that of a loser, or of a connection being made,
//! must not outlive its turn.

use std::convert::Infallible;
use std::future::{Future, Ready, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tower::balance::p2c::{Balance, MakeBalance};
use tower::balance::pool::Pool;
use tower::balance::prequal::{Prequal, Prober};
use tower::breaker::{BreakerLayer, Settings};
use tower::buffer::{Buffer, BufferLayer};
use tower::classify::EveryErrorIsRetryable;
use tower::close::{AtOnce, Close, Closing, DrainLayer, InTurn, Task};
use tower::deadline::{Deadline, DeadlineLayer};
use tower::discover::{Change, ServiceList};
use tower::filter::AsyncFilter;
use tower::hedge::{Hedge, Policy};
use tower::load::Constant;
use tower::ready_cache::ReadyCache;
use tower::reconnect::Reconnect;
use tower::resilience::resilient;
use tower::retry::{Retry, standard::StandardPolicy};
use tower::spawn_ready::SpawnReady;
use tower::timeout::Timeout;
use tower::util::CallAll;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// What is caught at work, and closed where it can be.
trait Owner {
    fn close(&self, _: Deadline) -> Option<Closing> {
        None
    }
}

/// It can't be closed.
struct Kept<T>(T);

/// It can be, and keeps something beside.
struct Closable<C, T = ()>(C, T);

impl<T> Owner for Kept<T> {}

impl<C: Close, T> Owner for Closable<C, T> {
    fn close(&self, by: Deadline) -> Option<Closing> {
        Some(self.0.close(by))
    }
}

type Made = Pin<Box<dyn Future<Output = Box<dyn Owner>>>>;

struct Row {
    name: &'static str,
    make: Box<dyn Fn() -> Made>,
    /// How many tasks there are while it is at work.
    tasks: usize,
}

fn row<F, O>(name: &'static str, tasks: usize, make: impl Fn() -> F + 'static) -> Row
where
    F: Future<Output = O> + 'static,
    O: Owner + 'static,
{
    let make = move || -> Made {
        let owner = make();
        Box::pin(async move { Box::new(owner.await) as Box<dyn Owner> })
    };
    Row {
        name,
        make: Box::new(make),
        tasks,
    }
}

/// A task that never ends by itself.
fn endless() -> Task {
    Task::spawn(|_| pending()).expect("there is a runtime")
}

/// A service that never becomes ready, and has a task.
struct Stuck(#[expect(dead_code, reason = "it is to be dropped")] Task);

impl Service<u32> for Stuck {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

/// Answers zero at once. Others it never answers, by a future that has a task.
fn answers_only_zero()
-> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
    service_fn(|request: u32| async move {
        if request != 0 {
            let _task = endless();
            pending::<()>().await;
        }
        Ok(request)
    })
}

/// Connects at once to what answers only zero.
macro_rules! connects {
    () => {
        service_fn(|_: u32| ready(Ok::<_, BoxError>(answers_only_zero())))
    };
}

type Found = Result<Change<u32, u32>, Infallible>;

/// Finds three endpoints, and then waits. It has a task.
fn discovers() -> impl Stream<Item = Found> + Send + 'static {
    let task = endless();
    let found = stream::iter((0..3).map(|key| Ok(Change::Insert(key, key))));
    found.chain(stream::pending()).map(move |change| {
        let _ = &task;
        change
    })
}

/// A request that is begun, and not answered within a second.
async fn begun<S>(service: S, request: u32) -> impl Sized
where
    S: Service<u32> + 'static,
{
    begun_within(service, request, SECOND).await
}

/// A request that is begun, and not answered within `wait`.
async fn begun_within<S>(service: S, request: u32, wait: Duration) -> impl Sized
where
    S: Service<u32> + 'static,
{
    let mut response = Box::pin(service.oneshot(request));
    let waits = tokio::time::timeout(wait, &mut response).await;
    assert!(waits.is_err(), "it was answered");
    response
}

/// Sends zero the second time.
#[derive(Clone)]
struct ThenZero;

impl Policy<u32> for ThenZero {
    fn clone_request(&self, _: &u32) -> Option<u32> {
        Some(0)
    }

    fn can_retry(&self, _: &u32) -> bool {
        true
    }
}

fn rows() -> Vec<Row> {
    let mut rows = buffers();
    rows.extend(pools());
    rows.extend(without_tasks_of_their_own());
    rows.extend(tasks_themselves());
    rows
}

fn buffers() -> Vec<Row> {
    vec![
        row("an idle buffer", 1, || async {
            Closable(Buffer::new(answers_only_zero(), 4), ())
        }),
        row("a buffer that rebuilds", 1, || async {
            Closable(Buffer::rebuilding(answers_only_zero, 4), ())
        }),
        // The worker, the service's, and that of the response.
        row("a buffer whose request is in flight", 2, || async {
            let layer = BufferLayer::new(4).with_in_flight_limit(1);
            let buffer = layer.layer(answers_only_zero());
            let response = begun(buffer.clone(), 1).await;
            Kept((buffer, response))
        }),
        row("a buffer whose service is stuck", 2, || async {
            let buffer = Buffer::new(Stuck(endless()), 4);
            let response = begun(buffer.clone(), 1).await;
            Closable(buffer, response)
        }),
        row("a service that is driven to readiness", 2, || async {
            let mut service = SpawnReady::new(Stuck(endless()));
            assert!(now(service.ready()).await.is_pending());
            Closable(service, ())
        }),
    ]
}

fn pools() -> Vec<Row> {
    vec![
        row("an idle pool, and its discovery", 2, || async {
            let pool = Pool::builder(discovers(), connects!()).spawn::<u32>();
            Closable(pool.unwrap(), ())
        }),
        row("a pool that is watched", 2, || async {
            let pool = Pool::builder(discovers(), connects!())
                .spawn::<u32>()
                .unwrap();
            let states = pool.states();
            Closable(pool, states)
        }),
        row("a pool that connects", 5, || async {
            let connect = service_fn(|_: u32| async {
                let _task = endless();
                pending::<()>().await;
                Ok::<_, BoxError>(answers_only_zero())
            });
            let pool = Pool::builder(discovers(), connect).spawn::<u32>().unwrap();
            sleep(SECOND).await;
            Closable(pool, ())
        }),
        row("a pool over endpoints that are stuck", 5, || async {
            let connect = service_fn(|_: u32| ready(Ok::<_, BoxError>(Stuck(endless()))));
            let pool = Pool::builder(discovers(), connect).spawn::<u32>().unwrap();
            let response = begun(pool.clone(), 1).await;
            Closable(pool, response)
        }),
        row("a pool whose request is in flight", 3, || async {
            let pool = Pool::builder(discovers(), connects!())
                .spawn::<u32>()
                .unwrap();
            let response = begun(pool.clone(), 1).await;
            Kept((pool, response))
        }),
        row("a pool whose endpoints are probed", 5, || async {
            let probes = Prequal::new().with_probe_timeout(3600 * SECOND);
            let mut pool = Pool::builder(discovers(), connects!())
                .with_picker(probes)
                .with_gauge(Prober::new(|_| pending()))
                .spawn_attached::<u32>()
                .unwrap();
            assert_eq!(pool.ready().await.unwrap().call(0).await.unwrap(), 0);
            Closable(pool, ())
        }),
        row("the preset over a pool", 3, || async {
            let pool = Pool::builder(discovers(), connects!())
                .spawn::<u32>()
                .unwrap();
            let service = resilient(EveryErrorIsRetryable).layer(pool.clone());
            let response = begun(service, 1).await;
            Kept((pool, response))
        }),
    ]
}

fn without_tasks_of_their_own() -> Vec<Row> {
    vec![
        // It is answered by the second try, and only the loser has a task.
        row("a hedge that has been answered", 0, || async {
            let latencies = [1; 20];
            let mut hedge = Hedge::new_with_mock_latencies(
                answers_only_zero(),
                ThenZero,
                10,
                0.9,
                SECOND,
                &latencies,
            );
            assert_eq!(hedge.ready().await.unwrap().call(1).await.unwrap(), 0);
            Kept(hedge)
        }),
        row("a timeout that has passed", 0, || async {
            let mut service = Timeout::new(answers_only_zero(), SECOND);
            service.ready().await.unwrap().call(1).await.unwrap_err();
            Kept(service)
        }),
        row("a deadline that has passed", 0, || async {
            let mut service = DeadlineLayer::new()
                .with_max(SECOND)
                .layer(answers_only_zero());
            service.ready().await.unwrap().call(1).await.unwrap_err();
            Kept(service)
        }),
        row("a retry of what timed out", 1, || async {
            let policy = StandardPolicy::new(EveryErrorIsRetryable);
            let tries = Timeout::new(answers_only_zero(), SECOND / 3);
            let service = Retry::new(policy, tries);
            Kept(begun_within(service, 1, SECOND / 2).await)
        }),
        row("a breaker over a request in flight", 1, || async {
            let breaker = BreakerLayer::new(Settings::default()).layer(answers_only_zero());
            Kept(begun(breaker, 1).await)
        }),
        row("a filter that asks", 1, || async {
            let ask = |_: u32| async {
                let _task = endless();
                pending::<Result<u32, BoxError>>().await
            };
            Kept(begun(AsyncFilter::new(answers_only_zero(), ask), 0).await)
        }),
        row("a reconnect that connects", 1, || async {
            let connect = service_fn(|_: u32| {
                Box::pin(async {
                    let _task = endless();
                    pending::<()>().await;
                    Ok::<_, BoxError>(answers_only_zero())
                })
            });
            Kept(begun(Reconnect::new(connect, 1), 1).await)
        }),
        row("calls of a whole stream", 3, || async {
            let requests = stream::iter(1..=3).chain(stream::pending());
            let mut calls = CallAll::new(answers_only_zero(), requests).unordered();
            assert!(now(calls.next()).await.is_pending());
            Kept(calls)
        }),
        row("a balancer over endpoints that are stuck", 2, || async {
            let endpoints = [(); 2].map(|()| Constant::new(Stuck(endless()), 1));
            let balance = Balance::new(ServiceList::new::<u32>(endpoints));
            Kept(begun(balance, 1).await)
        }),
        row("a balancer being made", 1, || async {
            let discover = service_fn(|_: u32| async {
                let _task = endless();
                pending::<()>().await;
                let endpoints = [Constant::new(answers_only_zero(), 1)];
                Ok::<_, BoxError>(ServiceList::new::<u32>(endpoints))
            });
            Kept(begun(MakeBalance::<_, u32>::new(discover), 1).await)
        }),
        row("a cache of services that aren't ready", 2, || async {
            let mut cache = ReadyCache::<u32, Stuck, u32>::default();
            cache.push(1, Stuck(endless()));
            cache.push(2, Stuck(endless()));
            let pending = poll_fn(|cx| cache.poll_pending(cx));
            assert!(now(pending).await.is_pending());
            Kept(cache)
        }),
    ]
}

fn tasks_themselves() -> Vec<Row> {
    vec![
        row("a task", 1, || async { Closable(endless(), ()) }),
        row("tasks that are closed at once", 2, || async {
            Closable(AtOnce::new().and(endless()).and(endless()), ())
        }),
        row("tasks that are closed in turn", 2, || async {
            Closable(InTurn::new().then(endless()).then(endless()), ())
        }),
        row("a drain over a request in flight", 1, || async {
            let drain = DrainLayer::new();
            Kept(begun(drain.layer(answers_only_zero()), 1).await)
        }),
    ]
}

/// Polls once.
async fn now<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Lets all tasks run until they wait for time to pass.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Makes what the row says, and sees that it is at work.
async fn at_work(row: &Row) -> Box<dyn Owner> {
    assert_eq!(alive(), 0, "{}: before", row.name);
    let owner = (row.make)().await;
    settle().await;
    assert_eq!(alive(), row.tasks, "{}: at work", row.name);
    owner
}

#[tokio::test(start_paused = true)]
async fn no_task_outlives_its_owner() {
    for row in rows() {
        let owner = at_work(&row).await;
        let start = Instant::now();
        drop(owner);
        settle().await;
        assert_eq!(alive(), 0, "{}", row.name);
        assert_eq!(start.elapsed(), Duration::ZERO, "{}", row.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_by_the_deadline_once_its_owner_is_closed() {
    let mut closed = 0;
    for row in rows() {
        let owner = at_work(&row).await;
        let start = Instant::now();
        if let Some(closing) = owner.close(Deadline::after(10 * SECOND)) {
            let _ = closing.await;
            settle().await;
            assert!(start.elapsed() <= 11 * SECOND, "{}", row.name);
            assert_eq!(alive(), 0, "{}", row.name);
            closed += 1;
        }
        drop(owner);
        settle().await;
    }
    assert_eq!(closed, 12);
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_by_the_deadline_although_nobody_waits_for_its_end() {
    for row in rows() {
        let owner = at_work(&row).await;
        if let Some(closing) = owner.close(Deadline::after(10 * SECOND)) {
            drop(closing);
            sleep(11 * SECOND).await;
            settle().await;
            assert_eq!(alive(), 0, "{}", row.name);
        }
        drop(owner);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_by_the_deadline_although_its_owner_is_dropped_while_it_closes() {
    for row in rows() {
        let owner = at_work(&row).await;
        let closing = owner.close(Deadline::after(10 * SECOND));
        drop(owner);
        drop(closing);
        sleep(11 * SECOND).await;
        settle().await;
        assert_eq!(alive(), 0, "{}", row.name);
    }
}
