//! What is told of a pool's endpoints: to its observers each change, to its callers how many do what.

use std::mem;
use std::sync::Arc;

use super::observe::{Newcomers, Observer, State};
use super::shared::Report;
use super::shortage::Census;

#[derive(Debug)]
pub(super) struct Roster<K> {
    newcomers: Arc<Newcomers<K>>,
    observers: Vec<Observer<K>>,
    report: Report,
    /// Whether callers know of less than what is in the report.
    is_stale: bool,
}

impl<K: Clone> Roster<K> {
    pub(super) fn new(newcomers: Arc<Newcomers<K>>) -> Self {
        Self {
            newcomers,
            observers: Vec::new(),
            report: Report::default(),
            is_stale: false,
        }
    }

    pub(super) fn take_newcomers(&mut self) {
        self.observers.append(&mut self.newcomers.take());
    }

    /// An endpoint has changed its state, or has come (from none) or gone (to none).
    pub(super) fn changed(&mut self, key: &K, from: Option<State>, to: Option<State>) {
        self.observers
            .retain(|observer| observer.tell(key, from, to));
        let census = &mut self.report.census;
        if let Some(from) = from {
            *census.of(from) -= 1;
        }
        if let Some(to) = to {
            *census.of(to) += 1;
        }
        self.is_stale = true;
    }

    pub(super) fn failed(&mut self, failure: Arc<str>) {
        self.report.last_failure = Some(failure);
        self.is_stale = true;
    }

    /// Something else has changed that callers are to know.
    pub(super) fn touch(&mut self) {
        self.is_stale = true;
    }

    /// Tells all to those that have missed something.
    pub(super) fn catch_observers_up(&mut self, all: impl Fn() -> Vec<(K, State)>) {
        self.observers.retain(|observer| observer.catch_up(&all));
    }

    /// What callers are to know, if they don't yet.
    pub(super) fn take_report(&mut self) -> Option<Report> {
        mem::take(&mut self.is_stale).then(|| self.report.clone())
    }
}

impl<K> Roster<K> {
    pub(super) fn census(&self) -> &Census {
        &self.report.census
    }
}

impl Census {
    fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::Connecting => &mut self.connecting,
            State::Ready => &mut self.ready,
            State::Failing => &mut self.failing,
            State::Ejected => &mut self.ejected,
            State::Idle => &mut self.idle,
            State::Draining => &mut self.draining,
        }
    }
}
