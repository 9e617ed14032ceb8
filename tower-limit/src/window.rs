//! When requests may start, as pure functions of the time.
//!
//! A [`Schedule`] counts the starts, and the reservations for starts to come. Whoever holds a reservation
//! may start at any time, so reservations count in every window until they are used or given back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::rate::{Rate, Window};

/// Counts starts and reservations against a rate.
///
/// The two kinds of window differ in when a start stops to count, and share the rest: as one flat struct, for
/// most calls are one comparison and one addition.
#[derive(Debug)]
pub(crate) struct Schedule {
    rate: Rate,
    /// Never more than the rate's number.
    reserved: u64,
    /// The starts that count at the moment, as far as is known without a look at the clock.
    ///
    /// More than the rate's number, if there were calls without readiness. They are repaid.
    used: u64,
    counted: Counted,
}

/// Until when starts count.
#[derive(Debug)]
enum Counted {
    /// To the end of the window, which has begun with the first of them. `None` before the first of all.
    Until(Option<Instant>),
    /// For one period each. These are their times, the oldest first.
    ForOnePeriod(VecDeque<Instant>),
}

/// Why there is no reservation to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There may be one at this time, or earlier if another is given back.
    Until(Instant),
    /// All are reserved: there may be one when another is used or given back.
    Reserved,
}

