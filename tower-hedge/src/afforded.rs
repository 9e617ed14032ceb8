//! From what a budget grants to the share of requests that is to be sent again.
//!
//! A budget that is short of what it is asked for denies at random: the second tries that it grants go to requests that
//! are a little slow, and few are left for those that hang. So no more are asked for than it can grant, and those are
//! for the slowest.

/// What became of the second tries of a period, and what is made of it for the next.
#[derive(Debug)]
pub(crate) struct Afforded {
    /// The share of requests that was asked to be sent again, at most.
    wanted: f64,
    /// The share that is.
    share: f64,
    period: Counts,
    /// By how much it grows if the next period has no denial.
    growth: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    granted: u64,
    denied: u64,
}

/// How much of what was granted is asked for after a denial. In the mean a few percent of a budget are left unspent.
const CAUTION: f64 = 0.9;

/// The growth in the first period without a denial. It doubles in each that follows, up to the last: slowly past what was
/// denied, and then quickly, if that was long ago.
const FIRST_GROWTH: f64 = 0.02;
const LAST_GROWTH: f64 = 1.0;

/// The least part of what is wanted that is asked for: from nothing, nothing would grow.
const LEAST_PART: f64 = 1.0 / 16.0;

impl Afforded {
    pub(crate) fn new(wanted: f64) -> Self {
        Self {
            wanted,
            share: wanted,
            period: Counts::default(),
            growth: FIRST_GROWTH,
        }
    }

    /// The share to send again in this period.
    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    pub(crate) fn is_short(&self) -> bool {
        self.share < self.wanted
    }

    pub(crate) fn requested(&mut self) {
        self.period.requests += 1;
    }

    /// A second try was due for the first time, and the budget has decided.
    pub(crate) fn decided(&mut self, granted: bool) {
        if granted {
            self.period.granted += 1;
        } else {
            self.period.denied += 1;
        }
    }

    pub(crate) fn next_period(&mut self) {
        let Counts {
            requests,
            granted,
            denied,
        } = std::mem::take(&mut self.period);
        let next = if denied == 0 {
            let grown = self.share * (1.0 + self.growth);
            self.growth = LAST_GROWTH.min(2.0 * self.growth);
            grown
        } else {
            self.growth = FIRST_GROWTH;
            // The part that was granted of what was asked for. That may have been fewer than the share, as timers are coarse;
            // or more, where a service has just become slow, and then it is the part of the requests that tells.
            let granted = granted as f64;
            let of_asked = self.share * granted / (granted + denied as f64);
            CAUTION * of_asked.max(granted / requests.max(1) as f64)
        };
        self.share = next.clamp(self.wanted * LEAST_PART, self.wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn period(afforded: &mut Afforded, requests: u64, granted: u64, denied: u64) -> f64 {
        afforded.period = Counts {
            requests,
            granted,
            denied,
        };
        afforded.next_period();
        afforded.share()
    }

    #[test]
    fn what_is_granted_in_full_is_what_is_wanted() {
        let mut afforded = Afforded::new(0.2);
        for _ in 0..10 {
            assert_eq!(period(&mut afforded, 1000, 200, 0), 0.2);
            assert!(!afforded.is_short());
        }
    }

    #[test]
    fn after_a_denial_a_little_less_is_asked_for_than_was_granted_and_grows_again() {
        let mut afforded = Afforded::new(0.2);
        let next = period(&mut afforded, 1000, 30, 170);
        assert!((next - 0.027).abs() < 1e-9, "{next}");
        assert!(afforded.is_short());
        for growth in [1.02, 1.04, 1.08, 1.16, 1.32, 1.64, 2.0] {
            let before = afforded.share();
            let next = period(&mut afforded, 1000, 20, 0);
            assert!(
                (next - before * growth).abs() < 1e-9,
                "{next} after {before}"
            );
        }
        period(&mut afforded, 1000, 20, 0);
        assert_eq!(afforded.share(), 0.2);
    }

    #[test]
    fn timers_that_ask_for_less_than_the_share_do_not_have_it_shrink_to_what_they_ask() {
        let mut afforded = Afforded::new(0.5);
        let next = period(&mut afforded, 1000, 100, 100);
        assert!((next - 0.225).abs() < 1e-9, "{next}");
    }

    #[test]
    fn a_service_that_has_become_slow_for_a_moment_is_not_hedged_less_for_that() {
        let mut afforded = Afforded::new(0.02);
        assert_eq!(period(&mut afforded, 1000, 30, 900), 0.02);
    }

    #[test]
    fn nothing_granted_at_all_is_no_reason_never_to_ask_again() {
        let mut afforded = Afforded::new(0.2);
        assert_eq!(period(&mut afforded, 1000, 0, 200), 0.2 * LEAST_PART);
        assert_eq!(period(&mut afforded, 0, 0, 1), 0.2 * LEAST_PART);
    }

    proptest! {
        /// The oracle is the budget, whose ratio the other side doesn't know: tokens, a few seconds' worth at most.
        #[test]
        fn a_budget_is_spent_but_for_a_tenth_and_denies_one_of_six_at_most(
            permille in 5..200_u32,
            wanted_percent in 1..100_u32,
            requests in 500..5_000_u64,
            saved in 0.0..1.0_f64,
        ) {
            let ratio = f64::from(permille) / 1000.0;
            let wanted = f64::from(wanted_percent) / 100.0;
            let mut afforded = Afforded::new(wanted);
            let most = 5.0 * ratio * requests as f64 + 1.0;
            let mut tokens = saved * most;
            let (mut granted, mut denied, mut asked) = (0, 0, 0.0);
            for period in 0..120 {
                if period == 60 {
                    (granted, denied) = (0, 0);
                }
                for _ in 0..requests {
                    afforded.requested();
                    tokens = f64::min(tokens + ratio, most);
                    asked += afforded.share();
                    if asked >= 1.0 {
                        asked -= 1.0;
                        let grant = tokens >= 1.0;
                        tokens -= f64::from(u8::from(grant));
                        afforded.decided(grant);
                        granted += u64::from(grant);
                        denied += u64::from(!grant);
                    }
                }
                afforded.next_period();
            }
            let spent = granted as f64 / (60 * requests) as f64;
            let due = ratio.min(wanted);
            // Below a sixteenth of what is wanted, the budget denies after all.
            if ratio >= wanted * LEAST_PART * 1.1 {
                prop_assert!(spent >= 0.85 * due, "{spent} of {due}");
                prop_assert!(denied as f64 <= 0.2 * granted as f64, "{denied} of {granted}");
            }
            prop_assert!(spent <= 1.05 * due + 0.002, "{spent} of {due}");
        }
    }
}
