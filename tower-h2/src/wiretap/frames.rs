//! Follows the frames in the bytes of a peer.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Allowance, Fault, Notes};

/// What a client sends before its first frame (RFC 9113, section 3.4).
pub(super) const PREFACE_LEN: u32 = 24;
const HEAD_LEN: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

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
    /// The streams that a client has opened, where this is the server's side.
    streams: Option<Streams>,
    trailers: Option<Peek>,
    allowance: Allowance,
}

/// The streams that a client has opened, and which of the last of them it has ended (RFC 9113, section 5.1).
#[derive(Debug, Default)]
struct Streams {
    highest: u32,
    /// A bit for each of the last [`REMEMBERED`], by its number.
    ended: [u64; REMEMBERED / 64],
}

/// How many streams are remembered: more than may be open at once by default, so that one which isn't is forgotten by
/// h2 as well.
const REMEMBERED: usize = 256;

impl Streams {
    /// Whether the stream is a new one, and not one that was opened before.
    #[inline]
    fn open(&mut self, stream: u32) -> bool {
        if stream <= self.highest {
            return false;
        }
        if stream - self.highest > 2 {
            self.skip(stream);
        }
        self.highest = stream;
        let (word, bit) = Self::place(stream);
        self.ended[word] &= !bit;
        true
    }

    /// Those before the stream can't be opened any more. They count as others that haven't ended.
    #[cold]
    fn skip(&mut self, stream: u32) {
        let skipped = (stream - self.highest - 1) / 2;
        for nth in 1..=skipped.min(REMEMBERED as u32) {
            let (word, bit) = Self::place(stream - 2 * nth);
            self.ended[word] &= !bit;
        }
    }

    #[inline]
    fn end(&mut self, stream: u32) {
        // Others share the places of those that are forgotten.
        if self.remembers(stream) {
            let (word, bit) = Self::place(stream);
            self.ended[word] |= bit;
        }
    }

    /// Clients' streams have odd numbers.
    #[inline]
    fn has_ended(&self, stream: u32) -> bool {
        let (word, bit) = Self::place(stream);
        self.ended[word] & bit != 0 && self.remembers(stream) && stream % 2 == 1
    }

    #[inline]
    fn remembers(&self, stream: u32) -> bool {
        self.highest.wrapping_sub(stream) < 2 * REMEMBERED as u32
    }

    #[inline]
    fn place(stream: u32) -> (usize, u64) {
        let at = stream as usize / 2 % REMEMBERED;
        (at / 64, 1 << (at % 64))
    }
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
        let priority = if flags & WITH_PRIORITY != 0 { 5 } else { 0 };
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
            streams: preface.map(|_| Streams::default()),
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

    /// Reads on. Gives how many of the bytes may be passed on: all, or those before a frame that mustn't be.
    pub(super) fn scan(&mut self, all: &[u8], notes: &Notes) -> usize {
        let mut bytes = all;
        loop {
            let (payload, rest) = bytes.split_at(bytes.len().min(self.skip as usize));
            self.skip -= payload.len() as u32;
            if self.trailers.is_some() {
                self.peek(payload, notes);
            }
            // Nearly always all of a head is there.
            let head = match rest.split_first_chunk() {
                Some((head, after)) if self.have == 0 => {
                    bytes = after;
                    *head
                }
                _ => {
                    let count = rest.len().min(HEAD_LEN - self.have);
                    self.head[self.have..self.have + count].copy_from_slice(&rest[..count]);
                    self.have += count;
                    if self.have < HEAD_LEN {
                        break;
                    }
                    self.have = 0;
                    bytes = &rest[count..];
                    self.head
                }
            };
            if !self.frame(head, notes) {
                return all.len() - rest.len();
            }
        }
        let open = self.block_open || (self.in_fields && self.skip > 0);
        notes.head_open.store(open, Ordering::Relaxed);
        all.len()
    }

    /// Pseudo-fields must not be in trailers (RFC 9113, section 8.1), which h2 doesn't look for.
    fn peek(&mut self, payload: &[u8], notes: &Notes) {
        if let Some(peek) = &mut self.trailers {
            peek.feed(payload);
            if peek.is_pseudo() {
                notes.found(Fault::PseudoFieldInTrailers);
            }
            if peek.have == peek.bytes.len() || self.skip == 0 {
                self.trailers = None;
            }
        }
    }

    /// A frame of a client's message: a block of fields on a stream that was opened before holds trailers, and after
    /// the message's end there is none. Says whether it may be passed on.
    fn message(&mut self, kind: u8, flags: u8, stream: u32, notes: &Notes) -> bool {
        let Some(streams) = &mut self.streams else {
            return true;
        };
        if kind == HEADERS && streams.open(stream) {
            notes.heads.store(notes.heads() + 1, Ordering::Relaxed);
        } else if streams.has_ended(stream) {
            notes.found(Fault::AfterTheEnd);
            return false;
        } else if kind == HEADERS {
            self.trailers = Some(Peek::new(flags));
        }
        if flags & END_STREAM != 0 {
            streams.end(stream);
        }
        true
    }

