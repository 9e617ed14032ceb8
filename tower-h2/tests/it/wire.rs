//! A peer that writes frames by hand, right or wrong (RFC 9113, section 4.1).

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY_FIELDS: u8 = 0x20;

/// The field `:status: 200` (RFC 7541, appendix A).
pub(crate) const STATUS_200: u8 = 0x88;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Wire<IO = DuplexStream> {
    io: IO,
    put_back: Option<Frame>,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let code = self.payload.last_chunk::<4>();
        let code = if self.kind == GOAWAY {
            self.payload[4..8].first_chunk()
        } else {
            code
        };
        u32::from_be_bytes(*code.unwrap())
    }
}

impl Wire {
    fn new(io: DuplexStream) -> Self {
        Self { io, put_back: None }
    }

    /// To read while writing goes on.
    pub(crate) fn split(self) -> (Wire<ReadHalf<DuplexStream>>, Wire<WriteHalf<DuplexStream>>) {
        let (reader, writer) = tokio::io::split(self.io);
        let (put_back, none) = (self.put_back, None);
        (
            Wire {
                io: reader,
                put_back,
            },
            Wire {
                io: writer,
                put_back: none,
            },
        )
    }

    /// The client's side, with the prefaces exchanged.
    pub(crate) async fn client(io: DuplexStream) -> Self {
        let mut wire = Self::new(io);
        wire.io.write_all(PREFACE).await.unwrap();
        wire.send(SETTINGS, 0, 0, &[]).await;
        let settings = wire.next().await.unwrap();
        assert_eq!(settings.kind, SETTINGS);
        wire.send(SETTINGS, ACK, 0, &[]).await;
        wire
    }

    /// The server's side, with the prefaces exchanged.
    pub(crate) async fn server(io: DuplexStream) -> Self {
        let mut wire = Self::mute(io).await;
        wire.send(SETTINGS, 0, 0, &[]).await;
        wire
    }

    /// The server's side, which hasn't said anything.
    pub(crate) async fn mute(io: DuplexStream) -> Self {
        let mut wire = Self::new(io);
        let mut preface = [0; PREFACE.len()];
        wire.io.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        wire
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self
            .io
            .write_all(&frame(kind, flags, stream, payload))
            .await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }
}

impl<IO: AsyncRead + Unpin> Wire<IO> {
    /// Has `frame` be the next again.
    pub(crate) fn put_back(&mut self, frame: Option<Frame>) {
        self.put_back = frame;
    }

    /// The next frame, or nothing at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.put_back.take() {
            return Some(frame);
        }
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload,
        })
    }

    /// The next frame of a kind; fails at the end of the connection.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection has ended");
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that isn't indexed (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        field.push(text.len() as u8);
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// The head of `POST http://localhost/`, with more fields after it.
pub(crate) fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x84];
    block.extend(field(":authority", "localhost"));
    for (name, value) in fields {
        block.extend(field(name, value));
    }
    block
}
