//! When to try again: delays that grow, with chance in them.
//!
//! Clients that failed together would come back together. Jitter spreads them: see Marc Brooker,
//! "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), whose modes are those of [`Jitter`].
//!
//! A [`MakeBackoff`] is the recipe and is held by a client; a [`Backoff`] is one *session*, the tries of one
//! request or of one outage, and counts them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_rng::{HasherRng, Rng, SplitMix64};

/// Starts sessions of backing off.
pub trait MakeBackoff {
    /// One session.
    type Backoff: Backoff;

    /// Starts a session. Its first delay is the shortest.
    fn make_backoff(&mut self) -> Self::Backoff;
}

/// The delays between the tries of one request, or of one outage.
pub trait Backoff {
    /// Ends when it is time to try again.
    type Future: Future<Output = ()>;

    /// Starts the next delay.
    fn next_backoff(&mut self) -> Self::Future;

    /// Starts the next delay, or says that it can't be made here, which is what middleware calls.
    ///
    /// A backoff whose delays need a runtime's timer says `None` outside of it.
    fn try_next_backoff(&mut self) -> Option<Self::Future> {
        Some(self.next_backoff())
    }

    /// Starts the next delay if it ends before `by`, which is when nobody waits any more.
    ///
    /// A backoff that doesn't know how long its delays are starts it in any case.
    fn try_next_backoff_before(&mut self, by: Instant) -> Option<Self::Future> {
        let _ = by;
        self.try_next_backoff()
    }
}

/// Starts [`ExponentialBackoff`]s.
///
/// **Chance.** Each session has a sequence of its own, across the clones of the maker too, since a retry
/// clones its policy for each request: the sessions of a maker and of its clones are numbered, and each
/// mixes its number into what it draws. The first session draws what `R` gives, unmixed. A seeded `R`
/// replays all of it, provided that the sessions start in the same order.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};
/// use tower_rng::SplitMix64;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
/// let mut maker = ExponentialBackoffMaker::new(min, max, 0.5, SplitMix64::new(1)).unwrap();
/// let mut backoff = maker.make_backoff();
///
/// let start = tokio::time::Instant::now();
/// backoff.next_backoff().await; // 100 to 150 ms
/// backoff.next_backoff().await; // 200 to 300 ms
/// assert!(start.elapsed() >= Duration::from_millis(300));
/// assert!(start.elapsed() <= Duration::from_millis(452));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ExponentialBackoffMaker<R = HasherRng> {
    min: Duration,
    max: Duration,
    spread: Spread,
    rng: R,
    sessions: Arc<AtomicU64>,
}

/// Delays that double from one to the next, up to a maximum, with jitter.
///
/// The base of the `n`th delay, counted from zero, is `min × 2ⁿ`, at most `max`. What jitter makes of it is
/// the maker's choice. Nothing overflows, whatever the number of tries and the durations. Delays are
/// computed to the nanosecond, as [`Sleep::deadline`] shows; tokio's timer rounds them up to a millisecond.
///
/// **Chance.** A clone goes on from the same delay, with a sequence of its own.
///
/// **Panics.** [`next_backoff`](Backoff::next_backoff) makes a timer and so panics outside a tokio runtime,
/// where [`try_next_backoff`](Backoff::try_next_backoff) says `None`. Both panic in a runtime whose timers
/// are disabled.
#[derive(Debug)]
pub struct ExponentialBackoff<R = HasherRng> {
    min: Duration,
    max: Duration,
    spread: Spread,
    /// What the next delay goes by: it doubles from one to the next.
    base: Duration,
    /// The last delay, which decorrelated jitter goes by.
    last: Duration,
    rng: R,
    session: u64,
    sessions: Arc<AtomicU64>,
}

/// How chance changes a delay. `base` is `min × 2ⁿ`, at most `max`.
///
/// From "Exponential Backoff and Jitter". There, full and decorrelated jitter finished first, with the fewest
/// calls. None of them exceeds `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// Anything from zero to `base`.
    Full,
    /// Half of `base`, and up to as much again.
    Equal,
    /// From `min` to three times the last delay, which stands in for `base`.
    Decorrelated,
}

