//! Many calls in a row, over one channel or a new one for each.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::cases::Failure;
use crate::flags::{Flags, InvalidFlag};

/// How long a soak test is, and what it puts up with; the official flags.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Soak {
    /// `soak_iterations`: how many calls; 10 by default.
    pub iterations: usize,
    /// `soak_max_failures`: how many may fail; none by default.
    pub max_failures: usize,
    /// `soak_per_iteration_max_acceptable_latency_ms`: a slower call has failed; 1 s by default.
    pub max_latency: Duration,
    /// `soak_min_time_ms_between_rpcs`: none by default.
    pub min_interval: Duration,
    /// `soak_overall_timeout_seconds`: by default as long as all calls may take.
    pub overall: Duration,
    /// `soak_request_size`: in bytes; 271828 by default.
    pub request_size: usize,
    /// `soak_response_size`: in bytes; 314159 by default.
    pub response_size: usize,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            iterations: 10,
            max_failures: 0,
            max_latency: Duration::from_secs(1),
            min_interval: Duration::ZERO,
            overall: Duration::from_secs(10),
            request_size: 271_828,
            response_size: 314_159,
        }
    }
}

impl Soak {
    /// The flags that [`from_flags`](Self::from_flags) reads.
    pub const FLAGS: [&'static str; 7] = [
        "soak_iterations",
        "soak_max_failures",
        "soak_per_iteration_max_acceptable_latency_ms",
        "soak_min_time_ms_between_rpcs",
        "soak_overall_timeout_seconds",
        "soak_request_size",
        "soak_response_size",
    ];

    /// What the flags say, and defaults for the rest.
    ///
    /// # Errors
    ///
    /// A flag that isn't a number.
    pub fn from_flags(flags: &Flags) -> Result<Self, InvalidFlag> {
        let default = Self::default();
        let iterations = flags.get("soak_iterations")?.unwrap_or(default.iterations);
        let max_latency = flags
            .get("soak_per_iteration_max_acceptable_latency_ms")?
            .map_or(default.max_latency, Duration::from_millis);
        let all = u32::try_from(iterations).unwrap_or(u32::MAX);
        Ok(Self {
            iterations,
            max_failures: flags
                .get("soak_max_failures")?
                .unwrap_or(default.max_failures),
            max_latency,
            min_interval: flags
                .get("soak_min_time_ms_between_rpcs")?
                .map_or(default.min_interval, Duration::from_millis),
            overall: flags
                .get("soak_overall_timeout_seconds")?
                .map_or(max_latency.saturating_mul(all), Duration::from_secs),
            request_size: flags
                .get("soak_request_size")?
                .unwrap_or(default.request_size),
            response_size: flags
                .get("soak_response_size")?
                .unwrap_or(default.response_size),
        })
    }

    /// Makes the calls, one after the other.
    pub(crate) async fn run(
        &self,
        mut call: impl AsyncFnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let end = begin + self.overall;
        let mut failures = Vec::new();
        for done in 0..self.iterations {
            let started = Instant::now();
            let Ok(outcome) = timeout_at(end, call()).await else {
                return Err(Failure::new(format!(
                    "only {done} of {} calls in time",
                    self.iterations
                )));
            };
            let latency = started.elapsed();
            if let Err(failure) = outcome {
                failures.push(failure.to_string());
            } else if latency > self.max_latency {
                failures.push(format!("a call took {latency:?}"));
            }
            tokio::time::sleep_until(started + self.min_interval).await;
        }
        if failures.len() <= self.max_failures {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} calls failed: {}",
            failures.len(),
            failures.join("; ")
        )))
    }
}
