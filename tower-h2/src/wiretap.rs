//! Watches the bytes of a connection: what kind of frames come, and whether writes go.
//!
//! The `h2` crate bounds what a peer can make it hold: header lists, CONTINUATION frames, streams that are reset
//! before they are accepted, streams that break the protocol, tiny and empty DATA frames. It doesn't bound how many
//! frames a peer may send that are cheap to send and bring nothing: PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, frames of unknown types, and resets of streams that were accepted already. So the heads of
//! the frames are read as they pass.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a client sends before its first frame (RFC 9113, section 3.4).
const PREFACE_LEN: u32 = 24;
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

/// What is seen of a connection. Only its own task writes and reads it, so that no ordering matters.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    read: AtomicU64,
    heads: AtomicU64,
    written: AtomicU64,
    blocked: AtomicBool,
    head_open: AtomicBool,
    flood: AtomicBool,
    malformed: AtomicBool,
    going_away: AtomicBool,
}

impl Notes {
    /// How many bytes have come.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many requests the peer has begun.
    pub(crate) fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    /// How many bytes have left.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether bytes are waiting that the transport doesn't take.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Whether the peer has begun a block of header fields, and not ended it.
    pub(crate) fn is_head_open(&self) -> bool {
        self.head_open.load(Ordering::Relaxed)
    }

    /// Whether the peer has sent more empty frames than it may. Nothing is read from it any more.
    pub(crate) fn is_flood(&self) -> bool {
        self.flood.load(Ordering::Relaxed)
    }

    /// Whether the peer has sent what the protocol forbids, and h2 lets pass. Nothing is read from it any more.
    pub(crate) fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Whether the peer has sent GOAWAY.
    pub(crate) fn is_going_away(&self) -> bool {
        self.going_away.load(Ordering::Relaxed)
    }
}

/// A transport whose frames are looked at.
#[derive(Debug)]
pub(crate) struct Wiretap<IO> {
    io: IO,
    scan: Scan,
    notes: Arc<Notes>,
}

impl<IO> Wiretap<IO> {
    /// The server's side, where the client's preface comes first.
    pub(crate) fn server(io: IO, allowance: Allowance) -> Self {
        Self::new(io, Scan::new(Some(PREFACE_LEN), allowance))
    }

    /// The client's side.
    pub(crate) fn client(io: IO, allowance: Allowance) -> Self {
        Self::new(io, Scan::new(None, allowance))
    }

    fn new(io: IO, scan: Scan) -> Self {
        Self {
            io,
            scan,
            notes: Arc::default(),
        }
    }

    pub(crate) fn notes(&self) -> Arc<Notes> {
        Arc::clone(&self.notes)
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(count)) => {
                let total = self.notes.written() + *count as u64;
                self.notes.written.store(total, Ordering::Relaxed);
                self.notes.blocked.store(false, Ordering::Relaxed);
                self.scan.earn(*count);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.notes.blocked.store(true, Ordering::Relaxed),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wiretap<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.notes.is_flood() || this.notes.is_malformed() {
            // Whoever drives the connection sees it after this poll, and ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            let total = this.notes.read() + read.len() as u64;
            this.notes.read.store(total, Ordering::Relaxed);
            this.scan.scan(read, &this.notes);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wiretap<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if flushed.is_pending() {
            this.notes.blocked.store(true, Ordering::Relaxed);
        } else {
            this.notes.blocked.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// How many frames that bring nothing a peer may send.
///
/// A bucket of tokens: each such frame takes one, time gives some back, and so does what is sent to the
/// peer, as answers are followed by window updates, and data by the pings that measure the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown types, empty DATA.
    idle: Bucket,
    /// RST_STREAM.
    resets: Bucket,
}

impl Allowance {
    /// Room for `resets` resets at once, and a quarter of that a second.
    pub(crate) fn new(idle: u32, resets: u32) -> Self {
        Self {
            idle: Bucket::new(idle, idle / 4, 32),
            resets: Bucket::new(resets, resets / 4, 64),
        }
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle.most
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.most
    }
}

/// A bucket of tokens.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    most: u32,
    /// Tokens that a second gives.
    rate: u32,
    /// Bytes sent that give a token.
    price: usize,
    /// Since when time gives some. The clock is read at the first token and when there is none.
    filled: Option<Instant>,
}

impl Bucket {
    const fn new(most: u32, rate: u32, price: usize) -> Self {
        Self {
            tokens: most,
            most,
            rate,
            price,
            filled: None,
        }
    }

    /// Takes a token. Without one there is a flood.
    fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        let filled = *self.filled.get_or_insert_with(&now);
        if self.tokens == 0 {
            let now = now();
            let gained = (now - filled).as_secs_f64() * f64::from(self.rate);
            // The cast saturates.
            self.tokens = (gained as u32).min(self.most);
            if self.tokens > 0 {
                self.filled = Some(now);
            }
        }
        let had = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        had
    }

    fn earn(&mut self, bytes: usize) {
        let tokens = u32::try_from(bytes / self.price).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(tokens).min(self.most);
    }
}

/// Follows the frames in a stream of bytes that comes in pieces.
#[derive(Debug)]
struct Scan {
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
    fn new(preface: Option<u32>, allowance: Allowance) -> Self {
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

    fn earn(&mut self, bytes: usize) {
        self.allowance.idle.earn(bytes);
        self.allowance.resets.earn(bytes);
    }

    fn scan(&mut self, mut bytes: &[u8], notes: &Notes) {
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
    use std::time::Duration;

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

    #[tokio::test(start_paused = true)]
    async fn time_and_what_is_sent_give_tokens_back() {
        let mut bucket = Bucket::new(8, 2, 32);
        let empty =
            |bucket: &mut Bucket| (0..100).take_while(|_| bucket.take(Instant::now)).count();
        assert_eq!(empty(&mut bucket), 8);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(empty(&mut bucket), 4);
        bucket.earn(64);
        assert_eq!(empty(&mut bucket), 2);
        bucket.earn(usize::MAX);
        assert_eq!(empty(&mut bucket), 8);
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
