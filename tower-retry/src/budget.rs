//! How many retries are allowed: a share of the requests that succeed, and a small reserve.
//!
//! A limit on the tries of one request doesn't protect a service that is down: with three tries each, its
//! load triples when it can bear it least. A [`Budget`] is shared by all requests of a client and bounds
//! the retries by the *successes*, so that an outage adds a few percent of load and no more.
//!
//! [`TpsBudget`] is the one that comes with this crate. Its windows are plain integers driven by the time
//! that they are told; only `TpsBudget` itself reads tokio's clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// Says whether a request may be tried again.
///
/// Shared by all the requests that should be judged together: hold it in an [`Arc`], which is a budget, too.
pub trait Budget {
    /// Notes a request that succeeded, which earns a part of a retry.
    fn deposit(&self);

    /// Asks for one retry, and says whether it is granted. A granted one is spent.
    fn withdraw(&self) -> bool;
}

impl<B> Budget for Arc<B>
where
    B: Budget + ?Sized,
{
    fn deposit(&self) {
        (**self).deposit();
    }

    fn withdraw(&self) -> bool {
        (**self).withdraw()
    }
}

impl<B> Budget for &B
where
    B: Budget + ?Sized,
{
    fn deposit(&self) {
        (**self).deposit();
    }

    fn withdraw(&self) -> bool {
        (**self).withdraw()
    }
}

/// A [`Budget`] that grants a share of the deposits of the last seconds, and a number of retries a second.
///
/// The balance is the reserve, plus the deposits of the last `ttl`, less the withdrawals of the last
/// `ttl`; a retry costs one and each deposit is worth `retry_percent`. Both age in steps of a tenth of
/// `ttl`, so that each counts for between nine tenths of `ttl` and all of it.
///
/// The reserve, `min_per_sec` retries for each second of `ttl`, is what a client that has just started or
/// is mostly idle can use. **The default reserves 100 retries in any ten seconds, even with no traffic at
/// all.** Set `min_per_sec` to zero to allow only what successes have earned.
///
/// The arithmetic is in fixed point, a millionth of a retry: 100 deposits at 0.6 grant 60 retries, at 0.3
/// they grant 30. However many threads withdraw, no retry is granted twice. Both methods take constant
/// time, whatever has or hasn't happened before: one clock read and one atomic update, and once a window a
/// short lock.
///
/// The design, deposits that expire and a reserve, is that of Finagle's `RetryBudget`.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_retry::budget::{Budget, TpsBudget};
///
/// // A retry for every five successes of the last ten seconds, and none in reserve.
/// let budget = TpsBudget::new(Duration::from_secs(10), 0, 0.2);
/// assert!(!budget.withdraw());
///
/// for _ in 0..5 {
///     budget.deposit();
/// }
/// assert!(budget.withdraw());
/// assert!(!budget.withdraw());
/// ```
pub struct TpsBudget {
    start: Instant,
    ledger: Ledger,
}

impl TpsBudget {
    /// Makes a budget.
    ///
    /// - `ttl`: for how long a deposit and a withdrawal count. Between 1 and 60 seconds.
    /// - `min_per_sec`: the retries allowed per second of `ttl` even if nothing was deposited. May be zero.
    /// - `retry_percent`: how many retries a deposit earns, as a ratio: 0.2 allows one for every five
    ///   deposits, 2.0 two for each. Between 0 and 1000, exact to a millionth.
    ///
    /// # Panics
    ///
    /// Panics if an argument is out of its range.
    pub fn new(ttl: Duration, min_per_sec: u32, retry_percent: f32) -> Self {
        assert!(
            ttl >= Duration::from_secs(1),
            "ttl must be at least a second"
        );
        assert!(
            ttl <= Duration::from_secs(60),
            "ttl must be at most 60 seconds"
        );
        assert!(retry_percent >= 0.0, "retry_percent must not be negative");
        assert!(
            retry_percent <= 1000.0,
            "retry_percent must be at most 1000"
        );
        assert!(
            min_per_sec < i32::MAX as u32,
            "min_per_sec must be less than i32::MAX"
        );
        // At most 1e9 and 1.3e17 units: a window would need billions of deposits to overflow.
        let deposit = (f64::from(retry_percent) * RETRY as f64).round() as i64;
        let per_milli = RETRY / 1000;
        let reserve = i64::from(min_per_sec) * ttl.as_millis() as i64 * per_milli;
        Self {
            start: Instant::now(),
            ledger: Ledger::new(nanos(ttl), reserve, deposit),
        }
    }

    fn now(&self) -> u64 {
        nanos(Instant::now().saturating_duration_since(self.start))
    }
}

impl Budget for TpsBudget {
    fn deposit(&self) {
        // Saves the clock read where only the reserve counts.
        if self.ledger.deposit != 0 {
            self.ledger.deposit(self.now());
        }
    }

    fn withdraw(&self) -> bool {
        self.ledger.withdraw(self.now())
    }
}

