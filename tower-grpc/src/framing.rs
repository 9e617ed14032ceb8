//! Messages in a stream of bytes: the prefix of five bytes, and what stands between the prefixes.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Status;
use crate::codec::Encode;
use crate::compression::{self, Encoding};

/// A flag and the length, of four bytes.
pub(crate) const PREFIX: usize = 5;

/// Chunks shorter than this are put together. A peer that sends single bytes would otherwise have this side
/// keep a whole read buffer for each.
const SMALL: usize = 1024;

/// How long what is put together may get before it counts as a chunk.
const JOINED: usize = 16 * 1024;

/// How much free space will do for a message without asking for its size. It grows if it doesn't.
const ROOM: usize = 1024;

/// Bytes as they were received, in their chunks.
#[derive(Default)]
pub(crate) struct Chunks {
    /// Empty only where all is.
    front: Bytes,
    rest: VecDeque<Bytes>,
    /// Small chunks, put together; they come after the rest.
    tail: BytesMut,
    len: usize,
}

impl Chunks {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len();
        if self.front.is_empty() {
            self.front = chunk;
        } else if chunk.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= JOINED {
                self.rest.push_back(self.tail.split().freeze());
            }
        } else {
            if !self.tail.is_empty() {
                self.rest.push_back(self.tail.split().freeze());
            }
            self.rest.push_back(chunk);
        }
    }

    fn next_front(&mut self) {
        self.front = match self.rest.pop_front() {
            Some(chunk) => chunk,
            None => std::mem::take(&mut self.tail).freeze(),
        };
    }

    fn skip(&mut self, mut count: usize) {
        debug_assert!(count <= self.len);
        self.len -= count;
        loop {
            let here = count.min(self.front.len());
            self.front.advance(here);
            count -= here;
            // What is still to be skipped isn't in `len` any more.
            if self.front.is_empty() && (count > 0 || self.len > 0) {
                self.next_front();
            }
            if count == 0 {
                return;
            }
        }
    }

    /// Takes a prefix, of which all is there.
    #[inline]
    fn take_prefix(&mut self) -> [u8; PREFIX] {
        match self.front.first_chunk() {
            // Nearly always it is in one chunk, and what follows it, too.
            Some(prefix) if self.front.len() > PREFIX => {
                let prefix = *prefix;
                self.front.advance(PREFIX);
                self.len -= PREFIX;
                prefix
            }
            _ => {
                let mut prefix = [0; PREFIX];
                MessageBuf::new(self, PREFIX).copy_to_slice(&mut prefix);
                prefix
            }
        }
    }

    /// Takes `count` bytes out as they are, if they are in one chunk; else copies them.
    fn take(&mut self, count: usize) -> Bytes {
        if count <= self.front.len() {
            let taken = self.front.split_to(count);
            self.skip_counted(count);
            return taken;
        }
        let mut joined = BytesMut::with_capacity(count);
        let mut left = count;
        while left > 0 {
            let here = left.min(self.front.len());
            joined.put_slice(&self.front[..here]);
            self.skip(here);
            left -= here;
        }
        joined.freeze()
    }

    /// What `skip` does after the bytes are gone from the front.
    fn skip_counted(&mut self, count: usize) {
        self.len -= count;
        if self.front.is_empty() && self.len > 0 {
            self.next_front();
        }
    }
}

impl From<Bytes> for Chunks {
    fn from(front: Bytes) -> Self {
        Self {
            len: front.len(),
            front,
            ..Self::default()
        }
    }
}

/// The bytes of one message, in the chunks in which they were received.
///
/// `copy_to_bytes` shares the memory where a chunk holds all that is asked for.
pub struct MessageBuf<'a> {
    chunks: &'a mut Chunks,
    left: usize,
}

impl<'a> MessageBuf<'a> {
    pub(crate) fn new(chunks: &'a mut Chunks, len: usize) -> Self {
        debug_assert!(len <= chunks.len);
        Self { chunks, left: len }
    }
}

impl Drop for MessageBuf<'_> {
    /// The next message begins after this one, whatever was read of it.
    fn drop(&mut self) {
        if self.left > 0 {
            self.chunks.skip(self.left);
        }
    }
}

