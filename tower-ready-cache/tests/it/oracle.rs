//! The cache against one that polls every pending service each time and keeps two plain lists.

use std::sync::Arc;
use std::task::Poll;

use proptest::prelude::*;
use tokio_test::task::{Spawn, spawn};
use tower_ready_cache::ReadyCache;

use crate::scripted::{Control, Scripted, Status, scripted};

#[derive(Clone, Debug)]
enum Step {
    Push(u8, Status),
    Evict(u8),
    /// Sets the status of one of the services that were ever pushed, dropped ones included.
    Set(prop::sample::Index, Status),
    /// Wakes the last poll of one of them, for no reason.
    Wake(prop::sample::Index),
    Poll,
    Check(usize),
    CheckKey(u8),
    Call(usize),
    CallKey(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = || {
        prop_oneof![
            Just(Status::Pending),
            Just(Status::Ready),
            Just(Status::Broken)
        ]
    };
    let mostly_ready = prop_oneof![1 => status(), 3 => Just(Status::Ready)];
    let key = || 0..5_u8;
    let step = prop_oneof![
        4 => (key(), mostly_ready).prop_map(|(key, status)| Step::Push(key, status)),
        1 => key().prop_map(Step::Evict),
        4 => (any::<prop::sample::Index>(), status()).prop_map(|(at, status)| Step::Set(at, status)),
        2 => any::<prop::sample::Index>().prop_map(Step::Wake),
        4 => Just(Step::Poll),
        1 => (0..6_usize).prop_map(Step::Check),
        1 => key().prop_map(Step::CheckKey),
        2 => (0..6_usize).prop_map(Step::Call),
        1 => key().prop_map(Step::CallKey),
    ];
    prop::collection::vec(step, 1..200)
}

type Services = Vec<(u8, Arc<Control>)>;

#[derive(Default)]
struct Oracle {
    ready: Services,
    pending: Services,
}

fn position(services: &Services, key: u8) -> Option<usize> {
    services.iter().position(|(k, _)| *k == key)
}

impl Oracle {
    fn push(&mut self, key: u8, control: Arc<Control>) {
        self.pending.retain(|(k, _)| *k != key);
        self.pending.push((key, control));
    }

    fn evict(&mut self, key: u8) -> bool {
        let ready = position(&self.ready, key).map(|at| self.ready.swap_remove(at));
        let pending = position(&self.pending, key).map(|at| self.pending.swap_remove(at));
        ready.is_some() || pending.is_some()
    }

    /// Takes out the pending services that are broken; gives their keys.
    fn fail(&mut self) -> Vec<u8> {
        let (broken, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, control)| control.status() == Status::Broken);
        self.pending = rest;
        Services::into_iter(broken).map(|(key, _)| key).collect()
    }

    /// Makes the pending services that are ready so. The order of those that are new among the ready is
    /// the cache's to choose, and followed.
    fn promote(&mut self, order: &[u8]) {
        let (promoted, rest): (Services, Services) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, control)| control.status() == Status::Ready);
        self.pending = rest;
        let before = self.ready.len();
        for (key, control) in promoted {
            match position(&self.ready, key) {
                Some(at) => self.ready[at].1 = control,
                None => self.ready.push((key, control)),
            }
        }
        self.ready[before..].sort_by_key(|(key, _)| order.iter().position(|k| k == key));
    }

    /// What a check does to the service at an index: gives what the cache should.
    fn check(&mut self, at: usize) -> Result<bool, u8> {
        let Some((_, control)) = self.ready.get(at) else {
            return Ok(false);
        };
        match control.status() {
            Status::Ready => Ok(true),
            Status::Broken => Err(self.ready.swap_remove(at).0),
            Status::Pending => {
                self.leave_ready(at);
                Ok(false)
            }
        }
    }

    fn leave_ready(&mut self, at: usize) {
        let (key, control) = self.ready.swap_remove(at);
        if position(&self.pending, key).is_none() {
            self.pending.push((key, control));
        }
    }
}

