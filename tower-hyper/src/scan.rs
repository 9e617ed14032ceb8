//! Looks at a head's bytes for what the parser doesn't tell: hyper drops a `Content-Length` that stands beside a
//! `Transfer-Encoding`, and a target's fragment.
//!
//! Nearly no head needs it. So the bytes are only copied, where they are few, and looked at where the
//! request has an encoding, or they have a `#` somewhere.

use memchr::memchr;

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";
/// As much of a line's beginning as has to be kept where it comes in pieces.
const KEPT: usize = ENCODING.len();

/// How long a head may be to be copied; a longer one is looked at as it comes.
const COPIED: usize = 256;

/// One head, which may have to be looked at.
#[derive(Debug)]
pub(crate) struct Head {
    copy: [u8; COPIED],
    copied: usize,
    /// What was seen so far, apart from the copy.
    scan: HeadScan,
    is_suspicious: bool,
}

impl Head {
    pub(crate) const fn new() -> Self {
        Self {
            copy: [0; COPIED],
            copied: 0,
            scan: HeadScan::new(),
            is_suspicious: false,
        }
    }

    /// Begins with the next head.
    #[inline]
    pub(crate) fn restart(&mut self) {
        self.copied = 0;
        self.is_suspicious = false;
        if self.scan.has_begun() {
            self.scan = HeadScan::new();
        }
    }

    /// Takes its next bytes, or what is read together with them.
    #[inline]
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.is_suspicious |= memchr(b'#', bytes).is_some();
        let end = self.copied + bytes.len();
        match self.copy.get_mut(self.copied..end) {
            Some(room) if !self.scan.has_begun() => {
                room.copy_from_slice(bytes);
                self.copied = end;
            }
            _ => self.scan_long(bytes),
        }
    }

    #[cold]
    fn scan_long(&mut self, bytes: &[u8]) {
        self.scan_copy();
        self.scan.feed(bytes);
    }

    fn scan_copy(&mut self) {
        let copied = std::mem::take(&mut self.copied);
        self.scan.feed(&self.copy[..copied]);
    }

    /// Whether the request may not be let through, whatever was made of it. It is looked at only if
    /// `has_encoding`, or if it is suspicious.
    #[inline]
    pub(crate) fn is_ambiguous(&mut self, has_encoding: bool) -> bool {
        if !has_encoding && !self.is_suspicious {
            return false;
        }
        self.scan_copy();
        self.scan.is_ambiguous()
    }
}

/// What was seen of one head.
#[derive(Debug, Clone, Copy)]
struct HeadScan {
    /// The beginning of the line that has begun, where it came in an earlier piece.
    kept: [u8; KEPT],
    /// How long that line is so far.
    line_len: usize,
    is_past_first_line: bool,
    has_fragment: bool,
    has_length: bool,
    has_encoding: bool,
    is_over: bool,
}

impl HeadScan {
    const fn new() -> Self {
        Self {
            kept: [0; KEPT],
            line_len: 0,
            is_past_first_line: false,
            has_fragment: false,
            has_length: false,
            has_encoding: false,
            is_over: false,
        }
    }

    fn has_begun(&self) -> bool {
        self.is_past_first_line || self.line_len > 0
    }

