//! The public behaviour of reconnecting services.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_deadline::Deadline;
use tower_reconnect::{NotReady, Reconnect};
use tower_retry::backoff::{ExponentialBackoffMaker, Jitter};
use tower_rng::SplitMix64;
use tower_service::Service;
use tower_test::mock;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connection = mock::Mock<&'static str, &'static str>;
type Server = mock::Handle<&'static str, &'static str>;
type Listener = mock::Handle<u16, Connection>;
type Client = mock::Spawn<Reconnect<Maker, u16>>;

const MS: Duration = Duration::from_millis(1);

/// A mock that makes connections, whose futures are `Unpin` as they should be.
type Maker = mock::Mock<u16, Connection>;

fn spawn() -> (Client, Listener) {
    mock::spawn_with(|maker| Reconnect::new(maker, 7))
}

/// Accepts the connection that the client has asked for.
fn accept(listener: &mut Listener) -> Server {
    let (connection, server) = mock::pair();
    attempt(listener).send_response(connection);
    server
}

fn attempt(listener: &mut Listener) -> mock::SendResponse<Connection> {
    match listener.poll_request() {
        Poll::Ready(Some((7, attempt))) => attempt,
        _ => panic!("no attempt to connect"),
    }
}

fn answer(server: &mut Server, response: &'static str) {
    match server.poll_request() {
        Poll::Ready(Some((_, answer))) => answer.send_response(response),
        _ => panic!("no request"),
    }
}

fn call(client: &mut Client) -> Result<&'static str, BoxError> {
    let mut response = task::spawn(client.call("hello"));
    match response.poll() {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("no response"),
    }
}

#[test]
fn it_connects_when_it_is_polled_and_forwards() {
    let (mut client, mut listener) = spawn();
    assert_pending!(listener.poll_request());
    assert_pending!(client.poll_ready());
    let mut server = accept(&mut listener);
    assert!(client.is_woken());
    assert_ready_ok!(client.poll_ready());
    let mut response = task::spawn(client.call("hello"));
    assert_pending!(response.poll());
    answer(&mut server, "world");
    assert_eq!(assert_ready_ok!(response.poll()), "world");
}

/// Connects to nobody, and notes the deadlines that it is polled under.
#[derive(Clone, Default)]
struct Noting(Arc<std::sync::Mutex<Vec<Option<Deadline>>>>);

impl Noting {
    fn note(&self) {
        self.0.lock().unwrap().push(Deadline::current());
    }
}

impl Service<u16> for Noting {
    type Response = Connection;
    type Error = BoxError;
    type Future = Self;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.note();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u16) -> Self {
        self.note();
        self.clone()
    }
}

impl Future for Noting {
    type Output = Result<Connection, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.note();
        Poll::Pending
    }
}

#[test]
fn a_connection_is_not_made_by_the_deadline_of_who_waits_for_it() {
    let maker = Noting::default();
    let seen = Arc::clone(&maker.0);
    let mut client = mock::Spawn::new(Reconnect::new(maker, 7));
    Deadline::after(MS).enter(|| assert_pending!(client.poll_ready::<&'static str>()));
    assert_eq!(*seen.lock().unwrap(), [None; 3]);
}

#[test]
fn a_connection_given_is_used_first() {
    let (maker, mut listener) = mock::pair::<u16, Connection>();
    let (connection, mut server) = mock::pair();
    let mut client = mock::Spawn::new(Reconnect::with_connection(connection, maker, 7));
    assert_ready_ok!(client.poll_ready());
    let mut response = task::spawn(client.call("hello"));
    answer(&mut server, "world");
    assert_eq!(assert_ready_ok!(response.poll()), "world");
    assert_pending!(listener.poll_request());
}

#[test]
fn a_connection_that_is_lost_is_made_anew_at_once() {
    let (mut client, mut listener) = spawn();
    assert_pending!(client.poll_ready());
    let server = accept(&mut listener);
    assert_ready_ok!(client.poll_ready());
    drop(server);
    assert_pending!(client.poll_ready());
    let mut server = accept(&mut listener);
    assert_ready_ok!(client.poll_ready());
    let mut response = task::spawn(client.call("hello"));
    answer(&mut server, "second");
    assert_eq!(assert_ready_ok!(response.poll()), "second");
}

#[test]
fn a_failure_to_connect_is_told_to_the_next_request_and_then_it_connects_again() {
    let (mut client, mut listener) = spawn();
    for _ in 0..3 {
        assert_pending!(client.poll_ready());
        attempt(&mut listener).send_error("refused");
        assert_ready_ok!(client.poll_ready());
        // It stays until a request takes it.
        assert_ready_ok!(client.poll_ready());
        assert_pending!(listener.poll_request());
        assert_eq!(call(&mut client).unwrap_err().to_string(), "refused");
    }
    assert_pending!(client.poll_ready());
    let _server = accept(&mut listener);
    assert_ready_ok!(client.poll_ready());
}

#[test]
fn the_maker_s_readiness_is_waited_for_and_its_failure_told() {
    let (mut client, mut listener) = spawn();
    listener.allow(0);
    assert_pending!(client.poll_ready());
    assert_pending!(listener.poll_request());
    listener.send_error("no route");
    assert_eq!(
        assert_ready_err!(client.poll_ready()).to_string(),
        "no route"
    );
    listener.allow(1);
    assert_pending!(client.poll_ready());
    let _server = accept(&mut listener);
    assert_ready_ok!(client.poll_ready());
}

#[test]
fn a_call_without_readiness_fails_with_an_error_and_not_a_panic() {
    let (mut client, mut listener) = spawn();
    let not_ready = |client: &mut Client| call(client).unwrap_err().is::<NotReady>();
    assert!(not_ready(&mut client), "idle");
    assert_pending!(client.poll_ready());
    assert!(not_ready(&mut client), "connecting");
    let mut server = accept(&mut listener);
    assert_ready_ok!(client.poll_ready());
    let mut response = task::spawn(client.call("hello"));
    assert!(not_ready(&mut client), "connected");
    // The connection is as good as before.
    answer(&mut server, "world");
    assert_eq!(assert_ready_ok!(response.poll()), "world");
    assert_ready_ok!(client.poll_ready());
}

/// Makes connections that are never of any use.
struct Useless(Arc<AtomicU32>);

struct Broken;

impl Service<u16> for Useless {
    type Response = Broken;
    type Error = BoxError;
    type Future = Ready<Result<Broken, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u16) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Broken))
    }
}

