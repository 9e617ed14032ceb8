//! What a pool tells the `metrics` facade. Without the feature, nothing, at no cost.

use std::sync::Arc;
use std::time::Duration;

use super::shortage::{Census, Reason};

/// Tells the numbers of one pool, under its name.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    #[cfg_attr(
        not(feature = "metrics"),
        expect(dead_code, reason = "it names series that there are none of")
    )]
    name: Arc<str>,
}

impl Metrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name }
    }
}

#[cfg(feature = "metrics")]
impl Metrics {
    /// How often the census is told though nothing has changed: recorders forget gauges that nobody sets, which is to
    /// befall those of pools that have gone alone.
    pub(super) const EVERY: Option<Duration> = Some(Duration::from_secs(10));

    pub(super) fn census(&self, census: &Census) {
        for (state, count) in [
            ("connecting", census.connecting),
            ("ready", census.ready),
            ("failing", census.failing),
            ("ejected", census.ejected),
            ("idle", census.idle),
            ("draining", census.draining),
        ] {
            metrics::gauge!("tower_pool_endpoints", "pool" => self.name(), "state" => state)
                .set(count as f64);
        }
    }

    pub(super) fn failed(&self) {
        metrics::counter!("tower_pool_endpoint_failures_total", "pool" => self.name()).increment(1);
    }

    pub(super) fn ejected(&self) {
        metrics::counter!("tower_pool_ejections_total", "pool" => self.name()).increment(1);
    }

    pub(super) fn queued(&self) {
        metrics::counter!("tower_pool_queued_total", "pool" => self.name()).increment(1);
    }

    pub(super) fn unavailable(&self, reason: Reason) {
        let reason = match reason {
            Reason::WaitedTooLong => "waited_too_long",
            Reason::DeadlinePassed => "deadline_passed",
            Reason::QueueFull => "queue_full",
            Reason::NoneLeft => "none_left",
            Reason::Closed => "closed",
            Reason::Panicked => "panicked",
        };
        metrics::counter!("tower_pool_unavailable_total", "pool" => self.name(), "reason" => reason)
            .increment(1);
    }

    fn name(&self) -> String {
        self.name.as_ref().to_owned()
    }
}

#[cfg(not(feature = "metrics"))]
impl Metrics {
    pub(super) const EVERY: Option<Duration> = None;

    #[inline]
    pub(super) fn census(&self, _: &Census) {}

    #[inline]
    pub(super) fn failed(&self) {}

    #[inline]
    pub(super) fn ejected(&self) {}

    #[inline]
    pub(super) fn queued(&self) {}

    #[inline]
    pub(super) fn unavailable(&self, _: Reason) {}
}
