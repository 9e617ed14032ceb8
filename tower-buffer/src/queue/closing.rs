//! The end of a queue: who is failed, and who drops the service.

use std::task::Waker;

use super::line::{Failure, Origin, Stage};
use super::{Host, Queue, drop_quietly};
use crate::ServiceError;
use crate::sync::{MutexGuard, lock, try_lock};

/// What closing leaves to be done outside of the lock.
struct Wreck<Req> {
    wakers: Vec<Waker>,
    requests: Vec<(Req, Origin)>,
}

impl<Req, F> Queue<Req, F> {
    /// Fails all callers because the service did.
    #[cold]
    pub(super) fn break_down(
        &self,
        mut host: MutexGuard<'_, Host<Req, F>>,
        error: ServiceError,
    ) -> ServiceError {
        let service = host.service.take();
        let runtime = host.runtime.clone();
        // Fail the queue before anybody can find the service missing.
        let wreck = self.condemn(Failure::Service(error.clone()));
        drop(host);
        let _runtime = runtime.as_ref().map(|runtime| runtime.enter());
        drop_quietly(service);
        self.clear_away(wreck);
        error
    }

    /// Takes no more messages. The worker serves those that there are, and ends.
    pub(crate) fn drain(&self) {
        let wakers = {
            // Under the lock, so that no message comes in after it.
            let _state = lock(&self.state);
            self.slots.drain()
        };
        for waker in wakers {
            waker.wake();
        }
        self.alarm.ring();
    }

    /// Closes the queue, fails all callers, and drops the service.
    pub(crate) fn close(&self, failure: Failure) {
        let wreck = self.condemn(failure);
        self.drop_service();
        self.clear_away(wreck);
    }

    /// The worker has gone.
    pub(crate) fn close_for_good(&self) {
        self.close(Failure::Closed);
        self.alarm.clear();
    }

    fn condemn(&self, failure: Failure) -> Wreck<Req> {
        let mut wreck = Wreck {
            wakers: Vec::new(),
            requests: Vec::new(),
        };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.failure.is_some() {
            return wreck;
        }
        while let Some(key) = state.messages.front() {
            state.messages.leave(key);
            let Some(message) = state.messages.get_mut(key) else {
                continue;
            };
            let answer = Stage::Answered(Err(failure.clone()));
            match std::mem::replace(&mut message.stage, answer) {
                Stage::Queued(req, origin) => wreck.requests.push((req, origin)),
                Stage::Abandoned => drop(state.messages.remove(key)),
                Stage::Serving | Stage::Answered(_) => {}
            }
            if let Some(message) = state.messages.get_mut(key) {
                wreck.wakers.extend(message.waker.take());
            }
        }
        state.failure = Some(failure);
        wreck.wakers.extend(self.slots.close());
        wreck
    }

    fn clear_away(&self, wreck: Wreck<Req>) {
        for waker in wreck.wakers {
            waker.wake();
        }
        self.alarm.ring();
        for request in wreck.requests {
            drop_quietly(request);
        }
    }

    /// Drops the service of a closed queue. Where a caller has it, that caller does so.
    pub(super) fn drop_service(&self) {
        let Some(mut host) = try_lock(&self.host) else {
            return;
        };
        let service = host.service.take();
        let runtime = host.runtime.clone();
        drop(host);
        let _runtime = runtime.as_ref().map(|runtime| runtime.enter());
        drop_quietly(service);
    }
}
