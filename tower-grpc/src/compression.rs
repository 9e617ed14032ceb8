//! Messages that are compressed, each for itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(any(feature = "compression", feature = "zstd"))]
use bytes::Buf;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use crate::Status;
use crate::chunks::MessageBuf;

pub(crate) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(crate) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// How messages are compressed.
///
/// Which there are depends on the features: `compression`, which is on by default, has gzip and deflate,
/// `zstd` has zstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// `gzip` (RFC 1952).
    #[cfg(feature = "compression")]
    Gzip,
    /// `deflate`, which is zlib's format (RFC 1950).
    #[cfg(feature = "compression")]
    Deflate,
    /// `zstd` (RFC 8878).
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Encoding {
    /// All that were compiled.
    pub const ALL: &'static [Self] = &[
        #[cfg(feature = "compression")]
        Self::Gzip,
        #[cfg(feature = "compression")]
        Self::Deflate,
        #[cfg(feature = "zstd")]
        Self::Zstd,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "compression")]
            Self::Gzip => "gzip",
            #[cfg(feature = "compression")]
            Self::Deflate => "deflate",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|encoding| encoding.name().as_bytes() == name)
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }

    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of encodings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncodingSet(u8);

impl EncodingSet {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn all() -> Self {
        Encoding::ALL.iter().copied().collect()
    }

    pub(crate) fn contains(self, encoding: Encoding) -> bool {
        self.0 & encoding.bit() != 0
    }

    /// The first that is in both.
    pub(crate) fn first_of(self, other: Self) -> Option<Encoding> {
        let both = Self(self.0 & other.0);
        let mut all = Encoding::ALL.iter().copied();
        all.find(|encoding| both.contains(*encoding))
    }

    /// What `grpc-accept-encoding` lists of what is known.
    pub(crate) fn from_header(value: &HeaderValue) -> Self {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .filter_map(|name| Encoding::from_name(name.trim_ascii()))
            .collect()
    }

    /// `grpc-accept-encoding`; `None` where nothing is accepted beside what is plain.
    pub(crate) fn to_header(self) -> Option<HeaderValue> {
        // The usual one needn't be put together for each call.
        #[cfg(all(feature = "compression", not(feature = "zstd")))]
        if self == Self::all() {
            return Some(HeaderValue::from_static("gzip,deflate,identity"));
        }
        let mut names = String::new();
        for encoding in Encoding::ALL {
            if self.contains(*encoding) {
                names.push_str(encoding.name());
                names.push(',');
            }
        }
        if names.is_empty() {
            return None;
        }
        names.push_str("identity");
        HeaderValue::try_from(names).ok()
    }
}

impl FromIterator<Encoding> for EncodingSet {
    fn from_iter<I: IntoIterator<Item = Encoding>>(encodings: I) -> Self {
        Self(
            encodings
                .into_iter()
                .fold(0, |bits, encoding| bits | encoding.bit()),
        )
    }
}

impl fmt::Debug for EncodingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Encoding::ALL.iter();
        f.debug_set()
            .entries(all.filter(|encoding| self.contains(**encoding)))
            .finish()
    }
}

/// What `grpc-encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    Plain,
    Known(Encoding),
    Unknown,
}

impl Announced {
    pub(crate) fn read(value: Option<&HeaderValue>) -> Self {
        match value {
            None => Self::Plain,
            Some(value) if value == "identity" => Self::Plain,
            Some(value) => Encoding::from_name(value.as_bytes()).map_or(Self::Unknown, Self::Known),
        }
    }
}

/// Says for each message whether it is compressed, where an encoding was agreed on.
///
/// A handle from [`Request::compression`](crate::Request::compression) or
/// [`Response::compression`](crate::Response::compression), for streams in which some messages aren't worth it,
/// or must not be compressed, as those that hold a secret beside what an attacker chooses (CRIME). It counts for
/// the messages that the stream yields from then on: set it right before the stream yields one.
///
/// # Example
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use tower_grpc::{Response, Status};
///
/// let mut response = Response::new(());
/// let compression = response.compression();
/// let messages = stream::iter([("large".repeat(1000), true), ("small".to_owned(), false)]);
/// let messages = messages.map(move |(message, compressed)| {
///     compression.set(compressed);
///     Ok::<_, Status>(message)
/// });
/// let response = response.map(|()| messages);
/// # let _ = response;
/// ```
#[derive(Clone, Debug)]
pub struct Compression(Arc<AtomicBool>);

impl Compression {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the messages from now on are compressed.
    pub fn set(&self, compressed: bool) {
        self.0.store(compressed, Ordering::Relaxed);
    }

    /// Whether messages are compressed.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Appends `plain`, compressed.
#[cfg_attr(
    not(any(feature = "compression", feature = "zstd")),
    expect(unused_variables, reason = "there is no encoding then")
)]
pub(crate) fn compress(encoding: Encoding, plain: &[u8], out: &mut BytesMut) -> Result<(), Status> {
    #[cfg(any(feature = "compression", feature = "zstd"))]
    use bytes::BufMut;

    #[cfg(any(feature = "compression", feature = "zstd"))]
    let failed = |error: std::io::Error| Status::internal("compression failed").with_source(error);
    match encoding {
        #[cfg(feature = "compression")]
        Encoding::Gzip => {
            let level = flate2::Compression::fast();
            let mut reader = flate2::bufread::GzEncoder::new(plain, level);
            std::io::copy(&mut reader, &mut out.writer()).map_err(failed)?;
        }
        #[cfg(feature = "compression")]
        Encoding::Deflate => {
            let level = flate2::Compression::fast();
            let mut reader = flate2::bufread::ZlibEncoder::new(plain, level);
            std::io::copy(&mut reader, &mut out.writer()).map_err(failed)?;
        }
        #[cfg(feature = "zstd")]
        Encoding::Zstd => {
            zstd::stream::copy_encode(plain, out.writer(), 0).map_err(failed)?;
        }
    }
    #[cfg(any(feature = "compression", feature = "zstd"))]
    Ok(())
}

