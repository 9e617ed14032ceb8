//! The pool as its callers, its endpoints and its observers see it.

mod server;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_balance::picker::{Endpoints, Picker, RoundRobin};
use tower_balance::pool::{
    Builder, Census, Ejection, InFlight, Observed, Pool, Reason, State, States, Unavailable,
};
use tower_classify::EveryErrorFails;
use tower_close::{Close, NotClosed};
use tower_deadline::Deadline;
use tower_discover::{Change, ServiceList};
use tower_load::TrackCompletion;
use tower_service::Service;
use tower_test::contract;

use self::server::{Connect, Connection, Server};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Changes = UnboundedReceiverStream<Result<Change<usize, Arc<Server>>, BoxError>>;
type Sender = mpsc::UnboundedSender<Result<Change<usize, Arc<Server>>, BoxError>>;
type TestPool<P = tower_balance::picker::PowerOfTwo> = Pool<usize, Connection, P>;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn builder() -> (Sender, Builder<Changes, Connect>) {
    let (sender, changes) = mpsc::unbounded_channel();
    let builder = Pool::builder(UnboundedReceiverStream::new(changes), Connect::default());
    (sender, builder.with_seed(1))
}

fn pool(servers: &[Arc<Server>]) -> (Sender, TestPool) {
    let (sender, builder) = builder();
    insert_all(&sender, servers);
    (sender, builder.spawn().unwrap())
}

fn insert(sender: &Sender, key: usize, server: &Arc<Server>) {
    let change = Change::Insert(key, Arc::clone(server));
    sender.send(Ok(change)).unwrap();
}

fn insert_all(sender: &Sender, servers: &[Arc<Server>]) {
    for (key, server) in servers.iter().enumerate() {
        insert(sender, key, server);
    }
}

fn servers(count: usize) -> Vec<Arc<Server>> {
    (0..count).map(|_| Arc::new(Server::default())).collect()
}

/// Lets the pool's task and everybody else do what there is to do now.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn call<P>(pool: &mut TestPool<P>) -> Result<usize, BoxError>
where
    TestPool<P>: Service<(), Response = usize, Error = BoxError>,
{
    poll_fn(|cx| pool.poll_ready(cx)).await?;
    pool.call(()).await
}

fn unavailable(error: &BoxError) -> &Unavailable {
    error.downcast_ref().unwrap()
}

async fn next_change(states: &mut States<usize>) -> (usize, Option<State>, Option<State>) {
    match timeout(600 * SECOND, states.next()).await.unwrap() {
        Some(Observed::Changed { key, from, to }) => (key, from, to),
        other => panic!("a change was expected: {other:?}"),
    }
}

fn census(pool: &TestPool) -> [usize; 6] {
    let Census {
        connecting,
        ready,
        failing,
        ejected,
        idle,
        draining,
        ..
    } = pool.census();
    [connecting, ready, failing, ejected, idle, draining]
}

#[test]
fn keeps_the_contract() {
    for queue in [0, 1, 8] {
        // An endpoint that fails is made anew, and the request goes to that.
        let checker = contract::Checker::new().masks_errors();
        let report = checker.check(move |inner| {
            let make = Handout(inner);
            let discover = ServiceOf(Some(()));
            Pool::builder(discover, make)
                .with_seed(7)
                .with_queue(queue)
                .without_ejection()
                .with_backoff(MS, MS)
                .spawn::<contract::Request>()
                .unwrap()
        });
        report.assert();
    }
}

/// Discovers one target.
struct ServiceOf(Option<()>);

impl futures_util::Stream for ServiceOf {
    type Item = Result<Change<(), ()>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.0.take() {
            Some(()) => std::task::Poll::Ready(Some(Ok(Change::Insert((), ())))),
            None => std::task::Poll::Ready(None),
        }
    }
}

/// Makes connections by cloning one.
struct Handout<S>(S);