impl Schedule {
    pub(crate) const fn new(rate: Rate, window: Window) -> Self {
        let counted = match window {
            Window::Fixed => Counted::Until(None),
            Window::Sliding => Counted::ForOnePeriod(VecDeque::new()),
        };
        Self {
            rate,
            reserved: 0,
            used: 0,
            counted,
        }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Reserves a start if there is room whatever the time, so that the clock needn't be read.
    #[inline]
    pub(crate) fn try_reserve(&mut self) -> bool {
        let has_room = self.used < self.rate.num() - self.reserved;
        self.reserved += u64::from(has_room);
        has_room
    }

    /// Reserves a start, or says when there may be room for one.
    pub(crate) fn reserve(&mut self, now: Instant) -> Result<(), Full> {
        self.settle(now);
        if self.try_reserve() {
            return Ok(());
        }
        if self.reserved >= self.rate.num() {
            return Err(Full::Reserved);
        }
        // There was a start, or else there would be room.
        Err(match &self.counted {
            Counted::Until(until) => until.map_or(Full::Reserved, Full::Until),
            Counted::ForOnePeriod(log) => {
                // So many of the oldest have to stop to count, and one more.
                let excess = self.used - (self.rate.num() - self.reserved);
                Full::Until(after(log[excess as usize], self.rate.per()))
            }
        })
    }

    /// Gives a reservation back unused.
    pub(crate) fn release(&mut self) {
        self.reserved -= 1;
    }

    /// Counts a start, which uses a reservation up if it had one.
    #[inline]
    pub(crate) fn start(&mut self, now: Instant, was_reserved: bool) {
        self.reserved -= u64::from(was_reserved);
        match self.counted {
            Counted::Until(Some(until)) if now < until => self.used += 1,
            _ => self.start_anew(now),
        }
    }

    /// Counts a start that isn't simply one more in a window that goes on.
    #[inline(never)]
    fn start_anew(&mut self, now: Instant) {
        self.settle(now);
        self.used += 1;
        match &mut self.counted {
            Counted::Until(until) => {
                if until.is_none_or(|until| now >= until) {
                    *until = Some(after(now, self.rate.per()));
                }
            }
            // The clocks of two callers may have been read in another order than they come here.
            Counted::ForOnePeriod(log) => {
                let start = log.back().map_or(now, |&last| last.max(now));
                log.push_back(start);
            }
        }
    }

    /// Forgets the starts that don't count any more.
    fn settle(&mut self, now: Instant) {
        let (num, per) = (self.rate.num(), self.rate.per());
        match &mut self.counted {
            Counted::Until(until) => {
                let Some(end) = *until else { return };
                if now < end {
                    return;
                }
                // Each period that has gone by since repays as many as it would have let start.
                let debt = self.used.saturating_sub(num);
                self.used = 0;
                if debt > 0 {
                    let idle = now.duration_since(end).as_nanos() / per.as_nanos();
                    let repaid = idle.saturating_mul(u128::from(num));
                    self.used = u128::from(debt).saturating_sub(repaid) as u64;
                    if self.used > 0 {
                        // The present period repays the rest, whether it sees a start or not.
                        *until = Some(after_periods(end, per, idle + 1));
                    }
                }
            }
            Counted::ForOnePeriod(log) => {
                while log
                    .front()
                    .is_some_and(|&start| now.duration_since(start) >= per)
                {
                    log.pop_front();
                }
                self.used = log.len() as u64;
            }
        }
    }
}

/// The end of a period. One that is longer than the clock can count ends in thirty years.
fn after(start: Instant, per: Duration) -> Instant {
    const THIRTY_YEARS: Duration = Duration::from_secs(30 * 365 * 86_400);
    start
        .checked_add(per)
        .unwrap_or_else(|| start + THIRTY_YEARS)
}

fn after_periods(end: Instant, per: Duration, periods: u128) -> Instant {
    let nanos = per.as_nanos().saturating_mul(periods);
    after(
        end,
        nanos.try_into().map_or(Duration::MAX, Duration::from_nanos),
    )
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PER: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn schedule(num: u64, window: Window) -> (Schedule, Instant) {
        (Schedule::new(Rate::new(num, PER), window), Instant::now())
    }

    #[test]
    fn a_fixed_window_begins_with_its_first_start() {
        let (mut schedule, t) = schedule(2, Window::Fixed);
        assert!(schedule.try_reserve());
        schedule.start(t + ms(30), true);
        assert!(schedule.try_reserve());
        schedule.start(t + ms(129), true);
        assert!(!schedule.try_reserve());
        let end = t + ms(130);
        assert_eq!(schedule.reserve(t + ms(129)), Err(Full::Until(end)));
        assert_eq!(schedule.reserve(end), Ok(()));
        // Not at 130, when it was reserved: at 150, when it starts.
        schedule.start(t + ms(150), true);
        assert_eq!(schedule.reserve(t + ms(249)), Ok(()));
        schedule.start(t + ms(249), true);
        assert_eq!(schedule.reserve(t + ms(249)), Err(Full::Until(t + ms(250))));
    }

    #[test]
    fn a_fixed_window_counts_reservations_in_every_window() {
        let (mut schedule, t) = schedule(1, Window::Fixed);
        assert_eq!(schedule.reserve(t), Ok(()));
        assert_eq!(schedule.reserve(t), Err(Full::Reserved));
        assert_eq!(schedule.reserve(t + ms(1000)), Err(Full::Reserved));
        schedule.start(t + ms(1000), true);
        assert_eq!(
            schedule.reserve(t + ms(1000)),
            Err(Full::Until(t + ms(1100)))
        );
    }

    #[test]
    fn starts_without_a_reservation_are_repaid() {
        let (mut schedule, t) = schedule(2, Window::Fixed);
        for _ in 0..7 {
            schedule.start(t, false);
        }
        // 2 in the window itself, 2 and 2 are repaid by the next two, which leaves 1 for the one after.
        assert_eq!(schedule.reserve(t + ms(99)), Err(Full::Until(t + ms(100))));
        assert_eq!(schedule.reserve(t + ms(100)), Err(Full::Until(t + ms(200))));
        assert_eq!(schedule.reserve(t + ms(250)), Err(Full::Until(t + ms(300))));
        assert_eq!(schedule.reserve(t + ms(310)), Ok(()));
        schedule.start(t + ms(310), true);
        assert_eq!(schedule.reserve(t + ms(310)), Err(Full::Until(t + ms(400))));
        assert_eq!(schedule.reserve(t + ms(400)), Ok(()));
    }

    #[test]
    fn idle_periods_repay_as_well() {
        let (mut schedule, t) = schedule(2, Window::Fixed);
        for _ in 0..7 {
            schedule.start(t, false);
        }
        for reserved in [Ok(()), Ok(()), Err(Full::Reserved)] {
            assert_eq!(schedule.reserve(t + ms(1000)), reserved);
        }
    }

    #[test]
    fn a_period_beyond_the_clock_is_no_panic() {
        for window in [Window::Fixed, Window::Sliding] {
            let mut schedule = Schedule::new(Rate::new(1, Duration::MAX), window);
            let now = Instant::now();
            for _ in 0..3 {
                schedule.start(now, false);
            }
            assert!(matches!(schedule.reserve(now), Err(Full::Until(_))));
            let later = now + Duration::from_secs(1 << 32);
            assert!(schedule.reserve(later).is_err());
        }
    }

    #[test]
    fn the_greatest_number_is_no_overflow() {
        for window in [Window::Fixed, Window::Sliding] {
            let (mut schedule, t) = schedule(u64::MAX, window);
            assert!(schedule.try_reserve());
            schedule.start(t, true);
            assert_eq!(schedule.reserve(t), Ok(()));
        }
    }

    /// What happens after so many milliseconds.
    #[derive(Debug, Clone)]
    enum Step {
        Reserve,
        Release,
        Start,
        StartUnready,
    }

    fn steps(unready: bool) -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = (0..60_u64, 0..8_u8).prop_map(move |(time, kind)| {
            let step = match kind {
                0..=3 => Step::Reserve,
                4 => Step::Release,
                5 if unready => Step::StartUnready,
                _ => Step::Start,
            };
            (time, step)
        });
        proptest::collection::vec(step, 0..80)
    }

