//! Counts what a peer may send that brings nothing.

use tokio::time::Instant;

/// How many frames that bring nothing a peer may send.
///
/// A bucket of tokens: each such frame takes one, time gives some back, and so does what is sent to the
/// peer, as answers are followed by window updates, and data by the pings that measure the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown types, empty DATA.
    pub(super) idle: Bucket,
    /// RST_STREAM.
    pub(super) resets: Bucket,
}

impl Allowance {
    /// Room for `resets` resets at once, and a quarter of that a second.
    pub(crate) fn new(idle: u32, resets: u32) -> Self {
        Self {
            idle: Bucket::new(idle, idle / 4, 32),
            resets: Bucket::new(resets, resets / 4, 64),
        }
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle.most
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.most
    }
}

/// A bucket of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    pub(super) tokens: u32,
    most: u32,
    /// Tokens that a second gives.
    rate: u32,
    /// Bytes sent that give a token.
    price: usize,
    /// Since when time gives some. The clock is read at the first token and when there is none.
    filled: Option<Instant>,
}

impl Bucket {
    const fn new(most: u32, rate: u32, price: usize) -> Self {
        Self {
            tokens: most,
            most,
            rate,
            price,
            filled: None,
        }
    }

    /// Takes a token. Without one there is a flood.
    pub(super) fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        let filled = *self.filled.get_or_insert_with(&now);
        if self.tokens == 0 {
            let now = now();
            let gained = (now - filled).as_secs_f64() * f64::from(self.rate);
            // The cast saturates.
            self.tokens = (gained as u32).min(self.most);
            if self.tokens > 0 {
                self.filled = Some(now);
            }
        }
        let had = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        had
    }

    pub(super) fn earn(&mut self, bytes: usize) {
        let tokens = u32::try_from(bytes / self.price).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(tokens).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_and_what_is_sent_give_tokens_back() {
        let mut bucket = Bucket::new(8, 2, 32);
        let empty =
            |bucket: &mut Bucket| (0..100).take_while(|_| bucket.take(Instant::now)).count();
        assert_eq!(empty(&mut bucket), 8);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(empty(&mut bucket), 4);
        bucket.earn(64);
        assert_eq!(empty(&mut bucket), 2);
        bucket.earn(usize::MAX);
        assert_eq!(empty(&mut bucket), 8);
    }
}
