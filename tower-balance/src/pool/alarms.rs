//! What is to be done later, in the order of its time, by one timer.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Names an alarm that is set, to take it back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AlarmId(Instant, u64);

#[derive(Debug)]
pub(super) struct Alarms<T> {
    set: BTreeMap<AlarmId, T>,
    /// How many were set: two at one time are told apart, and ring in turn.
    count: u64,
    /// Made when it is first needed, in the runtime that polls it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Alarms<T> {
    pub(super) fn new() -> Self {
        Self {
            set: BTreeMap::new(),
            count: 0,
            timer: None,
        }
    }

    /// Sets one. None where the clock doesn't reach so far: it never rings.
    ///
    /// It rings in a millisecond at least, so that an interval of zero keeps no task busy.
    pub(super) fn set(&mut self, now: Instant, after: Duration, what: T) -> Option<AlarmId> {
        let at = now.checked_add(after.max(Duration::from_millis(1)))?;
        self.count += 1;
        let id = AlarmId(at, self.count);
        self.set.insert(id, what);
        Some(id)
    }

    /// Takes one back. One that has rung is no matter.
    pub(super) fn clear(&mut self, id: AlarmId) {
        self.set.remove(&id);
    }

    /// The next that is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Waits for the next one, and says when it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some((&AlarmId(at, _), _)) = self.set.first_key_value() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        #[test]
        fn each_rings_once_in_the_order_of_time_unless_taken_back(
            delays in prop::collection::vec((1..50_u32, any::<bool>()), 1..40),
            steps in prop::collection::vec(0..20_u32, 1..10),
        ) {
            let start = Instant::now();
            let mut alarms = Alarms::new();
            let mut expected = Vec::new();
            for (n, (delay, is_taken_back)) in delays.into_iter().enumerate() {
                let id = alarms.set(start, delay * MS, n).unwrap();
                match is_taken_back {
                    true => alarms.clear(id),
                    false => expected.push((delay, n)),
                }
            }
            expected.sort_unstable();
            let mut now = 0;
            let mut rung = Vec::new();
            for step in steps {
                now += step;
                while let Some(n) = alarms.take_due(start + now * MS) {
                    rung.push(n);
                }
                let due: Vec<usize> =
                    expected.iter().filter(|(at, _)| *at <= now).map(|(_, n)| *n).collect();
                prop_assert_eq!(&rung, &due);
            }
        }
    }

    #[test]
    fn one_beyond_the_clock_never_rings() {
        let mut alarms = Alarms::new();
        assert_eq!(alarms.set(Instant::now(), Duration::MAX, ()), None);
        assert_eq!(alarms.take_due(Instant::now()), None);
    }
}