    /// Looks at the next bytes, as far as the head goes.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !self.is_over {
            let Some(end) = memchr(b'\n', bytes) else {
                self.keep(bytes);
                return;
            };
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.line_len == 0 {
                self.line(line, line.len());
            } else {
                self.keep(line);
                let (kept, length) = (self.kept, self.line_len);
                self.line(&kept[..length.min(KEPT)], length);
                self.line_len = 0;
            }
        }
    }

    /// Whether the request may not be let through, whatever was made of it.
    fn is_ambiguous(&self) -> bool {
        self.has_fragment || (self.has_length && self.has_encoding)
    }

    /// Keeps the beginning of a line that isn't whole yet.
    fn keep(&mut self, piece: &[u8]) {
        if !self.is_past_first_line && memchr(b'#', piece).is_some() {
            self.has_fragment = true;
        }
        if let Some(room) = self.kept.get_mut(self.line_len..) {
            let length = room.len().min(piece.len());
            room[..length].copy_from_slice(&piece[..length]);
        }
        self.line_len += piece.len();
    }

    /// Looks at a line, or at its beginning where its whole is `length` long.
    #[inline]
    fn line(&mut self, line: &[u8], length: usize) {
        match line.first() {
            None => self.blank(),
            Some(b'\r') if length == 1 => self.blank(),
            Some(_) if !self.is_past_first_line => {
                self.is_past_first_line = true;
                self.has_fragment |= memchr(b'#', line).is_some();
            }
            Some(b'c' | b'C') => self.has_length |= begins_with(line, LENGTH),
            Some(b't' | b'T') => self.has_encoding |= begins_with(line, ENCODING),
            Some(_) => {}
        }
    }

    /// Ends the head. Before the first line, blank ones are skipped (RFC 9112, section 2.2).
    fn blank(&mut self) {
        self.is_over = self.is_past_first_line;
    }
}

fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|beginning| beginning.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(pieces: &[&[u8]]) -> bool {
        let mut scan = HeadScan::new();
        pieces.iter().for_each(|piece| scan.feed(piece));
        let mut head = Head::new();
        pieces.iter().for_each(|piece| head.feed(piece));
        assert_eq!(head.is_ambiguous(true), scan.is_ambiguous());
        scan.is_ambiguous()
    }

    #[test]
    fn a_head_too_long_to_copy_is_looked_at_as_it_comes() {
        let filler = format!("x: {}\r\n", "y".repeat(2 * COPIED));
        let ends = "content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        let request = format!("GET / HTTP/1.1\r\n{filler}{ends}");
        assert!(scan(&[request.as_bytes()]));
        let pieces: Vec<_> = request.as_bytes().chunks(100).collect();
        assert!(scan(&pieces));
    }

    #[test]
    fn the_next_head_begins_anew() {
        let mut head = Head::new();
        head.feed(b"GET /#a HTTP/1.1\r\n\r\n");
        assert!(head.is_ambiguous(false));
        head.restart();
        head.feed(b"GET /a HTTP/1.1\r\nx: #\r\n\r\n");
        assert!(!head.is_ambiguous(false));
    }

    #[test]
    fn a_length_beside_an_encoding_is_ambiguous_in_either_order_and_case() {
        assert!(scan(&[
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        ]));
        assert!(scan(&[
            b"GET / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 1\r\n\r\n"
        ]));
        assert!(!scan(&[
            b"GET / HTTP/1.1\r\ncontent-length: 1\r\nx: transfer-encoding:\r\n\r\n"
        ]));
    }

    #[test]
    fn so_is_a_target_with_a_fragment() {
        assert!(scan(&[b"GET /a#b HTTP/1.1\r\n\r\n"]));
        assert!(!scan(&[b"GET /a HTTP/1.1\r\nx: #\r\n\r\n"]));
    }

    #[test]
    fn a_body_is_not_looked_at() {
        let request = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\ncontent-length: 1\r\n";
        assert!(!scan(&[request]));
    }

    #[test]
    fn pieces_make_no_difference() {
        let requests: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\ncontent-length: 1\r\n",
            b"GET /#a HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /a HTTP/1.1\nhost: #\n\ncontent-length: 1\ntransfer-encoding: x\n",
        ];
        for request in requests {
            let whole = scan(&[request]);
            for at in 0..request.len() {
                assert_eq!(scan(&[&request[..at], &request[at..]]), whole, "{at}");
            }
            let bytes: Vec<_> = request.chunks(1).collect();
            assert_eq!(scan(&bytes), whole);
        }
    }
}
