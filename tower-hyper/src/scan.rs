//! Looks at what a client sends for what the parser doesn't tell: hyper drops a `Content-Length` that stands beside a
//! `Transfer-Encoding`, and a target's fragment.
//!
//! It follows the bytes from head to head, over the bodies between them, so that a head counts the same wherever reads have
//! cut it, and whatever was read together with it.

use memchr::memchr;

use crate::vetting::MAX_TARGET;

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";

/// As much of a line's beginning as is kept where it comes in pieces: room for a length, with some white space.
const KEPT: usize = 48;

/// Follows one connection.
#[derive(Debug)]
pub(crate) struct Scan {
    place: Place,
    /// How many heads have begun before this one.
    heads: u32,
    head: Head,
    /// The line that has begun, where its beginning came in an earlier piece.
    line: Partial,
}

/// Where in a message the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    RequestLine,
    Fields,
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, with the end of their line.
    Chunk(u64),
    Trailers,
    /// A head was refused, or what comes can't be followed: the parser won't go on either.
    Lost,
}

/// What was seen of one head.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    has_fragment: bool,
    length: Option<Length>,
    has_encoding: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(u64),
    /// It isn't a number, or too long to keep.
    Unclear,
}

#[derive(Debug, Clone, Copy)]
struct Partial {
    kept: [u8; KEPT],
    /// How long the line is so far.
    length: usize,
    has_hash: bool,
}

impl Partial {
    const NONE: Self = Self {
        kept: [0; KEPT],
        length: 0,
        has_hash: false,
    };

    fn extend(&mut self, piece: &[u8]) {
        if let Some(room) = self.kept.get_mut(self.length..) {
            let length = room.len().min(piece.len());
            room[..length].copy_from_slice(&piece[..length]);
        }
        self.length += piece.len();
        self.has_hash |= memchr(b'#', piece).is_some();
    }
}

impl Scan {
    pub(crate) const fn new() -> Self {
        Self {
            place: Place::RequestLine,
            heads: 0,
            head: Head {
                has_fragment: false,
                length: None,
                has_encoding: false,
            },
            line: Partial::NONE,
        }
    }

    /// Whether a request's first line has begun that is longer than any that is let through.
    pub(crate) fn is_in_long_target(&self) -> bool {
        self.place == Place::RequestLine && self.line.length > MAX_TARGET
    }

    /// Takes the next bytes. Says which head, the first being 1, can be understood in two ways, if one can; it is the last
    /// that is looked at.
    #[inline]
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() {
            match self.place {
                Place::Body(left) => bytes = self.skip(bytes, left, Place::Body),
                Place::Chunk(left) => bytes = self.skip(bytes, left, Place::Chunk),
                Place::Lost => return None,
                _ => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.line.extend(bytes);
                        return None;
                    };
                    let line = &bytes[..end];
                    bytes = &bytes[end + 1..];
                    if self.line.length > 0 {
                        self.line.extend(line);
                        let line = std::mem::replace(&mut self.line, Partial::NONE);
                        let kept = &line.kept[..line.length.min(KEPT)];
                        self.line(kept, line.length, line.has_hash);
                    } else {
                        self.line(line, line.len(), false);
                    }
                    if self.place == Place::Lost {
                        return Some(self.heads);
                    }
                }
            }
        }
        None
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, place: fn(u64) -> Place) -> &'a [u8] {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - length as u64;
        self.place = match place(left) {
            Place::Chunk(0) => Place::ChunkSize,
            Place::Body(0) => Place::RequestLine,
            place => place,
        };
        &bytes[length..]
    }

    /// Looks at a line, or at its beginning where its whole is `length` long.
    #[inline]
    fn line(&mut self, line: &[u8], length: usize, has_hash: bool) {
        let is_blank = match line {
            [] => true,
            [b'\r', ..] => length == 1,
            _ => false,
        };
        match self.place {
            // Before a request, blank lines are skipped (RFC 9112, section 2.2).
            Place::RequestLine if is_blank => {}
            Place::RequestLine => {
                self.heads = self.heads.wrapping_add(1);
                self.head = Head {
                    has_fragment: has_hash || memchr(b'#', line).is_some(),
                    ..Head::default()
                };
                self.place = Place::Fields;
            }
            Place::Fields if is_blank => self.end_of_head(),
            Place::Fields => self.field(line, length),
            Place::ChunkSize => self.chunk(line, length),
            Place::Trailers if is_blank => self.place = Place::RequestLine,
            Place::Trailers | Place::Body(_) | Place::Chunk(_) | Place::Lost => {}
        }
    }

    #[inline]
    fn field(&mut self, line: &[u8], length: usize) {
        match line.first() {
            Some(b'c' | b'C') if begins_with(line, LENGTH) => {
                let value = line[LENGTH.len()..].trim_ascii();
                self.head.length = Some(match number(value, 10) {
                    Some(number) if line.len() == length => Length::Known(number),
                    _ => Length::Unclear,
                });
            }
            Some(b't' | b'T') if begins_with(line, ENCODING) => self.head.has_encoding = true,
            _ => {}
        }
    }

    #[inline]
    fn end_of_head(&mut self) {
        self.place = match self.head {
            Head {
                has_fragment: false,
                length: None,
                has_encoding: false,
            } => Place::RequestLine,
            Head {
                has_fragment: false,
                length: Some(Length::Known(length)),
                has_encoding: false,
            } if length > 0 => Place::Body(length),
            Head {
                has_fragment: false,
                length: Some(Length::Known(_)),
                has_encoding: false,
            } => Place::RequestLine,
            Head {
                has_fragment: false,
                length: None,
                has_encoding: true,
            } => Place::ChunkSize,
            _ => Place::Lost,
        };
    }

    fn chunk(&mut self, line: &[u8], length: usize) {
        let end = line
            .iter()
            .position(|byte| !byte.is_ascii_hexdigit())
            .unwrap_or(line.len());
        // A size of which not all was kept would be misread, and so what comes after it.
        let is_whole = end < line.len() || line.len() == length;
        self.place = match number(&line[..end], 16).filter(|_| is_whole) {
            Some(0) => Place::Trailers,
            Some(size) => match size.checked_add(2) {
                Some(size) => Place::Chunk(size),
                None => self.lost(),
            },
            None => self.lost(),
        };
    }

    /// Whatever the parser makes of it, the next head isn't let through.
    #[cold]
    fn lost(&mut self) -> Place {
        self.heads = self.heads.wrapping_add(1);
        Place::Lost
    }
}

fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|beginning| beginning.eq_ignore_ascii_case(name))
}

/// Digits, and nothing else, of which there is at least one.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        number
            .checked_mul(u64::from(radix))?
            .checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<u32> {
        let mut scan = Scan::new();
        pieces.into_iter().find_map(|piece| scan.feed(piece))
    }

    #[track_caller]
    fn assert_first(wanted: Option<u32>, requests: &[&str]) {
        let bytes = requests.concat().into_bytes();
        assert_eq!(scan([&bytes[..]]), wanted);
        for at in 0..bytes.len() {
            assert_eq!(scan([&bytes[..at], &bytes[at..]]), wanted, "{at}");
        }
        assert_eq!(scan(bytes.chunks(1)), wanted);
    }

    const PLAIN: &str = "GET /a HTTP/1.1\r\nhost: #\r\n\r\n";
    const SIZED: &str =
        "POST / HTTP/1.1\r\nContent-Length:  26\t\r\n\r\nGET /#a HTTP/1.1\r\nhost: a\n";
    const EMPTY: &str = "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n\
        1f;x=\"#\"\r\nGET /#a HTTP/1.1\r\nhost: a\r\n\r\nx\r\n\
        00\r\ncontent-length: 1\r\ntransfer-encoding: #\r\n\r\n";
    const FRAGMENT: &str = "GET /a#b HTTP/1.1\r\n\r\n";
    const DOUBLED: [&str; 2] = [
        "POST / HTTP/1.1\r\nCONTENT-LENGTH: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: x\r\n\r\n",
    ];

    #[test]
    fn a_length_beside_an_encoding_is_ambiguous_in_either_order_and_case() {
        for doubled in DOUBLED {
            assert_first(Some(1), &[doubled]);
        }
        assert_first(
            None,
            &["GET / HTTP/1.1\r\ncontent-length: 0\r\nx: transfer-encoding:\r\n\r\n"],
        );
    }

    #[test]
    fn so_is_a_target_with_a_fragment() {
        assert_first(Some(1), &[FRAGMENT]);
        assert_first(None, &[PLAIN]);
    }

    #[test]
    fn a_later_head_is_looked_at_like_the_first() {
        for bad in [FRAGMENT, DOUBLED[0], DOUBLED[1]] {
            assert_first(Some(2), &[PLAIN, bad]);
            assert_first(Some(4), &[SIZED, CHUNKED, EMPTY, bad, PLAIN]);
            assert_first(Some(3), &["\r\n", CHUNKED, "\n", SIZED, bad]);
        }
    }

    #[test]
    fn a_body_is_not_looked_at() {
        assert_first(None, &[PLAIN, SIZED, CHUNKED, EMPTY, CHUNKED, PLAIN]);
    }

    #[test]
    fn after_a_chunk_that_cannot_be_followed_nothing_is_let_through() {
        for size in ["x", "", "-1", "ffffffffffffffff", "10000000000000000"] {
            let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
            assert_first(Some(2), &[chunked, size, "\r\n", PLAIN]);
        }
    }

    proptest! {
        #[test]
        fn reads_cut_where_they_like(
            picks in prop::collection::vec(0_usize..7, 1..8),
            cuts in prop::collection::vec(1_usize..60, 1..8),
        ) {
            let kinds = [PLAIN, SIZED, EMPTY, CHUNKED, FRAGMENT, DOUBLED[0], DOUBLED[1]];
            let bytes: Vec<u8> = picks.iter().flat_map(|pick| kinds[*pick].bytes()).collect();
            let wanted = picks.iter().position(|pick| *pick > 3);
            let wanted = wanted.map(|at| u32::try_from(at).unwrap() + 1);
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(scan(pieces), wanted);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            scan(bytes.chunks(7));
        }
    }
}
