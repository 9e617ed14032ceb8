//! Estimates how large a window must be for the path to be kept full.
//!
//! The algorithm is that of gRPC ("bandwidth-delay product estimation"): a PING is sent beside data that arrives,
//! and the bytes that arrive until its answer are about what the path holds, if the window lets it. Where they
//! are more than two thirds of the window, and came faster than ever before, the window may have been what
//! bounded them, and becomes twice the sample. It never shrinks, and is bounded.

use std::time::Duration;

use tokio::time::Instant;

/// The window never becomes larger.
const MOST: u32 = 16 * 1024 * 1024;

/// The samples of a connection.
#[derive(Debug)]
pub(crate) struct Estimator {
    window: u32,
    /// The most bytes a second that a sample has seen.
    best: f64,
    /// The count of bytes when the last sample began or ended.
    mark: u64,
    /// The count at the last look, and at the one before.
    seen: u64,
    before: u64,
    /// When the PING of the sample under way was sent.
    began: Option<Instant>,
}

impl Estimator {
    /// Begins with the window that the connection has.
    pub(crate) fn new(window: u32) -> Self {
        Self {
            window,
            best: 0.0,
            mark: 0,
            seen: 0,
            before: 0,
            began: None,
        }
    }

    /// Whether a sample should begin, where `read` bytes have come so far. Called whenever some may have.
    ///
    /// Where little comes the window bounds nothing, so that small calls cost no pings.
    pub(crate) fn wants_sample(&mut self, read: u64) -> bool {
        (self.before, self.seen) = (self.seen, read);
        self.began.is_none() && self.window < MOST && read - self.mark >= u64::from(self.window) / 4
    }

    /// A PING was sent. The bytes that gave the occasion count: they are the head of what the path held.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.mark = self.before;
        self.began = Some(now);
    }

    /// Its answer is here; gives the new window where it grows.
    pub(crate) fn end(&mut self, now: Instant, read: u64) -> Option<u32> {
        let rtt = now - self.began.take()?;
        let sample = read - self.mark;
        self.mark = read;
        let speed = sample as f64 / rtt.max(Duration::from_micros(1)).as_secs_f64();
        if sample * 3 < u64::from(self.window) * 2 || speed <= self.best {
            return None;
        }
        self.best = speed;
        let wanted = u32::try_from(sample * 2).unwrap_or(MOST).min(MOST);
        (wanted > self.window).then(|| {
            self.window = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 64 * 1024;

    /// A path that holds `bdp` bytes and takes 10 ms, with a sender that fills what it may.
    fn settle(bdp: u32) -> u32 {
        let mut estimator = Estimator::new(WINDOW);
        let (mut now, mut read, mut window) = (Instant::now(), 0, WINDOW);
        for _ in 0..100 {
            read += u64::from(window.min(bdp));
            if estimator.wants_sample(read) {
                estimator.begin(now);
            }
            now += Duration::from_millis(10);
            window = estimator.end(now, read).unwrap_or(window);
        }
        window
    }

    #[test]
    fn the_window_grows_to_hold_the_path_and_no_further_than_twice_that() {
        for bdp in [100_000, 1_000_000, 5_000_000] {
            let window = settle(bdp);
            assert!((bdp..=2 * bdp).contains(&window), "{window} for {bdp}");
        }
    }

    #[test]
    fn a_short_path_leaves_it_and_a_long_one_finds_its_bound() {
        assert_eq!(settle(10_000), WINDOW);
        assert_eq!(settle(1_000_000_000), MOST);
    }

    #[test]
    fn little_data_begins_no_sample() {
        let mut estimator = Estimator::new(WINDOW);
        assert!(!estimator.wants_sample(1000));
        assert!(estimator.wants_sample(u64::from(WINDOW) / 4));
    }
}
