//! The balancer against a plain map of the endpoints that it should know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use proptest::prelude::*;
use tokio_test::task::spawn;
use tower_balance::Balance;
use tower_discover::Change;
use tower_rng::SplitMix64;
use tower_service::Service;

use crate::endpoint::{Control, Status, changes, endpoint};

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, Status, u32),
    Remove(usize),
    /// Sets the status of one of the known endpoints.
    Set(usize, Status),
    SetLoad(usize, u32),
    Poll,
    Call,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = || prop_oneof![1 => Just(Status::Pending), 3 => Just(Status::Ready), 1 => Just(Status::Broken)];
    let key = || 0..6_usize;
    let step = prop_oneof![
        3 => (key(), status(), 0..5_u32).prop_map(|(key, status, load)| Step::Insert(key, status, load)),
        2 => key().prop_map(Step::Remove),
        3 => (key(), status()).prop_map(|(key, status)| Step::Set(key, status)),
        1 => (key(), 0..5_u32).prop_map(|(key, load)| Step::SetLoad(key, load)),
        4 => Just(Step::Poll),
        4 => Just(Step::Call),
    ];
    prop::collection::vec(step, 1..200)
}

/// The endpoints of one key: the newest, and the one before it while that is still of use.
#[derive(Default)]
struct Known {
    all: BTreeMap<usize, Vec<Arc<Control>>>,
}

impl Known {
    fn newest(&self, key: usize) -> Option<&Arc<Control>> {
        self.all.get(&key)?.last()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Control>> {
        self.all.values().flatten()
    }

    /// Forgets what the balancer has dropped, which must have been broken or replaced.
    fn settle(&mut self) {
        for endpoints in self.all.values_mut() {
            let newest = endpoints.last().cloned();
            endpoints.retain(|control| {
                let replaced = newest
                    .as_ref()
                    .is_some_and(|newest| !Arc::ptr_eq(newest, control));
                assert!(!control.is_dropped() || replaced || control.status() == Status::Broken);
                !control.is_dropped()
            });
        }
        self.all.retain(|_, endpoints| !endpoints.is_empty());
    }
}

fn run(steps: Vec<Step>, seed: u64) {
    let (send, receive) = changes();
    let mut balance = Balance::from_rng(receive, SplitMix64::new(seed));
    let mut task = spawn(());
    let mut known = Known::default();
    let mut ready = false;
    let mut asleep = false;

    for step in steps {
        match step {
            Step::Insert(key, status, load) => {
                let (service, control) = endpoint(status, load);
                send.send(Ok(Change::Insert(key, service))).unwrap();
                known.all.entry(key).or_default().push(control);
                assert!(
                    !asleep || task.is_woken(),
                    "a change of discovery was missed"
                );
            }
            Step::Remove(key) => {
                known.all.remove(&key);
                send.send(Ok(Change::Remove(key))).unwrap();
            }
            Step::Set(key, status) => {
                if let Some(control) = known.newest(key) {
                    let was = control.status();
                    control.set(status);
                    if asleep && was == Status::Pending && status == Status::Ready {
                        assert!(task.is_woken(), "a wake was lost");
                    }
                }
            }
            Step::SetLoad(key, load) => {
                if let Some(control) = known.newest(key) {
                    control.set_load(load);
                }
            }
            Step::Poll => {
                ready = match task.enter(|cx, _| balance.poll_ready(cx)) {
                    Poll::Ready(result) => {
                        result.unwrap();
                        true
                    }
                    Poll::Pending => false,
                };
                asleep = !ready;
                known.settle();
                let any = known
                    .iter()
                    .any(|control| control.status() == Status::Ready);
                assert_eq!(ready, any);
            }
            Step::Call => {
                if !std::mem::take(&mut ready) {
                    continue;
                }
                let before: Vec<_> = known.iter().map(|control| control.calls()).collect();
                drop(balance.call(()));
                let called: Vec<_> = known
                    .iter()
                    .zip(before)
                    .filter(|(control, before)| control.calls() != *before)
                    .collect();
                // It may have gone to one whose removal wasn't polled yet, but to no other.
                assert!(called.len() <= 1);
            }
        }
    }
}

proptest! {
    #[test]
    fn ready_if_and_only_if_a_known_endpoint_is(steps in steps(), seed: u64) {
        run(steps, seed);
    }

    /// With all endpoints ready the one with the greatest load is never called, nor one that was removed.
    #[test]
    fn neither_the_most_loaded_nor_a_removed_endpoint_is_called(
        loads in prop::collection::hash_set(0..1_000_u32, 2..20),
        removals in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        seed: u64,
    ) {
        let (send, receive) = changes();
        let mut known: Vec<(usize, Arc<Control>)> = Vec::new();
        for (key, load) in loads.into_iter().enumerate() {
            let (service, control) = endpoint(Status::Ready, load);
            send.send(Ok(Change::Insert(key, service))).unwrap();
            known.push((key, control));
        }
        let mut balance = Balance::from_rng(receive, SplitMix64::new(seed));
        let mut task = spawn(());
        let mut removed: Vec<(Arc<Control>, usize)> = Vec::new();
        let mut removals = removals.into_iter();
        loop {
            for nth in 0..20 {
                prop_assert!(task.enter(|cx, _| balance.poll_ready(cx)).is_ready());
                let total = |known: &[(usize, Arc<Control>)]| known.iter().map(|(_, c)| c.calls()).sum::<usize>();
                let before = total(&known);
                let most_loaded = known.iter().max_by_key(|(_, c)| c.load()).map(|(_, c)| (c.clone(), c.calls()));
                drop(balance.call(()));
                prop_assert_eq!(total(&known), before + 1);
                let (control, calls) = most_loaded.unwrap();
                // The first call after a removal goes where it was picked to go before, when the removed
                // one perhaps had more load.
                prop_assert!(known.len() == 1 || nth == 0 || control.calls() == calls);
            }
            let Some(at) = removals.next() else { break };
            if known.len() == 1 {
                break;
            }
            // Ready first, so that a pick may be stale.
            prop_assert!(task.enter(|cx, _| balance.poll_ready(cx)).is_ready());
            let (key, control) = known.swap_remove(at.index(known.len()));
            send.send(Ok(Change::Remove(key))).unwrap();
            let calls = control.calls();
            removed.push((control, calls));
        }
        for (control, calls) in removed {
            prop_assert_eq!(control.calls(), calls);
        }
    }
}