    /// Takes in the head of a frame. Says whether the frame may be passed on.
    #[inline]
    fn frame(&mut self, head: [u8; HEAD_LEN], notes: &Notes) -> bool {
        let [a, b, c, kind, flags, stream @ ..] = head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        if kind != HEADERS && kind != DATA {
            return self.other(kind, flags, notes);
        }
        // Within a block of fields any frame but CONTINUATION is worse, and h2 says so.
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if !self.block_open && !self.message(kind, flags, stream, notes) {
            return false;
        }
        self.in_fields = kind == HEADERS;
        self.block_open = self.in_fields && flags & END_HEADERS == 0;
        if kind == DATA && self.skip == 0 && flags & END_STREAM == 0 {
            self.idle(notes);
        }
        true
    }

    /// Takes in the head of a frame that isn't of a message, or not of its begin.
    fn other(&mut self, kind: u8, flags: u8, notes: &Notes) -> bool {
        if self.streams.is_some() && !self.block_open && !has_length(kind, flags, self.skip) {
            notes.found(Fault::Length);
            return false;
        }
        self.in_fields = kind == CONTINUATION;
        self.block_open = self.in_fields && flags & END_HEADERS == 0;
        match kind {
            CONTINUATION => {}
            RST_STREAM => {
                if !self.allowance.resets.take(Instant::now) {
                    notes.flood.store(true, Ordering::Relaxed);
                }
            }
            GOAWAY => {
                notes.going_away.store(true, Ordering::Relaxed);
                self.idle(notes);
            }
            _ => self.idle(notes),
        }
        true
    }

    /// Counts a frame that brings nothing.
    fn idle(&mut self, notes: &Notes) {
        if !self.allowance.idle.take(Instant::now) {
            notes.flood.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether a frame is as long as its type has it (RFC 9113, sections 6.3 to 6.9).
fn has_length(kind: u8, flags: u8, length: u32) -> bool {
    match kind {
        PRIORITY => length == 5,
        RST_STREAM | WINDOW_UPDATE => length == 4,
        SETTINGS if flags & ACK != 0 => length == 0,
        SETTINGS => length % 6 == 0,
        PING => length == 8,
        GOAWAY => length >= 8,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

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
        assert!(is_pseudo(
            &[9, 0, 0, 0, 0, 15, 0x82],
            PADDED | WITH_PRIORITY
        ));
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

    /// A frame of a message on a stream, without a payload.
    fn message(kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame
    }

    #[test]
    fn nothing_from_a_frame_after_the_end_on_is_passed_on() {
        let before = [
            message(HEADERS, END_HEADERS | END_STREAM, 1),
            message(HEADERS, END_HEADERS, 3),
            message(DATA, END_STREAM, 3),
        ]
        .concat();
        for late in [message(DATA, 0, 1), message(HEADERS, END_HEADERS, 3)] {
            let bytes = [&before[..], &late, &message(DATA, 0, 5)].concat();
            for cut in 0..before.len() + late.len() {
                let notes = Notes::default();
                let mut scan = Scan::new(Some(0), Allowance::new(10, 10));
                let (one, two) = bytes.split_at(cut);
                let passed = scan.scan(one, &notes) + scan.scan(two, &notes);
                assert_eq!(notes.fault(), Some(Fault::AfterTheEnd), "cut at {cut}");
                // The begin of a head is nothing to anyone.
                assert_eq!(passed, cut.max(before.len()), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_others_see_to_is_left_to_them() {
        // Streams that can't be a client's, or aren't open; frames within a block.
        for frames in [
            [message(DATA, END_STREAM, 0), message(DATA, 0, 0)],
            [
                message(HEADERS, END_HEADERS | END_STREAM, 2),
                message(DATA, 0, 2),
            ],
            [message(DATA, END_STREAM, 7), message(DATA, 0, 7)],
            [message(HEADERS, END_STREAM, 1), message(DATA, 0, 1)],
        ] {
            let notes = Notes::default();
            let mut scan = Scan::new(Some(0), Allowance::new(10, 10));
            scan.scan(&frames.concat(), &notes);
            assert_eq!(notes.fault(), None, "{frames:?}");
        }
    }

    #[test]
    fn streams_that_are_left_out_leave_the_others_as_they_are() {
        let mut streams = Streams::default();
        assert!(streams.open(3));
        streams.end(3);
        assert!(streams.open(9));
        let ended = [1, 3, 5, 7, 9].map(|stream| streams.has_ended(stream));
        assert_eq!(ended, [false, true, false, false, false]);
        // Their places are others' now.
        assert!(streams.open(3 + 2 * REMEMBERED as u32));
        assert!(!streams.has_ended(3 + 2 * REMEMBERED as u32));
    }

    proptest! {
        #[test]
        fn as_many_of_the_last_streams_are_remembered_as_may_be_open(
            steps in vec((1..5_u32, 0..600_u32, any::<bool>()), 0..800),
            jump in 0..2000_u32,
        ) {
            let mut streams = Streams::default();
            let mut ended = std::collections::BTreeSet::new();
            let mut highest = 1;
            streams.open(1);
            for (at, (ahead, back, is_end)) in steps.into_iter().enumerate() {
                let newer = highest + 2 * if at == 400 { jump } else { ahead };
                prop_assert_eq!(streams.open(newer), newer > highest);
                highest = newer;
                let stream = highest - (2 * back).min(highest - 1);
                if is_end {
                    streams.end(stream);
                    ended.insert(stream);
                }
                let known = (highest - stream) / 2 < REMEMBERED as u32;
                prop_assert_eq!(streams.has_ended(stream), known && ended.contains(&stream));
            }
        }

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
