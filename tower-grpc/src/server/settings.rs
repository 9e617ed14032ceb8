//! What a peer may send, and how it is answered.

use crate::compression::{Encoding, EncodingSet};

/// What a peer may send, and how it is answered. Each generated server has one.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(super) max_decoding: usize,
    pub(super) max_encoding: usize,
    pub(super) accept: EncodingSet,
    pub(super) send: EncodingSet,
}

/// How large a received message may be where nobody says otherwise: as all implementations of gRPC have it.
pub(crate) const MAX_DECODING: usize = 4 * 1024 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_decoding: MAX_DECODING,
            max_encoding: usize::MAX,
            accept: EncodingSet::all(),
            send: EncodingSet::NONE,
        }
    }
}

impl Settings {
    /// How many bytes a received message may have, before it is decompressed and after.
    pub fn set_max_decoding_message_size(&mut self, bytes: usize) {
        self.max_decoding = bytes;
    }

    /// How many bytes a message that is sent may have, before it is compressed.
    pub fn set_max_encoding_message_size(&mut self, bytes: usize) {
        self.max_encoding = bytes;
    }

    /// Which encodings received messages may have.
    pub fn set_accepted_encodings(&mut self, encodings: impl IntoIterator<Item = Encoding>) {
        self.accept = encodings.into_iter().collect();
    }

    /// Compresses messages in the first of these that the peer accepts.
    pub fn set_sent_encodings(&mut self, encodings: impl IntoIterator<Item = Encoding>) {
        self.send = encodings.into_iter().collect();
    }
}
