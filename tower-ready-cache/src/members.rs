//! Who is in the cache, and where: nothing here polls a service.

use std::hash::Hash;

use indexmap::Equivalent;

use crate::{Entry, ReadyCache, State};

impl<K, S, Req> ReadyCache<K, S, Req>
where
    K: Eq + Hash,
{
    /// Counts the services, ready or pending.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are no services at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts the services that are ready.
    #[inline]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Counts the services that are pending.
    #[inline]
    pub fn pending_len(&self) -> usize {
        self.entries.len() - self.ready.len()
    }

    /// Tells whether a service of this key is pending.
    pub fn pending_contains<Q: Hash + Equivalent<K>>(&self, key: &Q) -> bool {
        // Of two entries the map has the pending one.
        self.slots
            .get(key)
            .is_some_and(|&slot| matches!(self.entries[slot].state, State::Pending))
    }

    /// Gives the ready service of this key, with its index.
    pub fn get_ready<Q: Hash + Equivalent<K>>(&self, key: &Q) -> Option<(usize, &K, &S)> {
        let index = self.ready_index(key)?;
        let (key, service) = self.get_ready_index(index)?;
        Some((index, key, service))
    }

    /// Gives the ready service of this key, with its index.
    pub fn get_ready_mut<Q: Hash + Equivalent<K>>(
        &mut self,
        key: &Q,
    ) -> Option<(usize, &K, &mut S)> {
        let index = self.ready_index(key)?;
        let (key, service) = self.get_ready_index_mut(index)?;
        Some((index, key, service))
    }

    /// Gives the ready service at this index.
    #[inline]
    pub fn get_ready_index(&self, index: usize) -> Option<(&K, &S)> {
        let entry = &self.entries[*self.ready.get(index)?];
        Some((&entry.key, &entry.service))
    }

    /// Gives the ready service at this index.
    pub fn get_ready_index_mut(&mut self, index: usize) -> Option<(&K, &mut S)> {
        let entry = &mut self.entries[*self.ready.get(index)?];
        Some((&entry.key, &mut entry.service))
    }

    /// Iterates over the ready services, by index.
    pub fn iter_ready(&self) -> impl Iterator<Item = (&K, &S)> {
        self.ready.iter().map(|&slot| {
            let entry = &self.entries[slot];
            (&entry.key, &entry.service)
        })
    }

    /// Iterates over the ready services, by index. Allocates.
    pub fn iter_ready_mut(&mut self) -> impl Iterator<Item = (&K, &mut S)> {
        // The entries can only be borrowed in the order in which they are stored.
        let mut ready: Vec<_> = self.ready.iter().map(|_| None).collect();
        for (_, entry) in &mut self.entries {
            if let State::Ready(index) = entry.state {
                ready[index] = Some((&entry.key, &mut entry.service));
            }
        }
        ready.into_iter().flatten()
    }

    /// Drops the services of this key, the ready and the pending one. Tells whether there was any.
    ///
    /// The last ready service takes the index of one that was ready.
    pub fn evict<Q: Hash + Equivalent<K>>(&mut self, key: &Q) -> bool {
        let Some(&slot) = self.slots.get(key) else {
            return false;
        };
        if let Some(older) = self.entries[slot].twin {
            self.remove(older);
        }
        self.remove(slot);
        true
    }

    pub(crate) fn ready_index<Q: Hash + Equivalent<K>>(&self, key: &Q) -> Option<usize> {
        let entry = &self.entries[*self.slots.get(key)?];
        let older = || Some(self.entries[entry.twin?].state);
        match entry.state {
            State::Ready(index) => Some(index),
            State::Pending => match older()? {
                State::Ready(index) => Some(index),
                State::Pending => None,
            },
        }
    }

    /// Takes an entry out, wherever it is.
    pub(crate) fn remove(&mut self, slot: usize) -> Entry<K, S> {
        let entry = self.entries.remove(slot);
        self.turn.skip(slot);
        if let State::Ready(index) = entry.state {
            self.remove_from_ready(index);
        }
        match entry.twin {
            Some(twin) => {
                self.entries[twin].twin = None;
                self.slots[&entry.key] = twin;
            }
            None => {
                self.slots.swap_remove(&entry.key);
            }
        }
        entry
    }

    #[inline]
    pub(crate) fn remove_from_ready(&mut self, index: usize) {
        self.ready.swap_remove(index);
        if let Some(&moved) = self.ready.get(index) {
            self.entries[moved].state = State::Ready(index);
        }
    }
}
