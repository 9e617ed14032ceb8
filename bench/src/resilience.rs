//! What the resilience crates cost: the pool beside crates.io tower's `Buffer` over `Balance`, the others beside
//! the same call without them.
//!
//! ```sh
//! cargo run --release --bin resilience
//! ```
//!
//! Medians of several rounds, in which the two sides take turns.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_balance::pool::Pool;
use tower_breaker::{BreakerLayer, Settings};
use tower_deadline::{Deadline, DeadlineLayer};
use tower_discover::Change;
use tower_layer::Layer;
use tower_service::Service;

const ROUNDS: usize = 9;

/// Answers at once.
#[derive(Clone, Copy)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

impl upstream::Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Connects at once.
#[derive(Clone, Copy)]
struct Connect;

impl Service<()> for Connect {
    type Response = Echo;
    type Error = Infallible;
    type Future = Ready<Result<Echo, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(Echo))
    }
}

type OurPool = Pool<usize, Echo>;
type Balance = upstream::balance::p2c::Balance<
    upstream::discover::ServiceList<Vec<upstream::load::PendingRequests<Echo>>>,
    u64,
>;
type Theirs = upstream::buffer::Buffer<u64, <Balance as upstream::Service<u64>>::Future>;

async fn our_pool(endpoints: usize) -> OurPool {
    let inserts = (0..endpoints).map(|key| Ok::<_, Infallible>(Change::Insert(key, ())));
    let discover = stream::iter(inserts).chain(stream::pending());
    let pool = Pool::builder(discover, Connect).spawn().expect("a runtime");
    while pool.census().ready < endpoints {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pool
}

async fn their_pool(endpoints: usize) -> Theirs {
    let service = || upstream::load::PendingRequests::new(Echo, Default::default());
    let services = (0..endpoints).map(|_| service()).collect::<Vec<_>>();
    let balance = Balance::new(upstream::discover::ServiceList::new::<u64>(services));
    upstream::buffer::Buffer::new(balance, 1024)
}

/// One side and then the other, by turns: the medians of nanoseconds.
fn medians(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(ours());
        b.push(theirs());
    }
    (median(a), median(b))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nanoseconds per call of something that doesn't wait.
fn nanos(calls: u32, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn call_now<S>(service: &mut S)
where
    S: Service<u64>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = pin!(service.call(black_box(1)));
    assert!(black_box(future.as_mut().poll(&mut cx)).is_ready());
}

async fn call_ours(service: &mut OurPool, calls: u32) -> f64 {
    let start = Instant::now();
    for n in 0..calls {
        poll_fn(|cx| Service::<u64>::poll_ready(service, cx))
            .await
            .expect("ready");
        black_box(service.call(u64::from(n)).await.expect("an answer"));
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

async fn call_theirs(service: &mut Theirs, calls: u32) -> f64 {
    use upstream::Service;
    let start = Instant::now();
    for n in 0..calls {
        poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
        black_box(service.call(u64::from(n)).await.expect("an answer"));
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn two_threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Nanoseconds per call of all tasks together.
async fn many<S, F>(service: &S, run: impl Fn(S) -> F) -> f64
where
    S: Clone,
    F: Future<Output = f64> + Send + 'static,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..256)
        .map(|_| tokio::spawn(run(service.clone())))
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    start.elapsed().as_nanos() as f64 / f64::from(256 * 2_000)
}

fn row(name: &str, ours: f64, theirs: f64, goal: f64) {
    let ratio = ours / theirs;
    let kept = if ratio <= goal { "yes" } else { "no" };
    println!("| {name} | {ours:.1} | {theirs:.1} | {ratio:.2} (≤ {goal:.2}) | {kept} |");
}

fn pools() {
    println!("| pool | ns | Buffer over Balance | ratio | kept |\n|---|---|---|---|---|");
    for endpoints in [10, 1_000, 10_000] {
        let runtime = current_thread();
        let (mut ours, mut theirs) =
            runtime.block_on(async { (our_pool(endpoints).await, their_pool(endpoints).await) });
        let (ours, theirs) = medians(
            || runtime.block_on(call_ours(&mut ours, 100_000)),
            || runtime.block_on(call_theirs(&mut theirs, 30_000)),
        );
        row(
            &format!("{endpoints} endpoints, one caller"),
            ours,
            theirs,
            0.4,
        );
    }
    for endpoints in [10, 1_000, 10_000] {
        let runtime = two_threads();
        let (ours, theirs) =
            runtime.block_on(async { (our_pool(endpoints).await, their_pool(endpoints).await) });
        let (ours, theirs) = medians(
            || {
                runtime.block_on(many(&ours, |mut pool| async move {
                    call_ours(&mut pool, 2_000).await
                }))
            },
            || {
                runtime.block_on(many(&theirs, |mut pool| async move {
                    call_theirs(&mut pool, 2_000).await
                }))
            },
        );
        row(
            &format!("{endpoints} endpoints, 256 tasks on 2 threads"),
            ours,
            theirs,
            0.5,
        );
    }
}

/// Takes one of ten thousand endpoints away and puts it back, over and over.
fn updates() -> f64 {
    const CHANGES: usize = 100_000;
    let runtime = current_thread();
    runtime.block_on(async {
        let (sender, changes) = mpsc::unbounded_channel();
        let discover = UnboundedReceiverStream::new(changes);
        let pool: OurPool = Pool::builder(discover, Connect)
            .spawn::<u64>()
            .expect("a runtime");
        let insert = |key| sender.send(Ok::<_, Infallible>(Change::Insert(key, ())));
        (0..10_000).for_each(|key| insert(key).expect("the pool is there"));
        while pool.census().ready < 10_000 {
            tokio::task::yield_now().await;
        }
        for n in 0..CHANGES / 2 {
            sender
                .send(Ok(Change::Remove(n % 10_000)))
                .expect("the pool is there");
            insert(n % 10_000).expect("the pool is there");
        }
        sender
            .send(Ok(Change::Remove(0)))
            .expect("the pool is there");
        let start = Instant::now();
        while pool.census().known() >= 10_000 || pool.census().connecting > 0 {
            tokio::task::yield_now().await;
        }
        start.elapsed().as_nanos() as f64 / CHANGES as f64
    })
}

fn layers() {
    let runtime = current_thread();
    let _entered = runtime.enter();
    let clock = median(
        (0..ROUNDS)
            .map(|_| {
                nanos(1_000_000, || {
                    black_box(tokio::time::Instant::now());
                })
            })
            .collect(),
    );
    println!("\nreading the clock: {clock:.1} ns\n");
    println!(
        "| beside the same call without it | ns more | of which clock | rest | kept |\n|---|---|---|---|---|"
    );
    let bare = || nanos(1_000_000, || call_now(&mut Echo));
    let report = |name: &str, with: &mut dyn FnMut() -> f64| {
        let (with, without) = medians(with, bare);
        let more = with - without;
        let rest = more - clock;
        let kept = if rest <= 10.0 { "yes" } else { "no" };
        println!("| {name} | {more:.1} | {clock:.1} | {rest:.1} (≤ 10) | {kept} |");
    };
    let mut breaker = BreakerLayer::new(Settings::default()).layer(Echo);
    report("breaker", &mut || {
        nanos(1_000_000, || call_now(&mut breaker))
    });
    let mut deadline = DeadlineLayer::new()
        .with_max(Duration::from_secs(1))
        .layer(Echo);
    report("deadline, set", &mut || {
        nanos(1_000_000, || call_now(&mut deadline))
    });
    let mut inherits = DeadlineLayer::new().layer(Echo);
    Deadline::after(Duration::from_secs(3_600)).enter(|| {
        report("deadline, inherited", &mut || {
            nanos(1_000_000, || call_now(&mut inherits))
        });
    });

    println!("\n| allocations in 1000 calls | |\n|---|---|");
    let allocations = |name: &str, call: &mut dyn FnMut()| {
        call();
        let info = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
        println!("| {name} | {} |", info.count_total);
    };
    allocations("breaker", &mut || call_now(&mut breaker));
    allocations("deadline", &mut || call_now(&mut deadline));
    let mut pool = runtime.block_on(our_pool(1_000));
    allocations("pool", &mut || call_now(&mut pool));
}

fn main() {
    pools();
    println!(
        "\none update of discovery over 10 000 endpoints: {:.0} ns (≤ 5000)",
        updates()
    );
    layers();
}
