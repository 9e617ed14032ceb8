//! What the load of an endpoint is measured by.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;
use tower_classify::Class;
use tower_load::Load;

use crate::prequal::{Probe, Reply};

/// Measures the load of one endpoint by what its requests tell.
///
/// A pool counts what is in flight. A gauge adds to that what it likes: how long requests take, how they fail.
/// It is used by many callers at once.
pub trait Gauge: Send + Sync + 'static {
    /// What is kept for each request in flight.
    type Ticket: Send;

    /// Makes a gauge for another endpoint: with the same settings, and nothing measured.
    #[must_use]
    fn fork(&self) -> Self;

    /// Forgets what was measured, as another endpoint takes the place of this one. No request is in flight.
    fn reset(&self);

    /// A request is sent.
    fn start(&self) -> Self::Ticket;

    /// A request has ended; `None` where it was given up.
    fn finish(&self, ticket: Self::Ticket, class: Option<Class>);

    /// The load with so many requests in flight; one more is to be sent. `now` is there if
    /// [`depends_on_time`](Self::depends_on_time).
    fn load(&self, in_flight: u32, now: Option<Instant>) -> f64;

    /// Whether [`load`](Self::load) looks at the time. A pick costs a reading of the clock then.
    fn depends_on_time(&self) -> bool;
}

/// A [`Gauge`] that has to do with the connections of its endpoint, and not with its requests alone: that asks over
/// them, or takes what they report. A pool with it is started by [`spawn_attached`](super::Builder::spawn_attached).
pub trait Attach<S>: Gauge {
    /// A connection has been made. Called by the pool's task, before the first request is sent over it.
    fn attach(&self, service: &mut S);

    /// The connection is closed: lost, drained or no longer needed. What is kept of it is to be dropped.
    fn detach(&self) {}
}

/// What gauges are forked from, and how they are told of connections: not at all, where they aren't [`Attach`].
pub(super) struct Gauges<G, S> {
    pub(super) first: G,
    pub(super) attach: fn(&G, &mut S),
    pub(super) detach: fn(&G),
}

/// The number of requests in flight, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct InFlight;

impl Gauge for InFlight {
    type Ticket = ();

    fn fork(&self) -> Self {
        Self
    }

    fn reset(&self) {}

    #[inline]
    fn start(&self) {}

    #[inline]
    fn finish(&self, (): (), _: Option<Class>) {}

    #[inline]
    fn load(&self, in_flight: u32, _: Option<Instant>) -> f64 {
        f64::from(in_flight) + 1.0
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        false
    }
}

/// An endpoint as a [`Picker`](crate::picker::Picker) sees it: its load.
///
/// The load is that of the [`Gauge`].
pub struct Member<G = InFlight> {
    pub(super) gauge: G,
    in_flight: AtomicU32,
    /// How much it gets of what is picked for it, as the bits of an `f32` in (0, 1].
    share: AtomicU32,
}

impl<G> Member<G> {
    pub(super) fn new(gauge: G) -> Self {
        Self {
            gauge,
            in_flight: AtomicU32::new(0),
            share: AtomicU32::new(1.0_f32.to_bits()),
        }
    }

    /// How many requests the pool has in flight to it.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn add(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away, and says whether it was the last. Ordered with the pool's look at whether it is drained.
    #[inline]
    pub(super) fn sub(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1
    }

    pub(super) fn is_unused(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    pub(super) fn set_share(&self, share: f32) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn has_full_share(&self) -> bool {
        self.share.load(Ordering::Relaxed) == 1.0_f32.to_bits()
    }

    pub(super) fn share(&self) -> f64 {
        f32::from_bits(self.share.load(Ordering::Relaxed)).into()
    }
}

impl<G: Gauge> Load for Member<G> {
    type Metric = f64;

    #[inline]
    fn load(&self) -> f64 {
        let now = self.gauge.depends_on_time().then(Instant::now);
        self.gauge.load(self.in_flight(), now)
    }

    #[inline]
    fn load_at(&self, now: Instant) -> f64 {
        self.gauge.load(self.in_flight(), Some(now))
    }

    #[inline]
    fn depends_on_time(&self) -> bool {
        self.gauge.depends_on_time()
    }
}

impl<G: Probe> Probe for Member<G> {
    #[inline]
    fn probe(&self, reply: Reply) {
        self.gauge.probe(reply);
    }
}

impl<G> fmt::Debug for Member<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
