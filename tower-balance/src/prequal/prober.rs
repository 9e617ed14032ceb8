//! Probes that are sent over the service of the endpoint itself.

use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tower_classify::Class;
use tower_load::Load;
use tower_load::meter::LoadReport;
use tower_service::Service;

use super::{Probe, Reply};
use crate::pool::{Attach, Gauge, InFlight};

/// Asks the server of a service for its load, by an asynchronous function.
///
/// It makes anything that can be asked a [`Probe`] for [`Prequal`](super::Prequal):
///
/// - in a [pool](crate::pool), as the [gauge](crate::pool::Builder::with_gauge) of its endpoints: start the pool by
///   [`spawn_attached`](crate::pool::Builder::spawn_attached), and each connection that is made is asked over itself;
/// - elsewhere, as a [`Probed`] service.
///
/// A probe runs in a task of its own, for as long as its
/// answer counts (3 ms, [by default](super::Prequal::with_probe_timeout)), under nobody's deadline. Of one endpoint
/// at most 16 are out at once; what comes beyond isn't sent. They end with the endpoint.
///
/// **Errors.** A probe that fails says `None`, and has no effect. Outside of a runtime none are sent.
///
/// **Panics.** One in the function, before there is a future, reaches who picks; one in the future ends that probe.
///
/// # What it costs
///
/// A task and a clone of the service for each probe, and two short locks.
///
/// # Example
///
/// A pool that asks its servers. A probe is a request like others here; it may be one of another kind.
///
/// ```
/// use std::time::Duration;
///
/// use tower_balance::pool::Pool;
/// use tower_balance::prequal::{Prequal, Prober};
/// use tower_load::meter::LoadReport;
/// use tower_service::Service;
/// # use std::convert::Infallible;
/// # use std::future::{Ready, poll_fn, ready};
/// # use std::task::{Context, Poll};
/// # use tower_discover::ServiceList;
/// # #[derive(Clone)]
/// # struct Client;
/// # impl Service<&'static str> for Client {
/// #     type Response = u32;
/// #     type Error = Infallible;
/// #     type Future = Ready<Result<u32, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
/// #     fn call(&mut self, _: &'static str) -> Self::Future { ready(Ok(7)) }
/// # }
/// # #[derive(Clone)]
/// # struct Connect;
/// # impl Service<Connect> for Connect {
/// #     type Response = Client;
/// #     type Error = Infallible;
/// #     type Future = Ready<Result<Client, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
/// #     fn call(&mut self, _: Connect) -> Self::Future { ready(Ok(Client)) }
/// # }
///
/// async fn ask(mut client: Client) -> Option<LoadReport> {
///     let in_flight = client.call("/load").await.ok()?;
///     Some(LoadReport::new(in_flight, Some(Duration::from_millis(2))))
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// # let (discover, connect) = (ServiceList::new::<Connect>([Connect, Connect]), Connect);
/// let mut pool = Pool::builder(discover, connect)
///     .with_picker(Prequal::new())
///     .with_gauge(Prober::new(ask))
///     .spawn_attached()
///     .unwrap();
///
/// poll_fn(|cx| pool.poll_ready(cx)).await.unwrap();
/// assert_eq!(pool.call("/").await.unwrap(), 7);
/// # }
/// ```
pub struct Prober<S, A, G = InFlight> {
    ask: A,
    gauge: G,
    asked: Mutex<Asked<S>>,
}

/// A service that can be asked for its server's load by a [`Prober`].
///
/// **Readiness, Cancellation, Errors.** As those of the service inside.
#[derive(Debug)]
pub struct Probed<S, A> {
    inner: S,
    prober: Prober<S, A>,
}

struct Asked<S> {
    service: Option<Arc<S>>,
    probes: Vec<AbortHandle>,
}

/// How many probes of one endpoint are out at once. They end within milliseconds.
const MOST: usize = 16;

impl<S, A> Prober<S, A> {
    /// Asks by `ask`, which is given a clone of the endpoint's service, not made ready.
    pub fn new(ask: A) -> Self {
        Self::of(ask, InFlight, None)
    }
}

impl<S, A, G> Prober<S, A, G> {
    fn of(ask: A, gauge: G, service: Option<S>) -> Self {
        Self {
            ask,
            gauge,
            asked: Mutex::new(Asked {
                service: service.map(Arc::new),
                probes: Vec::new(),
            }),
        }
    }

