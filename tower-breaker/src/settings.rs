//! When a breaker shuts, and for how long.

use std::time::Duration;

/// When to shut, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(crate) faults_in_a_row: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) min_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) trials: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) min_share: f64,
    pub(crate) window: Duration,
    pub(crate) min_requests: u32,
}

impl Settings {
    /// Makes settings under which a breaker changes its state only by its [`Handle`](crate::Handle).
    pub const fn manual() -> Self {
        Self {
            faults_in_a_row: None,
            rate: None,
            min_backoff: Duration::from_secs(5),
            max_backoff: Duration::from_secs(300),
            trials: 1,
        }
    }

    /// Shuts after `most` faults in a row. Zero does what one does.
    #[must_use]
    pub const fn with_faults_in_a_row(mut self, most: u32) -> Self {
        self.faults_in_a_row = Some(most);
        self
    }

    /// Doesn't shut for faults in a row.
    #[must_use]
    pub const fn without_faults_in_a_row(mut self) -> Self {
        self.faults_in_a_row = None;
        self
    }

    /// Shuts at a fault when fewer than `min_share` of the requests in the last `window` have succeeded, of at
    /// least `min_requests`.
    ///
    /// The share is between 0, which never shuts, and 1, which shuts for any fault. The window slides by a tenth
    /// of itself, so that it covers between nine and ten tenths of `window`.
    #[must_use]
    pub const fn with_success_rate(
        mut self,
        min_share: f64,
        window: Duration,
        min_requests: u32,
    ) -> Self {
        self.rate = Some(Rate {
            min_share,
            window,
            min_requests,
        });
        self
    }

    /// Doesn't shut for the share of requests that succeed.
    #[must_use]
    pub const fn without_success_rate(mut self) -> Self {
        self.rate = None;
        self
    }

    /// Stays shut for `min` to `2 × min` at first, by chance, for twice as long each time that a trial fails, and
    /// for half of `max` to `max` in the end.
    ///
    /// If the service says how long it wants to be left alone, it is, up to `max`.
    #[must_use]
    pub const fn with_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.min_backoff = min;
        self.max_backoff = max;
        self
    }

    /// Opens after `trials` successes, and tries with as many at once at most. Zero does what one does.
    #[must_use]
    pub const fn with_trials(mut self, trials: u32) -> Self {
        self.trials = if trials == 0 { 1 } else { trials };
        self
    }
}

impl Default for Settings {
    /// Finagle's: 5 faults in a row, or fewer than 80 % successful of at least 5 in 30 s; 5 to 300 s; one trial.
    fn default() -> Self {
        Self::manual()
            .with_faults_in_a_row(5)
            .with_success_rate(0.8, Duration::from_secs(30), 5)
    }
}
