//! What can be chosen of a pool, and its making.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tower_classify::EveryErrorFails;
use tower_close::{NoRuntime, Task};
use tower_discover::Discover;
use tower_load::CompleteOnResponse;
use tower_make::MakeService;
use tower_rng::{Rng, SplitMix64};

use super::driver::Driver;
use super::endpoint::Blame;
use super::gauge::{Attach, Gauge, Gauges, InFlight, Member};
use super::link::Backoff;
use super::numbers::Metrics;
use super::observe::Newcomers;
use super::outlier::Ejection;
use super::shared::{Chooser, Seeds, Shared};
use super::{Core, Door, Pool};
use crate::picker::{Picker, PowerOfTwo};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a [`Pool`].
#[derive(Clone, Debug)]
pub struct Builder<D, M, P = PowerOfTwo, G = InFlight, C = EveryErrorFails, T = CompleteOnResponse>
{
    discover: D,
    make: M,
    picker: P,
    gauge: G,
    classify: C,
    completion: T,
    seed: Option<u64>,
    name: Arc<str>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) queue_len: usize,
    pub(super) max_wait: Duration,
    pub(super) backoff: Backoff,
    pub(super) connect_timeout: Duration,
    pub(super) max_connecting: usize,
    pub(super) slow_start: Option<Duration>,
    pub(super) panic_threshold: f64,
    pub(super) ejection: Option<Ejection>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) min_connected: usize,
    pub(super) drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_len: 1024,
            max_wait: Duration::from_secs(3),
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(30),
            },
            connect_timeout: Duration::from_secs(10),
            max_connecting: 64,
            slow_start: None,
            panic_threshold: 0.5,
            ejection: Some(Ejection::default()),
            idle_timeout: None,
            min_connected: 1,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl<D, M> Builder<D, M> {
    pub(super) fn new(discover: D, make: M) -> Self {
        Self {
            discover,
            make,
            picker: PowerOfTwo::default(),
            gauge: InFlight,
            classify: EveryErrorFails,
            completion: CompleteOnResponse::default(),
            seed: None,
            name: Arc::from(""),
            settings: Settings::default(),
        }
    }
}

impl<D, M, P, G, C, T> Builder<D, M, P, G, C, T> {
    /// Picks endpoints by `picker`, of which each caller has a clone. The default is the power of two choices.
    #[must_use]
    pub fn with_picker<P2>(self, picker: P2) -> Builder<D, M, P2, G, C, T> {
        Builder {
            discover: self.discover,
            make: self.make,
            picker,
            gauge: self.gauge,
            classify: self.classify,
            completion: self.completion,
            seed: self.seed,
            name: self.name,
            settings: self.settings,
        }
    }

    /// Measures load by [forks](Gauge::fork) of `gauge`. The default counts requests in flight.
    #[must_use]
    pub fn with_gauge<G2>(self, gauge: G2) -> Builder<D, M, P, G2, C, T> {
        Builder {
            discover: self.discover,
            make: self.make,
            picker: self.picker,
            gauge,
            classify: self.classify,
            completion: self.completion,
            seed: self.seed,
            name: self.name,
            settings: self.settings,
        }
    }

    /// Lets `classify` say which results count against an endpoint. The default is every error.
    #[must_use]
    pub fn with_classify<C2>(self, classify: C2) -> Builder<D, M, P, G, C2, T> {
        Builder {
            discover: self.discover,
            make: self.make,
            picker: self.picker,
            gauge: self.gauge,
            classify,
            completion: self.completion,
            seed: self.seed,
            name: self.name,
            settings: self.settings,
        }
    }

