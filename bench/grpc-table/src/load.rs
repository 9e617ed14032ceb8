//! What clients do.

/// What a client does.
#[derive(Clone, Copy)]
pub enum Load {
    /// So many calls of one small message each way, ten at once.
    Unary(usize),
    /// One call whose response has so many small messages.
    Streaming(usize),
    /// One call whose response has so many messages of 1 MiB.
    Large(usize),
    /// So many calls of one message of 1 MiB each way, one after the other.
    LargeUnary(usize),
}

pub const IN_FLIGHT: usize = 10;
pub const SMALL: usize = 100;
pub const LARGE: usize = 1 << 20;

impl Load {
    pub fn parse(name: &str, count: &str) -> Self {
        let count = count.parse().expect("a number");
        match name {
            "unary" => Self::Unary(count),
            "streaming" => Self::Streaming(count),
            "large" => Self::Large(count),
            "large-unary" => Self::LargeUnary(count),
            _ => panic!("unary, streaming, large or large-unary"),
        }
    }
}
