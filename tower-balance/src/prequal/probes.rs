//! The probes that a client has, and what it does with them.
//!
//! Pure: it is told the time and given random numbers.

use std::time::Duration;

use tokio::time::Instant;
use tower_load::meter::LoadReport;

use super::quantile::Quantile;
use crate::picker::EndpointId;

/// The parameters, by the names of the paper.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `m`: how many probes are kept.
    pub(super) capacity: usize,
    pub(super) max_age: Duration,
    pub(super) probe_timeout: Duration,
    /// `r_probe`: how many are sent for each request.
    pub(super) probes_per_request: f64,
    /// `r_remove`: how many are removed for each request, besides those that are used up or too old.
    pub(super) removals_per_request: f64,
    /// `δ`: by how much more probes come in than are lost.
    pub(super) surplus: f64,
    /// `Q_RIF`: where in the distribution of requests in flight a server begins to be hot.
    pub(super) quantile: f64,
}

/// With fewer than this there is no choice, and so no use of them.
const LEAST: usize = 2;

/// By how much latencies may differ that count as one.
///
/// They are estimates from some dozens of requests. Were the least always taken, all clients would take the server
/// that the noise favours, and learn too late that they all did. In the laboratory's fleet, at 0.9 of the allocation,
/// that costs a fifth of the 99th percentile.
const ALIKE: f64 = 1.25;

/// How often a probe may be used where the rules set no bound: until it is too old.
const ENDLESS: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Probes {
    rules: Rules,
    /// In the order in which they came; at most one for each endpoint.
    kept: Vec<Probe>,
    /// Of what was reported in flight.
    in_flight: Quantile,
    /// The parts of a probe and of a removal that are still owed, where the rates aren't whole numbers.
    probes_owed: f64,
    removals_owed: f64,
    next_removal: Removal,
}

#[derive(Debug)]
struct Probe {
    id: EndpointId,
    in_flight: u32,
    latency: Duration,
    received_at: Instant,
    uses_left: u32,
}

/// Which probe is removed next. In turns: the oldest is the least true, and the worst is no use but stays,
/// so that without removal the pool would fill with bad choices.
#[derive(Debug)]
enum Removal {
    Oldest,
    Worst,
}

impl Rules {
    /// Says how often a probe may be used: a random number of times whose mean is the reuse budget
    /// `max(1, (1 + δ) / ((1 − m/n)·r_probe − r_remove))` for `n` endpoints.
    ///
    /// `random` is uniform in `[0, 1)`.
    pub(super) fn uses(&self, endpoints: usize, random: f64) -> u32 {
        let new = (1.0 - self.capacity as f64 / endpoints as f64) * self.probes_per_request;
        let gained = new - self.removals_per_request;
        if gained <= 0.0 {
            // There are too few endpoints for the pool to be filled by other ones than it has.
            return ENDLESS;
        }
        let budget = ((1.0 + self.surplus) / gained).max(1.0);
        let rounded_up = random < budget.fract();
        (budget as u32).saturating_add(u32::from(rounded_up))
    }
}

