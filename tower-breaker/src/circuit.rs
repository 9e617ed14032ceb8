//! Decides whether to let a request through: a pure state machine over times, results and chance.
//!
//! Whoever is admitted gets the number of the circuit's epoch, and gives it back with the result. An epoch
//! ends with each change of state, so that what was started before a change has no say after it.

use std::time::Duration;

use tokio::time::Instant;

use crate::Settings;

/// The window is this many slices, of which the newest is still being filled.
const SLICES: usize = 10;

/// What came of an admitted request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Working,
    /// With the time that the service asked to be left alone for.
    Fault(Option<Duration>),
    /// It was given up, or says nothing.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Circuit {
    settings: Settings,
    phase: Phase,
    epoch: u64,
    /// How often in a row it was shut, without having been open.
    outages: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open(Accrual),
    Trial {
        in_flight: u32,
        passed: u32,
        /// When one more request is let through, in case the others never end.
        renewal: Option<Instant>,
    },
    /// `None` is longer than the clock reaches.
    Shut {
        until: Option<Instant>,
    },
    HeldOpen,
    HeldLimited {
        max: u32,
        in_flight: u32,
    },
    HeldShut,
}

impl Circuit {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            phase: Phase::Open(Accrual::new(&settings)),
            settings,
            epoch: 0,
            outages: 0,
        }
    }

    /// One that has seen nothing, in an epoch after that one.
    pub(crate) fn after(settings: Settings, epoch: u64) -> Self {
        Self {
            epoch: epoch + 1,
            ..Self::new(settings)
        }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Admits a request in the epoch that it returns, or says when to ask again, if that is known.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<u64, Option<Duration>> {
        if let Phase::Shut { until: Some(until) } = self.phase {
            if until <= now {
                let renewal = now.checked_add(self.settings.min_backoff);
                self.enter(Phase::Trial {
                    in_flight: 0,
                    passed: 0,
                    renewal,
                });
            }
        }
        let trials = self.settings.trials;
        match &mut self.phase {
            Phase::Open(_) | Phase::HeldOpen => {}
            Phase::Trial {
                in_flight,
                passed,
                renewal,
            } => {
                if *in_flight + *passed >= trials {
                    let wait = renewal.map(|at| at.duration_since(now));
                    if wait != Some(Duration::ZERO) {
                        return Err(wait);
                    }
                    *renewal = now.checked_add(self.settings.min_backoff);
                }
                *in_flight += 1;
            }
            Phase::HeldLimited { max, in_flight } if *in_flight < *max => *in_flight += 1,
            Phase::HeldLimited { .. } | Phase::HeldShut => return Err(None),
            Phase::Shut { until } => return Err(until.map(|at| at.duration_since(now))),
        }
        Ok(self.epoch)
    }

    /// Whether a request would be refused, whatever the service's readiness, and when to ask again.
    pub(crate) fn refuses(&self, now: Instant) -> Option<Option<Duration>> {
        match self.phase {
            Phase::HeldShut => Some(None),
            Phase::Shut { until } => match until.map(|at| at.duration_since(now)) {
                Some(Duration::ZERO) => None,
                wait => Some(wait),
            },
            _ => None,
        }
    }

    /// Takes the outcome of a request that was admitted in `epoch`. `random` draws from `[0, 1)`.
    pub(crate) fn finish(
        &mut self,
        epoch: u64,
        outcome: Outcome,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) {
        if epoch != self.epoch {
            return;
        }
        if let Phase::Trial { in_flight, .. } | Phase::HeldLimited { in_flight, .. } =
            &mut self.phase
        {
            *in_flight -= 1;
        }
        self.observe(outcome, now, random);
    }

    /// Takes successes that were counted apart, all of them before [`quiet_until`](Self::quiet_until).
    pub(crate) fn catch_up(&mut self, successes: u64) {
        if let Phase::Open(Accrual {
            window: Some(window),
            ..
        }) = &mut self.phase
        {
            window.add(successes);
        }
    }

    /// Until when a success changes nothing but counts. `None` is for ever.
    ///
    /// That is until the slice ends that is being filled, if there was no fault since the last success.
    pub(crate) fn quiet_until(&self, now: Instant) -> Option<Instant> {
        match &self.phase {
            Phase::Open(accrual) if accrual.faults_in_a_row > 0 => Some(now),
            Phase::Open(Accrual {
                window: Some(window),
                ..
            }) => Some(window.end().unwrap_or(now)),
            Phase::Open(_) | Phase::HeldOpen => None,
            _ => Some(now),
        }
    }

    /// How many have worked, of how many, in the window.
    #[cfg(all(test, tower_loom))]
    pub(crate) fn counted(&self) -> (u64, u64) {
        match &self.phase {
            Phase::Open(Accrual {
                window: Some(window),
                ..
            }) => (window.total.working, window.total.all),
            _ => (0, 0),
        }
    }

    /// Takes what became of the service apart from any request.
    pub(crate) fn observe(&mut self, outcome: Outcome, now: Instant, random: impl FnOnce() -> f64) {
        match (&mut self.phase, outcome) {
            // Open → Open | Shut
            (Phase::Open(accrual), Outcome::Working) => accrual.record(true, now),
            (Phase::Open(accrual), Outcome::Fault(after)) => {
                accrual.record(false, now);
                if accrual.trips(&self.settings) {
                    self.shut(after, now, random());
                }
            }
            // Trial → Trial | Open | Shut
            (Phase::Trial { passed, .. }, Outcome::Working) => {
                *passed += 1;
                if *passed >= self.settings.trials {
                    self.outages = 0;
                    self.enter(Phase::Open(Accrual::new(&self.settings)));
                }
            }
            (Phase::Trial { .. }, Outcome::Fault(after)) => self.shut(after, now, random()),
            (Phase::Open(_) | Phase::Trial { .. }, Outcome::Unknown) => {}
            (
                Phase::Shut { .. } | Phase::HeldOpen | Phase::HeldLimited { .. } | Phase::HeldShut,
                _,
            ) => {}
        }
    }

    /// Stays in `phase`, whatever happens, until released.
    pub(crate) fn hold(&mut self, phase: Phase) {
        self.enter(phase);
    }

    /// Starts anew, open.
    pub(crate) fn release(&mut self) {
        self.outages = 0;
        self.enter(Phase::Open(Accrual::new(&self.settings)));
    }

    fn shut(&mut self, after: Option<Duration>, now: Instant, random: f64) {
        let wait = backoff(&self.settings, self.outages, random);
        // What the service asks for, within reason.
        let wait = wait.max(after.unwrap_or_default().min(self.settings.max_backoff));
        self.outages = self.outages.saturating_add(1);
        self.enter(Phase::Shut {
            until: now.checked_add(wait),
        });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

/// The wait after `outages` others in a row: anything from `min × 2ⁿ` to twice that, at most `max`.
///
/// The range ends at `max` rather than being cut off there, so that there is jitter in the longest wait, too.
fn backoff(settings: &Settings, outages: u32, random: f64) -> Duration {
    let (min, max) = (settings.min_backoff, settings.max_backoff);
    let doubled = min.saturating_mul(1_u32.checked_shl(outages).unwrap_or(u32::MAX));
    let low = doubled.min(max / 2).max(min);
    let high = doubled.saturating_mul(2).min(max);
    low + high.saturating_sub(low).mul_f64(random)
}

/// What has been seen since the circuit opened.
#[derive(Clone, Debug)]
pub(crate) struct Accrual {
    faults_in_a_row: u32,
    window: Option<Window>,
}

impl Accrual {
    fn new(settings: &Settings) -> Self {
        Self {
            faults_in_a_row: 0,
            window: settings.rate.map(|rate| Window::new(rate.window)),
        }
    }

    fn record(&mut self, is_working: bool, now: Instant) {
        self.faults_in_a_row = match is_working {
            true => 0,
            false => self.faults_in_a_row.saturating_add(1),
        };
        if let Some(window) = &mut self.window {
            window.record(is_working, now);
        }
    }

    fn trips(&self, settings: &Settings) -> bool {
        let in_a_row = settings
            .faults_in_a_row
            .is_some_and(|most| self.faults_in_a_row >= most);
        let by_rate = self.window.as_ref().zip(settings.rate);
        in_a_row
            || by_rate.is_some_and(|(window, rate)| {
                let Count { working, all } = window.total;
                all >= u64::from(rate.min_requests)
                    && (working as f64) < rate.min_share * all as f64
            })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    working: u64,
    all: u64,
}

/// Counts over the last slices. They begin with the first record.
#[derive(Clone, Debug)]
struct Window {
    slice: Duration,
    /// When the newest slice began.
    start: Option<Instant>,
    newest: usize,
    counts: [Count; SLICES],
    total: Count,
}

impl Window {
    fn new(window: Duration) -> Self {
        Self {
            slice: (window / SLICES as u32).max(Duration::from_nanos(1)),
            start: None,
            newest: 0,
            counts: [Count::default(); SLICES],
            total: Count::default(),
        }
    }

    fn record(&mut self, is_working: bool, now: Instant) {
        let start = *self.start.get_or_insert(now);
        // Zero where a thread reads the clock before another and records after it.
        let elapsed = now.duration_since(start);
        if elapsed >= self.slice {
            self.advance(elapsed, now);
        }
        for count in [&mut self.counts[self.newest], &mut self.total] {
            count.working += u64::from(is_working);
            count.all += 1;
        }
    }

    /// Counts successes in the newest slice.
    fn add(&mut self, successes: u64) {
        for count in [&mut self.counts[self.newest], &mut self.total] {
            count.working += successes;
            count.all += successes;
        }
    }

    /// When the newest slice ends. None before the first record.
    fn end(&self) -> Option<Instant> {
        self.start?.checked_add(self.slice)
    }

    fn advance(&mut self, elapsed: Duration, now: Instant) {
        let (elapsed, slice) = (elapsed.as_nanos(), self.slice.as_nanos());
        for _ in 0..(elapsed / slice).min(SLICES as u128) {
            self.newest = (self.newest + 1) % SLICES;
            let old = std::mem::take(&mut self.counts[self.newest]);
            self.total.working -= old.working;
            self.total.all -= old.all;
        }
        let into = u64::try_from(elapsed % slice).unwrap_or(u64::MAX);
        self.start = Some(now.checked_sub(Duration::from_nanos(into)).unwrap_or(now));
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(circuit: &mut Circuit, now: Instant, random: f64) {
        let epoch = circuit.admit(now).unwrap();
        circuit.finish(epoch, Outcome::Fault(None), now, || random);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_always_have_jitter() {
        let settings = Settings::default();
        let range = |n| {
            let seconds = |random| backoff(&settings, n, random).as_secs_f64();
            (seconds(0.0), seconds(1.0))
        };
        assert_eq!(range(0), (5.0, 10.0));
        assert_eq!(range(1), (10.0, 20.0));
        assert_eq!(range(5), (150.0, 300.0));
        assert_eq!(range(6), (150.0, 300.0));
        assert_eq!(range(u32::MAX), (150.0, 300.0));
    }

    #[test]
    fn no_settings_overflow() {
        for (min, max) in [
            (Duration::MAX, Duration::MAX),
            (Duration::ZERO, Duration::MAX),
            (Duration::ZERO, Duration::ZERO),
            (SECOND * 9, SECOND),
        ] {
            let settings = Settings::default().with_backoff(min, max);
            let mut circuit = Circuit::new(settings.with_faults_in_a_row(1));
            let now = Instant::now();
            for _ in 0..50 {
                if let Ok(epoch) = circuit.admit(now) {
                    circuit.finish(epoch, Outcome::Fault(Some(Duration::MAX)), now, || 0.99);
                }
            }
        }
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_kept_up_to_the_longest() {
        let now = Instant::now();
        for (asked, granted) in [(60, 60), (1, 5), (3600, 300)] {
            let mut circuit = Circuit::new(Settings::default().with_faults_in_a_row(1));
            let epoch = circuit.admit(now).unwrap();
            let fault = Outcome::Fault(Some(SECOND * asked));
            circuit.finish(epoch, fault, now, || 0.0);
            assert_eq!(circuit.admit(now), Err(Some(SECOND * granted)));
        }
    }

    #[test]
    fn a_trial_that_never_ends_is_replaced() {
        let mut now = Instant::now();
        let mut circuit = Circuit::new(Settings::default().with_faults_in_a_row(1));
        fail(&mut circuit, now, 0.0);
        now += 5 * SECOND;
        let stuck = circuit.admit(now).unwrap();
        assert_eq!(circuit.admit(now), Err(Some(5 * SECOND)));
        now += 5 * SECOND;
        let other = circuit.admit(now).unwrap();
        assert_eq!(circuit.admit(now), Err(Some(5 * SECOND)));
        circuit.finish(other, Outcome::Working, now, || 0.0);
        assert!(matches!(circuit.phase(), Phase::Open(_)));
        circuit.finish(stuck, Outcome::Fault(None), now, || 0.0);
        assert!(matches!(circuit.phase(), Phase::Open(_)));
    }

    /// Remembers all that happened since it opened, and looks through it each time.
    struct Naive {
        settings: Settings,
        state: NaiveState,
        outages: i32,
        epoch: u64,
    }

    enum NaiveState {
        Open(Vec<(Instant, bool)>),
        /// When each trial that counts against the limit began or was renewed.
        Trial(u32, u32, Instant),
        Shut(Instant),
    }

    impl Naive {
        fn admit(&mut self, now: Instant) -> Result<u64, Option<Duration>> {
            match &mut self.state {
                NaiveState::Shut(until) if now < *until => return Err(Some(*until - now)),
                NaiveState::Shut(_) => {
                    self.state = NaiveState::Trial(1, 0, now + self.settings.min_backoff);
                    self.epoch += 1;
                }
                NaiveState::Trial(running, passed, renewal) => {
                    if *running + *passed >= self.settings.trials {
                        if now < *renewal {
                            return Err(Some(*renewal - now));
                        }
                        *renewal = now + self.settings.min_backoff;
                    }
                    *running += 1;
                }
                NaiveState::Open(_) => {}
            }
            Ok(self.epoch)
        }

        fn finish(&mut self, epoch: u64, outcome: Outcome, now: Instant) {
            if epoch != self.epoch {
                return;
            }
            let is_working = match outcome {
                Outcome::Unknown => None,
                other => Some(other == Outcome::Working),
            };
            let shut = match &mut self.state {
                NaiveState::Open(seen) => {
                    seen.extend(is_working.map(|is_working| (now, is_working)));
                    is_working == Some(false) && self.trips()
                }
                NaiveState::Trial(running, passed, _) => {
                    *running -= 1;
                    *passed += u32::from(is_working == Some(true));
                    if *passed == self.settings.trials {
                        self.state = NaiveState::Open(Vec::new());
                        self.outages = 0;
                        self.epoch += 1;
                    }
                    is_working == Some(false)
                }
                NaiveState::Shut(_) => unreachable!("nothing is admitted in this epoch"),
            };
            if shut {
                let wait = (5.0 * 2_f64.powi(self.outages)).min(150.0);
                self.state = NaiveState::Shut(now + Duration::from_secs_f64(wait));
                self.outages += 1;
                self.epoch += 1;
            }
        }

        fn trips(&self) -> bool {
            let NaiveState::Open(seen) = &self.state else {
                return false;
            };
            let in_a_row = seen
                .iter()
                .rev()
                .take_while(|(_, working)| !working)
                .count();
            let slice = |at: Instant| (at - seen[0].0).as_millis() / 3_000;
            let newest = slice(seen.last().unwrap().0);
            let recent: Vec<bool> = seen
                .iter()
                .filter(|(at, _)| slice(*at) + 10 > newest)
                .map(|(_, working)| *working)
                .collect();
            let working = recent.iter().filter(|working| **working).count();
            in_a_row >= 5 || recent.len() >= 10 && working * 10 < recent.len() * 8
        }
    }

    proptest! {
        #[test]
        fn does_as_one_that_remembers_everything(
            trials in 1_u32..4,
            steps in proptest::collection::vec((0_u64..4_000, 0_u8..3, 0_usize..8, 0_u8..10), 1..400),
        ) {
            let settings = Settings::default()
                .with_success_rate(0.8, 30 * SECOND, 10)
                .with_trials(trials);
            let mut now = Instant::now();
            let mut circuit = Circuit::new(settings);
            let mut naive = Naive {
                settings,
                state: NaiveState::Open(Vec::new()),
                outages: 0,
                epoch: 0,
            };
            let mut running = Vec::new();
            for (millis, kind, which, outcome) in steps {
                now += Duration::from_millis(millis);
                if kind > 0 || running.is_empty() {
                    let admitted = circuit.admit(now);
                    prop_assert_eq!(admitted, naive.admit(now));
                    running.extend(admitted.ok());
                }
                if kind < 2 && !running.is_empty() {
                    let epoch = running.swap_remove(which % running.len());
                    let outcome = match outcome {
                        0..6 => Outcome::Working,
                        6..9 => Outcome::Fault(None),
                        _ => Outcome::Unknown,
                    };
                    circuit.finish(epoch, outcome, now, || 0.0);
                    naive.finish(epoch, outcome, now);
                }
                prop_assert_eq!(circuit.epoch(), naive.epoch);
            }
        }
    }
}
