//! How messages become bytes.

use std::fmt;

use bytes::BytesMut;
use prost::Message;

use crate::Status;
pub use crate::chunks::MessageBuf;

/// How the messages of a call are written: Protocol Buffers ([`Prost`]), or a format of your own.
///
/// A codec is made for each call. One of your own implements [`Encode`] and [`Decode`] for the messages that it
/// knows, and generated code uses it where `tower_grpc_build::configure().codec_path(…)` names it.
///
/// # Example
///
/// ```
/// use bytes::{Buf, BufMut, BytesMut};
/// use tower_grpc::Status;
/// use tower_grpc::codec::{Codec, Decode, Encode, MessageBuf};
///
/// /// Strings as they are.
/// #[derive(Default)]
/// struct Text;
///
/// impl Codec for Text {
///     const SUBTYPE: &'static str = "text";
/// }
///
/// impl Encode<String> for Text {
///     fn encode(&mut self, message: String, buf: &mut BytesMut) -> Result<(), Status> {
///         buf.put_slice(message.as_bytes());
///         Ok(())
///     }
/// }
///
/// impl Decode<String> for Text {
///     fn decode(&mut self, buf: &mut MessageBuf<'_>) -> Result<String, Status> {
///         let bytes = buf.copy_to_bytes(buf.remaining());
///         String::from_utf8(bytes.into()).map_err(|e| Status::internal("not UTF-8").with_source(e))
///     }
/// }
/// ```
pub trait Codec: Default + Send + 'static {
    /// The name of the format, which stands after `application/grpc+` in the content type.
    const SUBTYPE: &'static str;
}

/// Writes messages of a type.
pub trait Encode<T>: Codec {
    /// Appends the message to `buf`, which may hold others before it.
    fn encode(&mut self, message: T, buf: &mut BytesMut) -> Result<(), Status>;

    /// How many bytes `encode` will append, as far as that is known: so much is reserved.
    fn size_hint(&self, message: &T) -> usize {
        let _ = message;
        0
    }
}

/// Reads messages of a type.
pub trait Decode<T>: Codec {
    /// Reads one message, of which `buf` has all the bytes.
    ///
    /// They are in the chunks in which they were received. Bytes that are left over are dropped.
    fn decode(&mut self, buf: &mut MessageBuf<'_>) -> Result<T, Status>;

    /// Reads one message into `place`, which holds it then, or nothing where it fails.
    ///
    /// This is what calls do. By default it is `decode`; a codec that can build a message where it is to be saves it
    /// a few moves.
    fn decode_into(
        &mut self,
        buf: &mut MessageBuf<'_>,
        place: &mut Option<T>,
    ) -> Result<(), Status> {
        *place = Some(self.decode(buf)?);
        Ok(())
    }
}

/// Protocol Buffers, by `prost`.
///
/// A message that can't be decoded is `INTERNAL`. A field of type `Bytes` shares the memory that was received.
#[derive(Clone, Copy, Default)]
pub struct Prost;

impl fmt::Debug for Prost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prost")
    }
}

impl Codec for Prost {
    const SUBTYPE: &'static str = "proto";
}

impl<T: Message> Encode<T> for Prost {
    #[inline]
    fn encode(&mut self, message: T, buf: &mut BytesMut) -> Result<(), Status> {
        // `encode` would count the bytes again, to see whether there is room; here is all that there may be.
        message.encode_raw(buf);
        Ok(())
    }

    #[inline]
    fn size_hint(&self, message: &T) -> usize {
        message.encoded_len()
    }
}

impl<T: Message + Default> Decode<T> for Prost {
    fn decode(&mut self, buf: &mut MessageBuf<'_>) -> Result<T, Status> {
        T::decode(buf).map_err(undecodable)
    }

    #[inline]
    fn decode_into(
        &mut self,
        buf: &mut MessageBuf<'_>,
        place: &mut Option<T>,
    ) -> Result<(), Status> {
        place.insert(T::default()).merge(buf).map_err(|error| {
            *place = None;
            undecodable(error)
        })
    }
}

#[cold]
fn undecodable(error: prost::DecodeError) -> Status {
    Status::internal(format!("the message can't be decoded: {error}")).with_source(error)
}
