//! Endpoints that are asked for their load over their own connections, and such that tell it unasked.

use std::convert::Infallible;
use std::future::{Ready, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, advance};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_balance::picker::{Endpoints, Picker, PowerOfTwo, Preparation};
use tower_balance::pool::{Pool, Reason, Unavailable};
use tower_balance::prequal::{Mode, Prequal, Probed, Prober};
use tower_close::Close;
use tower_deadline::Deadline;
use tower_discover::Change;
use tower_load::meter::LoadReport;
use tower_load::reported::{Reported, ReportedLoad};
use tower_rng::{Rng, SplitMix64};
use tower_service::Service;
use tower_test::contract;

type Changes = UnboundedReceiverStream<Result<Change<usize, Server>, Infallible>>;
type Sender = mpsc::UnboundedSender<Result<Change<usize, Server>, Infallible>>;

const MS: Duration = Duration::from_millis(1);

/// A server, and its client: those that have it count.
#[derive(Clone, Debug, Default)]
struct Server(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    load: u32,
    calls: AtomicUsize,
    asked: AtomicUsize,
}

/// Hands out the server as the connection to it.
#[derive(Clone, Debug)]
struct Connect;

impl Server {
    fn with_load(load: u32) -> Self {
        Self(Arc::new(Counts {
            load,
            ..Counts::default()
        }))
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Service<()> for Server {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(self.0.load))
    }
}

impl Service<Server> for Connect {
    type Response = Server;
    type Error = Infallible;
    type Future = Ready<Result<Server, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Server) -> Self::Future {
        ready(Ok(server))
    }
}

/// Makes connections that take reports from the responses: the load in percent.
#[derive(Clone, Debug)]
struct ConnectReporting;

type Reporting = ReportedLoad<Server, fn(&u32) -> Option<f64>>;

impl Service<Server> for ConnectReporting {
    type Response = Reporting;
    type Error = Infallible;
    type Future = Ready<Result<Reporting, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Server) -> Self::Future {
        ready(Ok(ReportedLoad::new(server, |load| {
            Some(f64::from(*load) / 100.0)
        })))
    }
}

