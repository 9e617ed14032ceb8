//! Counts the streams that a client has open, against what the peer allows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Places for streams. Who finds none leaves a waker, and is woken when there is one to be had.
///
/// Being woken is no promise: whoever comes first takes the place, and the other waits again. So a handle
/// that is woken and never polled again keeps no place from anyone.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: usize,
    limit: usize,
    closed: bool,
    /// Those that wait, oldest first, under the key that their handle holds.
    waiting: VecDeque<(u64, Waker)>,
    next_key: u64,
}

/// A handle's place in the line of a [`Gate`].
#[derive(Debug, Default)]
pub(crate) struct Line(Option<u64>);

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                open: 0,
                limit,
                closed: false,
                waiting: VecDeque::new(),
                next_key: 0,
            }),
        }
    }

    // Nothing that can panic runs under the lock but a clone of a waker, which leaves it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, or joins the line for one. Ready without a place where the gate is closed.
    pub(crate) fn poll_enter(&self, line: &mut Line, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.closed {
            *line = Line(None);
            return Poll::Ready(false);
        }
        if state.open < state.limit {
            state.open += 1;
            let left = state.leave(line);
            drop(state);
            drop(left);
            return Poll::Ready(true);
        }
        let waker = cx.waker().clone();
        let replaced = state.wait(line, waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Takes a place whatever the limit is, for a call without readiness.
    pub(crate) fn force(&self) {
        self.lock().open += 1;
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        let woken = state.wake();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Leaves the line without a place. If it was woken for one, another is woken in its stead.
    pub(crate) fn give_up(&self, line: &mut Line) {
        if line.0.is_some() {
            let mut state = self.lock();
            let left = state.leave(line);
            let woken = state.wake();
            drop(state);
            drop(left);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes in what the peer allows now.
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut state = self.lock();
        state.limit = limit;
        let woken = state.wake();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends all waits.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many places are taken.
    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }
}

impl State {
    fn position(&self, line: &Line) -> Option<usize> {
        let key = line.0?;
        self.waiting.iter().position(|&(other, _)| other == key)
    }

    fn leave(&mut self, line: &mut Line) -> Option<(u64, Waker)> {
        let position = self.position(line);
        *line = Line(None);
        position.and_then(|position| self.waiting.remove(position))
    }

    /// Waits with `waker`, in the place that it has or at the end. Gives the waker it had.
    fn wait(&mut self, line: &mut Line, waker: Waker) -> Option<Waker> {
        if let Some(position) = self.position(line) {
            return Some(std::mem::replace(&mut self.waiting[position].1, waker));
        }
        let key = self.next_key;
        self.next_key += 1;
        self.waiting.push_back((key, waker));
        *line = Line(Some(key));
        None
    }

    /// Whom to wake: as many as there are places; all where nothing is open, as no place will then
    /// come free to wake those behind one that was woken and doesn't come.
    fn wake(&mut self) -> Vec<Waker> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let free = self.limit.saturating_sub(self.open);
        let count = if self.open == 0 && free > 0 {
            self.waiting.len()
        } else {
            free.min(self.waiting.len())
        };
        self.waiting
            .drain(..count)
            .map(|(_, waker)| waker)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(gate: &Gate, line: &mut Line, count: &Arc<Count>) -> Poll<bool> {
        let waker = count.clone().into();
        gate.poll_enter(line, &mut Context::from_waker(&waker))
    }

    #[test]
    fn as_many_enter_as_the_limit_says_and_the_next_when_one_leaves() {
        let gate = Gate::new(2);
        let count = Arc::default();
        let mut line = Line::default();
        assert_eq!(enter(&gate, &mut line, &count), Poll::Ready(true));
        assert_eq!(enter(&gate, &mut line, &count), Poll::Ready(true));
        assert_eq!(enter(&gate, &mut line, &count), Poll::Pending);
        gate.leave();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(enter(&gate, &mut line, &count), Poll::Ready(true));
        assert_eq!(gate.open(), 2);
    }

    #[test]
    fn a_place_that_was_offered_to_one_that_gives_up_is_offered_to_the_next() {
        let gate = Gate::new(1);
        let counts = [Arc::default(), Arc::default(), Arc::default()];
        let [mut first, mut second, mut third] =
            [Line::default(), Line::default(), Line::default()];
        assert_eq!(enter(&gate, &mut first, &counts[0]), Poll::Ready(true));
        assert!(enter(&gate, &mut second, &counts[1]).is_pending());
        assert!(enter(&gate, &mut third, &counts[2]).is_pending());
        gate.set_limit(2);
        assert_eq!(counts[1].0.load(Ordering::Relaxed), 1);
        assert_eq!(counts[2].0.load(Ordering::Relaxed), 0);
        gate.give_up(&mut second);
        assert_eq!(counts[2].0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_that_is_woken_and_never_comes_back_keeps_nobody_waiting() {
        let gate = Gate::new(1);
        let counts = [Arc::default(), Arc::default(), Arc::default()];
        let [mut first, mut lost, mut third] = [Line::default(), Line::default(), Line::default()];
        assert_eq!(enter(&gate, &mut first, &counts[0]), Poll::Ready(true));
        assert!(enter(&gate, &mut lost, &counts[1]).is_pending());
        assert!(enter(&gate, &mut third, &counts[2]).is_pending());
        gate.leave();
        assert_eq!(counts[2].0.load(Ordering::Relaxed), 1);
        assert_eq!(enter(&gate, &mut third, &counts[2]), Poll::Ready(true));
    }

    #[test]
    fn closing_ends_every_wait() {
        let gate = Gate::new(0);
        let count = Arc::default();
        let mut line = Line::default();
        assert!(enter(&gate, &mut line, &count).is_pending());
        gate.close();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(enter(&gate, &mut line, &count), Poll::Ready(false));
    }

    /// What handles may do to a gate.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Enter(usize),
        Leave,
        GiveUp(usize),
        Limit(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..6_usize).prop_map(Step::Enter),
            3 => Just(Step::Leave),
            1 => (0..6_usize).prop_map(Step::GiveUp),
            1 => (0..4_usize).prop_map(Step::Limit),
        ];
        vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn no_place_stays_free_while_someone_waits_unwoken(steps in steps()) {
            let gate = Gate::new(2);
            let (mut open, mut limit) = (0_usize, 2_usize);
            // Each handle's place in the line, how often it was woken, and how often when it joined.
            let mut lines: [Line; 6] = Default::default();
            let counts: [Arc<Count>; 6] = Default::default();
            let mut waits: [Option<usize>; 6] = [None; 6];
            let woken = |handle: usize| counts[handle].0.load(Ordering::Relaxed);
            for step in steps {
                match step {
                    Step::Enter(handle) => {
                        let entered = enter(&gate, &mut lines[handle], &counts[handle]);
                        prop_assert_eq!(entered.is_ready(), open < limit);
                        open += usize::from(entered.is_ready());
                        waits[handle] = entered.is_pending().then(|| woken(handle));
                    }
                    Step::Leave if open > 0 => {
                        gate.leave();
                        open -= 1;
                    }
                    Step::Leave => {}
                    Step::GiveUp(handle) => {
                        gate.give_up(&mut lines[handle]);
                        waits[handle] = None;
                    }
                    Step::Limit(new) => {
                        gate.set_limit(new);
                        limit = new;
                    }
                }
                prop_assert_eq!(gate.open(), open);
                let free = limit.saturating_sub(open);
                let waiting = (0..6).filter_map(|handle| Some((handle, waits[handle]?)));
                let (asleep, called): (Vec<_>, Vec<_>) =
                    waiting.partition(|&(handle, before)| woken(handle) == before);
                prop_assert!(asleep.is_empty() || called.len() >= free);
            }
        }
    }
}
