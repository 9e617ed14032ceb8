//! Reads the PROXY protocol's header, version 1 or 2, with which a proxy says for whom it connects.

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Error, ErrorKind};

/// The longest header that is read: version 2's 16 bytes, addresses, and a few kilobytes of extensions.
const LONGEST: usize = 4096;

/// What a proxy says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Client and server; none where the proxy speaks for itself, or for a protocol without ports.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    /// What was read beyond the header.
    pub(crate) rest: Vec<u8>,
}

/// Reads a header. The caller bounds the time.
pub(crate) async fn read_header<IO>(io: &mut IO) -> Result<Header, Error>
where
    IO: AsyncRead + Unpin,
{
    let mut seen = Vec::with_capacity(256);
    loop {
        if io.read_buf(&mut seen).await? == 0 {
            let end = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Error::because(ErrorKind::Proxy, end));
        }
        if let Some(header) = parse(&seen)? {
            return Ok(header);
        }
        if seen.len() > LONGEST {
            return Err(Error::because(ErrorKind::Proxy, "it is too long"));
        }
    }
}

/// Reads a header out of the first bytes; none where there have to be more.
fn parse(seen: &[u8]) -> Result<Option<Header>, Error> {
    let result = HeaderResult::parse(seen);
    if result.is_incomplete() {
        return Ok(None);
    }
    let (length, ends) = match result {
        HeaderResult::V1(Ok(header)) => (header.header.len(), text_ends(&header)),
        HeaderResult::V2(Ok(header)) => (header.len(), binary_ends(&header)),
        HeaderResult::V1(Err(error)) => {
            return Err(Error::because(ErrorKind::Proxy, error.to_string()));
        }
        HeaderResult::V2(Err(error)) => {
            return Err(Error::because(ErrorKind::Proxy, error.to_string()));
        }
    };
    Ok(Some(Header {
        ends,
        rest: seen.get(length..).unwrap_or_default().to_vec(),
    }))
}

fn text_ends(header: &v1::Header<'_>) -> Option<(SocketAddr, SocketAddr)> {
    match header.addresses {
        v1::Addresses::Tcp4(ends) => Some((
            (ends.source_address, ends.source_port).into(),
            (ends.destination_address, ends.destination_port).into(),
        )),
        v1::Addresses::Tcp6(ends) => Some((
            (ends.source_address, ends.source_port).into(),
            (ends.destination_address, ends.destination_port).into(),
        )),
        v1::Addresses::Unknown => None,
    }
}

fn binary_ends(header: &v2::Header<'_>) -> Option<(SocketAddr, SocketAddr)> {
    if header.command == v2::Command::Local {
        return None;
    }
    match header.addresses {
        v2::Addresses::IPv4(ends) => Some((
            (ends.source_address, ends.source_port).into(),
            (ends.destination_address, ends.destination_port).into(),
        )),
        v2::Addresses::IPv6(ends) => Some((
            (ends.source_address, ends.source_port).into(),
            (ends.destination_address, ends.destination_port).into(),
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Option<(SocketAddr, SocketAddr)> {
        Some((
            "192.0.2.1:5000".parse().unwrap(),
            "198.51.100.1:443".parse().unwrap(),
        ))
    }

    async fn read(mut bytes: &[u8]) -> Result<Header, ErrorKind> {
        read_header(&mut bytes).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn version_1_names_both_ends_and_leaves_the_rest() {
        let bytes = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\nGET /";
        let header = read(bytes).await.unwrap();
        assert_eq!(header.ends, ends());
        assert_eq!(header.rest, b"GET /");
    }

    #[tokio::test]
    async fn version_2_does_too() {
        let addresses = v2::IPv4::new([192, 0, 2, 1], [198, 51, 100, 1], 5000, 443);
        let mut bytes = v2::Builder::with_addresses(
            v2::Version::Two | v2::Command::Proxy,
            v2::Protocol::Stream,
            addresses,
        )
        .build()
        .unwrap();
        bytes.extend_from_slice(b"GET /");
        let header = read(&bytes).await.unwrap();
        assert_eq!(header.ends, ends());
        assert_eq!(header.rest, b"GET /");
    }

    #[tokio::test]
    async fn a_proxy_may_speak_for_itself() {
        let header = read(b"PROXY UNKNOWN\r\n").await.unwrap();
        assert_eq!(header.ends, None);
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 999.0.2.1 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 192.0.2.1",
            b"",
            b"\r\n\r\n\0\r\nQUIT\n\xff\xff\xff\xff",
        ] {
            assert_eq!(read(bytes).await, Err(ErrorKind::Proxy), "{bytes:?}");
        }
    }
}
