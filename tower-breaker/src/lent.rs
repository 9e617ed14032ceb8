//! The circuits of all breakers, lent to them and taken back.
//!
//! A request in flight must be able to report, whatever has become of its breaker. To count references for that
//! took longer than all else that a request costs here. So a circuit is never freed: it is taken back when its
//! breaker is dropped, and lent to the next. There are as many as there were breakers at once, of some hundred bytes
//! each. What a request reports to a circuit that has been lent again is from another epoch, and is ignored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tower_rng::SplitMix64;

use crate::Settings;
use crate::circuit::Circuit;
use crate::handle::Shared;
use crate::valve::Valve;

static FREE: Mutex<Vec<&'static Lent>> = Mutex::new(Vec::new());

/// A circuit, and whom to tell of its changes.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) valve: Valve,
    owner: Mutex<Weak<Shared>>,
}

impl Lent {
    /// Lends a circuit that is open and has seen nothing.
    pub(crate) fn borrow(settings: Settings, rng: SplitMix64) -> &'static Self {
        let free = lock(&FREE).pop();
        match free {
            Some(lent) => {
                lent.valve.renew(settings, rng);
                lent
            }
            None => Box::leak(Box::new(Self {
                valve: Valve::new(Circuit::new(settings), rng),
                owner: Mutex::default(),
            })),
        }
    }

    pub(crate) fn set_owner(&self, owner: &Arc<Shared>) {
        *lock(&self.owner) = Arc::downgrade(owner);
    }

    pub(crate) fn owner(&self) -> Option<Arc<Shared>> {
        lock(&self.owner).upgrade()
    }

    pub(crate) fn give_back(&'static self) {
        *lock(&self.owner) = Weak::new();
        lock(&FREE).push(self);
    }
}

/// No code of others runs under these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