/// Polls until nothing fails any more; gives the keys that did, and whether none is pending.
fn poll(task: &mut Spawn<()>, cache: &mut ReadyCache<u8, Scripted, ()>) -> (Vec<u8>, bool) {
    let mut failed = Vec::new();
    loop {
        match task.enter(|cx, _| cache.poll_pending(cx)) {
            Poll::Ready(Err(failure)) => failed.push(failure.0),
            Poll::Ready(Ok(())) => return (failed, true),
            Poll::Pending => return (failed, false),
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut task = spawn(());
    let mut cache = ReadyCache::default();
    let mut oracle = Oracle::default();
    let mut all: Services = Vec::new();
    // Whether the task would be asleep: it has polled, and neither woke nor changed the cache since.
    let mut asleep = false;

    for step in steps {
        asleep &=
            !task.is_woken() && !matches!(step, Step::Push(..) | Step::Call(_) | Step::CallKey(_));
        match step {
            Step::Push(key, status) => {
                let (service, control) = scripted(status);
                all.push((key, Arc::clone(&control)));
                cache.push(key, service);
                oracle.push(key, control);
            }
            Step::Evict(key) => assert_eq!(cache.evict(&key), oracle.evict(key)),
            Step::Set(at, status) if !all.is_empty() => {
                let control = &at.get(&all).1;
                let waits = oracle
                    .pending
                    .iter()
                    .any(|(_, pending)| Arc::ptr_eq(pending, control));
                let polled = control.polls() > 0 && control.status() == Status::Pending;
                control.set(status);
                if asleep && waits && polled && status != Status::Pending {
                    assert!(task.is_woken(), "a wake was lost");
                }
            }
            Step::Wake(at) if !all.is_empty() => at.get(&all).1.wake_for_nothing(),
            Step::Set(..) | Step::Wake(_) => {}
            Step::Poll => {
                let (mut failed, none_pending) = poll(&mut task, &mut cache);
                let mut expected = oracle.fail();
                failed.sort_unstable();
                expected.sort_unstable();
                assert_eq!(failed, expected);
                let order: Vec<u8> = cache.iter_ready().map(|(key, _)| *key).collect();
                oracle.promote(&order);
                assert_eq!(none_pending, oracle.pending.is_empty());
                asleep = !none_pending;
            }
            Step::Check(at) => {
                let checked = task.enter(|cx, _| cache.check_ready_index(cx, at));
                assert_eq!(checked.map_err(|failed| failed.0), oracle.check(at));
            }
            Step::CheckKey(key) => {
                let checked = task.enter(|cx, _| cache.check_ready(cx, &key));
                let expected =
                    position(&oracle.ready, key).map_or(Ok(false), |at| oracle.check(at));
                assert_eq!(checked.map_err(|failed| failed.0), expected);
            }
            Step::Call(at) => {
                // A call is preceded by a check, as the contract of a service wants it.
                if let Ok(true) = task.enter(|cx, _| cache.check_ready_index(cx, at)) {
                    drop(cache.try_call_ready_index(at, ()).unwrap());
                }
                if oracle.check(at) == Ok(true) {
                    oracle.leave_ready(at);
                }
            }
            Step::CallKey(key) => {
                if let Ok(true) = task.enter(|cx, _| cache.check_ready(cx, &key)) {
                    drop(cache.try_call_ready(&key, ()).unwrap());
                }
                if let Some(at) = position(&oracle.ready, key) {
                    if oracle.check(at) == Ok(true) {
                        oracle.leave_ready(at);
                    }
                }
            }
        }
        compare(&cache, &oracle, &all);
    }
}

fn compare(cache: &ReadyCache<u8, Scripted, ()>, oracle: &Oracle, all: &Services) {
    let ready: Vec<u8> = cache.iter_ready().map(|(key, _)| *key).collect();
    let expected: Vec<u8> = oracle.ready.iter().map(|(key, _)| *key).collect();
    assert_eq!(ready, expected);
    assert_eq!(cache.ready_len(), oracle.ready.len());
    assert_eq!(cache.pending_len(), oracle.pending.len());
    assert_eq!(cache.len(), oracle.ready.len() + oracle.pending.len());
    for key in 0..5 {
        assert_eq!(
            cache.pending_contains(&key),
            position(&oracle.pending, key).is_some()
        );
        let index = cache.get_ready(&key).map(|(index, _, _)| index);
        assert_eq!(index, position(&oracle.ready, key));
    }
    for (_, control) in all {
        let held = [&oracle.ready, &oracle.pending]
            .into_iter()
            .flatten()
            .any(|(_, held)| Arc::ptr_eq(held, control));
        assert_eq!(control.is_dropped(), !held);
    }
}

proptest! {
    #[test]
    fn agrees_with_a_cache_that_polls_everything(steps in steps()) {
        run(steps);
    }
}
