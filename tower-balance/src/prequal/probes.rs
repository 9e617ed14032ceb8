//! The probes that a client has, and what it does with them.
//!
//! Pure: it is told the time and given random numbers.

use std::time::Duration;

use tokio::time::Instant;
use tower_load::meter::LoadReport;

use super::Mode;
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
    pub(super) mode: Mode,
}

/// With fewer than this there is no choice, and so no use of them.
const LEAST: usize = 2;

/// By how much latencies may differ that count as one.
///
/// They are estimates from some dozens of requests, good to about a tenth. Were the least always taken, all clients would
/// take the server that the noise favours, and learn too late that they all did. With more, an idle server that is slower
/// passes for a fast one.
const ALIKE: (u64, u64) = (8, 7);

/// The part of the latency that servers report for which a request may wait, and after which an answer is old.
const WORTH: u64 = 8;

/// How many probes are kept at most. Each pick looks at all of them, and so many of the longest latencies can be added up.
pub(super) const MOST_KEPT: usize = 128;

/// Of so many servers that were asked, how many answers are enough. One may be slow, as the paper has it, if enough for a
/// choice are left.
pub(super) fn enough(asked: usize) -> usize {
    asked.saturating_sub(1).max(LEAST).min(asked)
}

/// How often a probe may be used where the rules set no bound: until it is too old.
const ENDLESS: u32 = u32::MAX;

/// A longer time than any, of which [`MOST_KEPT`] can be added up.
const LONGEST: u64 = 1 << 56;

#[derive(Debug)]
pub(super) struct Probes {
    rules: Rules,
    max_age: u64,
    /// What the times of the probes count from: the first time that it was told.
    start: Option<Instant>,
    /// In the order in which they came; at most one for each endpoint.
    kept: Vec<Probe>,
    /// Of what was reported in flight.
    in_flight: Quantile,
    /// The parts of a probe and of a removal that are still owed, where the rates aren't whole numbers.
    probes_owed: f64,
    removals_owed: f64,
    next_removal: Removal,
    /// How many requests have waited for answers and not been picked for yet: their turns have ended.
    ahead: u32,
    /// How long answers take, smoothed as TCP does (RFC 6298, section 2). In nanoseconds.
    round_trip: Option<u64>,
    /// Whether the last who waited heard too little to choose, and nobody has heard enough since.
    is_deaf: bool,
}

#[derive(Debug)]
struct Probe {
    id: EndpointId,
    /// In nanoseconds, as is when it came.
    latency: u64,
    received_at: u64,
    in_flight: u32,
    uses_left: u32,
}

/// Which probe is removed next. In turns: the oldest is the least true, and the worst is no use but stays,
/// so that without removal the pool would fill with bad choices.
#[derive(Debug)]
enum Removal {
    Oldest,
    Worst,
}

/// How often a probe may be used, in the mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    whole: u32,
    rest: f64,
}

impl Rules {
    /// Says how often a probe may be used in the mean: the reuse budget
    /// `max(1, (1 + δ) / ((1 − m/n)·r_probe − r_remove))` for `n` endpoints.
    pub(super) fn budget(&self, endpoints: usize) -> Budget {
        let new = (1.0 - self.capacity as f64 / endpoints as f64) * self.probes_per_request;
        let gained = new - self.removals_per_request;
        if gained <= 0.0 {
            // There are too few endpoints for the pool to be filled by other ones than it has.
            return Budget {
                whole: ENDLESS,
                rest: 0.0,
            };
        }
        let budget = ((1.0 + self.surplus) / gained).max(1.0);
        let whole = budget as u32;
        let rest = budget - f64::from(whole);
        Budget { whole, rest }
    }
}

impl Budget {
    /// A whole number of uses, of which this is the mean, if `random` is uniform in `[0, 1)`.
    #[inline]
    pub(super) fn uses(self, random: f64) -> u32 {
        self.whole.saturating_add(u32::from(random < self.rest))
    }
}

