//! Servers that a test refuses, stalls, breaks and counts.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Response<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// What a server does, and what was done to it.
#[derive(Debug, Default)]
pub(crate) struct Server {
    refuses: AtomicBool,
    hangs: AtomicBool,
    fails: AtomicBool,
    panics: AtomicBool,
    panics_when_polled: AtomicBool,
    panics_when_connected: AtomicBool,
    latency: Mutex<Option<Duration>>,
    connects: AtomicUsize,
    connections: AtomicUsize,
    calls: AtomicUsize,
    /// Connections made before are broken.
    epoch: AtomicUsize,
    busy: Mutex<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    capacity: Option<usize>,
    in_flight: usize,
    most: usize,
    wakers: Vec<Waker>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Connect {
    latency: Duration,
    panics: bool,
    at_once: Arc<(AtomicUsize, AtomicUsize)>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    server: Arc<Server>,
    epoch: usize,
}

struct InFlight(Arc<Server>);

impl Server {
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::SeqCst);
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    pub(crate) fn panic_when_polled(&self) {
        self.panics_when_polled.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn panic_when_connected(&self, panics: bool) {
        self.panics_when_connected.store(panics, Ordering::SeqCst);
    }

    pub(crate) fn break_connections(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = Some(latency);
    }

    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.busy.lock().unwrap().capacity = Some(capacity);
    }

    pub(crate) fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.busy.lock().unwrap().most
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut self.busy.lock().unwrap().wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Connect {
    pub(crate) fn taking(latency: Duration) -> Self {
        Self {
            latency,
            ..Self::default()
        }
    }

    pub(crate) fn panicking() -> Self {
        Self {
            panics: true,
            ..Self::default()
        }
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.at_once.1.load(Ordering::SeqCst)
    }
}

impl Service<Arc<Server>> for Connect {
    type Response = Connection;
    type Error = BoxError;
    type Future = Response<Connection>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Arc<Server>) -> Self::Future {
        assert!(!self.panics, "cannot connect on purpose");
        let Self {
            latency, at_once, ..
        } = self.clone();
        Box::pin(async move {
            server.connects.fetch_add(1, Ordering::SeqCst);
            let now = at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
            at_once.1.fetch_max(now, Ordering::SeqCst);
            if server.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if !latency.is_zero() {
                sleep(latency).await;
            }
            at_once.0.fetch_sub(1, Ordering::SeqCst);
            let panics = server.panics_when_connected.load(Ordering::SeqCst);
            assert!(!panics, "connected on purpose");
            if server.refuses.load(Ordering::SeqCst) {
                return Err("connection refused".into());
            }
            server.connections.fetch_add(1, Ordering::SeqCst);
            let epoch = server.epoch.load(Ordering::SeqCst);
            Ok(Connection { server, epoch })
        })
    }
}

impl Service<()> for Connection {
    type Response = usize;
    type Error = BoxError;
    type Future = Response<usize>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let panics = &self.server.panics_when_polled;
        assert!(!panics.swap(false, Ordering::SeqCst), "polled on purpose");
        if self.epoch < self.server.epoch.load(Ordering::SeqCst) {
            return Poll::Ready(Err("connection lost".into()));
        }
        let mut busy = self.server.busy.lock().unwrap();
        if busy
            .capacity
            .is_some_and(|capacity| busy.in_flight >= capacity)
        {
            busy.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let server = Arc::clone(&self.server);
        assert!(!server.panics.swap(false, Ordering::SeqCst), "on purpose");
        let number = server.calls.fetch_add(1, Ordering::SeqCst);
        {
            let mut busy = server.busy.lock().unwrap();
            busy.in_flight += 1;
            busy.most = busy.most.max(busy.in_flight);
        }
        let in_flight = InFlight(Arc::clone(&server));
        let latency = server
            .latency
            .lock()
            .unwrap()
            .unwrap_or(Duration::from_millis(10));
        Box::pin(async move {
            let _in_flight = in_flight;
            if !latency.is_zero() {
                sleep(latency).await;
            }
            if server.fails.load(Ordering::SeqCst) {
                return Err("out of order".into());
            }
            Ok(number)
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap().in_flight -= 1;
        self.0.wake();
    }
}
