//! When a connection has to have come further: pure decisions about the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::link::Progress;

/// How long what nobody reads is taken in before a transport is closed.
const LINGER: Duration = Duration::from_secs(5);

/// How long each stage may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) head: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) age: Option<Duration>,
    pub(crate) grace: Duration,
}

/// What has to happen at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The request's head isn't there.
    Head,
    /// No request came.
    Idle,
    /// The reader of a response has taken nothing.
    Write,
    /// What the peer still sent was taken in for long enough.
    Linger,
    /// The connection shall take no more requests.
    Age,
    /// The time to finish after that is over.
    Grace,
}

/// The deadlines of one connection.
///
/// They follow from what was seen of its progress. The clock is read only where that has changed, and not at the end of each
/// request, after which another comes most often: since when a connection is idle is looked up [soon](Self::soon).
#[derive(Debug)]
pub(crate) struct Schedule {
    bounds: Bounds,
    seen: Progress,
    /// For the stage that the connection is in, but for a busy one's.
    stage: Option<(Instant, Due)>,
    /// It is idle, and since when isn't known yet.
    rests: bool,
    write: Option<Instant>,
    age: Option<(Instant, Due)>,
}

impl Schedule {
    /// The deadlines of a connection that was accepted at `accepted`.
    pub(crate) fn new(bounds: Bounds, accepted: Instant) -> Self {
        Self {
            stage: Some((accepted + bounds.head, Due::Head)),
            seen: Progress::default(),
            rests: false,
            write: None,
            age: bounds.age.map(|age| (accepted + age, Due::Age)),
            bounds,
        }
    }

    /// Takes in how far the connection has come. Returns the time if it had to be read.
    #[inline]
    pub(crate) fn observe(
        &mut self,
        progress: Progress,
        clock: impl FnOnce() -> Instant,
    ) -> Option<Instant> {
        if progress == self.seen {
            return None;
        }
        if self.is_without_clock(progress) {
            self.seen = progress;
            self.stage = None;
            self.rests = !progress.busy && self.bounds.idle.is_some();
            return None;
        }
        let now = clock();
        self.change(progress, now);
        Some(now)
    }

    /// Whether nothing is to be timed but idleness.
    fn is_without_clock(&self, progress: Progress) -> bool {
        progress.begun > 0
            && !progress.received
            && !progress.blocked
            && !progress.lingering
            && !self.seen.blocked
    }

    /// Whether [`date`](Self::date) is to be told the time by [`soon`](Self::soon).
    #[inline]
    pub(crate) fn rests(&self) -> bool {
        self.rests
    }

    /// How late it may be seen that a connection has become idle: a quarter of the time that it may be.
    pub(crate) fn soon(&self) -> Duration {
        self.bounds.idle.map_or(Duration::MAX, |idle| idle / 4)
    }

    /// Begins the idle time of a connection that is idle, where that isn't known to have begun.
    pub(crate) fn date(&mut self, now: Instant) {
        if std::mem::take(&mut self.rests) {
            self.stage = self.bounds.idle.map(|idle| (now + idle, Due::Idle));
        }
    }

    /// Whether there will be no deadline for long, so that the timer isn't worth what it costs.
    pub(crate) fn needs_no_timer(&self) -> bool {
        self.bounds.idle.is_none() && self.next().is_none()
    }

    fn change(&mut self, progress: Progress, now: Instant) {
        self.rests = false;
        let before = std::mem::replace(&mut self.seen, progress);
        if !progress.blocked {
            self.write = None;
        } else if !before.blocked || before.unblocked != progress.unblocked {
            self.write = self.bounds.write.map(|write| now + write);
        }
        if progress.lingering {
            if !before.lingering {
                self.stage = Some((now + LINGER, Due::Linger));
            }
        } else if progress.begun == 0 {
            // The first head has had its deadline from the start.
        } else if is_busy(progress) {
            self.stage = None;
        } else if is_busy(before)
            || before.begun != progress.begun
            || before.received != progress.received
        {
            self.stage = if progress.received {
                Some((now + self.bounds.head, Due::Head))
            } else {
                self.bounds.idle.map(|idle| (now + idle, Due::Idle))
            };
        }
    }

    /// The earliest deadline.
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        let stage = self.stage.map(|(at, _)| at);
        let age = self.age.map(|(at, _)| at);
        [stage, self.write, age].into_iter().flatten().min()
    }

    /// The peer was told at `now` to send no more requests, as it was idle. It has the time of grace to leave.
    pub(crate) fn retire(&mut self, now: Instant) {
        self.stage = None;
        self.rests = false;
        self.age = Some((now + self.bounds.grace, Due::Linger));
    }

    /// What is due at `now`. An age is due once, and its time of grace begins.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        match self.stage {
            Some((at, due)) if at <= now => return Some(due),
            _ => {}
        }
        if self.write.is_some_and(|at| at <= now) {
            return Some(Due::Write);
        }
        match self.age {
            Some((at, due)) if at <= now => {
                self.age = Some((now + self.bounds.grace, Due::Grace));
                Some(due)
            }
            _ => None,
        }
    }
}