/// The arguments don't make a backoff.
#[derive(Debug)]
pub struct InvalidBackoff(&'static str);

#[derive(Clone, Copy, Debug)]
enum Spread {
    /// `base`, and up to so many times as much on top.
    Above(f64),
    Jitter(Jitter),
}

impl<R> ExponentialBackoffMaker<R>
where
    R: Rng,
{
    /// Makes a maker of delays from `min` to `max`.
    ///
    /// `jitter` is the share of each base delay that chance may add: with 0.5 a delay of one second becomes
    /// one to one and a half. It is between 0, which is no jitter, and 100. No delay exceeds `max`.
    ///
    /// # Errors
    ///
    /// [`InvalidBackoff`] if `max` is zero or below `min`, or `jitter` out of its range.
    pub fn new(min: Duration, max: Duration, jitter: f64, rng: R) -> Result<Self, InvalidBackoff> {
        if max < min {
            return Err(InvalidBackoff("maximum must not be less than minimum"));
        }
        if max.is_zero() {
            return Err(InvalidBackoff("maximum must be non-zero"));
        }
        if jitter < 0.0 {
            return Err(InvalidBackoff("jitter must not be negative"));
        }
        if jitter > 100.0 {
            return Err(InvalidBackoff("jitter must not be greater than 100"));
        }
        if jitter.is_nan() {
            return Err(InvalidBackoff("jitter must not be NaN"));
        }
        Ok(Self {
            min,
            max,
            spread: Spread::Above(jitter),
            rng,
            sessions: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Spreads the delays by `jitter`, instead of by the share given to [`new`](Self::new).
    #[must_use]
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.spread = Spread::Jitter(jitter);
        self
    }
}

impl Default for ExponentialBackoffMaker {
    /// Delays from 50 ms up, without a maximum, and up to 99 % on top.
    fn default() -> Self {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(u64::MAX));
        Self::new(min, max, 0.99, HasherRng::default()).expect("these are valid")
    }
}

impl<R> MakeBackoff for ExponentialBackoffMaker<R>
where
    R: Rng + Clone,
{
    type Backoff = ExponentialBackoff<R>;

    fn make_backoff(&mut self) -> Self::Backoff {
        ExponentialBackoff {
            min: self.min,
            max: self.max,
            spread: self.spread,
            base: self.min,
            last: self.min,
            rng: self.rng.clone(),
            session: next_session(&self.sessions),
            sessions: Arc::clone(&self.sessions),
        }
    }
}

/// The number of a new session. Only its being unique matters, so no ordering is needed.
fn next_session(sessions: &AtomicU64) -> u64 {
    sessions.fetch_add(1, Ordering::Relaxed)
}

impl<R> ExponentialBackoff<R>
where
    R: Rng,
{
    /// The length of the next delay.
    fn next_delay(&mut self) -> Duration {
        let (min, max) = (self.min, self.max);
        let base = self.base;
        self.base = base.saturating_mul(2).min(max);
        self.last = match self.spread {
            Spread::Above(jitter) if jitter > 0.0 => {
                let extra = base.as_secs_f64() * jitter * self.draw();
                // Too much for a `Duration` is more than the maximum, too.
                Duration::try_from_secs_f64(extra)
                    .map_or(max, |extra| base.saturating_add(extra).min(max))
            }
            Spread::Above(_) => base,
            Spread::Jitter(Jitter::Full) => self.between(Duration::ZERO, base),
            Spread::Jitter(Jitter::Equal) => self.between(base / 2, base),
            Spread::Jitter(Jitter::Decorrelated) => {
                self.between(min, self.last.saturating_mul(3).min(max))
            }
        };
        self.last
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let range = (high - low).as_secs_f64() * self.draw();
        Duration::try_from_secs_f64(range).map_or(high, |range| low.saturating_add(range).min(high))
    }

    /// Draws from the unit interval. Mixing a number that is uniform stays uniform.
    fn draw(&mut self) -> f64 {
        if self.session == 0 {
            return self.rng.next_f64();
        }
        let salt = SplitMix64::new(self.session).next_u64();
        SplitMix64::new(self.rng.next_u64() ^ salt).next_f64()
    }
}

impl<R> Backoff for ExponentialBackoff<R>
where
    R: Rng,
{
    type Future = Sleep;

    fn next_backoff(&mut self) -> Sleep {
        tokio::time::sleep(self.next_delay())
    }

    fn try_next_backoff(&mut self) -> Option<Sleep> {
        Handle::try_current().ok().map(|_| self.next_backoff())
    }

    fn try_next_backoff_before(&mut self, by: Instant) -> Option<Sleep> {
        Handle::try_current().ok()?;
        let at = Instant::now().checked_add(self.next_delay())?;
        (at < by).then(|| sleep_until(at))
    }
}

impl<R> Clone for ExponentialBackoff<R>
where
    R: Clone,
{
    fn clone(&self) -> Self {
        Self {
            min: self.min,
            max: self.max,
            spread: self.spread,
            base: self.base,
            last: self.last,
            rng: self.rng.clone(),
            // A policy may hold a session ready-made and be cloned for each request.
            session: next_session(&self.sessions),
            sessions: Arc::clone(&self.sessions),
        }
    }
}

impl fmt::Display for InvalidBackoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid backoff: {}", self.0)
    }
}

