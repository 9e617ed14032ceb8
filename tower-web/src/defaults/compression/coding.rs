//! Which codings there are, and which of them a client wants.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Of ten, for gzip: most of what there is to save, at half of the time of the usual six.
const GZIP_LEVEL: u32 = 4;

/// How a body is written shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    #[cfg(feature = "compression-zstd")]
    Zstd,
    #[cfg(feature = "compression-brotli")]
    Brotli,
    Gzip,
    Deflate,
}

impl Coding {
    /// Those that there are, the best first.
    const ALL: &[Self] = &[
        #[cfg(feature = "compression-zstd")]
        Self::Zstd,
        #[cfg(feature = "compression-brotli")]
        Self::Brotli,
        Self::Gzip,
        Self::Deflate,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "compression-zstd")]
            Self::Zstd => "zstd",
            #[cfg(feature = "compression-brotli")]
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    pub(super) fn encoder(self) -> Box<dyn Encoder> {
        match self {
            #[cfg(feature = "compression-zstd")]
            Self::Zstd => zstd(),
            #[cfg(feature = "compression-brotli")]
            Self::Brotli => Box::new(Brotli(brotli::CompressorWriter::new(
                Vec::new(),
                4096,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Self::Gzip => Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            // What HTTP calls "deflate" has zlib's frame around it (RFC 9110, section 8.4.1.2).
            Self::Deflate => Box::new(ZlibEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
        }
    }

    pub(super) fn encode_all(self, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = self.encoder();
        // It writes into memory, where nothing fails; what would is sent as it is.
        if encoder.write(bytes).is_err() {
            return bytes.to_vec();
        }
        encoder.finish().unwrap_or_else(|_| bytes.to_vec())
    }
}

/// The best of the codings that a client wants most. `None` where it wants none.
pub(super) fn negotiate(accepted: &str) -> Option<Coding> {
    let weight = |name: &str| {
        let mut of_all = None;
        for range in accepted.split(',') {
            let mut parts = range.split(';');
            let own = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(weight_of).unwrap_or(1000);
            if own.eq_ignore_ascii_case(name) || is_old_name(own, name) {
                return weight;
            }
            if own == "*" {
                of_all = Some(weight);
            }
        }
        of_all.unwrap_or(0)
    };
    let mut best = None;
    let mut most = 0;
    for coding in Coding::ALL {
        let weight = weight(coding.name());
        if weight > most {
            (best, most) = (Some(*coding), weight);
        }
    }
    best
}

/// RFC 9110, section 8.4.1.3.
fn is_old_name(own: &str, name: &str) -> bool {
    name == "gzip" && own.eq_ignore_ascii_case("x-gzip")
}

/// `q=0.5`, in thousandths. What is malformed counts as nothing.
fn weight_of(parameter: &str) -> Option<u16> {
    let (name, weight) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight: f32 = weight.trim().parse().unwrap_or(0.0);
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// Writes into a buffer of its own.
pub(super) trait Encoder: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written readable for the client.
    fn flush(&mut self) -> io::Result<()>;

    /// Takes what has come out so far.
    fn take(&mut self) -> Vec<u8>;

    /// Takes what hasn't been taken, with the end.
    fn finish(self: Box<Self>) -> io::Result<Vec<u8>>;
}

macro_rules! encoders {
    ($($(#[$cfg:meta])? $encoder:ty { $this:ident => $finish:expr })*) => {$(
        $(#[$cfg])?
        impl Encoder for $encoder {
            fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
                self.write_all(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Write::flush(self)
            }

            fn take(&mut self) -> Vec<u8> {
                std::mem::take(self.get_mut())
            }

            fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
                let $this = *self;
                $finish
            }
        }
    )*};
}

encoders! {
    GzEncoder<Vec<u8>> { this => this.finish() }
    ZlibEncoder<Vec<u8>> { this => this.finish() }
    #[cfg(feature = "compression-zstd")]
    zstd::stream::write::Encoder<'static, Vec<u8>> { this => this.finish() }
}

/// Of eleven: what is as fast as gzip, and smaller.
#[cfg(feature = "compression-brotli")]
const BROTLI_QUALITY: u32 = 4;
/// 512 KiB. Its largest would be 16 MiB, for each response.
#[cfg(feature = "compression-brotli")]
const BROTLI_WINDOW: u32 = 19;

#[cfg(feature = "compression-brotli")]
struct Brotli(brotli::CompressorWriter<Vec<u8>>);

#[cfg(feature = "compression-brotli")]
impl Encoder for Brotli {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut())
    }

    fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
        Ok(self.0.into_inner())
    }
}

/// The library's usual level, and a window that is bounded.
#[cfg(feature = "compression-zstd")]
fn zstd() -> Box<dyn Encoder> {
    const LEVEL: i32 = 3;
    const WINDOW: u32 = 19;

    /// Where the library has no memory.
    struct Broken;

    impl Encoder for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::OutOfMemory.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn take(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn finish(self: Box<Self>) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    match zstd::stream::write::Encoder::new(Vec::new(), LEVEL) {
        Ok(mut encoder) => {
            // One that isn't bounded works as well.
            let _ = encoder.window_log(WINDOW);
            Box::new(encoder)
        }
        Err(_) => Box::new(Broken),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_client_chooses() {
        assert_eq!(negotiate("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(negotiate("deflate, gzip;q=0.5"), Some(Coding::Deflate));
        assert_eq!(negotiate("X-GZIP"), Some(Coding::Gzip));
        assert_eq!(
            negotiate("*;q=0.1, gzip;q=0"),
            Coding::ALL
                .iter()
                .copied()
                .find(|coding| *coding != Coding::Gzip)
        );
        assert_eq!(negotiate("deflate;q=0.001"), Some(Coding::Deflate));
        for none in ["", "identity", "gzip;q=0", "gzip;q=x", "compress", "*;q=0"] {
            assert_eq!(negotiate(none), None, "{none}");
        }
        assert_eq!(negotiate("*"), Coding::ALL.first().copied());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(accepted: String) {
            let _ = negotiate(&accepted);
        }
    }
}
