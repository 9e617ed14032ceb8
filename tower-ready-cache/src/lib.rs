//! A cache of services that keeps the ready ones apart from the pending ones.
//!
//! [`ReadyCache`] drives a changing set of services to readiness and offers those that are ready for
//! calls. It is what a balancer is built on: the balancer decides, the cache polls.
//!
//! # When not to use it
//!
//! To spread requests over endpoints, use a balancer. The cache is for writing one, or another kind of
//! pool.
//!
//! # Cost
//!
//! A service stays where it is when it becomes ready or pending: only its place in a list of indices
//! changes. So a call, and the poll that readies the service again, allocate nothing, hash nothing, take
//! no lock, and take the same few nanoseconds for ten services or ten thousand. Pushing a service
//! allocates its waker. A wake from another thread takes a short lock.

mod failed;
mod members;
mod turn;
mod wakes;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::task::{Context, Poll};

#[doc(no_inline)]
pub use indexmap::Equivalent;
use indexmap::IndexMap;
use slab::Slab;
use tower_service::Service;

use crate::turn::Turn;
use crate::wakes::{Handle, Wakes};

pub use self::failed::{Failed, NotReady};

type BoxError = Box<dyn Error + Send + Sync>;

/// A set of services, of which some are ready and the others are driven to readiness.
///
/// - [`push`](Self::push) adds a service. It is pending until [`poll_pending`](Self::poll_pending) has
///   found it ready.
/// - Ready services have indices from 0 to [`ready_len`](Self::ready_len). An index is valid until a
///   service leaves the ready ones: then the last takes the place of the one that left.
/// - Before a call, [`check_ready_index`](Self::check_ready_index) makes sure that a service is still
///   ready. [`call_ready_index`](Self::call_ready_index) makes the call and the service pending again.
///
/// A service that fails leaves the cache, which then reports it as [`Failed`].
///
/// # Cancellation
///
/// Dropping the cache drops its services. The responses of calls go on.
///
/// # Example
///
/// ```
/// use std::task::{Context, Waker};
///
/// use tower_ready_cache::ReadyCache;
/// # let (near, mut near_handle) = tower_test::mock::pair::<&str, &str>();
/// # let (far, mut far_handle) = tower_test::mock::pair::<&str, &str>();
/// # near_handle.allow(1);
/// # far_handle.allow(0);
///
/// let mut cx = Context::from_waker(Waker::noop());
/// let mut cache = ReadyCache::default();
/// cache.push("near", near); // is ready for one request
/// cache.push("far", far); // has no capacity now
///
/// assert!(cache.poll_pending(&mut cx).is_pending());
/// assert_eq!((cache.ready_len(), cache.pending_len()), (1, 1));
///
/// assert!(cache.check_ready(&mut cx, &"near").unwrap());
/// let response = cache.call_ready(&"near", "hello");
/// assert_eq!((cache.ready_len(), cache.pending_len()), (0, 2));
/// # drop(response);
/// ```
pub struct ReadyCache<K, S, Req>
where
    K: Eq + Hash,
{
    /// Every service, ready or pending.
    entries: Slab<Entry<K, S>>,
    /// The entry of each key. Where there are two, the pending one.
    slots: IndexMap<K, usize>,
    /// The entries that are ready.
    ready: Vec<usize>,
    /// The entries to poll: those that were pushed, called, or woken. Entries that are gone, or ready
    /// meanwhile, are skipped.
    to_poll: VecDeque<usize>,
    turn: Turn,
    wakes: Wakes,
    _request: PhantomData<Req>,
}

struct Entry<K, S> {
    key: K,
    service: S,
    state: State,
    /// The other entry of the same key: a service was pushed while an older one is ready. The older one
    /// is good for one more call, or until the newer one is ready.
    twin: Option<usize>,
    handle: Handle,
}

#[derive(Clone, Copy)]
enum State {
    /// In `ready`, at this index.
    Ready(usize),
    /// In `to_poll`, or waiting for a wake.
    Pending,
}

