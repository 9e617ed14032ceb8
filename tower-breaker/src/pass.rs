//! A request that was admitted.

use tokio::time::Instant;
use tower_classify::Class;

use crate::Handle;
use crate::circuit::{Circuit, Outcome};
use crate::lent::Lent;

/// An admitted request, which may be one of few. Reports when dropped that nothing is known of it.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) lent: &'static Lent,
    /// `None` once reported.
    pub(crate) epoch: Option<u64>,
}

impl Pass {
    #[inline]
    pub(crate) fn report(&mut self, outcome: Outcome) {
        if let Some(epoch) = self.epoch.take() {
            let is_changed = self.lent.valve.finish(epoch, outcome, Instant::now);
            if is_changed || self.lent.valve.open_epoch().is_none() {
                self.announce();
            }
        }
    }

    /// Whether the breaker is as it was when this was admitted.
    pub(crate) fn is_current(&self) -> bool {
        self.epoch
            .is_some_and(|epoch| self.lent.valve.look(Circuit::epoch) == epoch)
    }

    #[cold]
    fn announce(&self) {
        // Nobody watches a breaker that is gone.
        if let Some(shared) = self.lent.owner() {
            Handle::of(shared).announce();
        }
    }
}

impl Drop for Pass {
    #[inline]
    fn drop(&mut self) {
        self.report(Outcome::Unknown);
    }
}

#[inline]
pub(crate) fn outcome(class: Class) -> Outcome {
    if class.is_fault() {
        Outcome::Fault(class.retry_after())
    } else if class.is_working() {
        Outcome::Working
    } else {
        Outcome::Unknown
    }
}