    /// Lets `completion` say when a request is no longer in flight: it attaches a [`Completion`](super::Completion) to the
    /// response, and drops it with it. The default is when the response is there.
    ///
    /// For responses that go on for long after they have begun: `CompleteOnBody`, of `tower-http-load`, keeps the request in
    /// flight until the end of an HTTP body. That counts for the load, for draining and for idle connections; what the
    /// response says of the endpoint counts at once.
    #[must_use]
    pub fn with_completion<T2>(self, completion: T2) -> Builder<D, M, P, G, C, T2> {
        Builder {
            discover: self.discover,
            make: self.make,
            picker: self.picker,
            gauge: self.gauge,
            classify: self.classify,
            completion,
            seed: self.seed,
            name: self.name,
            settings: self.settings,
        }
    }

    /// Lets at most `len` requests wait while no endpoint is ready: 1024 by default. With zero none waits.
    #[must_use]
    pub fn with_queue(mut self, len: usize) -> Self {
        self.settings.queue_len = len;
        self
    }

    /// Lets a request wait for at most `max_wait`: 3 seconds by default. The deadline of its task counts as well.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// Waits before it connects again for `min`, doubling up to `max`, of which half is left to chance.
    ///
    /// 100 ms to 30 s by default. A connection that lasted longer than the wait would be is made anew at once.
    #[must_use]
    pub fn with_backoff(mut self, min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        self.settings.backoff = Backoff { min, max };
        self
    }

    /// Gives up an endpoint that isn't connected and ready within `timeout`: 10 seconds by default.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Connects to at most `max` endpoints at once, at least one: 64 by default.
    #[must_use]
    pub fn with_max_connecting(mut self, max: usize) -> Self {
        self.settings.max_connecting = max.max(1);
        self
    }

    /// Gives an endpoint a tenth of its share when it comes, and all of it after `window`: caches are cold.
    ///
    /// Off by default. Whatever the picker, a new endpoint takes a tenth of the requests that are picked for it, and of the
    /// others as many more as it is older; those go to endpoints drawn at random. Where all are new, as at the beginning,
    /// the oldest have their full share.
    #[must_use]
    pub fn with_slow_start(mut self, window: Duration) -> Self {
        self.settings.slow_start = (!window.is_zero()).then_some(window);
        self
    }

    /// Uses ejected endpoints after all while less than this share of those known is ready: a half by default.
    ///
    /// Those whose connections were [closed as nobody used them](Self::with_idle_timeout) count as ready: they are made
    /// again instead.
    ///
    /// If all do badly it isn't the endpoints, and the few that are left would drown. As Envoy's panic threshold.
    #[must_use]
    pub fn with_panic_threshold(mut self, share: f64) -> Self {
        self.settings.panic_threshold = if share.is_nan() { 0.0 } else { share };
        self
    }

    /// Leaves out endpoints that do worse than the others, by the defaults of gRFC A50 if not told otherwise.
    #[must_use]
    pub fn with_ejection(mut self, ejection: Ejection) -> Self {
        self.settings.ejection = Some(ejection);
        self
    }

    /// Ejects none.
    #[must_use]
    pub fn without_ejection(mut self) -> Self {
        self.settings.ejection = None;
        self
    }