impl Buf for MessageBuf<'_> {
    #[inline]
    fn remaining(&self) -> usize {
        self.left
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        let front = &self.chunks.front[..];
        &front[..front.len().min(self.left)]
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        assert!(count <= self.left, "advanced past the end of the message");
        self.left -= count;
        if count < self.chunks.front.len() {
            self.chunks.front.advance(count);
            self.chunks.len -= count;
        } else {
            self.chunks.skip(count);
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.left, "read past the end of the message");
        self.left -= count;
        self.chunks.take(count)
    }
}

impl fmt::Debug for MessageBuf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBuf")
            .field("remaining", &self.left)
            .finish_non_exhaustive()
    }
}

/// Finds the messages in the bytes received.
pub(crate) struct Deframer {
    chunks: Chunks,
    /// The prefix of the message that isn't there wholly.
    head: Option<Head>,
    max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) compressed: bool,
    pub(crate) len: usize,
}

impl Deframer {
    /// Messages may have `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            chunks: Chunks::default(),
            head: None,
            max,
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.chunks.push(chunk);
    }

    /// Whether nothing is left, and no message begun.
    pub(crate) fn is_clean(&self) -> bool {
        self.head.is_none() && self.chunks.len() == 0
    }

    /// The next message, if all of it is there.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(Head, &mut Chunks)>, Status> {
        let head = match self.head {
            Some(head) => head,
            None if self.chunks.len() < PREFIX => return Ok(None),
            None => {
                let head = self.read_prefix()?;
                self.head = Some(head);
                head
            }
        };
        if self.chunks.len() < head.len {
            return Ok(None);
        }
        self.head = None;
        Ok(Some((head, &mut self.chunks)))
    }

    fn read_prefix(&mut self) -> Result<Head, Status> {
        let [flag, len @ ..] = self.chunks.take_prefix();
        let compressed = match flag {
            0 => false,
            1 => true,
            flag => {
                return Err(Status::internal(format!(
                    "a message begins with {flag}, where 0 or 1 says whether it is compressed"
                )));
            }
        };
        let len = u32::from_be_bytes(len) as usize;
        if len > self.max {
            return Err(too_large(len, self.max));
        }
        Ok(Head { compressed, len })
    }
}

pub(crate) fn too_large(len: usize, max: usize) -> Status {
    Status::resource_exhausted(format!("a message has {len} bytes, and {max} are allowed"))
}

/// Appends a message with its prefix. On an error `buf` is as it was.
#[inline]
pub(crate) fn put_message<T, C: Encode<T>>(
    codec: &mut C,
    message: T,
    encoding: Option<Encoding>,
    max: usize,
    buf: &mut BytesMut,
) -> Result<(), Status> {
    let start = buf.len();
    let put = put_framed(codec, message, encoding, max, buf);
    if put.is_err() {
        buf.truncate(start);
    }
    put
}

