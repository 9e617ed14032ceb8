//! What a pool's task has decided about an endpoint.

use futures_util::future::AbortHandle;

use super::alarms::AlarmId;
use super::link::{Link, Phase};
use super::observe::State;
use super::outlier::Record;

pub(super) type Entries<K, T, S> = Vec<Option<Entry<K, T, S>>>;

/// What is decided about an endpoint.
pub(super) struct Entry<K, T, S> {
    pub(super) key: K,
    pub(super) target: T,
    pub(super) number: u64,
    pub(super) link: Link,
    /// A connection that has been made and hasn't got its seat yet.
    pub(super) arrival: Option<S>,
    pub(super) attempt: Option<AbortHandle>,
    pub(super) record: Record,
    pub(super) draining: Draining,
    /// The endpoint that this one replaces as soon as it is ready.
    pub(super) predecessor: Option<u32>,
    pub(super) alarm: Option<AlarmId>,
    /// For how many looks in a row nobody has used it.
    pub(super) unused_looks: u32,
    pub(super) shown: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    No,
    /// Until its requests have ended.
    Yes,
    /// It took too long: its service is dropped.
    Over,
}

impl<K, T, S> Entry<K, T, S> {
    /// One that waits for its turn to connect.
    pub(super) fn new(key: K, target: T, number: u64, predecessor: Option<u32>) -> Self {
        Self {
            key,
            target,
            number,
            link: Link::new(),
            arrival: None,
            attempt: None,
            record: Record::default(),
            draining: Draining::No,
            predecessor,
            alarm: None,
            unused_looks: 0,
            shown: None,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.link.phase() {
            _ if self.draining != Draining::No => State::Draining,
            Phase::Queued | Phase::Connecting => State::Connecting,
            Phase::Down { .. } => State::Failing,
            Phase::Idle => State::Idle,
            Phase::Up { .. } if self.record.ejected_at.is_some() => State::Ejected,
            Phase::Up { .. } => State::Ready,
        }
    }
}