    /// Closes connections that nobody has used for `timeout` or up to half as long again, but keeps
    /// `min_connected`. Off by default.
    ///
    /// They are made again when requests wait, or when all others have been in use.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration, min_connected: usize) -> Self {
        self.settings.idle_timeout = Some(timeout);
        self.settings.min_connected = min_connected;
        self
    }

    /// Drops the service of an endpoint that was removed after `timeout`, though it has requests in flight: 30
    /// seconds by default.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// Names the pool, for its metrics: one of a few names, as each makes time series of its own. Of pools by one name, as
    /// those without, the gauges show whichever changed last.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Draws all chance from `seed`, so that a run can be replayed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the pool's task, on the runtime that this is called in. It carries the current span.
    ///
    /// # Errors
    ///
    /// [`NoRuntime`] outside of a runtime.
    #[expect(clippy::type_complexity, reason = "the pool of all that was chosen")]
    pub fn spawn<Req>(self) -> Result<Pool<D::Key, M::Service, P, G, C, T>, NoRuntime>
    where
        // Discovery.
        D: Discover + Send + 'static,
        D::Key: Hash + Clone + Send + 'static,
        D::Error: Into<BoxError>,
        D::Service: Clone + Send + 'static,
        // Endpoints.
        M: MakeService<D::Service, Req> + Send + 'static,
        M::Future: Send + 'static,
        M::MakeError: Into<BoxError>,
        M::Error: Into<BoxError>,
        M::Service: Send + 'static,
        // The rest.
        P: Picker<Member<G>>,
        G: Gauge,
        Req: 'static,
    {
        self.spawn_with(|_, _| {}, |_| {})
    }

    /// As [`spawn`](Self::spawn), and shows each connection that is made to the gauge of its endpoint: for gauges
    /// that need it, as [`Prober`](crate::prequal::Prober) and [`Reported`](tower_load::reported::Reported).
    ///
    /// # Errors
    ///
    /// [`NoRuntime`] outside of a runtime.
    #[expect(clippy::type_complexity, reason = "the pool of all that was chosen")]
    pub fn spawn_attached<Req>(self) -> Result<Pool<D::Key, M::Service, P, G, C, T>, NoRuntime>
    where
        // Discovery.
        D: Discover + Send + 'static,
        D::Key: Hash + Clone + Send + 'static,
        D::Error: Into<BoxError>,
        D::Service: Clone + Send + 'static,
        // Endpoints.
        M: MakeService<D::Service, Req> + Send + 'static,
        M::Future: Send + 'static,
        M::MakeError: Into<BoxError>,
        M::Error: Into<BoxError>,
        M::Service: Send + 'static,
        // The rest.
        P: Picker<Member<G>>,
        G: Attach<M::Service>,
        Req: 'static,
    {
        self.spawn_with(G::attach, G::detach)
    }

    #[expect(clippy::type_complexity, reason = "the pool of all that was chosen")]
    fn spawn_with<Req>(
        self,
        attach: fn(&G, &mut M::Service),
        detach: fn(&G),
    ) -> Result<Pool<D::Key, M::Service, P, G, C, T>, NoRuntime>
    where
        // Discovery.
        D: Discover + Send + 'static,
        D::Key: Hash + Clone + Send + 'static,
        D::Error: Into<BoxError>,
        D::Service: Clone + Send + 'static,
        // Endpoints.
        M: MakeService<D::Service, Req> + Send + 'static,
        M::Future: Send + 'static,
        M::MakeError: Into<BoxError>,
        M::Error: Into<BoxError>,
        M::Service: Send + 'static,
        // The rest.
        P: Picker<Member<G>>,
        G: Gauge,
        Req: 'static,
    {
        let seed = self.seed.map(SplitMix64::new);
        let mut rng = seed.unwrap_or_else(SplitMix64::from_entropy);
        let settings = self.settings;
        let shared = Arc::new(Shared::new(settings.queue_len, Metrics::new(self.name)));
        let newcomers = Arc::new(Newcomers::new(Arc::clone(&shared.wakes)));
        let seeds = Seeds::new(rng.next_u64());
        let gauges = Gauges {
            first: self.gauge,
            attach,
            detach,
        };
        let task = Task::spawn(|signal| {
            let driver = Driver::<D, M, M::Service, G, Req>::new(
                self.discover,
                self.make,
                gauges,
                settings,
                rng,
                Arc::clone(&shared),
                Arc::clone(&newcomers),
            );
            tracing::Instrument::in_current_span(driver.run(signal))
        })?;
        let ejection = settings.ejection;
        let blame = Blame {
            max_faults_in_a_row: ejection.and_then(|by| by.faults_in_a_row()).unwrap_or(0),
            given_up_after: ejection.and_then(|by| by.given_up_after()),
        };
        Ok(Pool {
            chooser: Chooser {
                picker: self.picker,
                rng: seeds.next(),
                blame,
            },
            core: Arc::new(Core {
                shared,
                newcomers,
                task,
                seeds,
                max_wait: settings.max_wait,
            }),
            classify: self.classify,
            completion: self.completion,
            door: Door::Open,
        })
    }
}