impl std::error::Error for InvalidBackoff {}

#[cfg(test)]
mod tests {
    use super::*;
    // Not the whole prelude: it has an `Rng`, too.
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assume, prop_oneof, proptest};

    const MS: Duration = Duration::from_millis(1);

    fn maker(
        min: Duration,
        max: Duration,
        jitter: f64,
        seed: u64,
    ) -> ExponentialBackoffMaker<SplitMix64> {
        ExponentialBackoffMaker::new(min, max, jitter, SplitMix64::new(seed)).unwrap()
    }

    fn delays<R: Rng>(mut backoff: ExponentialBackoff<R>, n: usize) -> Vec<Duration> {
        (0..n).map(|_| backoff.next_delay()).collect()
    }

    /// Draws one number for ever.
    #[derive(Clone)]
    struct Always(f64);

    impl Rng for Always {
        fn next_u64(&mut self) -> u64 {
            (self.0 * 2_f64.powi(64)) as u64
        }
    }

    #[test]
    fn without_jitter_delays_double_up_to_the_maximum() {
        let mut maker = maker(10 * MS, 65 * MS, 0.0, 1);
        let expected = [10, 20, 40, 65, 65].map(|ms| ms * MS);
        assert_eq!(delays(maker.make_backoff(), 5), expected);

        let max = Duration::from_secs(3600);
        let mut tiny = self::maker(Duration::from_nanos(1), max, 0.0, 1);
        assert_eq!(delays(tiny.make_backoff(), 100)[99], max);
    }

    #[test]
    fn jitter_is_exact_below_a_second_and_above() {
        for (base, jitter, draw, expected_micros) in [
            (Duration::from_secs(1), 0.5, 0.25, 1_125_000),
            (Duration::from_secs(1), 0.5, 0.001, 1_000_500),
            (Duration::from_millis(1_500), 1.0, 0.5, 2_250_000),
            (Duration::from_micros(1), 1.0, 0.999_999, 2),
            (Duration::from_secs(86_400), 0.1, 0.123_457, 87_466_668_480),
            (Duration::from_secs(1), 100.0, 0.5, 51_000_000),
        ] {
            let max = Duration::from_secs(1_000_000);
            let mut maker = ExponentialBackoffMaker::new(base, max, jitter, Always(draw)).unwrap();
            let delay = maker.make_backoff().next_delay();
            let off = delay.abs_diff(Duration::from_micros(expected_micros));
            assert!(off < Duration::from_micros(1), "{delay:?}");
        }
    }

    #[test]
    fn the_modes_draw_from_their_ranges() {
        let (min, max) = (100 * MS, 350 * MS);
        let with = |jitter, draw| {
            let maker = ExponentialBackoffMaker::new(min, max, 0.0, Always(draw)).unwrap();
            delays(maker.with_jitter(jitter).make_backoff(), 3)
        };
        assert_eq!(with(Jitter::Full, 0.0), [Duration::ZERO; 3]);
        assert_eq!(
            with(Jitter::Full, 0.5),
            [50 * MS, 100 * MS, Duration::from_millis(175)]
        );
        assert_eq!(
            with(Jitter::Equal, 0.0),
            [50 * MS, 100 * MS, Duration::from_millis(175)]
        );
        assert_eq!(with(Jitter::Equal, 0.5)[..2], [75 * MS, 150 * MS]);
        assert_eq!(with(Jitter::Decorrelated, 0.0), [min; 3]);
        // Three times the last: from 100 to 300, and from then on to the maximum.
        assert_eq!(
            with(Jitter::Decorrelated, 0.5),
            [
                200 * MS,
                Duration::from_millis(225),
                Duration::from_millis(225)
            ]
        );
    }

    #[test]
    fn each_session_has_its_own_sequence_also_across_clones_of_the_maker() {
        let pristine = maker(10 * MS, Duration::from_secs(60), 0.5, 7);
        let mut sequences: Vec<_> = (0..500)
            .map(|_| delays(pristine.clone().make_backoff(), 3))
            .collect();
        let mut same = pristine.clone();
        sequences.extend((0..500).map(|_| delays(same.make_backoff(), 3)));
        let ready_made = same.make_backoff();
        sequences.extend((0..500).map(|_| delays(ready_made.clone(), 3)));
        sequences.sort();
        sequences.dedup();
        assert_eq!(sequences.len(), 1_500);
    }

    #[test]
    fn a_seed_replays_all_sessions() {
        let run = |seed| {
            let mut maker = maker(10 * MS, Duration::from_secs(60), 0.5, seed);
            [(); 20].map(|()| delays(maker.make_backoff(), 4))
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn sessions_together_are_uniform() {
        let mut maker = maker(1_000 * MS, Duration::from_secs(60), 1.0, 11);
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let extra = maker.make_backoff().next_delay() - 1_000 * MS;
            tenths[(extra.as_millis() / 100) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|&n| (880..1120).contains(&n)),
            "{tenths:?}"
        );
    }

    #[test]
    fn arguments_out_of_range_say_what_is_wrong() {
        let error = |min, max, jitter| {
            ExponentialBackoffMaker::new(min, max, jitter, HasherRng::new())
                .unwrap_err()
                .to_string()
        };
        let is = |what| format!("invalid backoff: {what}");
        assert_eq!(
            error(2 * MS, MS, 0.0),
            is("maximum must not be less than minimum")
        );
        assert_eq!(
            error(Duration::ZERO, Duration::ZERO, 0.0),
            is("maximum must be non-zero")
        );
        assert_eq!(error(MS, MS, -0.1), is("jitter must not be negative"));
        assert_eq!(
            error(MS, MS, 100.1),
            is("jitter must not be greater than 100")
        );
        assert_eq!(error(MS, MS, f64::NAN), is("jitter must not be NaN"));
    }

    fn durations() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..10_000_u64).prop_map(Duration::from_millis),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
        ]
    }

    proptest! {
        #[test]
        fn no_delay_overflows_or_leaves_its_range(
            a in durations(),
            b in durations(),
            jitter in prop_oneof![Just(0.0), Just(100.0), 0.0..100.0],
            mode in prop_oneof![
                Just(None), Just(Some(Jitter::Full)), Just(Some(Jitter::Equal)), Just(Some(Jitter::Decorrelated)),
            ],
            seed: u64,
        ) {
            let (min, max) = (a.min(b), a.max(b));
            prop_assume!(!max.is_zero());
            let mut maker = maker(min, max, jitter, seed);
            if let Some(mode) = mode {
                maker = maker.with_jitter(mode);
            }
            let low = match mode {
                None | Some(Jitter::Decorrelated) => min,
                Some(Jitter::Full) => Duration::ZERO,
                Some(Jitter::Equal) => min / 2,
            };
            let mut backoff = maker.make_backoff();
            for delay in (0..300).map(|_| backoff.next_delay()) {
                prop_assert!((low..=max).contains(&delay), "{:?}", delay);
            }
        }
    }
}