    /// Measures the load that a pool sees by `gauge` as well: for a picker that looks at it.
    #[must_use]
    pub fn with_gauge<G2>(self, gauge: G2) -> Prober<S, A, G2> {
        Prober {
            ask: self.ask,
            gauge,
            asked: self.asked,
        }
    }

    /// Nobody waits for it while code of a user runs.
    fn asked(&self) -> MutexGuard<'_, Asked<S>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks another service from now on, or none. What was asked of the last one is dropped.
    fn ask_at(&self, service: Option<S>) {
        let new = Asked {
            service: service.map(Arc::new),
            probes: Vec::new(),
        };
        let old = mem::replace(&mut *self.asked(), new);
        drop(old);
    }

    /// The service, if one more probe may be sent to it.
    fn turn(&self) -> Option<Arc<S>> {
        let mut asked = self.asked();
        asked.probes.retain(|probe| !probe.is_finished());
        if asked.probes.len() < MOST {
            asked.service.clone()
        } else {
            None
        }
    }
}

impl<S, A, F, G> Probe for Prober<S, A, G>
where
    S: Clone,
    A: Fn(S) -> F,
    F: Future<Output = Option<LoadReport>> + Send + 'static,
{
    fn probe(&self, reply: Reply) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(service) = self.turn() else {
            return;
        };
        // The probe is nobody's request.
        let answer = tower_deadline::enter_unbounded(|| (self.ask)(S::clone(&service)));
        let probe = async move {
            if let Ok(Some(report)) = timeout(reply.timeout(), answer).await {
                reply.send(report);
            }
        };
        let probe = runtime.spawn(probe).abort_handle();
        let mut asked = self.asked();
        match &asked.service {
            Some(still) if Arc::ptr_eq(still, &service) => asked.probes.push(probe),
            // It has gone meanwhile.
            _ => probe.abort(),
        }
        drop(asked);
    }
}

impl<S> Drop for Asked<S> {
    fn drop(&mut self) {
        self.probes.iter().for_each(AbortHandle::abort);
    }
}

impl<S, A, G> Gauge for Prober<S, A, G>
where
    S: Send + Sync + 'static,
    A: Clone + Send + Sync + 'static,
    G: Gauge,
{
    type Ticket = G::Ticket;

    fn fork(&self) -> Self {
        Self::of(self.ask.clone(), self.gauge.fork(), None)
    }

    fn reset(&self) {
        self.ask_at(None);
        self.gauge.reset();
    }

    #[inline]
    fn start(&self) -> Self::Ticket {
        self.gauge.start()
    }

    #[inline]
    fn finish(&self, ticket: Self::Ticket, class: Option<Class>) {
        self.gauge.finish(ticket, class);
    }

    #[inline]
    fn load(&self, in_flight: u32, now: Option<Instant>) -> f64 {
        self.gauge.load(in_flight, now)
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        self.gauge.depends_on_time()
    }
}

impl<S, A, G> Attach<S> for Prober<S, A, G>
where
    S: Clone + Send + Sync + 'static,
    A: Clone + Send + Sync + 'static,
    G: Gauge,
{
    fn attach(&self, service: &mut S) {
        self.ask_at(Some(service.clone()));
    }

    fn detach(&self) {
        self.ask_at(None);
    }
}

impl<S: Clone, A> Probed<S, A> {
    /// Asks a clone of `inner` by `ask`.
    pub fn new(inner: S, ask: A) -> Self {
        let prober = Prober::of(ask, InFlight, Some(inner.clone()));
        Self { inner, prober }
    }
}

impl<S, A> Probe for Probed<S, A>
where
    Prober<S, A>: Probe,
{
    fn probe(&self, reply: Reply) {
        self.prober.probe(reply);
    }
}

impl<S: Load, A> Load for Probed<S, A> {
    type Metric = S::Metric;

    #[inline]
    fn load(&self) -> S::Metric {
        self.inner.load()
    }

    #[inline]
    fn load_at(&self, now: Instant) -> S::Metric {
        self.inner.load_at(now)
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        self.inner.depends_on_time()
    }
}

impl<S, A, Req> Service<Req> for Probed<S, A>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, req: Req) -> S::Future {
        self.inner.call(req)
    }
}

impl<S, A, G: fmt::Debug> fmt::Debug for Prober<S, A, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober")
            .field("gauge", &self.gauge)
            .finish_non_exhaustive()
    }
}
