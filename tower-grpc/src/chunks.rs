//! Bytes in the chunks in which they were received, and messages among them.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Chunks shorter than this are put together. A peer that sends single bytes would otherwise have this side
/// keep a whole read buffer for each.
const SMALL: usize = 1024;

/// How long what is put together may get before it counts as a chunk.
const JOINED: usize = 16 * 1024;

/// Bytes as they were received, in their chunks.
#[derive(Default)]
pub(crate) struct Chunks {
    /// Empty only where all is.
    front: Bytes,
    rest: VecDeque<Bytes>,
    /// Small chunks, put together; they come after the rest.
    tail: BytesMut,
    /// How many bytes come after the front.
    beyond: usize,
}

impl Chunks {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.front.len() + self.beyond
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.front.is_empty() {
            self.front = chunk;
            return;
        }
        self.beyond += chunk.len();
        if chunk.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= JOINED {
                self.settle();
            }
        } else {
            self.settle();
            self.rest.push_back(chunk);
        }
    }

    /// Makes a chunk of what was put together.
    fn settle(&mut self) {
        if !self.tail.is_empty() {
            self.rest.push_back(self.tail.split().freeze());
        }
    }

    /// Drops the first bytes, which must be there.
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        if count < self.front.len() {
            self.front.advance(count);
        } else if self.beyond == 0 {
            debug_assert_eq!(count, self.front.len());
            self.front = Bytes::new();
        } else {
            self.skip_front(count);
        }
    }

    fn skip_front(&mut self, mut count: usize) {
        debug_assert!(count <= self.len());
        while count >= self.front.len() {
            count -= self.front.len();
            if self.rest.is_empty() {
                self.settle();
            }
            self.front = self.rest.pop_front().unwrap_or_default();
            self.beyond -= self.front.len();
            if self.front.is_empty() {
                return;
            }
        }
        self.front.advance(count);
    }

    /// Takes the first bytes, if they are there.
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        // Nearly always they are in one chunk.
        let taken = match self.front.first_chunk() {
            Some(first) => *first,
            None if self.front.is_empty() => return None,
            None => self.first()?,
        };
        self.skip(N);
        Some(taken)
    }

    /// The first bytes, where they are in several chunks.
    #[cold]
    fn first<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut first = [0; N];
        self.message(N)?.copy_to_slice(&mut first);
        Some(first)
    }

    /// The first `len` bytes, if they are there.
    #[inline]
    pub(crate) fn message(&mut self, len: usize) -> Option<MessageBuf<'_>> {
        if len > self.front.len() {
            if len > self.len() {
                return None;
            }
            self.settle();
        }
        let here = &self.front[..len.min(self.front.len())];
        Some(MessageBuf {
            here,
            chunk: &self.front,
            beyond: len - here.len(),
            rest: &self.rest,
            next: 0,
        })
    }
}

/// The bytes of one message, in the chunks in which they were received.
///
/// `copy_to_bytes` shares the memory where a chunk holds all that is asked for.
// It only looks at the chunks. A field of a message then costs a step of a slice, and the chunks are told once.
pub struct MessageBuf<'a> {
    /// What is left of a chunk, as far as it is the message's. Empty only where all is read.
    here: &'a [u8],
    chunk: &'a Bytes,
    /// How many bytes of the message come after those.
    beyond: usize,
    /// The chunks after the first, and which of them comes next.
    rest: &'a VecDeque<Bytes>,
    next: usize,
}

impl<'a> From<&'a Bytes> for MessageBuf<'a> {
    fn from(chunk: &'a Bytes) -> Self {
        static NONE: VecDeque<Bytes> = VecDeque::new();

        Self {
            here: chunk,
            chunk,
            beyond: 0,
            rest: &NONE,
            next: 0,
        }
    }
}

impl MessageBuf<'_> {
    /// Goes on to other chunks.
    #[cold]
    fn advance_beyond(&mut self, mut count: usize) {
        assert!(
            count <= self.remaining(),
            "advanced past the end of the message"
        );
        while count >= self.here.len() && self.beyond > 0 {
            count -= self.here.len();
            self.chunk = &self.rest[self.next];
            self.next += 1;
            self.here = &self.chunk[..self.beyond.min(self.chunk.len())];
            self.beyond -= self.here.len();
        }
        self.here = &self.here[count..];
    }

    /// Copies what is in several chunks.
    #[cold]
    fn join(&mut self, count: usize) -> Bytes {
        assert!(
            count <= self.remaining(),
            "read past the end of the message"
        );
        let mut joined = BytesMut::with_capacity(count);
        while joined.len() < count {
            let here = self.here.len().min(count - joined.len());
            joined.put_slice(&self.here[..here]);
            self.advance(here);
        }
        joined.freeze()
    }
}

impl Buf for MessageBuf<'_> {
    #[inline]
    fn remaining(&self) -> usize {
        self.here.len() + self.beyond
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.here
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        if count < self.here.len() || (count == self.here.len() && self.beyond == 0) {
            self.here = &self.here[count..];
        } else {
            self.advance_beyond(count);
        }
    }

    #[inline]
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let Some(taken) = self.here.get(..count) else {
            return self.join(count);
        };
        let taken = self.chunk.slice_ref(taken);
        self.advance(count);
        taken
    }
}

impl fmt::Debug for MessageBuf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBuf")
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn single_bytes_are_put_together() {
        let mut chunks = Chunks::default();
        for _ in 0..100_000 {
            chunks.push(Bytes::from_static(b"x"));
        }
        assert!(chunks.rest.len() <= 100_000 / JOINED);
        assert_eq!(chunks.len(), 100_000);
        let all = chunks.message(100_000).unwrap().copy_to_bytes(100_000);
        assert!(all.iter().all(|byte| *byte == b'x'));
        chunks.skip(100_000);
        assert_eq!(chunks.len(), 0);
    }

    proptest! {
        #[test]
        fn a_message_in_chunks_reads_as_one_in_one(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2 * SMALL), 1..6),
            steps in prop::collection::vec((0..3 * SMALL, any::<bool>()), 0..10),
        ) {
            let whole = chunks.concat();
            let mut all = Chunks::default();
            for chunk in chunks {
                all.push(chunk.into());
            }
            let (mut buf, mut oracle) = (all.message(whole.len()).unwrap(), &whole[..]);
            for (step, is_copied) in steps {
                let step = step.min(oracle.remaining());
                match is_copied {
                    true => prop_assert_eq!(buf.copy_to_bytes(step), oracle.copy_to_bytes(step)),
                    false => {
                        buf.advance(step);
                        oracle.advance(step);
                    }
                }
                prop_assert_eq!(buf.remaining(), oracle.remaining());
                prop_assert!(oracle.starts_with(buf.chunk()));
                prop_assert_eq!(buf.chunk().is_empty(), oracle.is_empty());
            }
        }
    }
}
