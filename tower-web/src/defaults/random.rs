//! Where the numbers of requests and spans come from. They are unlike each other, and no secret.

use std::cell::RefCell;

use tower_rng::{Rng as _, SplitMix64};

thread_local! {
    static RNG: RefCell<SplitMix64> = RefCell::new(SplitMix64::from_entropy());
}

fn next() -> u64 {
    // A thread that ends may have none any more.
    RNG.try_with(|rng| rng.borrow_mut().next_u64())
        .unwrap_or_else(|_| SplitMix64::from_entropy().next_u64())
}

#[inline]
pub(crate) fn nonzero_u64() -> u64 {
    next().max(1)
}

#[inline]
pub(crate) fn nonzero_u128() -> u128 {
    (u128::from(next()) << 64 | u128::from(next())).max(1)
}
