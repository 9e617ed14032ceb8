//! Follows the frames in the bytes of a peer.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Allowance, Notes};

/// What a client sends before its first frame (RFC 9113, section 3.4).
pub(super) const PREFACE_LEN: u32 = 24;
const HEAD_LEN: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Follows the frames in a stream of bytes that comes in pieces.
#[derive(Debug)]
pub(super) struct Scan {
    /// Bytes until the next frame's head.
    skip: u32,
    /// The part of a head that has come.
    head: [u8; HEAD_LEN],
    have: usize,
    /// Whether the last frame is one of fields, and whether more are to follow it.
    in_fields: bool,
    block_open: bool,
    /// The highest stream that a client has opened, where this is the server's side.
    highest: Option<u32>,
    trailers: Option<Peek>,
    allowance: Allowance,
}

/// The begin of a block of trailers.
#[derive(Debug)]
struct Peek {
    /// What comes before it: the length of the padding, a priority.
    skip: usize,
    bytes: [u8; 3],
    have: usize,
}

impl Peek {
    fn new(flags: u8) -> Self {
        let padded = usize::from(flags & PADDED != 0);
        let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
        Self {
            skip: padded + priority,
            bytes: [0; 3],
            have: 0,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        for &byte in &bytes[skipped..] {
            if let Some(place) = self.bytes.get_mut(self.have) {
                *place = byte;
                self.have += 1;
            }
        }
    }

    /// Whether the first field is a pseudo-field: by the static table's first 14 entries, which are those,
    /// or by its name, plain or in Huffman's code (RFC 7541, sections 6 and 5.2, appendices A and B).
    fn is_pseudo(&self) -> bool {
        let [first, length, name] = self.bytes;
        let is_static = |index| (1..=14).contains(&index);
        match first {
            _ if self.have == 0 => false,
            // Indexed; literal with indexing; a size of the table; literal without.
            0x80.. => is_static(first & 0x7f),
            0x40.. if first != 0x40 => is_static(first & 0x3f),
            0x20..0x40 => false,
            0x00..0x20 if first & 0xf != 0 => is_static(first & 0xf),
            _ if self.have < 3 => false,
            _ if length & 0x80 == 0 => name == b':',
            _ => name >> 1 == 0b101_1100,
        }
    }
}

impl Scan {
    /// A client's bytes begin with a preface.
    pub(super) fn new(preface: Option<u32>, allowance: Allowance) -> Self {
        Self {
            skip: preface.unwrap_or(0),
            highest: preface.map(|_| 0),
            trailers: None,
            head: [0; HEAD_LEN],
            have: 0,
            in_fields: false,
            block_open: false,
            allowance,
        }
    }

    pub(super) fn earn(&mut self, bytes: usize) {
        self.allowance.idle.earn(bytes);
        self.allowance.resets.earn(bytes);
    }

