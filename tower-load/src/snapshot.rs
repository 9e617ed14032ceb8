//! Two words that belong together, read without a lock.
//!
//! A balancer reads the loads of its endpoints for every request, on one thread, while responses come in
//! on others. With a plain mutex the readings were a fifth of what a pick cost.

use std::sync::PoisonError;

#[cfg(tower_loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering, fence},
};
#[cfg(not(tower_loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering, fence},
};

/// A pair, which stays in registers; an array goes through memory, at 5 ns a reading.
type Words = (u64, u64);

/// A sequence lock: a reader that finds the sequence changed, or odd, has met a writer. It then waits
/// for the writers' mutex instead of spinning, as the writer's thread may have been suspended.
///
/// Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?" (2012), has the orderings.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Odd while the words are written.
    sequence: AtomicU64,
    words: (AtomicU64, AtomicU64),
    writer: Mutex<()>,
}

impl Snapshot {
    pub(crate) fn new((first, second): Words) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            words: (AtomicU64::new(first), AtomicU64::new(second)),
            writer: Mutex::new(()),
        }
    }

    #[inline]
    pub(crate) fn read(&self) -> Words {
        let before = self.sequence.load(Ordering::Acquire);
        let words = self.load();
        // Whoever has read a word of a later write sees, past this fence, that write's odd sequence.
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        if before == after && before % 2 == 0 {
            words
        } else {
            self.read_locked()
        }
    }

    /// Replaces the words by what `update` makes of them. Updates exclude each other.
    #[inline]
    pub(crate) fn update(&self, update: impl FnOnce(Words) -> Words) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = update(self.load());
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.words.0.store(first, Ordering::Relaxed);
        self.words.1.store(second, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
        drop(writer);
    }

    #[cold]
    fn read_locked(&self) -> Words {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.load()
    }

    #[inline]
    fn load(&self) -> Words {
        let (first, second) = &self.words;
        (
            first.load(Ordering::Relaxed),
            second.load(Ordering::Relaxed),
        )
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_update_sees_the_one_before_and_a_reading_the_last() {
        let snapshot = Snapshot::new((1, 2));
        assert_eq!(snapshot.read(), (1, 2));
        snapshot.update(|(first, second)| (first + 10, second + 20));
        snapshot.update(|(first, second)| (first + 10, second + 20));
        assert_eq!(snapshot.read(), (21, 42));
    }
}

#[cfg(all(test, tower_loom))]
mod loom_tests {
    use super::*;
    use loom::{model, sync::Arc, thread};

    #[test]
    fn loom_words_of_different_updates_are_never_read_together() {
        model(|| {
            let snapshot = Arc::new(Snapshot::new((0, 0)));
            let writer = {
                let snapshot = Arc::clone(&snapshot);
                thread::spawn(move || {
                    for _ in 0..2 {
                        snapshot.update(|(first, second)| (first + 1, second + 1));
                    }
                })
            };
            let (first, second) = snapshot.read();
            assert_eq!(first, second);
            writer.join().unwrap();
            assert_eq!(snapshot.read(), (2, 2));
        });
    }

    #[test]
    fn loom_updates_exclude_each_other() {
        model(|| {
            let snapshot = Arc::new(Snapshot::new((0, 0)));
            let other = {
                let snapshot = Arc::clone(&snapshot);
                thread::spawn(move || snapshot.update(|(first, second)| (first + 1, second + 1)))
            };
            snapshot.update(|(first, second)| (first + 1, second + 1));
            other.join().unwrap();
            assert_eq!(snapshot.read(), (2, 2));
        });
    }
}
