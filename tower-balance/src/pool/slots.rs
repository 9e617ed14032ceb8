//! A vector that grows while others read it, and the set of those of its indices that are ready.
//!
//! Neither copies anything when it changes, whatever its size, and both are read without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The first chunk holds this many; each other one twice as many as the one before.
const FIRST: usize = 32;
const CHUNKS: usize = 27;

/// A vector that grows by chunks, so that what is in it never moves. It never shrinks.
#[derive(Debug)]
pub(super) struct Growing<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
}

impl<T> Growing<T> {
    pub(super) fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, offset) = locate(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    /// Gets what is at `index`, after putting it there if nothing is.
    pub(super) fn get_or_insert(&self, index: usize, make: impl FnOnce() -> T) -> &T {
        let (chunk, offset) = locate(index);
        let chunk = self.chunks[chunk].get_or_init(|| {
            let len = FIRST << chunk;
            (0..len).map(|_| OnceLock::new()).collect()
        });
        chunk[offset].get_or_init(make)
    }
}

#[inline]
fn locate(index: usize) -> (usize, usize) {
    let shifted = index.saturating_add(FIRST);
    let chunk = (shifted.ilog2() - FIRST.ilog2()) as usize;
    (chunk, shifted - (FIRST << chunk))
}

/// The position of what isn't in the set.
const NOWHERE: u32 = u32::MAX;

/// Indices in no order, of which any can be drawn, and the place of each.
///
/// One writes at a time. Whoever reads meanwhile may find an index twice, or one that has just gone, and so
/// looks whether what it finds is what it wants.
#[derive(Debug)]
pub(super) struct ReadySet {
    order: Growing<AtomicU32>,
    /// Where in the order each index is.
    places: Growing<AtomicU32>,
    len: AtomicUsize,
}

impl ReadySet {
    pub(super) fn new() -> Self {
        Self {
            order: Growing::new(),
            places: Growing::new(),
            len: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The index at a place. None where it has just become shorter.
    #[inline]
    pub(super) fn at(&self, place: usize) -> Option<u32> {
        self.order.get(place).map(|at| at.load(Ordering::Relaxed))
    }

    /// The place of an index, if it is in the set.
    #[inline]
    pub(super) fn place(&self, index: u32) -> Option<usize> {
        let place = self.places.get(index as usize)?.load(Ordering::Relaxed);
        (place != NOWHERE).then_some(place as usize)
    }

    /// Adds an index, and says whether it is new. One writer at a time.
    pub(super) fn insert(&self, index: u32) -> bool {
        if self.place(index).is_some() {
            return false;
        }
        let len = self.len.load(Ordering::Relaxed);
        let make = || AtomicU32::new(NOWHERE);
        self.order
            .get_or_insert(len, make)
            .store(index, Ordering::Relaxed);
        self.places
            .get_or_insert(index as usize, make)
            .store(len as u32, Ordering::Relaxed);
        // Who sees the new length sees the index.
        self.len.store(len + 1, Ordering::Release);
        true
    }

    /// Takes an index out, and says whether it was in. The last takes its place. One writer at a time.
    pub(super) fn remove(&self, index: u32) -> bool {
        let Some(place) = self.place(index) else {
            return false;
        };
        let last_place = self.len.load(Ordering::Relaxed) - 1;
        let last = self.at(last_place).unwrap_or(index);
        let set = |cell: Option<&AtomicU32>, to: u32| {
            if let Some(cell) = cell {
                cell.store(to, Ordering::Relaxed);
            }
        };
        set(self.order.get(place), last);
        set(self.places.get(last as usize), place as u32);
        set(self.places.get(index as usize), NOWHERE);
        self.len.store(last_place, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let growing = Growing::new();
        for index in (0..1_000).rev() {
            assert_eq!(growing.get(index), None);
            assert_eq!(growing.get_or_insert(index, || index), &index);
        }
        for index in 0..1_000 {
            assert_eq!(growing.get(index), Some(&index));
        }
        assert_eq!(growing.get(usize::MAX), None);
        assert_eq!(growing.get(u32::MAX as usize), None);
    }

    proptest! {
        #[test]
        fn the_ready_set_agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0..40_u32), 1..300)) {
            let (set, mut oracle) = (ReadySet::new(), BTreeSet::new());
            for (insert, index) in steps {
                if insert {
                    prop_assert_eq!(set.insert(index), oracle.insert(index));
                } else {
                    prop_assert_eq!(set.remove(index), oracle.remove(&index));
                }
                let all: BTreeSet<u32> = (0..set.len()).filter_map(|place| set.at(place)).collect();
                prop_assert_eq!(&all, &oracle);
                prop_assert_eq!(set.len(), oracle.len());
                for index in 0..40 {
                    let place = set.place(index);
                    prop_assert_eq!(place.is_some(), oracle.contains(&index));
                    prop_assert!(place.is_none_or(|place| set.at(place) == Some(index)));
                }
            }
        }
    }
}
