//! Decides by the clock what a connection is due: a ping, an end with grace, or an end without.
//!
//! It is pure: it is told what was seen, and when, and says what to do and when to look again.

use std::time::Duration;

use tokio::time::Instant;

/// How long things may take. What is `None` isn't bounded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// After this long without a byte from the peer it is sent a ping.
    pub(crate) keep_alive: Option<Duration>,
    /// So long it has for the answer.
    pub(crate) keep_alive_timeout: Duration,
    /// Whether pings are sent while no stream is open.
    pub(crate) keep_alive_while_idle: bool,
    /// So long the first byte from the peer may take.
    pub(crate) hello: Option<Duration>,
    /// So long bytes may wait to be written without any being taken.
    pub(crate) write: Option<Duration>,
    /// So long the peer may keep a stream's window shut; each stream sees to it itself.
    pub(crate) stream: Option<Duration>,
    /// So long a block of header fields may take.
    pub(crate) head: Option<Duration>,
    /// So long no stream may be open.
    pub(crate) idle: Option<Duration>,
    /// So old it may become.
    pub(crate) age: Option<Duration>,
    /// So long it has to end, once it is to.
    pub(crate) grace: Option<Duration>,
}

impl Times {
    /// Whether there is anything to look after.
    pub(crate) fn is_bounded(&self) -> bool {
        let bounds = [
            self.keep_alive,
            self.hello,
            self.write,
            self.head,
            self.idle,
            self.age,
            self.grace,
        ];
        bounds.iter().any(Option::is_some)
    }
}

/// What was seen of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    /// Bytes read and written in all.
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Whether bytes wait to be written.
    pub(crate) blocked: bool,
    /// Whether a block of header fields is incomplete.
    pub(crate) head_open: bool,
    /// Whether streams are open.
    pub(crate) busy: bool,
    /// Whether any was opened since the last look.
    pub(crate) worked: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a ping.
    Ping,
    /// Take no more streams, and end when those that are open have ended.
    Drain,
    /// End at once: the time is up for this.
    Fail(&'static str),
}

/// What a look at the times shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Due(Due),
    /// Nothing, until then.
    Next(Option<Instant>),
}

/// The times of one connection.
#[derive(Debug)]
pub(crate) struct Clockwork {
    times: Times,
    read: u64,
    last_read: Instant,
    /// Since when it is there, where nothing has come yet.
    mute: Option<Instant>,
    /// When a ping was sent that is still to be answered, or any byte to come.
    pinged: Option<Instant>,
    written: u64,
    blocked: Option<Instant>,
    head: Option<Instant>,
    busy: bool,
    idle: Option<Instant>,
    /// When it is too old.
    old: Option<Instant>,
    draining: Option<Instant>,
}

impl Clockwork {
    pub(crate) fn new(times: Times, now: Instant) -> Self {
        Self {
            times,
            read: 0,
            last_read: now,
            mute: Some(now),
            pinged: None,
            written: 0,
            blocked: None,
            head: None,
            busy: false,
            idle: Some(now),
            old: times.age.and_then(|age| now.checked_add(age)),
            draining: None,
        }
    }

    /// Takes in what is seen now.
    pub(crate) fn see(&mut self, sight: Sight, now: Instant) {
        if sight.read != self.read {
            self.read = sight.read;
            self.last_read = now;
            self.mute = None;
            self.pinged = None;
        }
        let progress = sight.written != self.written;
        self.written = sight.written;
        self.blocked = since(self.blocked, sight.blocked, progress, now);
        self.head = since(self.head, sight.head_open, false, now);
        self.busy = sight.busy;
        // A stream that has come and gone between two looks counts from now.
        self.idle = since(self.idle, !sight.busy, sight.worked, now);
    }

    /// It was told to take no more streams.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.draining.get_or_insert(now);
    }

    /// Whether it takes no more streams.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.pinged.get_or_insert(now);
    }

    /// What is due by now, the worst first; else when to look again.
    pub(crate) fn look(&self, now: Instant) -> Look {
        let times = &self.times;
        let mut next = None;
        let mut is_due = |from: Option<Instant>, after: Option<Duration>| {
            let (Some(from), Some(after)) = (from, after) else {
                return false;
            };
            let Some(at) = from.checked_add(after) else {
                return false;
            };
            next = Some(next.map_or(at, |next| at.min(next)));
            at <= now
        };
        // Most of them aren't under way, most of the time.
        let failures = [
            (self.mute, times.hello, "the peer says nothing"),
            (self.blocked, times.write, "the peer takes no bytes"),
            (self.head, times.head, "the fields of a head don't end"),
            (
                self.pinged,
                Some(times.keep_alive_timeout),
                "a ping was not answered",
            ),
            (
                self.draining,
                times.grace,
                "streams are open after the grace",
            ),
        ];
        for (from, after, what) in failures {
            if is_due(from, after) {
                return Look::Due(Due::Fail(what));
            }
        }
        let drains = self.draining.is_none();
        if drains && (is_due(self.old, Some(Duration::ZERO)) || is_due(self.idle, times.idle)) {
            return Look::Due(Due::Drain);
        }
        let may_ping = self.pinged.is_none() && (self.busy || times.keep_alive_while_idle);
        if may_ping && is_due(Some(self.last_read), times.keep_alive) {
            return Look::Due(Due::Ping);
        }
        Look::Next(next)
    }
}

