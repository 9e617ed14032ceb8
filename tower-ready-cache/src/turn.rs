//! Whose turn it is: the service that a balancer has picked, or has just called.

use std::hash::Hash;
use std::task::Context;

use tower_service::Service;

use crate::{BoxError, Failed, NotReady, ReadyCache};

/// The service that a balancer picked. It is called in its place among the ready ones: nearly always it
/// is ready again when it is polled for the next pick, and then no list has changed.
#[derive(Clone, Copy)]
pub(crate) enum Turn {
    Nobody,
    /// It is ready, and meant for the next call.
    Picked(usize),
    /// It was called, and is among the ready ones on trust until the next poll.
    Called(usize),
}

impl Turn {
    /// Takes the turn from a service that leaves the ready ones.
    #[inline]
    pub(crate) fn skip(&mut self, slot: usize) {
        if let Self::Picked(whose) | Self::Called(whose) = *self {
            if whose == slot {
                *self = Self::Nobody;
            }
        }
    }
}

/// What `tower-balance` needs beyond the public interface, for speed: two thirds of what a call costs
/// would else go into lists. It may change at any time.
#[doc(hidden)]
impl<K, S, Req> ReadyCache<K, S, Req>
where
    K: Clone + Eq + Hash,
    S: Service<Req>,
    <S as Service<Req>>::Error: Into<BoxError>,
{
    /// Tells whether a service is picked, and still ready.
    #[inline]
    pub fn check_picked(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed<K>> {
        match self.turn {
            Turn::Picked(slot) => self.check_slot(cx, slot),
            Turn::Nobody | Turn::Called(_) => Ok(false),
        }
    }

    /// Picks the ready service at this index, if it still is.
    #[inline]
    pub fn pick(&mut self, cx: &mut Context<'_>, index: usize) -> Result<bool, Failed<K>> {
        let Some(&slot) = self.ready.get(index) else {
            return Ok(false);
        };
        self.turn = Turn::Picked(slot);
        self.check_slot(cx, slot)
    }

    /// Picks one of the ready services at these two indices, if it still is ready: the first, if it is
    /// preferred.
    #[inline]
    pub fn pick_of_two(
        &mut self,
        cx: &mut Context<'_>,
        (first, second): (usize, usize),
        prefer_first: impl FnOnce(&S, &S) -> bool,
    ) -> Result<bool, Failed<K>> {
        let (Some(&first), Some(&second)) = (self.ready.get(first), self.ready.get(second)) else {
            return Ok(false);
        };
        let (a, b) = (&self.entries[first].service, &self.entries[second].service);
        let slot = if prefer_first(a, b) { first } else { second };
        self.turn = Turn::Picked(slot);
        self.check_slot(cx, slot)
    }

    /// Calls the service that was picked. Until `poll_pending`, which polls it first of all, it looks
    /// ready without being so.
    #[inline]
    pub fn call_picked(&mut self, req: Req) -> Result<S::Future, NotReady<Req>> {
        let Turn::Picked(slot) = self.turn else {
            return Err(NotReady(req));
        };
        self.turn = Turn::Called(slot);
        Ok(self.entries[slot].service.call(req))
    }

    /// Makes the service pending that was picked and called, so that all that look ready are.
    #[cold]
    pub fn end_turn(&mut self) {
        if let Turn::Called(slot) = self.turn {
            self.leave_ready(slot);
            self.to_poll.push_back(slot);
        }
    }
}
