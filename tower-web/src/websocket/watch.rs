//! Notices text that isn't UTF-8 while its frame is still on its way.
//!
//! The reader of frames judges a frame when it is whole. A peer may take its time to that, and 16 MiB of memory; RFC 6455,
//! section 8.1, and the Autobahn test suite (cases 6.4.3 and 6.4.4) would have it refused at the first wrong byte.
//!
//! A message that comes in one piece isn't looked at here: the reader of frames does it at once.

/// Follows the frames of one direction, as bytes that are about to be read.
#[derive(Debug)]
pub(super) struct Watch {
    at: At,
    /// Whether the message that has begun is text.
    text: bool,
    letters: Letters,
}

#[derive(Debug)]
enum At {
    /// Within a frame's head, of which these bytes have come.
    Head {
        bytes: [u8; 14],
        len: usize,
    },
    Payload(Payload),
    /// The frames aren't understood. Their reader will say so.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// Whether it is a part of a message of text.
    text: bool,
    /// Whether the message ends with it.
    last: bool,
}

impl At {
    const START: Self = Self::Head {
        bytes: [0; 14],
        len: 0,
    };
}

impl Watch {
    pub(super) const fn new() -> Self {
        Self {
            at: At::START,
            text: false,
            letters: Letters::NONE,
        }
    }

    /// Looks at the next bytes, and says how many of them come before the first that no UTF-8 can go on with. `None` is
    /// all of them.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut seen = 0;
        while seen < bytes.len() {
            match &mut self.at {
                // Head -> Head | Payload | Lost
                At::Head { bytes: head, len } => {
                    head[*len] = bytes[seen];
                    *len += 1;
                    seen += 1;
                    if *len == head_len(&head[..*len]) {
                        let head = *head;
                        self.begin(&head, (bytes.len() - seen) as u64);
                    }
                }
                // Payload -> Payload | Head
                At::Payload(payload) => {
                    let rest = &bytes[seen..];
                    let part = rest
                        .len()
                        .min(usize::try_from(payload.left).unwrap_or(usize::MAX));
                    if payload.text {
                        if let Err(good) = self.letters.read(&rest[..part], &mut payload.mask) {
                            return Some(seen + good);
                        }
                    }
                    payload.left -= part as u64;
                    seen += part;
                    if payload.left == 0 {
                        if payload.last {
                            self.letters = Letters::NONE;
                        }
                        self.at = At::START;
                    }
                }
                At::Lost => return None,
            }
        }
        None
    }

    /// Begins a frame's payload, of which so many bytes are there already.
    fn begin(&mut self, head: &[u8; 14], there: u64) {
        let (left, mask_at) = match head[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 4),
            127 => {
                let mut len = [0; 8];
                len.copy_from_slice(&head[2..10]);
                (u64::from_be_bytes(len), 10)
            }
            len => (u64::from(len), 2),
        };
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            mask.copy_from_slice(&head[mask_at..mask_at + 4]);
        }
        let last = head[0] & 0x80 != 0;
        let text = match head[0] & 0x0f {
            0 => self.text,
            1 => {
                self.text = true;
                self.letters = Letters::NONE;
                // In one piece.
                !(last && left <= there)
            }
            2 => {
                self.text = false;
                false
            }
            // Between the parts of a message.
            8..=10 => {
                self.at = At::Payload(Payload {
                    left,
                    mask,
                    text: false,
                    last: false,
                });
                return self.skip_empty();
            }
            _ => {
                self.at = At::Lost;
                return;
            }
        };
        self.at = At::Payload(Payload {
            left,
            mask,
            text,
            last,
        });
        self.skip_empty();
    }

    fn skip_empty(&mut self) {
        if let At::Payload(Payload { left: 0, last, .. }) = self.at {
            if last {
                self.letters = Letters::NONE;
            }
            self.at = At::START;
        }
    }
}

/// How long a frame's head is, as far as these bytes of it tell.
fn head_len(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let len = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + len + mask
}

/// UTF-8 that comes in pieces: the letter that the last of them has broken off in.
#[derive(Debug)]
struct Letters {
    broken: [u8; 4],
    len: usize,
}

impl Letters {
    const NONE: Self = Self {
        broken: [0; 4],
        len: 0,
    };

    /// Reads masked bytes, and turns the mask to where the next begin. Fails with how many of them are good.
    fn read(&mut self, masked: &[u8], mask: &mut [u8; 4]) -> Result<(), usize> {
        let mut plain = [0; 512];
        for (nth, piece) in masked.chunks(plain.len()).enumerate() {
            let plain = &mut plain[..piece.len()];
            for (at, (plain, masked)) in plain.iter_mut().zip(piece).enumerate() {
                *plain = masked ^ mask[at % 4];
            }
            mask.rotate_left(piece.len() % 4);
            self.check(plain).map_err(|good| nth * 512 + good)?;
        }
        Ok(())
    }

