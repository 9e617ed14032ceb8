//! The source of chance that Tower's middleware draws from.
//!
//! Balancing, jitter and hedging draw from an [`Rng`] that the caller can replace: [`HasherRng`] is
//! seeded by the process and never repeats, [`SplitMix64`] is seeded by the caller and replays.
//! None of them is fit for cryptography.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

/// A source of random numbers.
pub trait Rng {
    /// Draws 64 uniformly distributed bits.
    fn next_u64(&mut self) -> u64;

    /// Draws a number from `[0, 1)`, uniform to 53 bits.
    fn next_f64(&mut self) -> f64 {
        // The 53 highest bits fill the mantissa; dividing by 2^53 is exact.
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Draws a number from `range`, the end excluded.
    ///
    /// An empty range gives its start. The bias is below `len / 2^64`.
    fn next_range(&mut self, range: Range<u64>) -> u64 {
        let len = range.end.saturating_sub(range.start);
        // Lemire, "Fast Random Integer Generation in an Interval" (2019), without the rejection step.
        let scaled = (u128::from(self.next_u64()) * u128::from(len)) >> 64;
        range.start + scaled as u64
    }
}

impl<R: Rng + ?Sized> Rng for Box<R> {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }

    fn next_f64(&mut self) -> f64 {
        (**self).next_f64()
    }

    fn next_range(&mut self, range: Range<u64>) -> u64 {
        (**self).next_range(range)
    }
}

/// An [`Rng`] that hashes a counter, by default under the standard library's random keys.
///
/// Each [`HasherRng::new`] draws keys of its own, so that no two sequences are alike. A clone goes on
/// with the *same* sequence as its original.
#[derive(Clone, Debug)]
pub struct HasherRng<H = RandomState> {
    hasher: H,
    counter: u64,
}

impl HasherRng {
    /// Makes a generator under new random keys.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Default for HasherRng {
    fn default() -> Self {
        Self::with_hasher(RandomState::default())
    }
}

impl<H> HasherRng<H> {
    /// Makes a generator that hashes with `hasher`: one with fixed keys replays.
    pub fn with_hasher(hasher: H) -> Self {
        Self { hasher, counter: 0 }
    }
}

impl<H> Rng for HasherRng<H>
where
    H: BuildHasher,
{
    fn next_u64(&mut self) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(self.counter);
        self.counter = self.counter.wrapping_add(1);
        hasher.finish()
    }
}

/// A fast generator with 64 bits of state, whose seed replays its sequence.
///
/// SplitMix64, from Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Makes a generator whose sequence `seed` determines.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Makes a generator with a seed that the process draws at random.
    pub fn from_entropy() -> Self {
        Self::new(HasherRng::new().next_u64())
    }

    /// Splits off a generator whose sequence is unlike this one's.
    pub fn split(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

impl Rng for SplitMix64 {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f64_is_in_the_unit_interval_and_fills_it() {
        let mut rng = SplitMix64::new(1);
        let draws: Vec<f64> = (0..10_000).map(|_| rng.next_f64()).collect();
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
    }

    #[test]
    fn range_excludes_its_end_and_reaches_both_ends() {
        let mut rng = SplitMix64::new(2);
        let mut seen = [0_u32; 4];
        for _ in 0..4_000 {
            seen[(rng.next_range(10..14) - 10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }

    #[test]
    fn an_empty_range_gives_its_start() {
        let mut rng = SplitMix64::new(3);
        assert_eq!(rng.next_range(7..7), 7);
        #[allow(clippy::reversed_empty_ranges, reason = "that is the case under test")]
        let reversed = rng.next_range(9..2);
        assert_eq!(reversed, 9);
    }

    #[test]
    fn hasher_rngs_differ_and_a_clone_repeats() {
        let (mut a, mut b) = (HasherRng::new(), HasherRng::new());
        assert_ne!(a.next_u64(), b.next_u64());
        let mut c = a.clone();
        assert_eq!(a.next_u64(), c.next_u64());
        assert_ne!(a.next_u64(), a.next_u64());
    }

    #[test]
    fn a_seed_replays() {
        // The first outputs for seed 1234567, from the reference implementation's published vector.
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        let mut boxed: Box<dyn Rng> = Box::new(SplitMix64::new(1_234_567));
        assert_eq!(boxed.next_u64(), 6_457_827_717_110_365_317);
    }
}