fn discovery(servers: &[Server]) -> (Sender, Changes) {
    let (sender, changes) = mpsc::unbounded_channel();
    for (key, server) in servers.iter().enumerate() {
        let change = Change::Insert(key, server.clone());
        sender.send(Ok(change)).unwrap();
    }
    (sender, UnboundedReceiverStream::new(changes))
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn call<S: Service<()>>(service: &mut S) -> S::Response {
    poll_fn(|cx| service.poll_ready(cx))
        .await
        .ok()
        .expect("it is ready");
    service.call(()).await.ok().expect("it answers")
}

/// Answers after a millisecond.
async fn ask(server: Server) -> Option<LoadReport> {
    server.0.asked.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(MS).await;
    Some(LoadReport::new(server.0.load, None))
}

/// Never answers, and has the server meanwhile.
async fn ask_in_vain(server: Server) -> Option<LoadReport> {
    server.0.asked.fetch_add(1, Ordering::Relaxed);
    pending().await
}

#[tokio::test(start_paused = true)]
async fn a_pool_asks_its_endpoints_over_their_own_connections() {
    let servers: Vec<_> = [9, 9, 1, 9].map(Server::with_load).into();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    for _ in 0..20 {
        call(&mut pool).await;
        tokio::time::sleep(2 * MS).await;
    }
    let calls: Vec<_> = servers.iter().map(Server::calls).collect();
    assert!(calls[2] >= 15, "{calls:?}");
    let asked: usize = servers.iter().map(Server::asked).sum();
    assert_eq!(asked, 60);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_answers_of_all_servers_but_one() {
    /// Takes a millisecond for each request in flight but one.
    async fn ask(server: Server) -> Option<LoadReport> {
        let load = server.0.load;
        tokio::time::sleep((load - 1) * MS).await;
        Some(LoadReport::new(load, Some(50 * MS)))
    }
    let servers: Vec<_> = [3, 2, 1].map(Server::with_load).into();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    settle().await;
    let start = Instant::now();
    call(&mut pool).await;
    assert_eq!(start.elapsed(), MS);
    // By then answers are a sixth of the latency old.
    advance(8 * MS).await;
    let start = Instant::now();
    call(&mut pool).await;
    assert_eq!(start.elapsed(), MS);
    assert_eq!(servers[2].calls(), 2);
    // Those are young.
    let start = Instant::now();
    call(&mut pool).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn where_no_server_answers_only_the_first_request_waits() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask_in_vain))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    settle().await;
    for waited in [3 * MS, Duration::ZERO, Duration::ZERO] {
        let start = Instant::now();
        call(&mut pool).await;
        assert_eq!(start.elapsed(), waited);
    }
    // Three for the first and three for each other, whatever comes of them.
    settle().await;
    let asked: usize = servers.iter().map(Server::asked).sum();
    assert_eq!(asked, 9);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_answer_past_a_deadline_nor_for_one_that_failed() {
    async fn fail(_: Server) -> Option<LoadReport> {
        tokio::time::sleep(MS).await;
        None
    }
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let synchronous = || {
        Prequal::new()
            .with_mode(Mode::Synchronous)
            .with_probe_timeout(Duration::from_secs(3600))
    };
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(synchronous())
        .with_gauge(Prober::new(ask_in_vain))
        .spawn_attached()
        .unwrap();
    settle().await;
    let start = Instant::now();
    let deadline = Deadline::after(20 * MS);
    deadline.scope(call(&mut pool)).await;
    // Half of the time is the server's.
    assert_eq!(start.elapsed(), 10 * MS);

    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(synchronous())
        .with_gauge(Prober::new(fail))
        .spawn_attached()
        .unwrap();
    settle().await;
    let start = Instant::now();
    call(&mut pool).await;
    assert_eq!(start.elapsed(), MS);
}

#[tokio::test(start_paused = true)]
async fn of_two_servers_a_request_waits_for_both() {
    let servers: Vec<_> = [9, 1].map(Server::with_load).into();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new().with_mode(Mode::Synchronous))
        .with_gauge(Prober::new(|server: Server| async move {
            tokio::time::sleep(server.0.load.min(2) * MS).await;
            Some(LoadReport::new(server.0.load, None))
        }))
        .spawn_attached()
        .unwrap();
    settle().await;
    for _ in 0..10 {
        let start = Instant::now();
        assert_eq!(call(&mut pool).await, 1);
        assert_eq!(start.elapsed(), 2 * MS);
        advance(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_probes_may_be_none_or_endless() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    for (timeout, waited) in [
        (Duration::ZERO, MS),
        (Duration::MAX, Duration::from_secs(1)),
    ] {
        let (_sender, changes) = discovery(&servers);
        let mut pool = Pool::builder(changes, Connect)
            .with_picker(Prequal::new().with_probe_timeout(timeout))
            .with_gauge(Prober::new(ask_in_vain))
            .with_max_wait(Duration::from_secs(1))
            .spawn_attached()
            .unwrap();
        settle().await;
        let start = Instant::now();
        call(&mut pool).await;
        assert!(start.elapsed() <= waited, "{:?}", start.elapsed());
    }
}

/// Has a future that each request waits for, and picks the first.
#[derive(Clone)]
struct Prepares<F>(F);

impl<S, F: FnMut() -> Preparation> Picker<S> for Prepares<F> {
    fn pick<E, R>(&mut self, endpoints: &E, _: &mut R) -> Option<usize>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized,
    {
        (endpoints.len() > 0).then_some(0)
    }

    fn prepare<E, R>(&mut self, _: &E, _: &mut R) -> Option<Preparation>
    where
        E: Endpoints<S> + ?Sized,
        R: Rng + ?Sized,
    {
        Some((self.0)())
    }
}

#[tokio::test(start_paused = true)]
async fn what_its_picker_prepared_past_the_deadline_is_not_sent() {
    let servers = [Server::with_load(1)];
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prepares(|| -> Preparation { Box::pin(pending()) }))
        .with_max_wait(50 * MS)
        .spawn()
        .unwrap();
    settle().await;
    let start = Instant::now();
    let response = Deadline::after(20 * MS).enter(|| pool.call(()));
    let error = response.await.unwrap_err();
    let unavailable = error.downcast::<Unavailable>().unwrap();
    assert_eq!(unavailable.reason, Reason::DeadlinePassed);
    assert_eq!((start.elapsed(), servers[0].calls()), (20 * MS, 0));
    // Where only the pool's bound is reached, a pick without it is better than none.
    assert_eq!(pool.call(()).await.unwrap(), 1);
    assert_eq!((start.elapsed(), pool.queued()), (70 * MS, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_picker_or_a_probe_is_its_callers_and_leaves_nothing() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum When {
        Preparing,
        Waiting,
    }
    for when in [When::Preparing, When::Waiting] {
        let mut is_first = true;
        let prepares = Prepares(move || -> Preparation {
            let panics = std::mem::take(&mut is_first);
            assert!(!(panics && when == When::Preparing), "of the picker");
            Box::pin(async move { assert!(!panics, "of the picker") })
        });
        let servers = [Server::with_load(1)];
        let (_sender, changes) = discovery(&servers);
        let mut pool = Pool::builder(changes, Connect)
            .with_picker(prepares)
            .spawn()
            .unwrap();
        settle().await;
        let mut other = pool.clone();
        let caller = tokio::spawn(async move { other.call(()).await });
        assert!(caller.await.unwrap_err().is_panic());
        assert_eq!(pool.queued(), 0);
        // The handle that panicked was a clone, and so has this one yet to.
        let panicked = catch_unwind(AssertUnwindSafe(|| pool.call(()))).is_err();
        assert_eq!(panicked, when == When::Preparing);
        assert_eq!(pool.call(()).await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_given_up_cost_those_that_come_no_probes() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask_in_vain))
        .spawn_attached()
        .unwrap();
    settle().await;
    let many: Vec<_> = (0..100).map(|_| tokio::spawn(pool.call(()))).collect();
    settle().await;
    many.iter().for_each(|response| response.abort());
    settle().await;
    assert_eq!(pool.queued(), 0);
    // Who waits now does so in vain, and later ones don't wait: they have probes to send.
    call(&mut pool).await;
    advance(5 * MS).await;
    settle().await;
    let before: usize = servers.iter().map(Server::asked).sum();
    call(&mut pool).await;
    settle().await;
    let asked: usize = servers.iter().map(Server::asked).sum();
    assert_eq!(asked - before, 3);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_answers_takes_no_place_in_the_queue_and_wants_no_endpoint() {
    let servers: Vec<_> = (0..4).map(Server::with_load).collect();
    let (sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prepares(|| -> Preparation {
            Box::pin(tokio::time::sleep(Duration::from_secs(10)))
        }))
        .with_max_wait(Duration::from_secs(60))
        .with_queue(2)
        .with_idle_timeout(Duration::from_secs(2), 1)
        .spawn()
        .unwrap();
    settle().await;
    assert_eq!(pool.census().ready, 4);
    let responses: Vec<_> = (0..9).map(|_| tokio::spawn(pool.call(()))).collect();
    advance(Duration::from_secs(3)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Those that nobody uses are closed all the same.
    assert_eq!((pool.queued(), pool.census().ready), (9, 1));
    for key in 0..4 {
        sender.send(Ok(Change::Remove(key))).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(pool.queued(), 2);
    sender
        .send(Ok(Change::Insert(4, servers[0].clone())))
        .unwrap();
    let mut sent = 0;
    for response in responses {
        match response.await.unwrap() {
            Ok(_) => sent += 1,
            Err(error) => {
                let unavailable = error.downcast::<Unavailable>().unwrap();
                assert_eq!(unavailable.reason, Reason::QueueFull);
            }
        }
    }
    assert_eq!((sent, pool.queued()), (2, 0));
}

/// Requests on several threads wait for answers, while endpoints come and go and requests are given up: each ends, and is
/// counted no more.
#[test]
fn every_request_that_waits_for_answers_ends_on_several_threads_under_churn() {
    async fn ask(server: Server) -> Option<LoadReport> {
        for _ in 0..server.0.load % 4 {
            tokio::task::yield_now().await;
        }
        (server.0.load % 3 > 0).then(|| LoadReport::new(server.0.load, Some(MS)))
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let servers: Vec<_> = (0..8).map(Server::with_load).collect();
        let (sender, changes) = discovery(&servers);
        let pool = Pool::builder(changes, Connect)
            .with_picker(Prequal::new().with_mode(Mode::Synchronous))
            .with_gauge(Prober::new(ask))
            .with_max_wait(Duration::from_secs(30))
            .spawn_attached()
            .unwrap();
        let callers: Vec<_> = (0..32)
            .map(|_| {
                let mut pool = pool.clone();
                tokio::spawn(async move {
                    for round in 0..50 {
                        poll_fn(|cx| pool.poll_ready(cx)).await.unwrap();
                        let given_up = pool.call(());
                        if round % 4 == 0 {
                            drop(given_up);
                        } else {
                            given_up.await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for round in 0..200 {
            let key = round % 7;
            sender.send(Ok(Change::Remove(key))).unwrap();
            tokio::task::yield_now().await;
            let insert = Change::Insert(key, servers[key].clone());
            sender.send(Ok(insert)).unwrap();
            tokio::task::yield_now().await;
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(pool.queued(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_answers_ends_before_its_pool_closes() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask))
        .with_queue(0)
        .spawn_attached()
        .unwrap();
    settle().await;
    let response = pool.call(());
    assert_eq!(pool.queued(), 1);
    let closing = pool.close(Deadline::after(Duration::from_secs(1)));
    let response = tokio::spawn(response);
    let start = Instant::now();
    closing.await.unwrap();
    assert_eq!(start.elapsed(), MS);
    assert!(response.await.unwrap().is_ok());
    assert_eq!(pool.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_endpoint_after_the_answers_waits_in_the_queue_if_there_is_one() {
    for (bound, reason) in [(0, Reason::QueueFull), (1, Reason::WaitedTooLong)] {
        let servers: Vec<_> = (0..3).map(Server::with_load).collect();
        let (sender, changes) = discovery(&servers);
        let mut pool = Pool::builder(changes, Connect)
            .with_picker(Prequal::new())
            .with_gauge(Prober::new(ask))
            .with_queue(bound)
            .spawn_attached()
            .unwrap();
        settle().await;
        let response = tokio::spawn(pool.call(()));
        for key in 0..3 {
            sender.send(Ok(Change::Remove(key))).unwrap();
        }
        let error = response.await.unwrap().unwrap_err();
        let unavailable = error.downcast::<Unavailable>().unwrap();
        assert_eq!(unavailable.reason, reason);
        assert_eq!(pool.queued(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_while_it_waits_for_answers_leaves_nothing() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new())
        .with_gauge(Prober::new(ask))
        .spawn_attached()
        .unwrap();
    settle().await;
    drop(pool.call(()));
    assert_eq!(pool.queued(), 0);
    call(&mut pool).await;
    let calls: usize = servers.iter().map(Server::calls).sum();
    assert_eq!(calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_holds_no_request_up_and_ends_in_time() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(Prequal::new().with_mode(Mode::Asynchronous))
        .with_gauge(Prober::new(ask_in_vain))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    settle().await;
    let before = servers[0].holders();
    let start = Instant::now();
    for _ in 0..5 {
        call(&mut pool).await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    settle().await;
    // The five probes, each with a server of its own.
    assert_eq!(servers[0].holders(), before + 5);
    advance(5 * MS).await;
    settle().await;
    assert_eq!(servers[0].holders(), before);
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_out_than_may_be() {
    let servers: Vec<_> = (0..2).map(Server::with_load).collect();
    let probed: Vec<_> = servers
        .iter()
        .map(|server| Probed::new(server.clone(), ask_in_vain))
        .collect();
    let (mut picker, mut rng) = (Prequal::new(), SplitMix64::new(1));
    for _ in 0..100 {
        picker.pick(&probed[..], &mut rng);
    }
    settle().await;
    assert_eq!(servers[0].asked(), 16);
    advance(5 * MS).await;
    settle().await;
    picker.pick(&probed[..], &mut rng);
    settle().await;
    assert_eq!(servers[0].asked(), 17);
}

#[tokio::test(start_paused = true)]
async fn probes_and_what_they_are_sent_over_end_with_the_endpoint() {
    let servers: Vec<_> = (0..2).map(Server::with_load).collect();
    let (sender, changes) = discovery(&servers);
    let patient = Prequal::new().with_probe_timeout(Duration::from_secs(3600));
    let mut pool = Pool::builder(changes, Connect)
        .with_picker(patient)
        .with_gauge(Prober::new(ask_in_vain))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    call(&mut pool).await;
    settle().await;
    assert!(servers[0].holders() > 2);
    sender.send(Ok(Change::Remove(0))).unwrap();
    settle().await;
    assert_eq!(servers[0].holders(), 1);
    drop(pool);
    settle().await;
    assert_eq!(servers[1].holders(), 1);
}

#[test]
fn without_a_runtime_nothing_is_asked() {
    let servers: Vec<_> = (0..3).map(Server::with_load).collect();
    let probed: Vec<_> = servers
        .iter()
        .map(|server| Probed::new(server.clone(), ask))
        .collect();
    let picked = Prequal::new().pick(&probed[..], &mut SplitMix64::new(1));
    assert!(picked.is_some());
    assert!(servers.iter().all(|server| server.asked() == 0));
}

#[test]
fn a_probed_service_keeps_the_contract() {
    let ask = |_: contract::Inner| ready(None::<LoadReport>);
    let checker = contract::Checker::new();
    checker
        .check_unclonable(|inner| Probed::new(inner, ask))
        .assert();
}

#[tokio::test(start_paused = true)]
async fn a_pool_sends_less_to_servers_that_report_more() {
    let servers: Vec<_> = [90, 10].map(Server::with_load).into();
    let (_sender, changes) = discovery(&servers);
    let mut pool = Pool::builder(changes, ConnectReporting)
        .with_picker(PowerOfTwo::default())
        .with_gauge(Reported::new().with_default(0.05))
        .with_seed(1)
        .spawn_attached()
        .unwrap();
    for _ in 0..100 {
        call(&mut pool).await;
    }
    // One each to find out.
    assert_eq!(servers[0].calls(), 1);
    assert_eq!(servers[1].calls(), 99);
}
