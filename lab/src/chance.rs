//! The distributions that the models draw from.

use std::sync::{Arc, Mutex};

use tower_rng::{Rng, SplitMix64};

use crate::world::Nanos;

/// A generator of its own for each purpose, so that changing how one draws leaves the others alone.
pub(crate) fn stream(seed: u64, purpose: u64) -> SplitMix64 {
    let mut rng = SplitMix64::new(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Seeds that are close give first numbers that are not.
    rng.split()
}

/// A generator whose clones draw from the same sequence in turn: for what is cloned and must not repeat itself.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<SplitMix64>>);

impl Shared {
    pub(crate) fn new(rng: SplitMix64) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }
}

impl Rng for Shared {
    fn next_u64(&mut self) -> u64 {
        self.0.lock().expect("drawing doesn't panic").next_u64()
    }
}

/// Exponential: the gaps of a Poisson process.
pub(crate) fn exponential(rng: &mut SplitMix64, mean: f64) -> f64 {
    -mean * (1.0 - rng.next_f64()).ln()
}

/// Normal, by Box and Muller.
pub(crate) fn normal(rng: &mut SplitMix64, mean: f64, deviation: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.next_f64()).ln()).sqrt();
    let angle = std::f64::consts::TAU * rng.next_f64();
    mean + deviation * radius * angle.cos()
}

/// Normal with the mean for a deviation, drawn again while it isn't positive. Its mean is [`TRUNCATED`] times
/// `mu`.
pub(crate) fn truncated_normal(rng: &mut SplitMix64, mu: f64) -> f64 {
    loop {
        let drawn = normal(rng, mu, mu);
        if drawn > 0.0 {
            return drawn;
        }
    }
}

/// The mean of `N(1, 1)` above zero: `1 + φ(1) / Φ(1)`.
pub(crate) const TRUNCATED: f64 = 1.287_599_970_939_178_4;

/// Pareto, from `least` up.
pub(crate) fn pareto(rng: &mut SplitMix64, least: f64, shape: f64) -> f64 {
    least * (1.0 - rng.next_f64()).powf(-shape.recip())
}

/// Uniform around a mean.
pub(crate) fn around(rng: &mut SplitMix64, mean: f64, spread: f64) -> f64 {
    mean + spread * (2.0 * rng.next_f64() - 1.0)
}

/// The instants of a Poisson process, exact: each is rounded for itself, so that the rounding doesn't add up.
#[derive(Debug)]
pub(crate) struct Poisson {
    rng: SplitMix64,
    mean_gap: f64,
    at: f64,
}

impl Poisson {
    pub(crate) fn new(rng: SplitMix64, per_second: f64) -> Self {
        Self {
            rng,
            mean_gap: 1e9 / per_second,
            at: 0.0,
        }
    }
}

impl Iterator for Poisson {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        self.at += exponential(&mut self.rng, self.mean_gap);
        Some(self.at as Nanos)
    }
}

/// The instants of an even flow, exact.
#[cfg(test)]
pub(crate) fn evenly(per_second: f64) -> impl Iterator<Item = Nanos> + Send {
    (1_u64..).map(move |n| (n as f64 * 1e9 / per_second) as Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(draw: impl FnMut(usize) -> f64) -> f64 {
        const DRAWS: usize = 200_000;
        (0..DRAWS).map(draw).sum::<f64>() / DRAWS as f64
    }

    #[test]
    fn the_means_are_those_of_the_distributions() {
        let mut rng = stream(1, 1);
        assert!((mean(|_| exponential(&mut rng, 3.0)) - 3.0).abs() < 0.03);
        assert!((mean(|_| normal(&mut rng, 3.0, 2.0)) - 3.0).abs() < 0.03);
        assert!((mean(|_| truncated_normal(&mut rng, 3.0)) - 3.0 * TRUNCATED).abs() < 0.03);
        // α / (α − 1)
        assert!((mean(|_| pareto(&mut rng, 1.0, 4.0)) - 4.0 / 3.0).abs() < 0.01);
        assert!((mean(|_| around(&mut rng, 3.0, 2.0)) - 3.0).abs() < 0.03);
    }

    #[test]
    fn a_poisson_process_has_its_rate() {
        let seconds = 400;
        let count = Poisson::new(stream(1, 2), 1000.0)
            .take_while(|&at| at < seconds * 1_000_000_000)
            .count();
        // Five standard deviations.
        assert!(count.abs_diff(400_000) < 3200, "{count}");
    }

    #[test]
    fn an_even_flow_has_its_rate_to_the_nanosecond() {
        let last = evenly(3333.0).nth(3_332_999);
        assert_eq!(last, Some(1_000_000_000_000));
    }
}
