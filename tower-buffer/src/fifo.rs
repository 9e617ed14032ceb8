//! A line of values, first come, first served, that can be left from the middle.
//!
//! Whoever waits in a line may give up, wherever in it they are. `VecDeque` finds them in linear time; here
//! the entries of one vector are linked into a list, and a key finds its entry at once. An entry that
//! has left the line keeps its key and its value until it is removed: so a caller finds its answer under the
//! key that it queued with.

/// Names an entry, until that is removed. Keys are then used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(usize);

#[derive(Debug)]
pub(crate) struct Fifo<T> {
    entries: Vec<Entry<T>>,
    /// The first of the vacant entries.
    vacant: Option<usize>,
    front: Option<usize>,
    back: Option<usize>,
    /// How many are in the line.
    len: usize,
}

#[derive(Debug)]
enum Entry<T> {
    Vacant {
        next: Option<usize>,
    },
    Queued {
        value: T,
        prev: Option<usize>,
        next: Option<usize>,
    },
    /// Out of the line, but not removed.
    Left {
        value: T,
    },
}

impl<T> Fifo<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            vacant: None,
            front: None,
            back: None,
            len: 0,
        }
    }

    /// How many are in the line.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first in the line.
    pub(crate) fn front(&self) -> Option<Key> {
        self.front.map(Key)
    }

    /// Puts `value` at the end of the line.
    pub(crate) fn push_back(&mut self, value: T) -> Key {
        let prev = self.back;
        let entry = Entry::Queued {
            value,
            prev,
            next: None,
        };
        let at = self.vacant.unwrap_or(self.entries.len());
        if at == self.entries.len() {
            self.entries.push(entry);
        } else if let Entry::Vacant { next } = std::mem::replace(&mut self.entries[at], entry) {
            self.vacant = next;
        }
        self.back = Some(at);
        self.link(prev, Some(at));
        self.len += 1;
        Key(at)
    }

    /// Takes the entry out of the line, if it is in it, but keeps its value.
    pub(crate) fn leave(&mut self, key: Key) {
        let entry = &mut self.entries[key.0];
        match std::mem::replace(entry, Entry::Vacant { next: None }) {
            Entry::Queued { value, prev, next } => {
                *entry = Entry::Left { value };
                self.link(prev, next);
                if next.is_none() {
                    self.back = prev;
                }
                self.len -= 1;
            }
            other => *entry = other,
        }
    }

    /// Takes the entry out of the line, if it is in it, and gives its value.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.leave(key);
        let entry = &mut self.entries[key.0];
        match std::mem::replace(entry, Entry::Vacant { next: self.vacant }) {
            Entry::Left { value } => {
                self.vacant = Some(key.0);
                Some(value)
            }
            other => {
                *entry = other;
                None
            }
        }
    }

    /// The value of the entry, in the line or out of it.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.0)? {
            Entry::Queued { value, .. } | Entry::Left { value } => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    /// Makes `prev` and `next` neighbours. Without a `prev`, `next` is the front.
    fn link(&mut self, new_prev: Option<usize>, new_next: Option<usize>) {
        match new_prev.map(|at| &mut self.entries[at]) {
            Some(Entry::Queued { next, .. }) => *next = new_next,
            _ => self.front = new_next,
        }
        if let Some(Entry::Queued { prev, .. }) = new_next.map(|at| &mut self.entries[at]) {
            *prev = new_prev;
        }
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Leave(usize),
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push),
            (0..8_usize).prop_map(Step::Leave),
            (0..8_usize).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn a_fifo_is_a_deque_whose_entries_keep_their_key(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut fifo = Fifo::new();
            // The line, and all that has not been removed.
            let mut line: VecDeque<u32> = VecDeque::new();
            let mut held: Vec<(Key, u32)> = Vec::new();
            for (value, step) in (0..).zip(steps) {
                match step {
                    Step::Push => {
                        held.push((fifo.push_back(value), value));
                        line.push_back(value);
                    }
                    Step::Leave(at) => {
                        if let Some(&(key, value)) = held.get(at) {
                            fifo.leave(key);
                            line.retain(|&v| v != value);
                        }
                    }
                    Step::Remove(at) => {
                        if at < held.len() {
                            let (key, value) = held.swap_remove(at);
                            prop_assert_eq!(fifo.remove(key), Some(value));
                            prop_assert_eq!(fifo.get_mut(key), None);
                            line.retain(|&v| v != value);
                        }
                    }
                }
                prop_assert_eq!(fifo.len(), line.len());
                let front = fifo.front().and_then(|key| fifo.get_mut(key).copied());
                prop_assert_eq!(front, line.front().copied());
                for (key, value) in &held {
                    prop_assert_eq!(fifo.get_mut(*key).copied(), Some(*value));
                }
            }
            // What is left comes out in order.
            while let Some(key) = fifo.front() {
                prop_assert_eq!(fifo.remove(key), line.pop_front());
            }
            prop_assert!(line.is_empty());
            prop_assert!(fifo.entries.len() <= 200);
        }
    }

    #[test]
    fn removed_entries_are_used_again() {
        let mut fifo = Fifo::new();
        for round in 0..100 {
            let keys = [fifo.push_back(round), fifo.push_back(round)];
            for key in keys {
                fifo.remove(key);
            }
        }
        assert_eq!(fifo.entries.len(), 2);
    }
}