impl Service<()> for Broken {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("broken".into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Err("broken".into()))
    }
}

#[test]
fn connections_that_fail_at_once_do_not_hold_the_task() {
    let made = Arc::new(AtomicU32::new(0));
    let mut client = mock::Spawn::new(Reconnect::new(Useless(made.clone()), 7));
    for polls in 1..=3 {
        assert_pending!(client.poll_ready());
        assert!(client.is_woken());
        assert_eq!(made.load(Ordering::Relaxed), polls);
    }
}

mod backoff {
    use super::*;

    fn exponential() -> ExponentialBackoffMaker<SplitMix64> {
        ExponentialBackoffMaker::new(100 * MS, 400 * MS, 0.0, SplitMix64::new(1)).unwrap()
    }

    fn spawn() -> (Client, Listener) {
        mock::spawn_with(|maker| Reconnect::new(maker, 7).with_backoff(exponential()))
    }

    /// Refuses the attempt that comes next, and says how long it took to come.
    async fn refuse(client: &mut Client, listener: &mut Listener) -> u128 {
        let start = Instant::now();
        while client.poll_ready::<&'static str>().is_pending() {
            match listener.poll_request() {
                Poll::Ready(Some((_, attempt))) => attempt.send_error("refused"),
                _ => time::advance(MS).await,
            }
        }
        assert_eq!(call(client).unwrap_err().to_string(), "refused");
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spaced_and_the_error_is_told_at_once() {
        let (mut client, mut listener) = spawn();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(refuse(&mut client, &mut listener).await);
        }
        assert_eq!(waits, [0, 100, 200, 400, 400]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_ready_ends_the_session() {
        let (mut client, mut listener) = spawn();
        for _ in 0..3 {
            refuse(&mut client, &mut listener).await;
        }
        time::advance(400 * MS).await;
        assert_pending!(client.poll_ready());
        let server = accept(&mut listener);
        assert_ready_ok!(client.poll_ready());
        // Lost after it was ready: the first attempt is made at once, and the waits begin anew.
        drop(server);
        let waits = [
            refuse(&mut client, &mut listener).await,
            refuse(&mut client, &mut listener).await,
        ];
        assert_eq!(waits, [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_wakes_the_task_when_it_is_over() {
        let (mut client, mut listener) = spawn();
        refuse(&mut client, &mut listener).await;
        assert_pending!(client.poll_ready());
        assert!(!client.is_woken());
        time::advance(101 * MS).await;
        assert!(client.is_woken());
        assert_pending!(client.poll_ready());
        attempt(&mut listener);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_never_ready_counts_as_a_failure() {
        let made = Arc::new(AtomicU32::new(0));
        let client = Reconnect::new(Useless(made.clone()), 7).with_backoff(exponential());
        let mut client = mock::Spawn::new(client);
        for (millis, expected) in [(0, 1), (99, 1), (2, 2), (198, 2), (3, 3)] {
            time::advance(millis * MS).await;
            assert_pending!(client.poll_ready());
            assert_pending!(client.poll_ready());
            assert_eq!(made.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_one_maker_wait_for_different_times() {
        let maker = exponential().with_jitter(Jitter::Full);
        let mut waits = Vec::new();
        for _ in 0..20 {
            let (mut client, mut listener) =
                mock::spawn_with(|m| Reconnect::new(m, 7).with_backoff(maker.clone()));
            refuse(&mut client, &mut listener).await;
            waits.push(refuse(&mut client, &mut listener).await);
        }
        assert!(waits.iter().all(|wait| *wait <= 101), "{waits:?}");
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 10, "{waits:?}");
    }

    #[test]
    fn outside_a_runtime_it_connects_again_without_a_wait() {
        let (mut client, mut listener) = spawn();
        for _ in 0..2 {
            assert_pending!(client.poll_ready());
            attempt(&mut listener).send_error("refused");
            assert_ready_ok!(client.poll_ready());
            assert!(call(&mut client).is_err());
        }
    }
}

#[test]
fn it_is_as_send_and_sync_as_its_parts_and_made_in_consts() {
    fn is<T: Send + Sync + Unpin + Debug>(_: &T) {}
    let (client, _listener) = spawn();
    let client = client
        .into_inner()
        .with_backoff(ExponentialBackoffMaker::default());
    is(&client);
    assert!(format!("{client:?}").contains("state: Idle"));

    const fn _make<M: Service<u8>>(maker: M) -> Reconnect<M, u8> {
        Reconnect::new(maker, 1)
    }

    // Neither errors nor targets need to be `Send` for it to be made.
    struct Local(Cell<u8>);
    impl Service<Cell<u8>> for Local {
        type Response = ();
        type Error = Cell<u8>;
        type Future = Ready<Result<(), Cell<u8>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cell<u8>>> {
            Poll::Ready(Err(self.0.clone()))
        }

        fn call(&mut self, _: Cell<u8>) -> Self::Future {
            ready(Ok(()))
        }
    }
    let _ = Reconnect::new(Local(Cell::new(1)), Cell::new(2));
}
