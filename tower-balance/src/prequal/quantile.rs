//! A quantile of the last values seen.

/// How many values count. A client that sends ten requests a second with three probes each has this many in
/// four seconds.
const KEPT: usize = 128;

/// The last values, and the same in order.
///
/// Taking one in moves what is between the new one and the oldest; the quantile is then one look.
#[derive(Debug)]
pub(super) struct Quantile {
    /// In `[0, 1]`.
    share: f64,
    recent: [u32; KEPT],
    sorted: [u32; KEPT],
    /// How many were ever taken in.
    seen: usize,
    /// Where in the order the quantile is.
    rank: usize,
}

impl Quantile {
    pub(super) fn new(share: f64) -> Self {
        Self {
            share,
            recent: [0; KEPT],
            sorted: [0; KEPT],
            seen: 0,
            rank: 0,
        }
    }

    pub(super) fn add(&mut self, value: u32) {
        let slot = self.seen % KEPT;
        let old = std::mem::replace(&mut self.recent[slot], value);
        if self.seen >= KEPT {
            self.seen += 1;
            self.replace(old, value);
            return;
        }
        let place = self.sorted[..self.seen].partition_point(|&kept| kept < value);
        self.sorted.copy_within(place..self.seen, place + 1);
        self.sorted[place] = value;
        self.seen += 1;
        // Kept, as rounding up is a call of a function where the processor is an old one.
        let rank = (self.seen as f64 * self.share).ceil() as usize;
        self.rank = rank.clamp(1, self.seen) - 1;
    }

    /// Moves what is between the two.
    fn replace(&mut self, old: u32, value: u32) {
        if old == value {
            return;
        }
        let gone = self.sorted.partition_point(|&kept| kept < old);
        let place = self.sorted.partition_point(|&kept| kept < value);
        if gone < place {
            self.sorted.copy_within(gone + 1..place, gone);
            self.sorted[place - 1] = value;
        } else {
            self.sorted.copy_within(place..gone, place + 1);
            self.sorted[place] = value;
        }
    }

    /// The smallest value that at least the share of all is not above. Zero if there are none.
    #[inline]
    pub(super) fn value(&self) -> u32 {
        self.sorted[self.rank]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_values_it_is_zero() {
        assert_eq!(Quantile::new(0.5).value(), 0);
    }

    #[test]
    fn the_ends_are_the_least_and_the_greatest() {
        for (share, expected) in [(0.0, 1), (0.5, 2), (0.51, 3), (1.0, 4)] {
            let mut quantile = Quantile::new(share);
            [3, 1, 4, 2]
                .into_iter()
                .for_each(|value| quantile.add(value));
            assert_eq!(quantile.value(), expected, "{share}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_quantile_of_the_last_values(
            values in prop::collection::vec(0..50_u32, 1..400),
            share in 0.0..1.0_f64,
        ) {
            let mut quantile = Quantile::new(share);
            for (index, &value) in values.iter().enumerate() {
                quantile.add(value);
                let mut last = values[(index + 1).saturating_sub(KEPT)..=index].to_vec();
                last.sort_unstable();
                let expected = last
                    .iter()
                    .find(|&&v| last.iter().filter(|&&w| w <= v).count() as f64 >= share * last.len() as f64);
                prop_assert_eq!(Some(&quantile.value()), expected);
            }
        }
    }
}