#[inline]
fn put_framed<T, C: Encode<T>>(
    codec: &mut C,
    message: T,
    encoding: Option<Encoding>,
    max: usize,
    buf: &mut BytesMut,
) -> Result<(), Status> {
    let start = buf.len();
    // Where there is room for most messages, it isn't worth the hint's walk through this one.
    if buf.capacity() - start < ROOM {
        buf.reserve(PREFIX + codec.size_hint(&message));
    }
    buf.put_slice(&[0; PREFIX]);
    codec.encode(message, buf)?;
    let len = buf.len() - start - PREFIX;
    if len > max {
        return Err(too_large(len, max));
    }
    let len = match encoding {
        None => len,
        Some(encoding) => {
            let plain = buf.split_off(start + PREFIX);
            compression::compress(encoding, &plain, buf)?;
            buf[start] = 1;
            buf.len() - start - PREFIX
        }
    };
    let len = u32::try_from(len).map_err(|_| too_large(len, u32::MAX as usize))?;
    buf[start + 1..][..4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use crate::codec::Codec;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Raw;

    impl Codec for Raw {
        const SUBTYPE: &'static str = "raw";
    }

    impl Encode<Vec<u8>> for Raw {
        fn encode(&mut self, message: Vec<u8>, buf: &mut BytesMut) -> Result<(), Status> {
            buf.put_slice(&message);
            Ok(())
        }
    }

    fn frame(message: &[u8]) -> Bytes {
        let mut buf = BytesMut::new();
        put_message(&mut Raw, message.to_vec(), None, usize::MAX, &mut buf).unwrap();
        buf.freeze()
    }

    fn next(deframer: &mut Deframer) -> Result<Option<Vec<u8>>, Status> {
        Ok(deframer.next()?.map(|(head, chunks)| {
            let mut buf = MessageBuf::new(chunks, head.len);
            let mut message = vec![0; head.len];
            buf.copy_to_slice(&mut message);
            message
        }))
    }

    #[test]
    fn a_message_in_one_chunk_shares_its_memory() {
        let bytes = frame(b"hello");
        let mut deframer = Deframer::new(10);
        deframer.push(bytes.clone());
        let (head, chunks) = deframer.next().unwrap().unwrap();
        let message = MessageBuf::new(chunks, head.len).copy_to_bytes(5);
        assert_eq!(message.as_ptr(), bytes[PREFIX..].as_ptr());
        assert!(deframer.is_clean());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_there() {
        let mut deframer = Deframer::new(4);
        deframer.push(frame(b"hello").slice(..PREFIX));
        let status = deframer.next().map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_flag_that_is_neither_0_nor_1_is_refused() {
        let mut deframer = Deframer::new(4);
        deframer.push(Bytes::from_static(&[2, 0, 0, 0, 0]));
        assert_eq!(
            deframer.next().map(|_| ()).unwrap_err().code(),
            Code::Internal
        );
    }

    #[test]
    fn what_the_decoder_leaves_is_not_part_of_the_next_message() {
        let mut deframer = Deframer::new(10);
        deframer.push(frame(b"first"));
        deframer.push(frame(b"second"));
        let (head, chunks) = deframer.next().unwrap().unwrap();
        drop(MessageBuf::new(chunks, head.len));
        assert_eq!(next(&mut deframer).unwrap().unwrap(), b"second");
    }

    #[test]
    fn the_last_message_may_be_left_unread_though_it_is_in_several_chunks() {
        for read in [0, 1, PREFIX + SMALL, 2 * SMALL] {
            let mut wire = frame(&vec![7; 3 * SMALL]);
            let mut deframer = Deframer::new(3 * SMALL);
            while !wire.is_empty() {
                deframer.push(wire.split_to(wire.len().min(SMALL)));
            }
            let (head, chunks) = deframer.next().unwrap().unwrap();
            MessageBuf::new(chunks, head.len).advance(read);
            assert!(deframer.is_clean(), "{read} bytes were read");
        }
    }

    #[test]
    fn single_bytes_are_put_together() {
        let mut chunks = Chunks::default();
        for _ in 0..100_000 {
            chunks.push(Bytes::from_static(b"x"));
        }
        assert!(chunks.rest.len() <= 100_000 / JOINED);
        assert_eq!(chunks.len(), 100_000);
        assert_eq!(chunks.take(100_000).len(), 100_000);
    }

    #[test]
    fn a_message_that_cannot_be_sent_leaves_those_before_it() {
        let mut buf = BytesMut::from(&frame(b"first")[..]);
        let refused = put_message(&mut Raw, vec![0; 11], None, 10, &mut buf).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(buf, frame(b"first"));
    }

    proptest! {
        #[test]
        fn messages_are_found_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
            cuts in prop::collection::vec(1..4000_usize, 1..20),
        ) {
            let mut wire = BytesMut::new();
            for message in &messages {
                put_message(&mut Raw, message.clone(), None, usize::MAX, &mut wire).unwrap();
            }
            let mut wire = wire.freeze();
            let mut deframer = Deframer::new(3000);
            let mut found = Vec::new();
            for cut in cuts.iter().cycle() {
                if wire.is_empty() {
                    break;
                }
                deframer.push(wire.split_to((*cut).min(wire.len())));
                while let Some(message) = next(&mut deframer).unwrap() {
                    found.push(message);
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(deframer.is_clean());
        }

        #[test]
        fn no_bytes_panic_or_are_kept_beyond_the_limit(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
            let mut deframer = Deframer::new(4096);
            for chunk in chunks {
                deframer.push(chunk.into());
                while let Ok(Some((head, chunks))) = deframer.next() {
                    prop_assert!(head.len <= 4096);
                    drop(MessageBuf::new(chunks, head.len));
                }
            }
        }
    }
}
