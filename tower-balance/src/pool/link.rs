//! What becomes of the connection to one endpoint: when it is made, lost, and made anew.
//!
//! Pure: it is told the time and given random numbers.

use std::time::Duration;

use tokio::time::Instant;

/// A wait that is longer than the clock reaches: thirty years, as tokio's.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365 * 30);

/// The waits between tries to connect: `min × 2ⁿ`, at most `max`, of which the second half is left to chance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for its turn to connect.
    Queued,
    /// It is being made, or is made and wasn't ready yet.
    Connecting,
    Up {
        since: Instant,
    },
    /// It couldn't be made, or was lost, and is tried again later.
    Down {
        until: Instant,
    },
    /// It was given up as nobody needed it.
    Idle,
}

/// The connection to an endpoint, and how often in a row it failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    phase: Phase,
    faults: u32,
}

impl Backoff {
    fn base(&self, faults: u32) -> Duration {
        let factor = 1_u32.checked_shl(faults).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }

    fn delay(&self, faults: u32, random: f64) -> Duration {
        let half = self.base(faults) / 2;
        half + half.mul_f64(random.clamp(0.0, 1.0))
    }
}

impl Link {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Queued,
            faults: 0,
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Queued → Connecting. Says whether it was its turn.
    pub(super) fn connect(&mut self) -> bool {
        let is_queued = self.phase == Phase::Queued;
        if is_queued {
            self.phase = Phase::Connecting;
        }
        is_queued
    }

    /// Connecting → Up. Says whether it is new.
    pub(super) fn proved(&mut self, now: Instant) -> bool {
        let is_new = self.phase == Phase::Connecting;
        if is_new {
            self.phase = Phase::Up { since: now };
        }
        is_new
    }

    /// Connecting → Down; Up → Queued | Down.
    ///
    /// One that lasted longer than the wait would be is made anew at once, and its faults are forgotten: a
    /// server has closed what was idle, say. One that didn't would otherwise be made over and over.
    pub(super) fn fault(&mut self, now: Instant, backoff: &Backoff, random: f64) {
        match self.phase {
            Phase::Up { since } if now.duration_since(since) >= backoff.base(self.faults) => {
                *self = Self::new();
            }
            Phase::Up { .. } | Phase::Connecting | Phase::Queued => {
                let delay = backoff.delay(self.faults, random);
                self.faults = self.faults.saturating_add(1);
                let until = now.checked_add(delay).unwrap_or_else(|| now + FOR_EVER);
                self.phase = Phase::Down { until };
            }
            Phase::Down { .. } | Phase::Idle => {}
        }
    }

    /// Down → Queued, once the wait is over. Says whether it is.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let is_due = matches!(self.phase, Phase::Down { until } if until <= now);
        if is_due {
            self.phase = Phase::Queued;
        }
        is_due
    }

    /// Up → Idle. Says whether it was up.
    pub(super) fn rest(&mut self) -> bool {
        let is_up = matches!(self.phase, Phase::Up { .. });
        if is_up {
            self.phase = Phase::Idle;
        }
        is_up
    }

    /// Idle → Queued. Says whether it was idle.
    pub(super) fn wanted(&mut self) -> bool {
        let is_idle = self.phase == Phase::Idle;
        if is_idle {
            self.phase = Phase::Queued;
        }
        is_idle
    }
}

/// What a new endpoint gets of its share at first.
pub(super) const LEAST_SHARE: f32 = 0.1;