    fn check(&mut self, mut plain: &[u8]) -> Result<(), usize> {
        let mut seen = 0;
        while self.len > 0 {
            let Some((&next, rest)) = plain.split_first() else {
                return Ok(());
            };
            self.broken[self.len] = next;
            self.len += 1;
            match std::str::from_utf8(&self.broken[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(seen),
                Err(_) => {}
            }
            plain = rest;
            seen += 1;
        }
        let Err(error) = std::str::from_utf8(plain) else {
            return Ok(());
        };
        let (_, rest) = plain.split_at(error.valid_up_to());
        match error.error_len() {
            Some(_) => Err(seen + error.valid_up_to() + good_beginning(rest)),
            None => {
                self.broken[..rest.len()].copy_from_slice(rest);
                self.len = rest.len();
                Ok(())
            }
        }
    }
}

/// How many bytes may begin a letter, of some that make none.
fn good_beginning(bytes: &[u8]) -> usize {
    let begins = |len: &usize| {
        std::str::from_utf8(&bytes[..*len]).is_err_and(|error| error.error_len().is_none())
    };
    (1..bytes.len().min(4)).take_while(begins).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes of a text are good: the longest beginning that some UTF-8 has.
    fn good(text: &[u8]) -> usize {
        (0..=text.len())
            .rev()
            .find(|&end| {
                let error = std::str::from_utf8(&text[..end]).err();
                error.is_none_or(|error| error.error_len().is_none())
            })
            .unwrap()
    }

    /// Frames of a message, whose parts end at these places, and where in them each byte of the message stands.
    fn frames(
        opcode: u8,
        message: &[u8],
        cuts: &[usize],
        mask: [u8; 4],
        ping: bool,
    ) -> (Vec<u8>, Vec<usize>) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (message.len() + 1)).collect();
        ends.push(message.len());
        ends.sort_unstable();
        let (mut bytes, mut places, mut start) = (Vec::new(), Vec::new(), 0);
        for (nth, &end) in ends.iter().enumerate() {
            let last = nth + 1 == ends.len();
            bytes.push(if nth == 0 { opcode } else { 0 } | if last { 0x80 } else { 0 });
            let part = &message[start..end];
            if part.len() < 126 {
                bytes.push(0x80 | part.len() as u8);
            } else {
                bytes.push(0x80 | 126);
                bytes.extend((part.len() as u16).to_be_bytes());
            }
            bytes.extend(mask);
            for (at, byte) in part.iter().enumerate() {
                places.push(bytes.len());
                bytes.push(byte ^ mask[at % 4]);
            }
            if ping && !last {
                bytes.extend([0x89, 0x82, 1, 2, 3, 4, 0xff, 0xff]);
            }
            start = end;
        }
        (bytes, places)
    }

    /// Looks at bytes in pieces of this size, and says which is the first that is wrong.
    fn look(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut watch = Watch::new();
        let mut seen = 0;
        for piece in bytes.chunks(piece) {
            if let Some(good) = watch.look(piece) {
                return Some(seen + good);
            }
            seen += piece.len();
        }
        None
    }

    #[test]
    fn a_wrong_byte_is_noticed_when_it_comes() {
        // What follows would be beyond the last letter there is.
        let (bytes, places) = frames(1, b"k\xf4\x90\x80\x80k", &[], [1, 2, 3, 4], false);
        assert_eq!(look(&bytes, 1), Some(places[2]));
        assert_eq!(look(&bytes, 3), Some(places[2]));
        // The reader of frames sees it as well.
        assert_eq!(look(&bytes, 100), None);
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a\u{e9}\u{20ac}\u{1f600}]{0,300}".prop_map(String::into_bytes),
            (
                "[a\u{e9}\u{20ac}\u{1f600}]{0,300}",
                any::<proptest::sample::Index>(),
                any::<u8>()
            )
                .prop_map(|(text, at, byte)| {
                    let mut bytes = text.into_bytes();
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    bytes
                }),
        ]
    }

    proptest! {
        #[test]
        fn the_first_wrong_byte_is_found(
            text in texts(),
            cuts in proptest::collection::vec(0_usize..1000, 0..3),
            mask: [u8; 4],
            ping: bool,
            piece in 1_usize..20,
        ) {
            let (bytes, places) = frames(1, &text, &cuts, mask, ping);
            // What comes in one piece isn't looked at.
            if piece < bytes.len() || !cuts.is_empty() {
                let good = good(&text);
                let expected = places.get(good).copied();
                let found = look(&bytes, piece);
                // A short message may have come in one piece after its head.
                if cuts.is_empty() && text.len() < piece {
                    prop_assert!(found.is_none() || found == expected);
                } else {
                    prop_assert_eq!(found, expected);
                }
            }
        }

        #[test]
        fn bytes_are_left_alone(message: Vec<u8>, cuts in proptest::collection::vec(0_usize..1000, 0..3), mask: [u8; 4], piece in 1_usize..20) {
            prop_assert_eq!(look(&frames(2, &message, &cuts, mask, true).0, piece), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, piece in 1_usize..20) {
            let _ = look(&bytes, piece);
        }
    }
}