impl<K, S, Req> ReadyCache<K, S, Req>
where
    K: Clone + Eq + Hash,
    S: Service<Req>,
    <S as Service<Req>>::Error: Into<BoxError>,
{
    /// Adds a service, which is pending at first.
    ///
    /// It replaces a pending service of the same key at once. A ready one of the same key stays for one
    /// more call, or until the new one is ready and takes its index.
    ///
    /// The service isn't polled before [`poll_pending`](Self::poll_pending) is.
    pub fn push(&mut self, key: K, service: S) {
        let slot = match self.slots.get(&key) {
            Some(&slot) if matches!(self.entries[slot].state, State::Pending) => {
                // Its handle serves the new one as well.
                self.entries[slot].service = service;
                slot
            }
            older => {
                let older = older.copied();
                let slot = self.insert(key, service, older);
                if let Some(older) = older {
                    self.entries[older].twin = Some(slot);
                }
                slot
            }
        };
        self.forget_the_gone();
        self.to_poll.push_back(slot);
    }

    /// Polls the pending services that were pushed, called or woken since the last time, and makes those
    /// ready that are.
    ///
    /// Resolves when none is pending any more. It polls each service once: one that wakes itself
    /// meanwhile is polled when the task is polled again.
    ///
    /// # Errors
    ///
    /// A service that failed has left the cache. The others were perhaps not polled yet: poll again.
    #[inline]
    pub fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed<K>>> {
        if let Turn::Called(slot) = self.turn {
            self.turn = Turn::Nobody;
            self.recheck(slot)?;
        }
        if self.pending_len() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_woken(cx)
    }

    /// Tells whether the service of this key is ready, after having polled it.
    ///
    /// One that is no longer ready becomes pending.
    ///
    /// # Errors
    ///
    /// A service that failed has left the cache.
    pub fn check_ready<Q: Hash + Equivalent<K>>(
        &mut self,
        cx: &mut Context<'_>,
        key: &Q,
    ) -> Result<bool, Failed<K>> {
        match self.ready_index(key) {
            Some(index) => self.check_ready_index(cx, index),
            None => Ok(false),
        }
    }

    /// Tells whether the service at this index is ready, after having polled it.
    ///
    /// One that is no longer ready becomes pending, and the last ready service takes its index.
    ///
    /// # Errors
    ///
    /// A service that failed has left the cache, and the last ready service has taken its index.
    #[inline]
    pub fn check_ready_index(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
    ) -> Result<bool, Failed<K>> {
        match self.ready.get(index) {
            Some(&slot) => self.check_slot(cx, slot),
            None => Ok(false),
        }
    }

    /// Calls the ready service of this key, which then is pending.
    ///
    /// # Panics
    ///
    /// If no service of this key is ready. [`try_call_ready`](Self::try_call_ready) doesn't.
    pub fn call_ready<Q: Hash + Equivalent<K>>(&mut self, key: &Q, req: Req) -> S::Future {
        let index = self.ready_index(key).expect("check_ready was not called");
        self.call_ready_index(index, req)
    }

    /// Calls the ready service at this index, which then is pending. The last ready service takes the
    /// index.
    ///
    /// # Panics
    ///
    /// If there is no such index. [`try_call_ready_index`](Self::try_call_ready_index) doesn't.
    #[inline]
    pub fn call_ready_index(&mut self, index: usize, req: Req) -> S::Future {
        let slot = *self
            .ready
            .get(index)
            .expect("check_ready_index was not called");
        self.call_slot(slot, req)
    }

    /// Calls the ready service of this key, which then is pending.
    ///
    /// # Errors
    ///
    /// Gives the request back if no service of this key is ready.
    pub fn try_call_ready<Q: Hash + Equivalent<K>>(
        &mut self,
        key: &Q,
        req: Req,
    ) -> Result<S::Future, NotReady<Req>> {
        match self.ready_index(key) {
            Some(index) => self.try_call_ready_index(index, req),
            None => Err(NotReady(req)),
        }
    }

    /// Calls the ready service at this index, which then is pending. The last ready service takes the
    /// index.
    ///
    /// # Errors
    ///
    /// Gives the request back if there is no such index.
    #[inline]
    pub fn try_call_ready_index(
        &mut self,
        index: usize,
        req: Req,
    ) -> Result<S::Future, NotReady<Req>> {
        match self.ready.get(index) {
            Some(&slot) => Ok(self.call_slot(slot, req)),
            None => Err(NotReady(req)),
        }
    }

    fn insert(&mut self, key: K, service: S, twin: Option<usize>) -> usize {
        let vacant = self.entries.vacant_entry();
        let slot = vacant.key();
        vacant.insert(Entry {
            key: key.clone(),
            service,
            state: State::Pending,
            twin,
            handle: self.wakes.handle(slot),
        });
        self.slots.insert(key, slot);
        slot
    }

    #[inline]
    fn call_slot(&mut self, slot: usize, req: Req) -> S::Future {
        // Before the call, so that a service that panics is polled again before it is called again.
        self.make_pending(slot);
        self.to_poll.push_back(slot);
        let entry = &mut self.entries[slot];
        let response = entry.service.call(req);
        if entry.twin.is_some() {
            self.remove(slot);
        }
        response
    }

    /// Polls a service that is ready.
    ///
    /// - ready → ready.
    /// - ready → pending, if it isn't any more; or gone, if a newer one is pending.
    /// - ready → gone, if it failed.
    #[inline]
    fn check_slot(&mut self, cx: &mut Context<'_>, slot: usize) -> Result<bool, Failed<K>> {
        match self.entries[slot].poll_ready() {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(self.fail(slot, error.into())),
            Poll::Pending => {
                self.leave_ready(slot);
                self.wakes.register(cx.waker());
                Ok(false)
            }
        }
    }

    /// Polls the service that was called when it was picked. The transitions are those of `check_slot`,
    /// but that one with a newer one pending has had its last call.
    #[inline]
    fn recheck(&mut self, slot: usize) -> Result<(), Failed<K>> {
        let entry = &mut self.entries[slot];
        if entry.twin.is_none() {
            match entry.poll_ready() {
                Poll::Ready(Ok(())) => return Ok(()),
                Poll::Ready(Err(error)) => return Err(self.fail(slot, error.into())),
                Poll::Pending => {}
            }
        }
        self.leave_ready(slot);
        Ok(())
    }

    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed<K>>> {
        self.wakes.drain_into(&mut self.to_poll);
        while let Some(slot) = self.to_poll.pop_front() {
            // One that panics is polled again, after the others, rather than never.
            self.to_poll.push_back(slot);
            let polled = self.poll_slot(slot);
            self.to_poll.pop_back();
            polled?;
        }
        if self.pending_len() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.wakes.register(cx.waker());
        Poll::Pending
    }

    /// Polls one service, if it is pending.
    ///
    /// - pending → ready, in the place of an older service of the same key if that is ready.
    /// - pending → gone, if it failed.
    #[inline]
    fn poll_slot(&mut self, slot: usize) -> Result<(), Failed<K>> {
        let Some(entry) = self.entries.get_mut(slot) else {
            return Ok(());
        };
        // Ready or not: a service that was woken while ready must be queued by its next wake.
        entry.handle.unqueue();
        if let State::Ready(_) = entry.state {
            return Ok(());
        }
        match entry.poll_ready() {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => return Err(self.fail(slot, error.into())),
            Poll::Ready(Ok(())) => match entry.twin {
                Some(older) => self.replace(older, slot),
                None => {
                    entry.state = State::Ready(self.ready.len());
                    self.ready.push(slot);
                }
            },
        }
        Ok(())
    }

    /// Makes the newer of two entries ready, at the index of the older one.
    fn replace(&mut self, older: usize, newer: usize) {
        let state = self.entries[older].state;
        if let State::Ready(index) = state {
            self.ready[index] = newer;
        }
        self.entries[newer].state = state;
        self.entries[newer].twin = None;
        self.turn.skip(older);
        self.entries.remove(older);
    }

    /// Makes a ready service pending, or drops it where a newer one is.
    #[cold]
    fn leave_ready(&mut self, slot: usize) {
        if self.entries[slot].twin.is_some() {
            self.remove(slot);
        } else {
            self.make_pending(slot);
        }
    }

    #[inline]
    fn make_pending(&mut self, slot: usize) {
        self.turn.skip(slot);
        let state = &mut self.entries[slot].state;
        if let State::Ready(index) = std::mem::replace(state, State::Pending) {
            self.remove_from_ready(index);
        }
    }

    #[cold]
    fn fail(&mut self, slot: usize, error: BoxError) -> Failed<K> {
        Failed(self.remove(slot).key, error)
    }

    /// Keeps `to_poll` from growing where services are pushed and evicted without ever being polled.
    fn forget_the_gone(&mut self) {
        if self.to_poll.len() > 2 * self.entries.len() + 16 {
            let mut seen = vec![false; self.entries.capacity()];
            self.to_poll.retain(|&slot| {
                self.entries.contains(slot) && !std::mem::replace(&mut seen[slot], true)
            });
        }
    }
}

impl<K, S> Entry<K, S> {
    /// Polls the service with its own waker.
    #[inline]
    fn poll_ready<Req>(&mut self) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        self.service
            .poll_ready(&mut Context::from_waker(self.handle.waker()))
    }
}

impl<K, S, Req> Default for ReadyCache<K, S, Req>
where
    K: Eq + Hash,
    S: Service<Req>,
{
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            slots: IndexMap::new(),
            ready: Vec::new(),
            to_poll: VecDeque::new(),
            turn: Turn::Nobody,
            wakes: Wakes::new(),
            _request: PhantomData,
        }
    }
}

/// Services are called by reference and never pinned in place.
impl<S, K: Eq + Hash, Req> Unpin for ReadyCache<K, S, Req> {}

impl<K, S, Req> fmt::Debug for ReadyCache<K, S, Req>
where
    K: fmt::Debug + Eq + Hash,
    S: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Pending))
            .map(|(_, entry)| (&entry.key, &entry.service));
        f.debug_struct("ReadyCache")
            .field("ready", &self.iter_ready().collect::<IndexMap<_, _>>())
            .field("pending", &pending.collect::<IndexMap<_, _>>())
            .finish()
    }
}