impl Default for TpsBudget {
    /// A retry for every five successes of the last ten seconds, and ten retries per second in reserve.
    fn default() -> Self {
        Self::new(Duration::from_secs(10), 10, 0.2)
    }
}

impl fmt::Debug for TpsBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retries = |units: i64| units as f64 / RETRY as f64;
        f.debug_struct("TpsBudget")
            .field("deposit", &retries(self.ledger.deposit))
            .field("reserve", &retries(self.ledger.reserve))
            .field(
                "balance",
                &retries(self.ledger.balance.load(Ordering::Relaxed)),
            )
            .finish()
    }
}

/// Up to `u64::MAX` nanoseconds, which are 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What one retry costs. Decimal, so that the ratios that people write are exact.
const RETRY: i64 = 1_000_000;

/// How many windows count: the current one and those before it.
const WINDOWS: u64 = 10;

/// The account: a balance that every thread updates with one atomic operation, and the windows that say
/// what of it expires when.
///
/// The current window's own movements are not counted separately. They are what the balance has changed
/// by since the window opened, which [`Ledger::roll`] learns from the very operation that takes the
/// expired part off the balance, so that nothing is lost or counted twice in between.
struct Ledger {
    /// The length of a window, in nanoseconds.
    window: u64,
    reserve: i64,
    /// What a deposit adds.
    deposit: i64,
    /// The reserve, and what has moved in the last [`WINDOWS`] windows.
    balance: AtomicI64,
    /// A copy of `past.end`, to tell without the lock whether the current window is over.
    end: AtomicU64,
    past: Mutex<Windows>,
}

struct Windows {
    /// The number of the current window, and when it ends.
    current: u64,
    end: u64,
    /// The balance with which the current window opened.
    opened: i64,
    /// By how much each past window that still counts moved the balance, at its number modulo [`WINDOWS`].
    moved: [i64; WINDOWS as usize],
}

impl Ledger {
    fn new(ttl: u64, reserve: i64, deposit: i64) -> Self {
        let window = ttl / WINDOWS;
        Self {
            window,
            reserve,
            deposit,
            balance: AtomicI64::new(reserve),
            end: AtomicU64::new(window),
            past: Mutex::new(Windows {
                current: 0,
                end: window,
                opened: reserve,
                moved: [0; WINDOWS as usize],
            }),
        }
    }

    fn deposit(&self, now: u64) {
        self.roll(now);
        self.balance.fetch_add(self.deposit, Ordering::Relaxed);
    }

    fn withdraw(&self, now: u64) -> bool {
        self.roll(now);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| {
                (balance >= RETRY).then(|| balance - RETRY)
            })
            .is_ok()
    }

    /// Opens the window that `now` is in and expires those that have become too old.
    ///
    /// Whoever comes for the first time after a window's end does it. Others wait for it, so that nobody
    /// spends what has expired. A thread whose `now` is a little older than the window that another has
    /// opened is counted in that one.
    #[inline]
    fn roll(&self, now: u64) {
        // Pairs with the store below: who sees the new end finds the balance without the expired part.
        if now >= self.end.load(Ordering::Acquire) {
            self.open(now);
        }
    }

    #[cold]
    fn open(&self, now: u64) {
        // No code of others runs under the lock, and no step of it panics.
        let mut past: MutexGuard<'_, Windows> =
            self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if now < past.end {
            return;
        }
        let steps = (now - past.end) / self.window + 1;
        if steps < WINDOWS {
            let current = past.current;
            let expired = past.expire(steps);
            let closed = self.balance.fetch_sub(expired, Ordering::Relaxed);
            past.moved[(current % WINDOWS) as usize] = closed - past.opened;
            past.opened = closed - expired;
        } else {
            // All that has moved is too old, in the current window, too.
            self.balance.store(self.reserve, Ordering::Relaxed);
            past.moved = [0; WINDOWS as usize];
            past.opened = self.reserve;
        }
        past.current += steps;
        past.end = past.end.saturating_add(steps.saturating_mul(self.window));
        self.end.store(past.end, Ordering::Release);
    }
}

impl Windows {
    /// Takes out what the `steps` oldest of the past windows moved; fewer than [`WINDOWS`].
    fn expire(&mut self, steps: u64) -> i64 {
        let mut expired = 0;
        for step in 1..=steps {
            let slot = (self.current + step) % WINDOWS;
            expired += std::mem::take(&mut self.moved[slot as usize]);
        }
        expired
    }
}