/// The message in `buf`, which must have no more than `max` bytes then.
///
/// It is given up as soon as it has more, so that a bomb costs no more than `max`.
#[cfg_attr(
    not(any(feature = "compression", feature = "zstd")),
    expect(unused_variables, reason = "there is no encoding then")
)]
pub(crate) fn decompress(
    encoding: Encoding,
    buf: MessageBuf<'_>,
    max: usize,
) -> Result<Bytes, Status> {
    match encoding {
        #[cfg(feature = "compression")]
        Encoding::Gzip => {
            let mut reader = flate2::bufread::GzDecoder::new(buf.reader());
            let plain = read_at_most(&mut reader, max)?;
            ensure_read(reader.into_inner().into_inner().remaining())?;
            Ok(plain)
        }
        #[cfg(feature = "compression")]
        Encoding::Deflate => {
            let mut reader = flate2::bufread::ZlibDecoder::new(buf.reader());
            let plain = read_at_most(&mut reader, max)?;
            ensure_read(reader.into_inner().into_inner().remaining())?;
            Ok(plain)
        }
        #[cfg(feature = "zstd")]
        Encoding::Zstd => {
            let failed =
                |error| Status::internal("a message can't be decompressed").with_source(error);
            let mut reader =
                zstd::stream::read::Decoder::with_buffer(buf.reader()).map_err(failed)?;
            // What a frame may ask to be kept as its window: 8 MiB, as RFC 8878 recommends.
            reader.window_log_max(23).map_err(failed)?;
            read_at_most(&mut reader, max)
        }
    }
}

#[cfg(feature = "compression")]
fn ensure_read(left: usize) -> Result<(), Status> {
    match left {
        0 => Ok(()),
        _ => Err(Status::internal(format!(
            "{left} bytes follow the end of a compressed message"
        ))),
    }
}

#[cfg(any(feature = "compression", feature = "zstd"))]
fn read_at_most(reader: &mut impl std::io::Read, max: usize) -> Result<Bytes, Status> {
    const STEP: usize = 8 * 1024;

    let mut plain = BytesMut::new();
    loop {
        let len = plain.len();
        // One byte more than allowed shows that there is too much.
        let step = STEP.max(len).min((max - len).saturating_add(1));
        plain.resize(len + step, 0);
        let read = reader.read(&mut plain[len..]).map_err(|error| {
            Status::internal("a message can't be decompressed").with_source(error)
        })?;
        plain.truncate(len + read);
        if read == 0 {
            return Ok(plain.freeze());
        }
        if plain.len() > max {
            return Err(Status::resource_exhausted(format!(
                "a message has more than {max} bytes when it is decompressed"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use proptest::prelude::*;

    fn squeeze(encoding: Encoding, plain: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        compress(encoding, plain, &mut out).unwrap();
        out.freeze()
    }

    fn inflate(encoding: Encoding, bytes: Bytes, max: usize) -> Result<Bytes, Status> {
        decompress(encoding, MessageBuf::from(&bytes), max)
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit() {
        for encoding in Encoding::ALL {
            let bomb = squeeze(*encoding, &vec![0; 10 << 20]);
            assert!(bomb.len() < 1 << 17);
            let status = inflate(*encoding, bomb.clone(), 1000).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{encoding}");
            assert_eq!(inflate(*encoding, bomb, 10 << 20).unwrap().len(), 10 << 20);
        }
    }

    #[test]
    fn garbage_and_cut_messages_are_refused() {
        for encoding in Encoding::ALL {
            let good = squeeze(*encoding, b"hello, hello, hello");
            for cut in 0..good.len() {
                let result = inflate(*encoding, good.slice(..cut), 100);
                assert!(result.is_err() || cut == 0, "{encoding} cut at {cut}");
            }
            let garbage = inflate(*encoding, Bytes::from_static(b"not compressed"), 100);
            assert_eq!(garbage.unwrap_err().code(), Code::Internal, "{encoding}");
            let mut more = good.to_vec();
            more.push(b'x');
            let more = inflate(*encoding, more.into(), 100);
            assert_eq!(more.unwrap_err().code(), Code::Internal, "{encoding}");
        }
    }

    #[test]
    fn the_accepted_encodings_are_listed_and_read() {
        let all = EncodingSet::all();
        if let Some(header) = all.to_header() {
            assert_eq!(EncodingSet::from_header(&header), all);
            assert!(header.to_str().unwrap().ends_with("identity"));
        }
        assert_eq!(EncodingSet::NONE.to_header(), None);
        let odd = HeaderValue::from_static("br , ,identity,GZIP");
        assert_eq!(EncodingSet::from_header(&odd), EncodingSet::NONE);
    }

    proptest! {
        #[test]
        fn every_message_survives(plain in prop::collection::vec(any::<u8>(), 0..5000)) {
            for encoding in Encoding::ALL {
                let squeezed = squeeze(*encoding, &plain);
                prop_assert_eq!(&inflate(*encoding, squeezed, plain.len()).unwrap()[..], &plain[..]);
            }
        }
    }
}
