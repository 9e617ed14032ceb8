//! What the scenarios share: their outcomes, a paused clock, and ways to look at what must not happen.

use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// What one side did in a scenario, and whether that is what a user needs.
pub struct Outcome {
    pub said: String,
    pub sound: bool,
}

/// How long the long scenarios are.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    Quick,
    Full,
}

pub type Scenario = fn(Scale) -> Outcome;

impl Outcome {
    pub fn new(sound: bool, said: impl Into<String>) -> Self {
        let said = said.into();
        Self { said, sound }
    }

    /// For what a side has no means to do.
    pub fn missing(what: &str) -> Self {
        Self::new(false, what)
    }
}

/// Plays a scenario on a thread of its own, so that it can panic and hang as it likes.
pub fn play(scenario: Scenario, scale: Scale) -> Outcome {
    play_within(60 * SECOND, scenario, scale)
}

fn play_within(time: Duration, scenario: Scenario, scale: Scale) -> Outcome {
    let (done, outcome) = channel();
    thread::spawn(move || done.send(caught(|| scenario(scale))));
    match outcome.recv_timeout(time) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Outcome::new(false, format!("panics: {panic}")),
        // The thread stays behind, and ends with the process.
        Err(RecvTimeoutError::Timeout) => Outcome::new(false, "hangs"),
        Err(RecvTimeoutError::Disconnected) => Outcome::new(false, "ends without an outcome"),
    }
}

/// Runs a scenario whose time passes only when nothing else is left to do.
pub fn paused<T>(scenario: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(scenario)
}

/// What `scenario` gives, or the message that it panics with.
pub fn caught<T>(scenario: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(scenario)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "something that is no text".to_owned())
    })
}

/// An hour of the paused clock, which is for ever: `None` is a future that hangs.
pub async fn patiently<F: Future>(future: F) -> Option<F::Output> {
    let hour = 3600 * SECOND;
    tokio::time::timeout(hour, future).await.ok()
}

pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    poll_pinned(pin!(future))
}

pub fn poll_pinned<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the other tasks do what they can do without time passing.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// An error and its sources.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(" ← {error}");
        next = error.source();
    }
    text
}

pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The same chance for both sides: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From the unit interval, without its end.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Tells whether a type implements a trait. It must not be generic.
macro_rules! implements {
    ($subject:ty: $($bound:tt)+) => {{
        struct Probe<T>(std::marker::PhantomData<T>);
        #[allow(dead_code, reason = "which of the two is used depends on the type")]
        trait Otherwise {
            const IMPLEMENTS: bool = false;
        }
        impl<T> Otherwise for Probe<T> {}
        #[allow(dead_code, reason = "which of the two is used depends on the type")]
        impl<T: $($bound)+> Probe<T> {
            const IMPLEMENTS: bool = true;
        }
        <Probe<$subject>>::IMPLEMENTS
    }};
}
pub(crate) use implements;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_panics_or_hangs_is_unsound_and_says_so() {
        let outcome = play(|_| panic!("no such user"), Scale::Quick);
        assert_eq!(
            (outcome.sound, &*outcome.said),
            (false, "panics: no such user")
        );
        let hang: Scenario = |_| loop {
            thread::park();
        };
        let outcome = play_within(MS, hang, Scale::Quick);
        assert_eq!((outcome.sound, &*outcome.said), (false, "hangs"));
    }

    #[test]
    fn what_waits_for_ever_is_given_up_after_an_hour_that_does_not_pass() {
        let waited = paused(patiently(std::future::pending::<()>()));
        assert!(waited.is_none());
    }

    #[test]
    fn whether_a_type_implements_a_trait_is_told() {
        assert!(implements!(u8: Copy + Send));
        assert!(!implements!(String: Copy));
    }
}
