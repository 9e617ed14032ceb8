//! Messages in a stream of bytes: the prefix of five bytes, and what stands between the prefixes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::Status;
use crate::chunks::{Chunks, MessageBuf};
use crate::codec::Encode;
use crate::compression::{self, Encoding};

/// A flag and the length, of four bytes.
pub(crate) const PREFIX: usize = 5;

/// How much free space will do for a message without asking for its size. It grows if it doesn't.
const ROOM: usize = 1024;

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

    /// Reads the next message, if all of it is there. The one after it begins where this one ends, whatever was read of
    /// it.
    #[inline]
    pub(crate) fn next<T>(
        &mut self,
        read: impl FnOnce(Head, MessageBuf<'_>) -> T,
    ) -> Result<Option<T>, Status> {
        let head = match self.head {
            Some(head) => head,
            None => match self.chunks.take() {
                Some(prefix) => Head::read(prefix, self.max)?,
                None => return Ok(None),
            },
        };
        let Some(message) = self.chunks.message(head.len) else {
            self.head = Some(head);
            return Ok(None);
        };
        let read = read(head, message);
        self.head = None;
        self.chunks.skip(head.len);
        Ok(Some(read))
    }
}

impl Head {
    #[inline]
    fn read([flag, len @ ..]: [u8; PREFIX], max: usize) -> Result<Self, Status> {
        let len = u32::from_be_bytes(len) as usize;
        if flag > 1 {
            return Err(odd_flag(flag));
        }
        if len > max {
            return Err(too_large(len, max));
        }
        Ok(Self {
            compressed: flag == 1,
            len,
        })
    }
}

#[cold]
fn odd_flag(flag: u8) -> Status {
    Status::internal(format!(
        "a message begins with {flag}, where 0 or 1 says whether it is compressed"
    ))
}

#[cold]
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
        let size = PREFIX + codec.size_hint(&message);
        match buf.capacity() {
            // Where there is nothing to grow, this is a third of the work.
            0 => *buf = BytesMut::with_capacity(size),
            _ => buf.reserve(size),
        }
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
    use bytes::Buf;
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
        deframer.next(|head, mut buf| {
            let mut message = vec![0; head.len];
            buf.copy_to_slice(&mut message);
            message
        })
    }

    #[test]
    fn a_message_in_one_chunk_shares_its_memory() {
        let bytes = frame(b"hello");
        let mut deframer = Deframer::new(10);
        deframer.push(bytes.clone());
        let message = deframer.next(|_, mut buf| buf.copy_to_bytes(5));
        let message = message.unwrap().unwrap();
        assert_eq!(message.as_ptr(), bytes[PREFIX..].as_ptr());
        assert!(deframer.is_clean());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_there() {
        let mut deframer = Deframer::new(4);
        deframer.push(frame(b"hello").slice(..PREFIX));
        let status = next(&mut deframer).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_flag_that_is_neither_0_nor_1_is_refused() {
        let mut deframer = Deframer::new(4);
        deframer.push(Bytes::from_static(&[2, 0, 0, 0, 0]));
        assert_eq!(next(&mut deframer).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn what_the_decoder_leaves_is_not_part_of_the_next_message() {
        let mut deframer = Deframer::new(10);
        deframer.push(frame(b"first"));
        deframer.push(frame(b"second"));
        assert!(deframer.next(|_, _| ()).unwrap().is_some());
        assert_eq!(next(&mut deframer).unwrap().unwrap(), b"second");
    }

    #[test]
    fn the_last_message_may_be_left_unread_though_it_is_in_several_chunks() {
        const CHUNK: usize = 2048;

        for read in [0, 1, PREFIX + CHUNK, 2 * CHUNK] {
            let mut wire = frame(&vec![7; 3 * CHUNK]);
            let mut deframer = Deframer::new(3 * CHUNK);
            while !wire.is_empty() {
                deframer.push(wire.split_to(wire.len().min(CHUNK)));
            }
            let next = deframer.next(|_, mut buf| buf.advance(read));
            assert!(next.unwrap().is_some());
            assert!(deframer.is_clean(), "{read} bytes were read");
        }
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
                while let Ok(Some(head)) = deframer.next(|head, _| head) {
                    prop_assert!(head.len <= 4096);
                }
            }
        }
    }
}
