//! The power of two choices: of two endpoints drawn at random, the less loaded one.
//!
//! Pure: it is given random bits and loads. Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing" (1996), shows why two are enough: with n requests on n endpoints the fullest one gets
//! about `ln ln n / ln 2` of them, instead of `ln n / ln ln n` with one choice.

/// Draws two different indices below `len` from 64 random bits, every ordered pair equally likely.
///
/// Each index is drawn from 32 of the bits, which biases it by less than `len / 2^32`.
///
/// `len` must be at least 2.
#[inline]
pub(crate) fn two_of(len: usize, bits: u64) -> (usize, usize) {
    debug_assert!(len >= 2);
    let first = scale(bits >> 32, len);
    // The second is drawn from those that are left: the ones from `first` on have moved down by one.
    let second = scale(bits & 0xffff_ffff, len - 1);
    (first, if second < first { second } else { second + 1 })
}

/// Tells whether the first of two endpoints is to be taken: when its load is the smaller one, or equal.
#[inline]
pub(crate) fn is_less_loaded<M: PartialOrd>(first: &M, second: &M) -> bool {
    first <= second
}

/// Scales 32 random bits to `0..len`, as in Lemire, "Fast Random Integer Generation in an Interval" (2019).
///
/// Beyond 2^32 endpoints it would draw from some of them only.
#[inline]
fn scale(bits: u64, len: usize) -> usize {
    (bits.wrapping_mul(len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tower_rng::{Rng, SplitMix64};

    proptest! {
        #[test]
        fn two_different_indices_are_drawn(len in 2..100_000_usize, bits: u64) {
            let (first, second) = two_of(len, bits);
            prop_assert!(first < len && second < len && first != second);
        }
    }

    #[test]
    fn extreme_bits_stay_in_range() {
        for len in [2, 3, 1 << 20, u32::MAX as usize] {
            for bits in [0, u64::MAX, 0xffff_ffff, 0xffff_ffff << 32] {
                let (first, second) = two_of(len, bits);
                assert!(first < len && second < len && first != second);
            }
        }
    }

    #[test]
    fn every_ordered_pair_is_equally_likely() {
        const LEN: usize = 5;
        const PAIRS: u32 = (LEN * (LEN - 1)) as u32;
        const PER_PAIR: u32 = 10_000;
        let mut rng = SplitMix64::new(1);
        let mut drawn = [[0_u32; LEN]; LEN];
        for _ in 0..PAIRS * PER_PAIR {
            let (first, second) = two_of(LEN, rng.next_u64());
            drawn[first][second] += 1;
        }
        // Chi-squared with 19 degrees of freedom exceeds 43.8 once in a thousand seeds.
        let expected = f64::from(PER_PAIR);
        let chi_squared: f64 = (0..LEN)
            .flat_map(|i| (0..LEN).map(move |j| (i, j)))
            .filter(|(i, j)| i != j)
            .map(|(i, j)| (f64::from(drawn[i][j]) - expected).powi(2) / expected)
            .sum();
        assert!(chi_squared < 43.8, "{chi_squared}");
        assert!((0..LEN).all(|i| drawn[i][i] == 0));
    }

    #[test]
    fn the_smaller_load_is_preferred_and_the_first_of_equals() {
        assert!(is_less_loaded(&1, &2));
        assert!(!is_less_loaded(&2, &1));
        assert!(is_less_loaded(&1, &1));
        // What can't be compared is not preferred.
        assert!(!is_less_loaded(&f64::NAN, &1.0));
    }

    /// Throws as many balls as there are bins; gives the load of the fullest.
    fn fullest(bins: usize, mut choose: impl FnMut(&[u32]) -> usize) -> u32 {
        let mut loads = vec![0; bins];
        for _ in 0..bins {
            let bin = choose(&loads);
            loads[bin] += 1;
        }
        loads.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn a_million_balls_fill_no_bin_above_four_with_two_choices_where_one_choice_makes_it_eight() {
        const BINS: usize = 1_000_000;
        let mut rng = SplitMix64::new(2);
        let one = fullest(BINS, |_| two_of(BINS, rng.next_u64()).0);
        assert!((8..=10).contains(&one), "{one}");
        let two = fullest(BINS, |loads| {
            let (first, second) = two_of(BINS, rng.next_u64());
            if is_less_loaded(&loads[first], &loads[second]) {
                first
            } else {
                second
            }
        });
        assert_eq!(two, 4);
    }
}