    /// Plays the steps, asking `oracle` whether there is room, given the time, all starts and the
    /// number of reservations. Gives all starts.
    fn play(
        schedule: &mut Schedule,
        steps: Vec<(u64, Step)>,
        t: Instant,
        mut has_room: impl FnMut(Instant, &[Instant], u64) -> bool,
    ) -> Result<Vec<Instant>, TestCaseError> {
        let (mut now, mut reserved, mut starts) = (t, 0, Vec::new());
        for (time, step) in steps {
            now += ms(time);
            match step {
                Step::Reserve => {
                    let expected = has_room(now, &starts, reserved);
                    match schedule.reserve(now) {
                        Ok(()) => prop_assert!(expected),
                        Err(Full::Until(then)) => {
                            // Not before, and then indeed, unless something happens meanwhile.
                            prop_assert!(!expected && then > now);
                            prop_assert!(!has_room(then - ms(1), &starts, reserved));
                            prop_assert!(has_room(then, &starts, reserved));
                        }
                        Err(Full::Reserved) => {
                            prop_assert!(!has_room(now + ms(100_000), &starts, reserved));
                        }
                    }
                    reserved += u64::from(expected);
                }
                Step::Release if reserved > 0 => {
                    schedule.release();
                    reserved -= 1;
                }
                Step::Start if reserved > 0 => {
                    schedule.start(now, true);
                    starts.push(now);
                    reserved -= 1;
                }
                Step::StartUnready => {
                    schedule.start(now, false);
                    starts.push(now);
                }
                Step::Release | Step::Start => {}
            }
        }
        Ok(starts)
    }

    proptest! {
        #[test]
        fn sliding_agrees_with_a_count_of_all_starts(num in 1..5_u64, steps in steps(true)) {
            let (mut schedule, t) = schedule(num, Window::Sliding);
            play(&mut schedule, steps, t, |now, starts, reserved| {
                let recent = starts.iter().filter(|&&start| now - start < PER).count() as u64;
                recent + reserved < num
            })?;
        }

        #[test]
        fn sliding_never_exceeds_the_limit_in_any_interval(num in 1..5_u64, steps in steps(false)) {
            let (mut schedule, t) = schedule(num, Window::Sliding);
            let starts = play(&mut schedule, steps, t, |now, starts, reserved| {
                let recent = starts.iter().filter(|&&start| now - start < PER).count() as u64;
                recent + reserved < num
            })?;
            for (first, last) in starts.iter().zip(starts.iter().skip(num as usize)) {
                prop_assert!(*last - *first >= PER);
            }
        }

        #[test]
        fn fixed_agrees_with_windows_laid_over_all_starts(num in 1..5_u64, steps in steps(false)) {
            let (mut schedule, t) = schedule(num, Window::Fixed);
            play(&mut schedule, steps, t, |now, starts, reserved| {
                // The first start of a window opens it, and those of the next period are in it.
                let mut window: Option<(Instant, u64)> = None;
                for &start in starts {
                    window = match window {
                        Some((opened, used)) if start - opened < PER => Some((opened, used + 1)),
                        _ => Some((start, 1)),
                    };
                    assert!(window.unwrap().1 <= num, "more than the limit in one window");
                }
                let used = match window {
                    Some((opened, used)) if now - opened < PER => used,
                    _ => 0,
                };
                used + reserved < num
            })?;
        }

        #[test]
        fn fixed_repays_each_excess_in_full(num in 1..5_u64, excess in 0..20_u64) {
            let (mut schedule, t) = schedule(num, Window::Fixed);
            for _ in 0..num + excess {
                schedule.start(t, false);
            }
            // From then on start whatever may start: in the long run the limit was kept.
            let mut total = num + excess;
            for period in 1..40 {
                let now = t + PER * period;
                while schedule.reserve(now).is_ok() {
                    schedule.start(now, true);
                    total += 1;
                }
                prop_assert_eq!(total, (num + excess).max(num * u64::from(period + 1)));
            }
        }
    }
}