impl Probes {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            kept: Vec::with_capacity(rules.capacity + 1),
            in_flight: Quantile::new(rules.quantile),
            probes_owed: 0.0,
            removals_owed: 0.0,
            next_removal: Removal::Worst,
        }
    }

    /// Takes in what an endpoint reported, in the place of what it had reported before.
    pub(super) fn add(&mut self, id: EndpointId, report: LoadReport, uses: u32, now: Instant) {
        self.in_flight.add(report.in_flight);
        self.forget(id);
        if self.kept.len() >= self.rules.capacity {
            self.kept.remove(0);
        }
        self.kept.push(Probe {
            id,
            in_flight: report.in_flight,
            latency: report.latency.unwrap_or_default(),
            received_at: now,
            uses_left: uses,
        });
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&mut self, id: EndpointId) {
        if let Some(index) = self.kept.iter().position(|probe| probe.id == id) {
            self.kept.remove(index);
        }
    }

    /// Chooses the endpoint for a request; none if too few probes are left, and any will do.
    pub(super) fn choose(&mut self, now: Instant) -> Option<EndpointId> {
        self.forget_old(now);
        if self.kept.len() < LEAST {
            return None;
        }
        let threshold = self.in_flight.value();
        let best = self
            .best_cold(self.first_fresh(now), threshold)
            .or_else(|| self.best_cold(0, threshold))
            .or_else(|| self.coolest())?;
        let probe = &mut self.kept[best];
        let id = probe.id;
        // What is sent there now is not in what it reported.
        probe.in_flight = probe.in_flight.saturating_add(1);
        if probe.uses_left != ENDLESS {
            probe.uses_left -= 1;
            if probe.uses_left == 0 {
                self.kept.remove(best);
            }
        }
        Some(id)
    }

    /// Ends a request's turn: removes the probes that are due, and says how many are to be sent.
    pub(super) fn end_turn(&mut self) -> usize {
        self.removals_owed += self.rules.removals_per_request;
        while self.removals_owed >= 1.0 {
            self.removals_owed -= 1.0;
            self.remove_one();
        }
        self.probes_owed += self.rules.probes_per_request;
        let probes = self.probes_owed as usize;
        self.probes_owed -= probes as f64;
        probes
    }

    /// Where the probes begin that are younger than servers take to answer, in the mean.
    ///
    /// After that time most of the requests that were in flight have ended, and an older probe tells no more than
    /// which server is fast. In the laboratory's fleet, at 1.27 of the allocation, that is worth a tenth of the 99th
    /// percentile.
    fn first_fresh(&self, now: Instant) -> usize {
        let total: Duration = self.kept.iter().map(|probe| probe.latency).sum();
        let fresh = total / self.kept.len().max(1) as u32;
        self.kept
            .partition_point(|probe| now.saturating_duration_since(probe.received_at) > fresh)
    }

    /// Of the probes from `first` on that are cold and about as fast as the fastest of them, the one with the
    /// fewest requests in flight, and of those the youngest.
    fn best_cold(&self, first: usize, threshold: u32) -> Option<usize> {
        let cold = || {
            let probes = self.kept.iter().enumerate().skip(first).rev();
            probes.filter(|(_, probe)| probe.in_flight <= threshold)
        };
        let fastest = cold().map(|(_, probe)| probe.latency).min()?;
        let alike = fastest.mul_f64(ALIKE);
        let best = cold()
            .filter(|(_, probe)| probe.latency <= alike)
            .min_by_key(|(_, probe)| probe.in_flight)?;
        Some(best.0)
    }

    /// Where all are hot: the one with the fewest requests in flight.
    fn coolest(&self) -> Option<usize> {
        (0..self.kept.len()).min_by_key(|&index| self.kept[index].in_flight)
    }

    fn remove_one(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        match self.next_removal {
            Removal::Oldest => {
                self.kept.remove(0);
                self.next_removal = Removal::Worst;
            }
            Removal::Worst => {
                let threshold = self.in_flight.value();
                let worst = (0..self.kept.len()).max_by_key(|&i| self.kept[i].rank(threshold));
                worst.map(|index| self.kept.remove(index));
                self.next_removal = Removal::Oldest;
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let old =
            |probe: &Probe| now.saturating_duration_since(probe.received_at) > self.rules.max_age;
        // The first is the oldest, but for threads that read the clock before they take their turn.
        if self.kept.first().is_some_and(old) {
            self.kept.retain(|probe| !old(probe));
        }
    }
}

/// How good a choice is, the least being best. The worst is removed.
///
/// Any cold server is better than any hot one. Among the cold the latency counts, among the hot the requests in
/// flight.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Cold(Duration),
    Hot(u32),
}

impl Probe {
    #[inline]
    fn rank(&self, threshold: u32) -> Rank {
        if self.in_flight > threshold {
            Rank::Hot(self.in_flight)
        } else {
            Rank::Cold(self.latency)
        }
    }
}

#[cfg(test)]
mod tests;
