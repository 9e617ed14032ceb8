//! Who of those that are connected is used: not who does badly, or isn't needed, and less who is new.

use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tower_discover::Discover;
use tower_make::MakeService;
use tower_service::Service;

use super::{Alarm, BoxError, Driver, RAMP_STEPS};
use crate::pool::entry::{Draining, Entry};
use crate::pool::gauge::Gauge;
use crate::pool::link::{LEAST_SHARE, Phase, slow_start};

impl<D, M, S, G, Req> Driver<D, M, S, G, Req>
where
    D: Discover,
    D::Key: Hash + Clone,
    D::Error: Into<BoxError>,
    D::Service: Clone,
    M: MakeService<D::Service, Req, Service = S>,
    M::MakeError: Into<BoxError>,
    S: Service<Req>,
    S::Error: Into<BoxError>,
    G: Gauge,
{
    // Ejection.

    pub(super) fn known(&self) -> usize {
        self.roster.census().known()
    }

    pub(super) fn eject(&mut self, index: u32) {
        let Some(ejection) = self.settings.ejection else {
            return;
        };
        let (ejected, known, now) = (self.ejected.len(), self.known(), self.now);
        let Some(entry) = self.entry(index) else {
            return;
        };
        if entry.draining == Draining::No && ejection.eject(&mut entry.record, ejected, known, now)
        {
            self.was_ejected(index);
        }
    }

    pub(super) fn was_ejected(&mut self, index: u32) {
        tracing::debug!("endpoint ejected");
        self.shared.metrics.ejected();
        self.ejected.insert(index);
        if !self.is_panicking {
            self.shared.make_unready(index);
        }
        self.show(index);
        self.weigh_panic();
    }

    pub(super) fn sweep_outliers(&mut self) {
        let Some(ejection) = self.settings.ejection else {
            return;
        };
        self.set_alarm(ejection.interval(), Alarm::Outliers);
        let mut indices = Vec::new();
        let mut endpoints = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry.as_ref().filter(|e| e.draining == Draining::No) else {
                continue;
            };
            let index = index as u32;
            if let Some(endpoint) = self.shared.endpoint(index) {
                indices.push(index);
                endpoints.push((entry.record, endpoint.take_tally()));
            }
        }
        ejection.sweep(&mut endpoints, self.now);
        for (index, (record, _)) in indices.into_iter().zip(endpoints) {
            let Some(entry) = self.entry(index) else {
                continue;
            };
            let was = mem::replace(&mut entry.record, record).ejected_at.is_some();
            match (was, record.ejected_at.is_some()) {
                (false, true) => self.was_ejected(index),
                (true, false) => {
                    tracing::debug!("endpoint readmitted");
                    self.ejected.remove(&index);
                    self.settle(index);
                    self.show(index);
                    self.weigh_panic();
                }
                _ => {}
            }
        }
    }

    /// Uses the ejected ones as well while too few others are left, and no longer.
    pub(super) fn weigh_panic(&mut self) {
        let census = self.roster.census();
        // What is idle would be connected to by who finds none, were those left out that do badly.
        let healthy = (census.ready + census.idle) as f64;
        let is_panicking = !self.ejected.is_empty()
            && healthy < self.settings.panic_threshold * self.known() as f64;
        if is_panicking == self.is_panicking {
            return;
        }
        tracing::debug!(
            is_panicking,
            "too few endpoints are healthy, or enough again"
        );
        self.is_panicking = is_panicking;
        for index in self.ejected.clone() {
            self.settle(index);
        }
    }

    // Idle endpoints, and new ones.

    pub(super) fn retire_unused(&mut self) {
        let Some(most) = self.settings.idle_timeout else {
            return;
        };
        self.set_alarm(most / 2, Alarm::Idle);
        // Those that aren't used are ejected, or have just come.
        if self.shared.is_waited_for() {
            return;
        }
        let mut connected = self.roster.census().ready + self.roster.census().ejected;
        let mut all_used = true;
        for index in 0..self.entries.len() as u32 {
            let shared = Arc::clone(&self.shared);
            let Some(endpoint) = shared.endpoint(index) else {
                continue;
            };
            let is_used = endpoint.take_use() || !endpoint.member.is_unused();
            let min_connected = self.settings.min_connected;
            let Some(entry) = self.entry(index) else {
                continue;
            };
            let is_up = matches!(entry.link.phase(), Phase::Up { .. });
            if entry.draining != Draining::No || !is_up {
                continue;
            }
            let unused_looks = entry.unused_looks.saturating_add(1);
            entry.unused_looks = if is_used { 0 } else { unused_looks };
            all_used &= is_used;
            if entry.unused_looks >= 2 && connected > min_connected && entry.link.rest() {
                connected -= 1;
                self.idle.insert(index);
                self.ramping.remove(&index);
                self.shared.make_unready(index);
                self.settle(index);
                self.show(index);
            }
        }
        // There is so much to do that everybody has something: more may help.
        if all_used && connected > 0 {
            self.want(connected);
        }
        self.weigh_panic();
    }

    /// Connects to so many of the idle ones, and last to those that are ejected.
    pub(super) fn want(&mut self, count: usize) {
        for _ in 0..count {
            let usable = self.idle.difference(&self.ejected).next();
            let Some(index) = usable.or_else(|| self.idle.first()).copied() else {
                return;
            };
            self.idle.remove(&index);
            if let Some(entry) = self.entry(index) {
                entry.unused_looks = 0;
                if entry.link.wanted() {
                    let turn = (index, entry.number);
                    self.turns.push_back(turn);
                }
            }
            self.show(index);
        }
    }

    pub(super) fn serve_demand(&mut self) {
        let wanted = &self.shared.wakes.is_wanted;
        if wanted.swap(false, Ordering::AcqRel) {
            self.want(self.shared.queued().max(1));
        }
    }

    /// Has an endpoint that has just come start slowly.
    pub(super) fn begin_ramp(&mut self, index: u32) {
        let Some(window) = self.settings.slow_start else {
            return;
        };
        self.ramping.insert(index);
        self.set_share(index, LEAST_SHARE);
        // Those that come and go would else set one each, and each of those the next.
        if !mem::replace(&mut self.is_ramp_set, true) {
            self.set_alarm(window / RAMP_STEPS, Alarm::Ramp);
        }
    }

    pub(super) fn ramp(&mut self) {
        self.is_ramp_set = false;
        let Some(window) = self.settings.slow_start else {
            return;
        };
        let now = self.now;
        let share = |entry: &Option<Entry<_, _, _>>| match entry.as_ref()?.link.phase() {
            Phase::Up { since } => Some(slow_start(now.duration_since(since), window)),
            _ => None,
        };
        let shares: Vec<_> = self.entries.iter().map(share).collect();
        self.top_share = shares.iter().flatten().copied().fold(LEAST_SHARE, f32::max);
        for index in self.ramping.clone() {
            self.set_share(index, shares[index as usize].unwrap_or(1.0));
            if shares[index as usize].is_none_or(|share| share >= 1.0) {
                self.ramping.remove(&index);
            }
        }
        if !self.ramping.is_empty() {
            self.is_ramp_set = true;
            self.set_alarm(window / RAMP_STEPS, Alarm::Ramp);
        }
    }

    /// Sets the share of an endpoint beside those that have the most, which take the rest.
    fn set_share(&self, index: u32, share: f32) {
        if let Some(endpoint) = self.shared.endpoint(index) {
            endpoint.member.set_share((share / self.top_share).min(1.0));
        }
    }
}
