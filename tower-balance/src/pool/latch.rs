//! A lock that nobody waits for: who finds it held goes away, and is called when it is free.

#[cfg(tower_loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(tower_loom))]
use std::sync::atomic::{AtomicU8, Ordering};

const HELD: u8 = 1;

/// Who has been turned away: several bits of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TurnedAway(u8);

/// The word. What it guards lies beside it.
#[derive(Debug)]
pub(super) struct Latch {
    word: AtomicU8,
}

impl TurnedAway {
    /// A caller, who picks another endpoint or queues.
    pub(super) const CALLER: Self = Self(2);
    /// The pool's task.
    pub(super) const DRIVER: Self = Self(4);

    #[inline]
    pub(super) const fn has(self, who: Self) -> bool {
        self.0 & who.0 != 0
    }

    #[inline]
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Latch {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU8::new(0),
        }
    }

    /// Takes it if it is free. If not, whoever holds it learns, when it leaves, that `who` was turned away.
    #[inline]
    pub(super) fn try_enter(&self, who: TurnedAway) -> bool {
        let entered = self
            .word
            .compare_exchange(0, HELD, Ordering::Acquire, Ordering::Relaxed);
        entered.is_ok() || self.try_enter_held(who)
    }

    #[cold]
    fn try_enter_held(&self, who: TurnedAway) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let is_free = word & HELD == 0;
            let next = if is_free { word | HELD } else { word | who.0 };
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return is_free,
                Err(now) => word = now,
            }
        }
    }

    /// Leaves it, and says who has been turned away meanwhile: these are to be called.
    #[inline]
    pub(super) fn leave(&self) -> TurnedAway {
        TurnedAway(self.word.swap(0, Ordering::Release) & !HELD)
    }
}

#[cfg(all(test, not(tower_loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_was_turned_away_is_told_once() {
        let latch = Latch::new();
        assert!(latch.try_enter(TurnedAway::CALLER));
        assert!(!latch.try_enter(TurnedAway::CALLER));
        assert!(!latch.try_enter(TurnedAway::DRIVER));
        let turned_away = latch.leave();
        assert!(turned_away.has(TurnedAway::CALLER) && turned_away.has(TurnedAway::DRIVER));
        assert!(latch.try_enter(TurnedAway::DRIVER));
        assert!(latch.leave().is_empty());
    }
}

#[cfg(all(test, tower_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn loom_one_of_two_enters_or_the_other_hears_of_it() {
        loom::model(|| {
            let latch = Arc::new(Latch::new());
            let other = Arc::clone(&latch);
            let thread = thread::spawn(move || match other.try_enter(TurnedAway::DRIVER) {
                true => (true, other.leave()),
                false => (false, TurnedAway::default()),
            });
            let mine = match latch.try_enter(TurnedAway::CALLER) {
                true => (true, latch.leave()),
                false => (false, TurnedAway::default()),
            };
            let theirs = thread.join().unwrap();
            // Whoever was turned away is known to the one that held it.
            assert!(mine.0 || theirs.1.has(TurnedAway::CALLER));
            assert!(theirs.0 || mine.1.has(TurnedAway::DRIVER));
        });
    }
}