/// How much of its share an endpoint gets that has been up for `age`: a tenth at first, all of it after `window`.
pub(super) fn slow_start(age: Duration, window: Duration) -> f32 {
    if age >= window {
        1.0
    } else {
        (age.as_secs_f32() / window.as_secs_f32()).max(LEAST_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_millis(2_000),
    };

    #[test]
    fn waits_double_up_to_the_longest_and_half_of_each_is_left_to_chance() {
        let range = |n| {
            (
                BACKOFF.delay(n, 0.0).as_millis(),
                BACKOFF.delay(n, 1.0).as_millis(),
            )
        };
        assert_eq!(range(0), (50, 100));
        assert_eq!(range(1), (100, 200));
        assert_eq!(range(5), (1_000, 2_000));
        assert_eq!(range(u32::MAX), (1_000, 2_000));
    }

    #[test]
    fn one_that_lasted_is_made_anew_at_once_and_one_that_did_not_waits() {
        let now = Instant::now();
        let mut link = Link::new();
        assert!(link.connect() && link.proved(now));
        link.fault(now + 100 * MS, &BACKOFF, 0.0);
        assert_eq!(link.phase(), Phase::Queued);

        assert!(link.connect() && link.proved(now));
        link.fault(now + 99 * MS, &BACKOFF, 0.0);
        assert_eq!(
            link.phase(),
            Phase::Down {
                until: now + 149 * MS
            }
        );
        assert!(!link.retry(now + 148 * MS));
        assert!(link.retry(now + 149 * MS));
    }

    #[test]
    fn a_new_endpoint_gets_a_tenth_and_then_more_by_the_time() {
        let at = |ms: u32| slow_start(ms * MS, 1_000 * MS);
        assert_eq!((at(0), at(500), at(1_000), at(9_000)), (0.1, 0.5, 1.0, 1.0));
        assert_eq!(slow_start(Duration::ZERO, Duration::ZERO), 1.0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Connect,
        Proved,
        Fault,
        Retry,
        Rest,
        Wanted,
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Connect),
            Just(Step::Proved),
            Just(Step::Fault),
            Just(Step::Retry),
            Just(Step::Rest),
            Just(Step::Wanted),
            (0..3_000_u32).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The history says all: how many faults there were since the last connection that lasted.
        #[test]
        fn the_machine_agrees_with_its_history(steps in prop::collection::vec(step(), 1..200)) {
            let mut now = Instant::now();
            let mut link = Link::new();
            let (mut state, mut since, mut waits) = ("queued", now, Vec::new());
            for step in steps {
                match step {
                    Step::Connect => {
                        prop_assert_eq!(link.connect(), state == "queued");
                        if state == "queued" { state = "connecting"; }
                    }
                    Step::Proved => {
                        prop_assert_eq!(link.proved(now), state == "connecting");
                        if state == "connecting" { (state, since) = ("up", now); }
                    }
                    Step::Fault => {
                        link.fault(now, &BACKOFF, 0.5);
                        let wait = (100_u64 << waits.len().min(5)).min(2_000);
                        let lasted = (now - since).as_millis() as u64 >= wait;
                        match state {
                            "up" if lasted => { state = "queued"; waits.clear(); }
                            "up" | "connecting" | "queued" => {
                                (state, since) = ("down", now + Duration::from_millis(wait / 4 * 3));
                                waits.push(wait);
                            }
                            _ => {}
                        }
                    }
                    Step::Retry => {
                        let due = state == "down" && since <= now;
                        prop_assert_eq!(link.retry(now), due);
                        if due { state = "queued"; }
                    }
                    Step::Rest => {
                        prop_assert_eq!(link.rest(), state == "up");
                        if state == "up" { state = "idle"; }
                    }
                    Step::Wanted => {
                        prop_assert_eq!(link.wanted(), state == "idle");
                        if state == "idle" { state = "queued"; }
                    }
                    Step::Wait(ms) => now += ms * MS,
                }
                let phase = match link.phase() {
                    Phase::Queued => "queued",
                    Phase::Connecting => "connecting",
                    Phase::Up { since: at } => { prop_assert_eq!(at, since); "up" }
                    Phase::Down { until } => { prop_assert_eq!(until, since); "down" }
                    Phase::Idle => "idle",
                };
                prop_assert_eq!(phase, state);
            }
        }
    }
}
