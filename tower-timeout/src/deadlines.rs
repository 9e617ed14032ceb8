//! Who waits until when: a binary heap out of which anybody can leave.

use std::mem;
use std::task::Waker;

use tokio::time::Instant;

/// Wakers by their deadline.
///
/// A key is good until it is removed, also after its waker was taken because its time had come. Nothing is
/// allocated once there was room for as many before.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// Keys, each of which has a deadline that is no earlier than that of its parent, at `(index - 1) / 2`.
    heap: Vec<usize>,
    entries: Vec<Entry>,
    /// The first of the vacant entries.
    vacant: Option<usize>,
}

#[derive(Debug)]
enum Entry {
    Vacant {
        next: Option<usize>,
    },
    Waiting {
        deadline: Instant,
        /// Where the key is in the heap.
        index: usize,
        waker: Waker,
    },
    Expired,
}

impl Deadlines {
    /// When the first of them is due.
    #[inline]
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|&key| self.deadline(key))
    }

    pub(crate) fn insert(&mut self, deadline: Instant, waker: Waker) -> usize {
        let index = self.heap.len();
        let entry = Entry::Waiting {
            deadline,
            index,
            waker,
        };
        let key = match self.vacant {
            Some(key) => {
                if let Entry::Vacant { next } = mem::replace(&mut self.entries[key], entry) {
                    self.vacant = next;
                }
                key
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.heap.push(key);
        self.rise(index);
        key
    }

    /// The waker that waits under `key`, or `None` if its time has come.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut Waker> {
        match &mut self.entries[key] {
            Entry::Waiting { waker, .. } => Some(waker),
            Entry::Expired | Entry::Vacant { .. } => None,
        }
    }

    /// Gives the key up.
    pub(crate) fn remove(&mut self, key: usize) -> Option<Waker> {
        let next = self.vacant.replace(key);
        match mem::replace(&mut self.entries[key], Entry::Vacant { next }) {
            Entry::Waiting { index, waker, .. } => {
                self.leave_heap(index);
                Some(waker)
            }
            Entry::Expired | Entry::Vacant { .. } => None,
        }
    }

    /// Takes a waker whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Waker> {
        let &key = self.heap.first()?;
        if self.deadline(key) > now {
            return None;
        }
        let entry = mem::replace(&mut self.entries[key], Entry::Expired);
        self.leave_heap(0);
        match entry {
            Entry::Waiting { waker, .. } => Some(waker),
            Entry::Expired | Entry::Vacant { .. } => None,
        }
    }

    /// Everyone who waits.
    pub(crate) fn wakers(&self) -> impl Iterator<Item = &Waker> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Waiting { waker, .. } => Some(waker),
            Entry::Expired | Entry::Vacant { .. } => None,
        })
    }

    #[inline]
    fn deadline(&self, key: usize) -> Instant {
        match &self.entries[key] {
            Entry::Waiting { deadline, .. } => *deadline,
            Entry::Expired | Entry::Vacant { .. } => unreachable!("only who waits is in the heap"),
        }
    }

    fn leave_heap(&mut self, index: usize) {
        self.heap.swap_remove(index);
        if index < self.heap.len() {
            // What was last may belong above this place, or below.
            self.place(index);
            self.sink(index);
            self.rise(index);
        }
    }

    fn rise(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.deadline(self.heap[parent]) <= self.deadline(self.heap[index]) {
                break;
            }
            self.swap(index, parent);
            index = parent;
        }
    }

    fn sink(&mut self, mut index: usize) {
        loop {
            let children = 2 * index + 1..(2 * index + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.deadline(self.heap[child])) else {
                break;
            };
            if self.deadline(self.heap[index]) <= self.deadline(self.heap[least]) {
                break;
            }
            self.swap(index, least);
            index = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place(a);
        self.place(b);
    }

    /// Notes where the key at `at` is.
    fn place(&mut self, at: usize) {
        if let Entry::Waiting { index, .. } = &mut self.entries[self.heap[at]] {
            *index = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    /// A waker that can be told from the others.
    struct Id;

    impl Wake for Id {
        fn wake(self: Arc<Self>) {}
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        /// Of those that hold a key, the so-many-th.
        Remove(usize),
        Expire(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..100_u64, 0..5_u8).prop_map(|(n, kind)| match kind {
            0..=2 => Step::Insert(n),
            3 => Step::Remove(n as usize),
            _ => Step::Expire(n),
        });
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(steps in steps()) {
            let zero = Instant::now();
            let at = |ms: u64| zero + Duration::from_millis(ms);
            let mut deadlines = Deadlines::default();
            // By key: the deadline and waker, or `None` once expired.
            let mut oracle: BTreeMap<usize, Option<(Instant, Waker)>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(ms) => {
                        let waker = Waker::from(Arc::new(Id));
                        let key = deadlines.insert(at(ms), waker.clone());
                        let old = oracle.insert(key, Some((at(ms), waker)));
                        prop_assert!(old.is_none(), "a key was given twice");
                    }
                    Step::Remove(n) if !oracle.is_empty() => {
                        let key = *oracle.keys().nth(n % oracle.len()).unwrap();
                        let expected = oracle.remove(&key).unwrap();
                        let removed = deadlines.remove(key);
                        prop_assert_eq!(removed.is_some(), expected.is_some());
                        if let (Some(removed), Some((_, expected))) = (removed, expected) {
                            prop_assert!(removed.will_wake(&expected));
                        }
                    }
                    Step::Remove(_) => {}
                    Step::Expire(ms) => {
                        let mut last = zero;
                        while let Some(waker) = deadlines.expire(at(ms)) {
                            let slot = oracle
                                .values_mut()
                                .find(|slot| matches!(slot, Some((_, w)) if w.will_wake(&waker)))
                                .unwrap();
                            let (deadline, _) = slot.take().unwrap();
                            prop_assert!(last <= deadline && deadline <= at(ms));
                            last = deadline;
                        }
                    }
                }
                let waiting = || oracle.values().flatten().map(|(deadline, _)| *deadline);
                prop_assert_eq!(deadlines.earliest(), waiting().min());
                prop_assert_eq!(deadlines.wakers().count(), waiting().count());
                for (&key, slot) in &oracle {
                    prop_assert_eq!(deadlines.get_mut(key).is_some(), slot.is_some());
                }
            }
        }
    }
}
