//! Base64 that comes in pieces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use crate::Status;

/// Reads base64 as it comes. It may be several texts, each with its padding, one after the other.
#[derive(Debug, Default)]
pub(super) struct Unarmor {
    /// Up to three characters that don't make a group of four yet.
    rest: Vec<u8>,
}

impl Unarmor {
    pub(super) fn push(&mut self, text: &[u8]) -> Result<Bytes, Status> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / 4 * 4;
        let mut plain = BytesMut::with_capacity(whole / 4 * 3);
        let mut left = &self.rest[..whole];
        while !left.is_empty() {
            // Padding ends a text, and its group.
            let padded = left.iter().position(|char| *char == b'=');
            let end = padded.map_or(left.len(), |at| at / 4 * 4 + 4);
            let decoded = STANDARD
                .decode(&left[..end])
                .map_err(|error| Status::internal("the body isn't base64").with_source(error))?;
            plain.extend_from_slice(&decoded);
            left = &left[end..];
        }
        self.rest.drain(..whole);
        Ok(plain.freeze())
    }

    /// Whether nothing is missing.
    pub(super) fn end(&mut self) -> Result<(), Status> {
        match std::mem::take(&mut self.rest).is_empty() {
            true => Ok(()),
            false => Err(Status::internal("the body ends within a group of base64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_base64_is_refused() {
        assert!(Unarmor::default().push(b"!!!!").is_err());
        let mut unarmor = Unarmor::default();
        unarmor.push(b"AAA").unwrap();
        assert!(unarmor.end().is_err());
        assert!(unarmor.end().is_ok(), "said once");
    }

    proptest! {
        #[test]
        fn texts_are_read_however_they_are_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1..9_usize,
        ) {
            let text: String = parts.iter().map(|part| STANDARD.encode(part)).collect();
            let mut unarmor = Unarmor::default();
            let mut plain = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                plain.extend_from_slice(&unarmor.push(piece).unwrap());
            }
            prop_assert!(unarmor.end().is_ok());
            prop_assert_eq!(plain, parts.concat());
        }
    }
}