/// Since when a state lasts, which starts anew where there was progress.
fn since(since: Option<Instant>, is: bool, progress: bool, now: Instant) -> Option<Instant> {
    match since {
        _ if !is => None,
        Some(since) if !progress => Some(since),
        _ => Some(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const STILL: Sight = Sight {
        read: 0,
        written: 0,
        blocked: false,
        head_open: false,
        busy: false,
        worked: false,
    };

    impl Clockwork {
        /// What is due, where anything is.
        fn due(&self, now: Instant) -> Option<Due> {
            match self.look(now) {
                Look::Due(due) => Some(due),
                Look::Next(_) => None,
            }
        }

        /// When to look again, where nothing is due yet.
        fn next(&self) -> Option<Instant> {
            match self.look(self.last_read) {
                Look::Next(next) => next,
                Look::Due(due) => panic!("{due:?}"),
            }
        }
    }

    fn clockwork(times: Times) -> (Clockwork, Instant) {
        let now = Instant::now();
        (Clockwork::new(times, now), now)
    }

    #[test]
    fn without_times_nothing_is_ever_due() {
        let (clockwork, now) = clockwork(Times::default());
        assert_eq!(clockwork.next(), None);
        assert_eq!(clockwork.due(now + SECOND * 1_000_000), None);
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_given_up() {
        let (mut clockwork, start) = clockwork(Times {
            keep_alive: Some(SECOND * 10),
            keep_alive_timeout: SECOND * 5,
            keep_alive_while_idle: true,
            ..Times::default()
        });
        assert_eq!(clockwork.next(), Some(start + SECOND * 10));
        let now = start + SECOND * 10;
        assert_eq!(clockwork.due(now), Some(Due::Ping));
        clockwork.pinged(now);
        assert_eq!(clockwork.due(now), None);
        assert_eq!(clockwork.next(), Some(now + SECOND * 5));
        assert!(matches!(
            clockwork.due(now + SECOND * 5),
            Some(Due::Fail(_))
        ));
        // Any byte is a sign of life.
        clockwork.see(Sight { read: 1, ..STILL }, now + SECOND);
        assert_eq!(clockwork.next(), Some(now + SECOND * 11));
    }

    #[test]
    fn a_peer_that_says_nothing_at_all_is_given_up_and_one_that_did_is_not() {
        let (mut clockwork, start) = clockwork(Times {
            hello: Some(SECOND * 20),
            ..Times::default()
        });
        assert_eq!(clockwork.next(), Some(start + SECOND * 20));
        assert!(matches!(
            clockwork.due(start + SECOND * 20),
            Some(Due::Fail(_))
        ));
        clockwork.see(Sight { read: 1, ..STILL }, start + SECOND);
        assert_eq!(clockwork.next(), None);
    }

    #[test]
    fn an_idle_connection_is_pinged_only_where_asked_for() {
        let (mut clockwork, now) = clockwork(Times {
            keep_alive: Some(SECOND),
            ..Times::default()
        });
        assert_eq!(clockwork.next(), None);
        clockwork.see(
            Sight {
                busy: true,
                ..STILL
            },
            now,
        );
        assert_eq!(clockwork.due(now + SECOND), Some(Due::Ping));
    }

    #[test]
    fn a_reader_that_takes_a_byte_in_time_is_slow_and_one_that_takes_none_is_stalled() {
        let (mut clockwork, start) = clockwork(Times {
            write: Some(SECOND * 30),
            ..Times::default()
        });
        let mut now = start;
        for written in 1..10 {
            now += SECOND * 29;
            clockwork.see(
                Sight {
                    written,
                    blocked: true,
                    ..STILL
                },
                now,
            );
            assert_eq!(clockwork.due(now), None);
        }
        clockwork.see(
            Sight {
                written: 9,
                blocked: true,
                ..STILL
            },
            now + SECOND * 29,
        );
        assert!(matches!(
            clockwork.due(now + SECOND * 30),
            Some(Due::Fail(_))
        ));
    }

    #[test]
    fn idleness_counts_from_the_last_stream() {
        let (mut clockwork, start) = clockwork(Times {
            idle: Some(SECOND * 10),
            ..Times::default()
        });
        clockwork.see(
            Sight {
                busy: true,
                read: 1,
                ..STILL
            },
            start + SECOND,
        );
        assert_eq!(clockwork.next(), None);
        clockwork.see(Sight { read: 1, ..STILL }, start + SECOND * 5);
        assert_eq!(clockwork.due(start + SECOND * 14), None);
        assert_eq!(clockwork.due(start + SECOND * 15), Some(Due::Drain));
        clockwork.drain(start + SECOND * 15);
        assert_eq!(clockwork.next(), None, "it drains once");
    }

    #[test]
    fn the_old_drain_and_end_after_their_grace() {
        let (mut clockwork, start) = clockwork(Times {
            age: Some(SECOND * 60),
            grace: Some(SECOND * 10),
            ..Times::default()
        });
        let now = start + SECOND * 60;
        assert_eq!(clockwork.due(now), Some(Due::Drain));
        clockwork.drain(now);
        assert_eq!(clockwork.due(now + SECOND * 9), None);
        assert!(matches!(
            clockwork.due(now + SECOND * 10),
            Some(Due::Fail(_))
        ));
    }

    #[test]
    fn a_head_that_does_not_end_is_not_waited_for() {
        let (mut clockwork, start) = clockwork(Times {
            head: Some(SECOND * 10),
            ..Times::default()
        });
        for second in 0..10 {
            let sight = Sight {
                read: second,
                head_open: true,
                ..STILL
            };
            clockwork.see(sight, start + SECOND * second as u32);
            assert_eq!(clockwork.due(start + SECOND * second as u32), None);
        }
        assert!(matches!(
            clockwork.due(start + SECOND * 10),
            Some(Due::Fail(_))
        ));
    }
}