    pub(super) fn scan(&mut self, mut bytes: &[u8], notes: &Notes) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = bytes.len().min(self.skip as usize);
                self.skip -= count as u32;
                if self.trailers.is_some() {
                    self.peek(&bytes[..count], notes);
                }
                bytes = &bytes[count..];
                continue;
            }
            // Nearly always all of a head is there.
            if let (0, Some((head, rest))) = (self.have, bytes.split_first_chunk()) {
                bytes = rest;
                self.frame(*head, notes);
                continue;
            }
            let count = bytes.len().min(HEAD_LEN - self.have);
            self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == HEAD_LEN {
                self.have = 0;
                self.frame(self.head, notes);
            }
        }
        let open = self.block_open || (self.in_fields && self.skip > 0);
        notes.head_open.store(open, Ordering::Relaxed);
    }

    /// Pseudo-fields must not be in trailers (RFC 9113, section 8.1), which h2 doesn't look for.
    fn peek(&mut self, payload: &[u8], notes: &Notes) {
        if let Some(peek) = &mut self.trailers {
            peek.feed(payload);
            if peek.is_pseudo() {
                notes.malformed.store(true, Ordering::Relaxed);
            }
            if peek.have == peek.bytes.len() || self.skip == 0 {
                self.trailers = None;
            }
        }
    }

    /// A block of fields on a stream that was opened before holds trailers.
    fn headers(&mut self, stream: u32, flags: u8, notes: &Notes) {
        if let Some(highest) = &mut self.highest {
            if stream > *highest {
                *highest = stream;
                notes.heads.store(notes.heads() + 1, Ordering::Relaxed);
            } else {
                self.trailers = Some(Peek::new(flags));
            }
        }
    }

    fn frame(&mut self, head: [u8; HEAD_LEN], notes: &Notes) {
        let [a, b, c, kind, flags, stream @ ..] = head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        self.in_fields = matches!(kind, HEADERS | CONTINUATION);
        self.block_open = self.in_fields && flags & END_HEADERS == 0;
        let fine = match kind {
            HEADERS => {
                self.headers(stream, flags, notes);
                true
            }
            CONTINUATION => true,
            DATA if self.skip > 0 || flags & END_STREAM != 0 => true,
            RST_STREAM => self.allowance.resets.take(Instant::now),
            GOAWAY => {
                notes.going_away.store(true, Ordering::Relaxed);
                self.allowance.idle.take(Instant::now)
            }
            _ => self.allowance.idle.take(Instant::now),
        };
        if !fine {
            notes.flood.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 0x6;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(HEAD_LEN + length as usize, 0xff);
        frame
    }

    fn scanned(chunks: &[&[u8]], allowance: Allowance) -> Notes {
        let notes = Notes::default();
        let mut scan = Scan::new(None, allowance);
        for chunk in chunks {
            scan.scan(chunk, &notes);
        }
        notes
    }

    #[test]
    fn frames_are_told_apart_wherever_the_bytes_are_cut() {
        let mut bytes = frame(HEADERS, END_HEADERS, 20);
        bytes.extend(frame(DATA, 0, 300));
        bytes.extend(frame(GOAWAY, 0, 8));
        for cut in 0..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            let notes = scanned(&[one, two], Allowance::new(10, 10));
            assert!(notes.is_going_away(), "cut at {cut}");
            assert!(!notes.is_flood(), "cut at {cut}");
            assert!(!notes.is_head_open(), "cut at {cut}");
        }
    }

    #[test]
    fn a_block_of_fields_is_open_until_its_end() {
        let allowance = Allowance::new(10, 10);
        let begun = frame(HEADERS, 0, 20);
        assert!(scanned(&[&begun[..15]], allowance).is_head_open());
        assert!(scanned(&[&begun], allowance).is_head_open());
        let ended = frame(CONTINUATION, END_HEADERS, 5);
        assert!(!scanned(&[&begun, &ended], allowance).is_head_open());
    }

    #[test]
    fn pseudo_fields_are_known_in_all_their_forms() {
        let pseudo: [&[u8]; 7] = [
            &[0x82],
            &[0x8e],
            &[0x41, 1, b'a'],
            &[0x02, 1, b'a'],
            &[0x12, 1, b'a'],
            &[0x40, 7, b':'],
            &[0x00, 0x85, 0xb9],
        ];
        let others: [&[u8]; 6] = [
            &[0x90],
            &[0xbe],
            &[0x50, 1, b'a'],
            &[0x40, 3, b'x'],
            &[0x3f, 0xe1, 0x1f],
            &[0x00, 0x82, 0xf2],
        ];
        let is_pseudo = |bytes: &[u8], flags| {
            let mut peek = Peek::new(flags);
            bytes.iter().for_each(|&byte| peek.feed(&[byte]));
            peek.is_pseudo()
        };
        assert!(pseudo.iter().all(|bytes| is_pseudo(bytes, 0)));
        assert!(!others.iter().any(|bytes| is_pseudo(bytes, 0)));
        assert!(is_pseudo(&[9, 0, 0, 0, 0, 15, 0x82], PADDED | PRIORITY));
    }

    #[tokio::test(start_paused = true)]
    async fn more_pings_than_allowed_are_a_flood_and_data_is_none() {
        let ping = frame(PING, 0, 8);
        assert!(!scanned(&[&ping[..]; 10], Allowance::new(10, 10)).is_flood());
        assert!(scanned(&[&ping[..]; 11], Allowance::new(10, 10)).is_flood());
        let data = frame(DATA, 0, 8);
        assert!(!scanned(&[&data[..]; 100], Allowance::new(10, 10)).is_flood());
        let empty = frame(DATA, 0, 0);
        assert!(scanned(&[&empty[..]; 11], Allowance::new(10, 10)).is_flood());
    }

    proptest! {
        #[test]
        fn as_many_tokens_are_taken_as_frames_bring_nothing(
            frames in vec((0..12_u8, any::<u8>(), 0..40_u32), 0..50),
            cuts in vec(1..30_usize, 1..20),
        ) {
            let allowance = Allowance::new(1000, 1000);
            let mut scan = Scan::new(None, allowance);
            let notes = Notes::default();
            let bytes: Vec<u8> =
                frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let mut rest = &bytes[..];
            for &cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                scan.scan(piece, &notes);
                rest = after;
            }
            let idle = frames.iter().filter(|&&(kind, flags, length)| match kind {
                DATA => length == 0 && flags & END_STREAM == 0,
                HEADERS | RST_STREAM | CONTINUATION => false,
                _ => true,
            });
            prop_assert_eq!(1000 - scan.allowance.idle.tokens as usize, idle.count());
            let resets = frames.iter().filter(|frame| frame.0 == RST_STREAM).count();
            prop_assert_eq!(1000 - scan.allowance.resets.tokens as usize, resets);
            prop_assert_eq!(notes.is_going_away(), frames.iter().any(|frame| frame.0 == GOAWAY));
        }

        #[test]
        fn no_bytes_are_too_odd_to_be_looked_at(
            pieces in vec(vec(any::<u8>(), 0..200), 0..20),
        ) {
            let notes = Notes::default();
            let mut scan = Scan::new(Some(PREFACE_LEN), Allowance::new(5, 5));
            for piece in &pieces {
                scan.scan(piece, &notes);
            }
        }
    }
}