impl<S: Clone> Service<()> for Handout<S> {
    type Response = S;
    type Error = Infallible;
    type Future = std::future::Ready<Result<S, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(self.0.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_follows_discovery_and_connects() {
    let servers = servers(1_000);
    let (sender, pool) = pool(&servers);
    sleep(MS).await;
    assert_eq!(census(&pool), [0, 1_000, 0, 0, 0, 0]);
    assert!(servers.iter().all(|server| server.connects() == 1));
    for key in 0..1_000 {
        sender.send(Ok(Change::Remove(key))).unwrap();
    }
    sleep(MS).await;
    assert_eq!(census(&pool), [0; 6]);
    assert!(servers.iter().all(|server| server.connections() == 0));
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_it() {
    let servers = servers(4);
    let (_sender, pool) = pool(&servers);
    let callers: Vec<_> = (0..200)
        .map(|_| {
            let mut pool = pool.clone();
            tokio::spawn(async move { call(&mut pool).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let calls: Vec<usize> = servers.iter().map(|server| server.calls()).collect();
    assert_eq!(calls.iter().sum::<usize>(), 200);
    // They are in flight at once, so that two choices keep them close together.
    assert!(
        calls.iter().all(|&calls| (45..=55).contains(&calls)),
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_change_of_state_is_observed() {
    let servers = servers(2);
    let (sender, builder) = builder();
    let mut pool: TestPool = builder.spawn().unwrap();
    let mut states = pool.states();
    assert_eq!(states.next().await, Some(Observed::All(vec![])));

    insert(&sender, 0, &servers[0]);
    assert_eq!(
        next_change(&mut states).await,
        (0, None, Some(State::Connecting))
    );
    assert_eq!(
        next_change(&mut states).await,
        (0, Some(State::Connecting), Some(State::Ready))
    );
    servers[1].refuse(true);
    insert(&sender, 1, &servers[1]);
    assert_eq!(
        next_change(&mut states).await,
        (1, None, Some(State::Connecting))
    );
    assert_eq!(
        next_change(&mut states).await,
        (1, Some(State::Connecting), Some(State::Failing))
    );
    let mut late = pool.states();
    let Some(Observed::All(mut all)) = late.next().await else {
        panic!("all were expected");
    };
    all.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(all, [(0, State::Ready), (1, State::Failing)]);

    let response = tokio::spawn(async move { call(&mut pool).await.map(|_| pool) });
    settle().await;
    sender.send(Ok(Change::Remove(0))).unwrap();
    assert_eq!(
        next_change(&mut states).await,
        (0, Some(State::Ready), Some(State::Draining))
    );
    let pool = response.await.unwrap().unwrap();
    loop {
        // The other one goes on failing meanwhile.
        let (key, from, to) = next_change(&mut states).await;
        if key == 0 {
            assert_eq!((from, to), (Some(State::Draining), None));
            break;
        }
    }
    drop(pool);
    while states.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_slow_observer_is_told_all_again() {
    let (sender, builder) = builder();
    let _pool: TestPool = builder.spawn().unwrap();
    let mut states = _pool.states();
    settle().await;
    let servers = servers(500);
    insert_all(&sender, &servers);
    sleep(SECOND).await;
    let mut alls = 0;
    while let Ok(Some(observed)) = timeout(SECOND, states.next()).await {
        if let Observed::All(all) = observed {
            alls += 1;
            assert!(alls == 1 || all.len() == 500);
        }
    }
    assert_eq!(alls, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_endpoint_is_rebuilt_with_backoff_and_visible() {
    let servers = servers(1);
    servers[0].refuse(true);
    let (_sender, pool) = pool(&servers);
    settle().await;
    assert_eq!(census(&pool), [0, 0, 1, 0, 0, 0]);
    sleep(10 * SECOND).await;
    // 100 ms, doubling up to 30 s, of which the second half is left to chance.
    let tries = servers[0].connects();
    assert!((7..=9).contains(&tries), "{tries}");
    servers[0].refuse(false);
    sleep(30 * SECOND).await;
    assert_eq!(census(&pool), [0, 1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_is_made_anew_at_once_and_no_request_with_it() {
    let servers = servers(2);
    let (_sender, mut pool) = pool(&servers);
    sleep(SECOND).await;
    servers[0].break_connections();
    for _ in 0..20 {
        call(&mut pool).await.unwrap();
    }
    sleep(MS).await;
    assert_eq!(servers[0].connects(), 2);
    assert_eq!(census(&pool), [0, 2, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_lost_over_and_over_is_not_made_over_and_over() {
    let servers = servers(1);
    let (_sender, mut pool) = pool(&servers);
    let end = Instant::now() + 10 * SECOND;
    while Instant::now() < end {
        servers[0].break_connections();
        let _ = timeout(10 * MS, call(&mut pool)).await;
        sleep(MS).await;
    }
    let connects = servers[0].connects();
    assert!((7..=10).contains(&connects), "{connects}");
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_an_endpoint_in_turn() {
    let (sender, builder) = builder();
    let pool: TestPool = builder.spawn().unwrap();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut pool = pool.clone();
            assert_ready_ok!(task::spawn(poll_fn(|cx| pool.poll_ready(cx))).poll());
            let mut response = task::spawn(pool.call(()));
            assert_pending!(response.poll());
            response
        })
        .collect();
    assert_eq!(pool.queued(), 3);
    let server = Arc::new(Server::default());
    server.set_capacity(1);
    server.set_latency(SECOND);
    insert(&sender, 0, &server);
    for expected in 0..3 {
        settle().await;
        let woken: Vec<usize> = (0..3).filter(|&i| waiting[i].is_woken()).collect();
        assert_eq!(woken, [expected]);
        assert_pending!(waiting[expected].poll());
        assert_eq!(pool.queued(), 2 - expected);
        advance(SECOND).await;
        assert_ready_ok!(waiting[expected].poll());
    }
    assert_eq!(server.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_bounded_and_its_error_says_why_nothing_is_ready() {
    let servers = servers(3);
    servers[0].refuse(true);
    servers[1].hang(true);
    servers[2].set_capacity(1);
    servers[2].set_latency(3600 * SECOND);
    let (_sender, mut pool) = pool(&servers);
    settle().await;
    let _busy = pool.call(());
    let start = Instant::now();
    let error = call(&mut pool).await.unwrap_err();
    assert_eq!(start.elapsed(), 3 * SECOND);
    let error = unavailable(&error);
    assert_eq!(error.reason, Reason::WaitedTooLong);
    assert_eq!(error.waited, 3 * SECOND);
    assert_eq!(error.last_failure.as_deref(), Some("connection refused"));
    let message = error.to_string();
    assert!(
        message.contains("of 3 endpoints 1 connecting, 1 busy, 1 failing"),
        "{message}"
    );
    assert_eq!(pool.queued(), 0);
}

/// Wants none of them.
#[derive(Clone, Debug)]
struct Picky;

impl<S> Picker<S> for Picky {
    fn pick<E, R>(&mut self, _: &E, _: &mut R) -> Option<usize>
    where
        E: Endpoints<S> + ?Sized,
        R: tower_rng::Rng + ?Sized,
    {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_picker_that_picks_none_keeps_requests_waiting_and_no_thread_busy() {
    let (sender, builder) = builder();
    insert_all(&sender, &servers(2));
    let mut pool: TestPool<Picky> = builder.with_picker(Picky).spawn().unwrap();
    settle().await;
    let error = call(&mut pool).await.unwrap_err();
    assert_eq!(unavailable(&error).reason, Reason::WaitedTooLong);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_a_deadline() {
    let (_sender, mut pool) = pool(&[]);
    let start = Instant::now();
    let deadline = Deadline::after(50 * MS);
    let error = deadline.scope(call(&mut pool)).await.unwrap_err();
    assert_eq!(start.elapsed(), 50 * MS);
    assert_eq!(unavailable(&error).reason, Reason::DeadlinePassed);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_a_full_one_holds_back_who_asks() {
    let (sender, builder) = builder();
    let mut pool: TestPool = builder.with_queue(2).spawn().unwrap();
    let _first = pool.call(());
    let second = pool.call(());
    let mut third = task::spawn(pool.call(()));
    let error = assert_ready_err!(third.poll());
    assert_eq!(unavailable(&error).reason, Reason::QueueFull);

    let mut other = pool.clone();
    let mut readiness = task::spawn(poll_fn(|cx| other.poll_ready(cx)));
    assert_pending!(readiness.poll());
    drop(second);
    assert!(readiness.is_woken());
    assert_ready_ok!(readiness.poll());
    drop(readiness);

    // A wait for a place is bounded, too: the call then says why.
    let _second = pool.call(());
    let start = Instant::now();
    let error = call(&mut pool).await.unwrap_err();
    assert_eq!(unavailable(&error).reason, Reason::QueueFull);
    assert_eq!(start.elapsed(), 3 * SECOND);
    insert_all(&sender, &servers(1));
    call(&mut pool).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_passes_its_turn_on() {
    let (sender, builder) = builder();
    let mut pool: TestPool = builder.spawn().unwrap();
    let mut first = task::spawn(pool.call(()));
    let mut second = task::spawn(pool.call(()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    insert_all(&sender, &servers(1));
    settle().await;
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken());
    assert_pending!(second.poll());
    advance(MS * 10).await;
    assert_ready_ok!(second.poll());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_removed_drains() {
    let servers = servers(2);
    servers[0].set_latency(5 * SECOND);
    let (sender, mut pool) = pool(&servers[..1]);
    settle().await;
    let response = tokio::spawn(pool.call(()));
    settle().await;
    sender.send(Ok(Change::Remove(0))).unwrap();
    insert(&sender, 1, &servers[1]);
    settle().await;
    assert_eq!(census(&pool), [0, 1, 0, 0, 0, 1]);
    assert_eq!(servers[0].connections(), 1);
    for _ in 0..10 {
        call(&mut pool).await.unwrap();
    }
    assert_eq!((servers[0].calls(), servers[1].calls()), (1, 10));
    response.await.unwrap().unwrap();
    settle().await;
    assert_eq!(servers[0].connections(), 0);
    assert_eq!(census(&pool), [0, 1, 0, 0, 0, 0]);
}

/// Gives out the response with what keeps its request in flight.
#[derive(Clone)]
struct Holding;

impl<H, V> TrackCompletion<H, V> for Holding {
    type Output = (V, H);

    fn track_completion(&self, handle: H, value: V) -> (V, H) {
        (value, handle)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_flight_until_its_completion_is_dropped() {
    let servers = servers(2);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool = builder.with_completion(Holding).spawn().unwrap();
    sleep(SECOND).await;
    let (_, body) = pool.call(()).await.unwrap();
    let first = usize::from(servers[0].calls() == 0);
    // The other one has less to do while the body of the first goes on.
    for _ in 0..9 {
        let (_, _body) = pool.call(()).await.unwrap();
    }
    assert_eq!((servers[first].calls(), servers[1 - first].calls()), (1, 9));
    sender.send(Ok(Change::Remove(first))).unwrap();
    settle().await;
    assert_eq!((pool.census().ready, pool.census().draining), (1, 1));
    drop(body);
    settle().await;
    assert_eq!((pool.census().ready, pool.census().draining), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn draining_is_bounded() {
    let servers = servers(1);
    servers[0].set_latency(3600 * SECOND);
    let (sender, mut pool) = pool(&servers);
    settle().await;
    let response = pool.call(());
    sender.send(Ok(Change::Remove(0))).unwrap();
    sleep(29 * SECOND).await;
    assert_eq!(servers[0].connections(), 1);
    sleep(2 * SECOND).await;
    assert_eq!(servers[0].connections(), 0);
    // Its place isn't used again before the request has ended.
    assert_eq!(census(&pool), [0, 0, 0, 0, 0, 1]);
    drop(response);
    settle().await;
    assert_eq!(census(&pool), [0; 6]);
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_goes_on_until_the_new_one_is_ready() {
    let servers = servers(3);
    let (sender, mut pool) = pool(&servers[..1]);
    settle().await;
    servers[1].hang(true);
    insert(&sender, 0, &servers[1]);
    settle().await;
    call(&mut pool).await.unwrap();
    assert_eq!(servers[0].calls(), 1);
    // One that never came to be ready is replaced as well.
    insert(&sender, 0, &servers[2]);
    settle().await;
    for _ in 0..10 {
        call(&mut pool).await.unwrap();
    }
    assert_eq!((servers[0].calls(), servers[2].calls()), (1, 10));
    assert_eq!(servers[0].connections(), 0);
    sender.send(Ok(Change::Remove(0))).unwrap();
    settle().await;
    assert_eq!(census(&pool), [0; 6]);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_in_a_row_is_ejected_and_comes_back() {
    let servers = servers(10);
    for server in &servers {
        server.set_latency(MS);
    }
    let (_sender, mut pool) = pool(&servers);
    settle().await;
    servers[3].fail(true);
    for _ in 0..200 {
        let _ = call(&mut pool).await;
    }
    assert_eq!(servers[3].calls(), 5);
    assert_eq!(census(&pool), [0, 9, 0, 1, 0, 0]);
    servers[3].fail(false);
    sleep(41 * SECOND).await;
    assert_eq!(census(&pool), [0, 10, 0, 0, 0, 0]);
}

/// Sends `rounds` requests to each of three endpoints, of which one doesn't answer; says how many are ejected then.
async fn ejected_by<W, F>(ejection: Ejection, rounds: usize, wait: W) -> usize
where
    W: Fn(<TestPool<RoundRobin> as Service<()>>::Future) -> F,
    F: Future<Output = ()>,
{
    let servers = servers(3);
    servers[1].set_latency(3600 * SECOND);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool<RoundRobin> = builder
        .with_ejection(ejection)
        .with_picker(RoundRobin::default())
        .spawn()
        .unwrap();
    settle().await;
    for _ in 0..3 * rounds {
        poll_fn(|cx| pool.poll_ready(cx)).await.unwrap();
        wait(pool.call(())).await;
        settle().await;
    }
    pool.census().ejected
}

#[tokio::test(start_paused = true)]
async fn requests_that_pass_their_deadline_count_against_an_endpoint() {
    let by_deadline = |response| async move {
        let _ = Deadline::after(20 * MS).within(response).await;
    };
    let ejection = Ejection::default();
    assert_eq!(ejected_by(ejection, 4, by_deadline).await, 0);
    assert_eq!(ejected_by(ejection, 5, by_deadline).await, 1);
    let careless = ejection.without_given_up();
    assert_eq!(ejected_by(careless, 20, by_deadline).await, 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_count_against_an_endpoint_if_that_took_long() {
    let within = |limit: Duration| {
        move |response| async move {
            let _ = timeout(limit, response).await;
        }
    };
    let ejection = Ejection::default();
    assert_eq!(ejected_by(ejection, 20, within(900 * MS)).await, 0);
    assert_eq!(ejected_by(ejection, 5, within(1001 * MS)).await, 1);
    let sooner = ejection.with_given_up_after(50 * MS);
    assert_eq!(ejected_by(sooner, 20, within(40 * MS)).await, 0);
    assert_eq!(ejected_by(sooner, 5, within(60 * MS)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_never_polled_say_nothing_of_an_endpoint() {
    let ejection = Ejection::default().with_given_up_after(Duration::ZERO);
    let dropped = |response| async move { drop(response) };
    assert_eq!(ejected_by(ejection, 20, dropped).await, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_may_be() {
    let servers = servers(10);
    for server in &servers {
        server.fail(true);
        server.set_latency(MS);
    }
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let ejection = Ejection::default().with_max_share(0.3);
    let mut pool: TestPool = builder.with_ejection(ejection).spawn().unwrap();
    settle().await;
    for _ in 0..300 {
        let _ = call(&mut pool).await;
        assert!(pool.census().ejected <= 3);
    }
    assert_eq!(pool.census().ejected, 3);
}

#[tokio::test(start_paused = true)]
async fn if_too_many_are_ejected_all_are_used() {
    let servers = servers(4);
    for server in &servers {
        server.set_latency(MS);
        server.fail(true);
    }
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let ejection = Ejection::default().with_max_share(1.0);
    let mut pool: TestPool<RoundRobin> = builder
        .with_ejection(ejection)
        .with_picker(RoundRobin::default())
        .spawn()
        .unwrap();
    settle().await;
    for _ in 0..100 {
        let _ = call(&mut pool).await;
        settle().await;
    }
    assert_eq!(pool.census().ejected, 4);
    let before: Vec<usize> = servers.iter().map(|server| server.calls()).collect();
    for server in &servers {
        server.fail(false);
    }
    for _ in 0..40 {
        call(&mut pool).await.unwrap();
    }
    for (server, before) in servers.iter().zip(before) {
        assert_eq!(server.calls() - before, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_starts_slowly() {
    let servers = servers(11);
    for server in &servers {
        server.set_latency(100 * MS);
    }
    let (sender, builder) = builder();
    insert_all(&sender, &servers[..10]);
    let pool: TestPool = builder.with_slow_start(10 * SECOND).spawn().unwrap();
    sleep(20 * SECOND).await;
    insert(&sender, 10, &servers[10]);
    let offer = async |seconds: u32| {
        let before = servers[10].calls();
        for _ in 0..seconds * 100 {
            let mut pool = pool.clone();
            tokio::spawn(async move { call(&mut pool).await });
            sleep(10 * MS).await;
        }
        servers[10].calls() - before
    };
    let (first, _, later) = (offer(2).await, offer(10).await, offer(2).await);
    assert!(first < 10, "{first} of 200");
    assert!((15..=22).contains(&later), "{later} of 200");
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_has_its_small_share_though_one_request_is_sent_at_a_time() {
    for count in [1, 4] {
        let servers = servers(count + 1);
        for server in &servers {
            server.set_latency(Duration::ZERO);
        }
        let (sender, builder) = builder();
        insert_all(&sender, &servers[..count]);
        let builder = builder.with_slow_start(100 * SECOND).with_seed(7);
        let mut pool: TestPool = builder.spawn().unwrap();
        sleep(200 * SECOND).await;
        insert(&sender, count, &servers[count]);
        settle().await;
        let mut shares = Vec::new();
        for _ in 0..4 {
            let before = servers[count].calls();
            for _ in 0..2000 {
                call(&mut pool).await.unwrap();
            }
            let share = (servers[count].calls() - before) as f64 / 2000.0;
            shares.push(share * (count + 1) as f64);
            sleep(25 * SECOND).await;
        }
        // In parts of a fair share.
        for (share, expected) in shares.iter().zip([0.1, 0.25, 0.5, 0.75]) {
            assert!((share - expected).abs() < 0.15, "{count}: {shares:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_endpoints_are_new_they_share_as_always() {
    let servers = servers(4);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool<RoundRobin> = builder
        .with_picker(RoundRobin::default())
        .with_slow_start(100 * SECOND)
        .spawn()
        .unwrap();
    settle().await;
    for round in 1..=5 {
        for _ in 0..40 {
            call(&mut pool).await.unwrap();
        }
        let calls: Vec<_> = servers.iter().map(|server| server.calls()).collect();
        assert_eq!(calls, [10 * round; 4]);
        sleep(25 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_endpoints_stand_in_for_one_that_is_ejected() {
    let servers = servers(10);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool = builder.with_idle_timeout(SECOND, 1).spawn().unwrap();
    sleep(10 * SECOND).await;
    assert_eq!((pool.census().ready, pool.census().idle), (1, 9));
    let used = servers.iter().find(|server| server.connections() > 0);
    used.unwrap().fail(true);
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(call(&mut pool).await.is_err());
        sleep(10 * MS).await;
    }
    // Those in a row for which it is ejected. Too few are connected, but not too few are well.
    assert_eq!(failed, 5);
}

#[tokio::test(start_paused = true)]
async fn connections_that_nobody_uses_are_closed_and_made_again_when_wanted() {
    let servers = servers(5);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool = builder.with_idle_timeout(60 * SECOND, 1).spawn().unwrap();
    sleep(100 * SECOND).await;
    assert_eq!(census(&pool), [0, 1, 0, 0, 4, 0]);
    let connections = || {
        servers
            .iter()
            .map(|server| server.connections())
            .sum::<usize>()
    };
    assert_eq!(connections(), 1);

    // The only one is busy.
    for server in &servers {
        server.set_capacity(1);
        server.set_latency(SECOND);
    }
    let responses: Vec<_> = (0..3).map(|_| tokio::spawn(pool.call(()))).collect();
    settle().await;
    assert!(connections() >= 3);
    for response in responses {
        response.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_endpoint_that_cannot_be_connected_to_gives_way_to_the_next() {
    let servers = servers(3);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool = builder.with_idle_timeout(SECOND, 0).spawn().unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(census(&pool), [0, 0, 0, 0, 3, 0]);
    servers[0].refuse(true);
    servers[1].refuse(true);
    let start = Instant::now();
    call(&mut pool).await.unwrap();
    assert!(start.elapsed() <= 10 * MS);
    assert_eq!(census(&pool), [0, 1, 2, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn where_no_request_may_wait_a_handle_has_idle_endpoints_connected_to() {
    let servers = servers(3);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let builder = builder.with_queue(0).with_idle_timeout(SECOND, 0);
    let mut pool: TestPool = builder.spawn().unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(census(&pool), [0, 0, 0, 0, 3, 0]);
    servers[0].refuse(true);
    let start = Instant::now();
    call(&mut pool).await.unwrap();
    assert!(start.elapsed() <= 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn few_connect_at_once() {
    let servers = servers(100);
    let connect = Connect::taking(SECOND);
    let (sender, changes) = mpsc::unbounded_channel();
    let builder = Pool::builder(UnboundedReceiverStream::new(changes), connect.clone());
    let pool: TestPool = builder.with_max_connecting(10).spawn().unwrap();
    insert_all(&sender, &servers);
    sleep(5 * SECOND + MS).await;
    assert_eq!(pool.census().ready, 50);
    sleep(5 * SECOND).await;
    assert_eq!(pool.census().ready, 100);
    assert_eq!(connect.most_at_once(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_never_connects_is_given_up_and_tried_again() {
    let servers = servers(1);
    servers[0].hang(true);
    let (_sender, pool) = pool(&servers);
    sleep(9 * SECOND).await;
    assert_eq!(census(&pool), [1, 0, 0, 0, 0, 0]);
    sleep(SECOND + MS).await;
    assert_eq!(census(&pool), [0, 0, 1, 0, 0, 0]);
    servers[0].hang(false);
    sleep(SECOND).await;
    assert_eq!(census(&pool), [0, 1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_discovery_is_told_and_discovery_goes_on() {
    let servers = servers(1);
    let (sender, builder) = builder();
    sender.send(Err("no such name".into())).unwrap();
    let mut pool: TestPool = builder.spawn().unwrap();
    let error = call(&mut pool).await.unwrap_err();
    let failure = unavailable(&error).last_failure.as_deref();
    assert_eq!(failure, Some("discovery failed: no such name"));
    insert_all(&sender, &servers);
    call(&mut pool).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_discovery_that_fails_over_and_over_is_asked_once_in_a_while_though_requests_come() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let changes = tokio_stream::iter(std::iter::from_fn(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Some(Err::<Change<usize, Arc<Server>>, BoxError>(
            "out of order".into(),
        ))
    }));
    let pool = Pool::builder(changes, Connect::taking(MS))
        .with_max_wait(3 * MS)
        .spawn::<()>()
        .unwrap();
    // Each wakes the task, at other times than the last.
    for _ in 0..1000 {
        let mut pool = pool.clone();
        tokio::spawn(async move { call(&mut pool).await });
        sleep(MS).await;
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 11, "asked {asked} times in a second");
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_for_ever_nobody_waits() {
    let (sender, builder) = builder();
    let mut pool: TestPool = builder.spawn().unwrap();
    let mut waiting = task::spawn(pool.call(()));
    assert_pending!(waiting.poll());
    drop(sender);
    settle().await;
    let error = assert_ready_err!(waiting.poll());
    assert_eq!(unavailable(&error).reason, Reason::NoneLeft);
    let error = call(&mut pool).await.unwrap_err();
    assert_eq!(unavailable(&error).reason, Reason::NoneLeft);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_endpoint_is_its_callers_and_the_endpoint_is_rebuilt() {
    let servers = servers(1);
    let (_sender, mut pool) = pool(&servers);
    sleep(SECOND).await;
    servers[0].panic_once();
    let mut other = pool.clone();
    let caller = tokio::spawn(async move { call(&mut other).await });
    assert!(caller.await.unwrap_err().is_panic());
    call(&mut pool).await.unwrap();
    assert_eq!(servers[0].connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_endpoint_is_its_failure_and_the_others_go_on() {
    let servers = servers(2);
    servers[0].panic_when_connected(true);
    let (_sender, mut pool) = pool(&servers);
    settle().await;
    assert_eq!(census(&pool), [0, 1, 1, 0, 0, 0]);
    call(&mut pool).await.unwrap();
    servers[0].panic_when_connected(false);
    sleep(SECOND).await;
    assert_eq!(census(&pool), [0, 2, 0, 0, 0, 0]);

    // Polled by the pool's task, as it waits for room.
    servers[0].set_capacity(0);
    for _ in 0..4 {
        call(&mut pool).await.unwrap();
    }
    servers[0].set_capacity(1);
    servers[0].panic_when_polled();
    settle().await;
    assert_eq!(servers[0].connects(), 3);
    assert_eq!(census(&pool), [0, 2, 0, 0, 0, 0]);
    call(&mut pool).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_an_endpoint_said_when_it_panicked_is_told() {
    let servers = servers(1);
    servers[0].panic_when_connected(true);
    let (_sender, mut pool) = pool(&servers);
    let error = call(&mut pool).await.unwrap_err();
    let error = unavailable(&error);
    assert_eq!(error.reason, Reason::WaitedTooLong);
    assert_eq!(
        error.last_failure.as_deref(),
        Some("connecting panicked: connected on purpose")
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_task_reaches_callers_with_its_cause() {
    let (sender, changes) = mpsc::unbounded_channel();
    let connect = Connect::panicking();
    let mut pool: TestPool = Pool::builder(UnboundedReceiverStream::new(changes), connect)
        .spawn()
        .unwrap();
    let mut waiting = task::spawn(pool.call(()));
    assert_pending!(waiting.poll());
    insert_all(&sender, &servers(1));
    settle().await;
    for error in [
        assert_ready_err!(waiting.poll()),
        call(&mut pool).await.unwrap_err(),
    ] {
        let error = unavailable(&error);
        assert_eq!(error.reason, Reason::Panicked);
        assert_eq!(
            error.last_failure.as_deref(),
            Some("cannot connect on purpose")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_what_comes_and_finishes_what_is_there() {
    let servers = servers(1);
    servers[0].set_capacity(1);
    servers[0].set_latency(SECOND);
    let (_sender, mut pool) = pool(&servers);
    settle().await;
    let responses: Vec<_> = (0..3).map(|_| tokio::spawn(pool.call(()))).collect();
    settle().await;
    let start = Instant::now();
    let mut closing = task::spawn(pool.close(Deadline::after(10 * SECOND)));
    assert_pending!(closing.poll());
    let error = call(&mut pool).await.unwrap_err();
    assert_eq!(unavailable(&error).reason, Reason::Closed);
    closing.await.unwrap();
    assert_eq!(start.elapsed(), 3 * SECOND);
    for response in responses {
        response.await.unwrap().unwrap();
    }
    assert_eq!(servers[0].connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_at_its_deadline() {
    let (_sender, mut pool) = pool(&[]);
    let mut waiting = task::spawn(pool.call(()));
    assert_pending!(waiting.poll());
    let end = pool.close(Deadline::after(SECOND)).await;
    assert_eq!(end, Err(NotClosed::CutOff { unfinished: 1 }));
    let error = assert_ready_err!(waiting.poll());
    assert_eq!(unavailable(&error).reason, Reason::Closed);
}

#[tokio::test(start_paused = true)]
async fn connections_end_at_the_deadline_although_handles_stay() {
    let servers = servers(3);
    servers[0].set_latency(60 * SECOND);
    let (sender, builder) = builder();
    insert_all(&sender, &servers);
    let mut pool: TestPool<RoundRobin> =
        builder.with_picker(RoundRobin::default()).spawn().unwrap();
    settle().await;
    let mut unfinished: Vec<_> = (0..3).map(|_| task::spawn(pool.call(()))).collect();
    for response in &mut unfinished {
        let _ = response.poll();
    }
    assert!(servers.iter().all(|server| server.connections() == 1));
    let end = pool.close(Deadline::after(SECOND)).await;
    assert_eq!(end, Err(NotClosed::CutOff { unfinished: 1 }));
    assert!(servers.iter().all(|server| server.connections() == 0));
}

#[test]
fn a_connection_ends_with_its_last_user_where_the_task_has_gone_meanwhile() {
    let runtime = Arc::new(Mutex::new(None));
    let connection = ShutsDown {
        runtime: Arc::clone(&runtime),
        counted: Arc::new(()),
    };
    let connections = Arc::downgrade(&connection.counted);
    let its_runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut pool = its_runtime.block_on(async {
        let one = tokio_stream::once(Ok::<_, Infallible>(Change::Insert(0, ())));
        let endpoints = one.chain(tokio_stream::pending());
        let pool = Pool::builder(endpoints, Handout(connection)).spawn::<()>();
        let pool = pool.unwrap();
        settle().await;
        pool
    });
    assert!(connections.strong_count() > 0);
    *runtime.lock().unwrap() = Some(its_runtime);
    // The task is dropped in the middle of this call.
    let mut response = task::spawn(pool.call(()));
    assert_ready_ok!(response.poll());
    assert_eq!(connections.strong_count(), 0);
}

/// Ends the runtime of the pool's task while it is called.
#[derive(Clone)]
struct ShutsDown {
    runtime: Arc<Mutex<Option<tokio::runtime::Runtime>>>,
    counted: Arc<()>,
}

impl Service<()> for ShutsDown {
    type Response = usize;
    type Error = Infallible;
    type Future = std::future::Ready<Result<usize, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let runtime = self.runtime.lock().unwrap().take();
        drop(runtime);
        std::future::ready(Ok(Arc::strong_count(&self.counted)))
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle() {
    let servers = servers(3);
    let (sender, pool) = pool(&servers);
    let other = pool.clone();
    settle().await;
    drop(pool);
    settle().await;
    assert!(servers.iter().all(|server| server.connections() == 1));
    drop(other);
    settle().await;
    assert!(sender.is_closed());
    assert!(servers.iter().all(|server| server.connections() == 0));
}

#[test]
fn without_a_runtime_there_is_no_pool() {
    let services = ServiceList::new::<()>(Vec::<Named>::new());
    let pool = Pool::builder(services, Handout(Named)).spawn::<()>();
    assert!(pool.is_err());
}

#[derive(Clone)]
struct Named;

impl Service<()> for Named {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

impl Service<Named> for Handout<Named> {
    type Response = Named;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Named, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, named: Named) -> Self::Future {
        std::future::ready(Ok(named))
    }
}

#[test]
fn it_is_shared_between_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Pool<usize, Connection, RoundRobin, InFlight, EveryErrorFails>>();
}

/// Many callers on several threads, while endpoints come, go and break: each request ends, and none is lost.
#[test]
fn every_request_ends_on_several_threads_under_churn() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let servers = servers(8);
        for server in &servers[..4] {
            server.set_capacity(2);
        }
        for server in &servers {
            server.set_latency(Duration::ZERO);
        }
        let (sender, pool) = pool(&servers);
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let mut pool = pool.clone();
                tokio::spawn(async move {
                    for _ in 0..200 {
                        call(&mut pool).await.unwrap();
                    }
                })
            })
            .collect();
        for round in 0..100 {
            let key = round % 7;
            sender.send(Ok(Change::Remove(key))).unwrap();
            servers[(round + 3) % 8].break_connections();
            tokio::task::yield_now().await;
            insert(&sender, key, &servers[key]);
            tokio::task::yield_now().await;
        }
        for caller in callers {
            timeout(30 * SECOND, caller).await.unwrap().unwrap();
        }
        assert_eq!(pool.queued(), 0);
    });
}