/// Whether a request is under way, or its response is still being taken.
fn is_busy(progress: Progress) -> bool {
    progress.busy || progress.blocked
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: Bounds = Bounds {
        head: Duration::from_secs(10),
        idle: Some(Duration::from_secs(60)),
        write: Some(Duration::from_secs(30)),
        age: None,
        grace: Duration::from_secs(5),
    };

    const BUSY: Progress = Progress {
        begun: 1,
        busy: true,
        received: false,
        blocked: false,
        unblocked: 0,
        lingering: false,
    };

    const IDLE: Progress = Progress {
        busy: false,
        ..BUSY
    };

    fn schedule() -> (Schedule, Instant) {
        let start = Instant::now();
        (Schedule::new(BOUNDS, start), start)
    }

    #[test]
    fn the_first_head_is_due_from_the_start_however_its_bytes_come() {
        let (mut schedule, start) = schedule();
        let dripping = Progress {
            received: true,
            ..Progress::default()
        };
        schedule.observe(dripping, || start + SECOND * 9);
        assert_eq!(schedule.take_due(start + SECOND * 9), None);
        assert_eq!(schedule.take_due(start + SECOND * 10), Some(Due::Head));
    }

    #[test]
    fn a_busy_connection_has_no_deadline() {
        let (mut schedule, start) = schedule();
        schedule.observe(BUSY, || start);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn idle_time_begins_with_the_end_of_each_response() {
        let (mut schedule, start) = schedule();
        for begun in 1..4 {
            // One came and went between two looks.
            let idle = Progress { begun, ..IDLE };
            assert_eq!(schedule.observe(idle, || unreachable!()), None);
            assert!(schedule.rests());
            assert_eq!(schedule.next(), None);
        }
        assert_eq!(schedule.soon(), SECOND * 15);
        schedule.date(start + SECOND);
        // Once.
        schedule.date(start + SECOND * 2);
        assert!(!schedule.rests());
        assert_eq!(schedule.next(), Some(start + SECOND * 61));
        assert_eq!(schedule.take_due(start + SECOND * 61), Some(Due::Idle));
    }

    #[test]
    fn a_request_ends_the_idle_time() {
        let (mut schedule, start) = schedule();
        schedule.observe(IDLE, || unreachable!());
        schedule.date(start);
        let next = Progress { begun: 2, ..BUSY };
        schedule.observe(next, || unreachable!());
        schedule.date(start + SECOND);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_later_head_is_due_from_its_first_byte() {
        let (mut schedule, start) = schedule();
        schedule.observe(IDLE, || start);
        let begun = Progress {
            received: true,
            ..IDLE
        };
        schedule.observe(begun, || start + SECOND * 50);
        // More of its bytes change nothing.
        assert_eq!(schedule.observe(begun, || unreachable!()), None);
        assert_eq!(schedule.take_due(start + SECOND * 60), Some(Due::Head));
    }

    #[test]
    fn each_byte_that_the_reader_takes_gives_it_more_time() {
        let (mut schedule, start) = schedule();
        let blocked = Progress {
            blocked: true,
            ..BUSY
        };
        schedule.observe(blocked, || start);
        assert_eq!(schedule.next(), Some(start + SECOND * 30));
        let again = Progress {
            unblocked: 1,
            ..blocked
        };
        schedule.observe(again, || start + SECOND * 20);
        assert_eq!(schedule.take_due(start + SECOND * 30), None);
        assert_eq!(schedule.take_due(start + SECOND * 50), Some(Due::Write));
        schedule.observe(BUSY, || start + SECOND * 50);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn the_clock_is_not_read_where_nothing_follows_from_it() {
        let start = Instant::now();
        let bounds = Bounds {
            idle: None,
            ..BOUNDS
        };
        let mut schedule = Schedule::new(bounds, start);
        for begun in 1..4 {
            let idle = Progress { begun, ..IDLE };
            assert_eq!(schedule.observe(idle, || unreachable!()), None);
            assert!(schedule.needs_no_timer());
        }
        let head = Progress {
            begun: 3,
            received: true,
            ..IDLE
        };
        schedule.observe(head, || start + SECOND);
        assert_eq!(schedule.next(), Some(start + SECOND * 11));
    }

    #[test]
    fn age_is_due_once_and_then_grace() {
        let start = Instant::now();
        let bounds = Bounds {
            age: Some(SECOND * 3),
            ..BOUNDS
        };
        let mut schedule = Schedule::new(bounds, start);
        schedule.observe(BUSY, || start);
        assert_eq!(schedule.take_due(start + SECOND * 3), Some(Due::Age));
        assert_eq!(schedule.take_due(start + SECOND * 3), None);
        assert_eq!(schedule.take_due(start + SECOND * 8), Some(Due::Grace));
    }

    #[test]
    fn a_retired_connection_has_its_grace_and_is_not_idle_again() {
        let (mut schedule, start) = schedule();
        schedule.observe(IDLE, || start);
        schedule.date(start);
        assert_eq!(schedule.take_due(start + SECOND * 60), Some(Due::Idle));
        schedule.retire(start + SECOND * 60);
        assert_eq!(schedule.take_due(start + SECOND * 64), None);
        assert_eq!(schedule.take_due(start + SECOND * 65), Some(Due::Linger));
    }

    #[test]
    fn lingering_is_bounded() {
        let (mut schedule, start) = schedule();
        let lingering = Progress {
            lingering: true,
            received: true,
            ..Progress::default()
        };
        schedule.observe(lingering, || start);
        assert_eq!(schedule.take_due(start + LINGER), Some(Due::Linger));
    }
}