/// The primitives of the ledger, which loom replaces by its own.
mod sync {
    #[cfg(not(tower_loom))]
    pub(super) use std::sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    };

    #[cfg(tower_loom)]
    pub(super) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    };
    #[cfg(tower_loom)]
    pub(super) use std::sync::PoisonError;
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn granted(ledger: &Ledger, now: u64) -> u32 {
        let mut granted = 0;
        while ledger.withdraw(now) {
            granted += 1;
        }
        granted
    }

    #[test]
    fn a_deposit_counts_for_ten_windows_and_no_longer() {
        let ledger = Ledger::new(SECOND, 0, RETRY);
        ledger.deposit(50_000_000);
        assert!(ledger.withdraw(999_999_999));

        let ledger = Ledger::new(SECOND, 0, RETRY);
        ledger.deposit(50_000_000);
        assert!(!ledger.withdraw(SECOND));
    }

    #[test]
    fn a_withdrawal_expires_too() {
        let ledger = Ledger::new(SECOND, 3 * RETRY, 0);
        assert_eq!(granted(&ledger, 0), 3);
        assert_eq!(granted(&ledger, SECOND - 1), 0);
        assert_eq!(granted(&ledger, SECOND), 3);
    }

    #[test]
    fn a_thread_that_is_late_is_counted_in_the_current_window() {
        let ledger = Ledger::new(SECOND, 0, RETRY);
        ledger.roll(5 * SECOND);
        ledger.deposit(SECOND);
        assert!(!ledger.withdraw(6 * SECOND));
        ledger.deposit(SECOND);
        assert!(ledger.withdraw(0));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let ledger = Ledger::new(SECOND, RETRY, RETRY);
        for now in [u64::MAX - 1, u64::MAX, u64::MAX] {
            ledger.deposit(now);
            assert!(ledger.withdraw(now));
        }
    }

    /// Every movement ever made, and the rule as it is documented.
    struct Oracle {
        window: u64,
        reserve: i64,
        moves: Vec<(u64, i64)>,
    }

    impl Oracle {
        fn balance(&self, now: u64) -> i64 {
            let age = |at: u64| now / self.window - at / self.window;
            let counts = self.moves.iter().filter(|(at, _)| age(*at) < WINDOWS);
            self.reserve + counts.map(|(_, units)| units).sum::<i64>()
        }
    }

    proptest! {
        #[test]
        fn the_ledger_agrees_with_a_list_of_all_movements(
            reserve in 0..5_i64,
            deposit in prop_oneof![Just(0), Just(RETRY / 3), Just(RETRY), 0..3 * RETRY],
            steps in prop::collection::vec((0..4_u8, 0..2_500_u64), 1..300),
        ) {
            let ledger = Ledger::new(10_000, reserve * RETRY, deposit);
            let mut oracle = Oracle { window: 1_000, reserve: reserve * RETRY, moves: Vec::new() };
            let mut now = 0;
            for (kind, wait) in steps {
                match kind {
                    0 => {
                        ledger.deposit(now);
                        oracle.moves.push((now, deposit));
                    }
                    1 | 2 => {
                        let expected = oracle.balance(now) >= RETRY;
                        prop_assert_eq!(ledger.withdraw(now), expected, "at {}", now);
                        if expected {
                            oracle.moves.push((now, -RETRY));
                        }
                    }
                    // Mostly short, sometimes beyond all windows.
                    _ => now += if wait > 2_400 { wait * 10 } else { wait },
                }
                ledger.roll(now);
                prop_assert_eq!(ledger.balance.load(Ordering::Relaxed), oracle.balance(now), "at {}", now);
            }
        }

        #[test]
        fn any_ratio_is_exact_to_a_thousandth(permille in 0..3_000_u32) {
            let budget = TpsBudget::new(Duration::from_secs(60), 0, permille as f32 / 1000.0);
            for _ in 0..1000 {
                budget.ledger.deposit(0);
            }
            prop_assert_eq!(granted(&budget.ledger, 0), permille);
        }
    }
}

#[cfg(all(test, tower_loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn loom_one_retry_is_granted_once() {
        loom::model(|| {
            let ledger = Arc::new(Ledger::new(10, RETRY, 0));
            let other = Arc::clone(&ledger);
            let thread = thread::spawn(move || other.withdraw(0));
            let here = ledger.withdraw(0);
            assert!(thread.join().unwrap() ^ here);
        });
    }

    #[test]
    fn loom_nobody_spends_what_has_expired() {
        loom::model(|| {
            let ledger = Arc::new(Ledger::new(10, 0, RETRY));
            ledger.deposit(0);
            let other = Arc::clone(&ledger);
            let thread = thread::spawn(move || other.withdraw(10));
            assert!(!ledger.withdraw(11));
            assert!(!thread.join().unwrap());
        });
    }

    #[test]
    fn loom_a_window_that_closes_loses_no_movement() {
        loom::model(|| {
            let ledger = Arc::new(Ledger::new(10, 0, RETRY));
            let other = Arc::clone(&ledger);
            // One thread still deposits into the first window while another opens the second.
            let thread = thread::spawn(move || other.deposit(0));
            ledger.deposit(1);
            thread.join().unwrap();
            assert_eq!(ledger.balance.load(Ordering::Relaxed), 2 * RETRY);
            ledger.roll(11);
            ledger.roll(12);
            assert_eq!(ledger.balance.load(Ordering::Relaxed), 0);
        });
    }
}