impl Probes {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            max_age: nanos(rules.max_age),
            start: None,
            kept: Vec::with_capacity(rules.capacity + 1),
            in_flight: Quantile::new(rules.quantile),
            probes_owed: 0.0,
            removals_owed: 0.0,
            next_removal: Removal::Worst,
            ahead: 0,
            round_trip: None,
            is_deaf: false,
        }
    }

    /// Takes in what an endpoint reported, in the place of what it had reported before.
    pub(super) fn add(&mut self, id: EndpointId, report: LoadReport, uses: u32, now: Instant) {
        self.in_flight.add(report.in_flight);
        let received_at = self.since_start(now);
        self.forget(id);
        if self.kept.len() >= self.rules.capacity {
            self.kept.remove(0);
        }
        self.kept.push(Probe {
            id,
            in_flight: report.in_flight,
            latency: report.latency.map_or(0, nanos),
            received_at,
            uses_left: uses,
        });
        self.is_deaf &= self.kept.len() < LEAST;
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&mut self, id: EndpointId) {
        if let Some(index) = self.kept.iter().position(|probe| probe.id == id) {
            self.kept.remove(index);
        }
    }

    /// Chooses the endpoint for a request; none if too few probes are left, and any will do.
    pub(super) fn choose(&mut self, now: Instant) -> Option<EndpointId> {
        let now = self.since_start(now);
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
        // What is sent there now is not in what it reported. A server that shares its time among its requests takes longer by
        // as much as there are more of them; in the laboratory's fleet, at 1.27 of the allocation, that is worth 3 % of the
        // 99th percentile.
        let more = probe.latency / (u64::from(probe.in_flight) + 1);
        probe.latency = (probe.latency + more).min(LONGEST);
        probe.in_flight = probe.in_flight.saturating_add(1);
        if probe.uses_left != ENDLESS {
            probe.uses_left -= 1;
            if probe.uses_left == 0 {
                self.kept.remove(best);
            }
        }
        Some(id)
    }

    /// Begins the turn of a request that should wait for answers of its own, and says how many servers are to be
    /// asked. None if it should not.
    pub(super) fn begin_round(&mut self, now: Instant) -> Option<usize> {
        if !self.is_worth_a_wait(now) {
            return None;
        }
        let due = (self.probes_owed + self.rules.probes_per_request) as usize;
        // Without a choice thereafter, there is nothing to wait for.
        let is_choice = due > 0 && self.kept.len() + due >= LEAST;
        is_choice.then(|| self.end_turn())
    }

    /// Ends the wait of a request whose pick comes next, though not its turn again. It heard so many of those that
    /// were asked.
    pub(super) fn end_round(&mut self, answered: usize, asked: usize) {
        self.ahead = self.ahead.saturating_add(1);
        if answered < enough(asked).min(LEAST) {
            self.is_deaf = true;
        }
    }

    fn is_worth_a_wait(&mut self, now: Instant) -> bool {
        match self.rules.mode {
            Mode::Asynchronous => return false,
            Mode::Synchronous => return true,
            Mode::Adaptive if self.is_deaf => return false,
            Mode::Adaptive => {}
        }
        let now = self.since_start(now);
        self.forget_old(now);
        if self.kept.len() < LEAST {
            return true;
        }
        let worth = self.total_latency() / (WORTH * self.kept.len() as u64);
        // The youngest are last.
        let young = self.kept.iter().rev().take(LEAST);
        let is_old = |probe: &Probe| now.saturating_sub(probe.received_at) > worth;
        young.clone().any(is_old) && self.round_trip.is_none_or(|took| took <= worth)
    }

    /// An answer took that long, or more.
    pub(super) fn took(&mut self, time: Duration) {
        let took = nanos(time);
        let smoothed = |before: u64| before - before / 8 + took / 8;
        self.round_trip = Some(self.round_trip.map_or(took, smoothed));
    }

    /// Has a request go that needs no probes.
    pub(super) fn skip_turn(&mut self) {
        self.ahead = self.ahead.saturating_sub(1);
    }

    /// Ends a request's turn, unless that is done.
    pub(super) fn end_turn_if_due(&mut self) -> usize {
        if self.ahead > 0 {
            self.ahead -= 1;
            return 0;
        }
        self.end_turn()
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
    fn first_fresh(&self, now: u64) -> usize {
        let total = self.total_latency();
        if total == 0 {
            // Servers that don't tell their latency: they would all be old at once, and the youngest answer decide.
            return 0;
        }
        let len = self.kept.len() as u64;
        let is_old = |probe: &Probe| {
            let age = now.saturating_sub(probe.received_at);
            age.saturating_mul(len) > total
        };
        self.kept.partition_point(is_old)
    }

    fn total_latency(&self) -> u64 {
        self.kept.iter().map(|probe| probe.latency).sum()
    }

    /// Of the probes from `first` on that are cold and about as fast as the fastest of them, the one with the
    /// fewest requests in flight, and of those the youngest.
    fn best_cold(&self, first: usize, threshold: u32) -> Option<usize> {
        // Without branches: which of them are cold can't be foretold.
        let probes = &self.kept[first..];
        let latency = |probe: &Probe| match probe.in_flight <= threshold {
            true => probe.latency,
            false => u64::MAX,
        };
        let fastest = probes.iter().map(latency).min()?;
        if fastest == u64::MAX {
            return None;
        }
        let alike = fastest * ALIKE.0 / ALIKE.1;
        let mut best = (u32::MAX, 0);
        for (index, probe) in probes.iter().enumerate() {
            let is_alike = probe.in_flight <= threshold && probe.latency <= alike;
            let key = if is_alike { probe.in_flight } else { u32::MAX };
            if key <= best.0 && is_alike {
                best = (key, index);
            }
        }
        Some(first + best.1)
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

    fn forget_old(&mut self, now: u64) {
        let max_age = self.max_age;
        let old = |probe: &Probe| now.saturating_sub(probe.received_at) > max_age;
        // The first is the oldest, but for threads that read the clock before they take their turn.
        if self.kept.first().is_some_and(old) {
            self.kept.retain(|probe| !old(probe));
        }
    }

    #[inline]
    fn since_start(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        nanos(now.saturating_duration_since(start))
    }
}

#[inline]
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(LONGEST, |nanos| nanos.min(LONGEST))
}

/// How good a choice is, the least being best. The worst is removed.
///
/// Any cold server is better than any hot one. Among the cold the latency counts, among the hot the requests in
/// flight.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Cold(u64),
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
